"""Files of a stream that cannot be read, and values that are wrong: named with their part, or skipped if asked."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamed import SIMPLE, TABLE, flattened, items, stream_threads

from mtl_zoo import create_model
from mtl_zoo.features.streaming import TableStream

pytestmark = pytest.mark.tensorflow


def damage(path, at=0.5, count=200):
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + count] = b"\xff" * count
    path.write_bytes(data)


@pytest.fixture
def damaged(tmp_path):
    """The second of three files has a row group that cannot be read."""
    table = pa.Table.from_pandas(TABLE[["item", "price", "click"]])
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), tmp_path / f"{i}.parquet", row_group_size=100, use_dictionary=False)
    damage(tmp_path / "1.parquet", 0.05)
    return tmp_path


def test_a_corrupt_row_group_is_named(damaged):
    stream = TableStream(damaged, SIMPLE, shuffle_rows=64, workers=4)
    message = (
        r"must hold files that can be read. Received: '.*1\.parquet', row group 0 \(rows 0 to 99\), which cannot be"
    )
    with pytest.raises(Exception, match=message):
        list(stream.batches(32, shuffle=True, seed=0))
    assert not stream_threads()


def test_a_corrupt_row_group_is_skipped_if_asked(damaged):
    with pytest.warns(UserWarning, match=r"1\.parquet', row group 0 .* Skipped with its 100 rows"):
        stream = TableStream(damaged, SIMPLE, on_corrupt="skip", shuffle_rows=64)
    assert stream.rows == 800 and len(stream.batches(100)) == 8
    rows = flattened(items(stream.batches(100)))
    assert rows == [*range(2, 302), *range(402, 902)]


def test_a_truncated_file_is_named_or_skipped(damaged):
    path = damaged / "2.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"Received: '.*2\.parquet', which is no whole Parquet file"):
        TableStream(damaged, SIMPLE)
    with (
        pytest.warns(UserWarning, match="Skipped with its 100 rows"),
        pytest.warns(UserWarning, match=r"2\.parquet'.* Skipped with all its rows, whose number is not known"),
    ):
        assert TableStream(damaged, SIMPLE, on_corrupt="skip").rows == 500


def test_a_corrupt_csv_file_is_named_or_skipped(tmp_path):
    (tmp_path / "1.csv").write_text("item,price,click\n1,2,1\n3,4\n")
    (tmp_path / "2.csv").write_text("item,price,click\n5,2,1\n")
    with pytest.raises(Exception, match=r"1\.csv', block 0 \(rows 0 to 1\), which cannot be: .*Expected 3 columns"):
        list(TableStream(tmp_path, SIMPLE).batches())
    with pytest.warns(UserWarning, match=r"1\.csv', block 0 .* Skipped with its 2 rows"):
        assert TableStream(tmp_path, SIMPLE, on_corrupt="skip").rows == 1
    (tmp_path / "3.csv").write_text("")
    with pytest.raises(ValueError, match=r"Received: '.*3\.csv', whose first line is no header"):
        TableStream(tmp_path / "3.csv", SIMPLE)


def test_a_wrong_value_is_named_with_its_part(tmp_path):
    TABLE.assign(click=[*[0] * 999, 7]).to_parquet(tmp_path / "x.parquet", row_group_size=300)
    with pytest.raises(
        Exception, match=r"`click` must be 0 or 1 .*\(in '.*x\.parquet', row group 3 \(rows 900 to 999\)"
    ):
        list(TableStream(tmp_path, SIMPLE).batches())


# fault 15, fault 37
@pytest.mark.parametrize("call", ["fit", "validate", "evaluate", "predict", "iterate", "iterate a map"])
def test_errors_are_those_that_were_raised(tmp_path, call):
    TABLE.assign(click=[*[0] * 999, 7]).to_parquet(tmp_path / "x.parquet", row_group_size=300)
    data = TableStream(tmp_path, SIMPLE).batches(100)
    model = create_model("shared_bottom", SIMPLE, bottom_units=(4,), tower_units=(2,))
    model.compile("adam")
    good = SIMPLE.batches(TABLE, 100)
    calls = {
        "fit": lambda: model.fit(data, verbose=0),
        "validate": lambda: model.fit(good, validation_data=data, verbose=0),
        "evaluate": lambda: model.evaluate(data, verbose=0),
        "predict": lambda: model.predict(data, verbose=0),
        "iterate": lambda: list(data),
    }
    message = r"^`click` must be 0 or 1 .*\(in '.*x\.parquet', row group 3 \(rows 900 to 999\)\)$"
    if call == "iterate a map":
        with pytest.raises(Exception, match="`click` must be 0 or 1"):
            list(data.map(lambda *parts: parts))
        return
    with pytest.raises(ValueError, match=message) as raised:
        calls[call]()
    assert type(raised.value) is ValueError and raised.value.__cause__ is None
