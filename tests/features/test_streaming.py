"""Batches from files larger than memory: the rows of a table in memory, in an order that a seed decides."""

import gc
import threading
import time
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_zoo import (
    BinaryTask,
    Categorical,
    FeatureTransform,
    MulticlassTask,
    Numeric,
    RegressionTask,
    Sequence,
    create_model,
)
from mtl_zoo.features import _stream_files, streaming
from mtl_zoo.features._stream_plan import OPEN_PARTS, make_plan
from mtl_zoo.features.streaming import TableStream

pytestmark = pytest.mark.tensorflow

ROWS = 1000
FEATURES = (
    Categorical("city"),
    Categorical("item"),
    Categorical("tags", multi_hot=True),
    Sequence("history", length=3, dim=16),
    Numeric("price", missing="mean"),
    Numeric("age", normalization="quantile", buckets=3),
)
TASKS = (
    BinaryTask("click"),
    BinaryTask("buy", sample_space="seen", label="bought"),
    MulticlassTask("mood", classes=("bad", "good")),
    RegressionTask("time", sample_weight="w_time"),
)


def make_table(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    click = pd.array(rng.integers(0, 2, rows), dtype="Int64")
    click[rng.random(rows) < 0.2] = pd.NA
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "city": rng.choice(["Rome", "Oslo", "", None], rows),
            "item": np.arange(rows) + 2**40,
            "tags": rng.choice(["a|b", "c", "a"], rows),
            "history": [list(range(n)) for n in rng.integers(0, 5, rows)],
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "age": rng.integers(10, 80, rows),
            "click": click,
            "seen": rng.integers(0, 2, rows),
            "bought": rng.integers(0, 2, rows),
            "mood": rng.choice(["bad", "good", None], rows),
            "time": rng.normal(size=rows),
            "w_time": rng.random(rows),
            "w": rng.random(rows),
        }
    )


TABLE = make_table()
TRANSFORM = FeatureTransform(FEATURES, TASKS, sample_weight="w").fit(TABLE)
SIMPLE = FeatureTransform((Categorical("item"), Numeric("price", missing="mean")), BinaryTask("click")).fit(TABLE)


@pytest.fixture
def files(tmp_path):
    """Three Parquet files with row groups of unequal size."""
    for i, (start, stop, group) in enumerate([(0, 400, 37), (400, 450, 50), (450, ROWS, 300)]):
        TABLE.iloc[start:stop].to_parquet(tmp_path / f"part{i}.parquet", row_group_size=group)
    return tmp_path


def flat(element):
    import tensorflow as tf

    return [array.numpy() for array in tf.nest.flatten(element)]


def items(data):
    """The ids of `item` by batch: each row has its own."""
    batches = [element[0] if isinstance(element, tuple) else element for element in data]
    return [batch["item"].numpy().tolist() for batch in batches]


def flattened(batches):
    return [item for batch in batches for item in batch]


def test_in_order_as_from_memory(files):
    stream = TableStream(files, TRANSFORM, shuffle_rows=128)
    data, memory = stream.batches(64), TRANSFORM.batches(TABLE, 64)
    assert stream.rows == ROWS and len(data) == len(memory) == stream.num_batches(64)
    assert data.element_spec == memory.element_spec
    for ours, theirs in zip(data, memory, strict=True):
        for one, other in zip(flat(ours), flat(theirs), strict=True):
            np.testing.assert_array_equal(one, other)


def test_shuffled_every_row_once_with_its_labels_and_weights(files):
    data = TableStream(str(files / "*.parquet"), TRANSFORM, shuffle_rows=128).batches(64, shuffle=True, seed=1)
    columns = [np.concatenate(arrays) for arrays in zip(*map(flat, data), strict=True)]
    expected = flat(next(iter(TRANSFORM.batches(TABLE, ROWS))))
    by_item = next(i for i, array in enumerate(expected) if array.ndim == 1 and len(set(array.tolist())) == ROWS)
    order, known = np.argsort(columns[by_item]), np.argsort(expected[by_item])
    assert not np.array_equal(order, known)
    for one, other in zip(columns, expected, strict=True):
        np.testing.assert_array_equal(one[order], other[known])


def test_the_order_depends_on_seed_and_epoch_only(files):
    orders = {}
    for workers in (1, 2, 4):
        data = TableStream(files, SIMPLE, shuffle_rows=256, workers=workers).batches(64, shuffle=True, seed=5)
        orders[workers] = [items(data), items(data)]
    assert orders[1] == orders[2] == orders[4]
    first, second = orders[1]
    assert first != second and sorted(flattened(first)) == sorted(flattened(second))
    stream = TableStream(files, SIMPLE, shuffle_rows=256)
    assert items(stream.batches(64, shuffle=True, seed=5, epoch=1)) == second
    assert items(stream.batches(64, shuffle=True, seed=6)) != first


def test_rows_of_distant_groups_meet(files):
    """A batch of a shuffled epoch holds rows of several files."""
    batch = items(TableStream(files, SIMPLE, shuffle_rows=512).batches(64, shuffle=True, seed=0))[0]
    positions = np.array(batch) - 2
    assert len({int(np.searchsorted([400, 450, ROWS], p, side="right")) for p in positions}) > 1
    assert np.abs(np.diff(positions)).mean() > 30


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("start", [1, 3, 7, 15])
def test_resumed_batches_are_those_of_an_uninterrupted_run(files, shuffle, start):
    stream = TableStream(files, SIMPLE, shuffle_rows=100)
    whole = stream.batches(64, shuffle=shuffle, seed=3, epoch=2)
    first, second = items(whole), items(whole)
    resumed = stream.batches(64, shuffle=shuffle, seed=3, epoch=2, start=start)
    assert items(resumed) == first[start:]
    assert items(resumed) == second


def test_drop_remainder_has_static_shapes(files):
    data = TableStream(files, SIMPLE).batches(64, drop_remainder=True)
    assert len(data) == ROWS // 64 and data.element_spec[0]["item"].shape == (64,)
    assert [len(batch) for batch in items(data)] == [64] * (ROWS // 64)
    assert items(TableStream(files, SIMPLE).batches(2000, drop_remainder=True)) == []


def test_inputs_only_need_no_label_columns(tmp_path):
    TABLE[["item", "price"]].to_parquet(tmp_path / "x.parquet")
    batch = next(iter(TableStream(tmp_path / "x.parquet", SIMPLE, labels=False).batches(10)))
    assert set(batch) == {"item", "price"}


def test_a_part_may_lack_all_labels_and_weigh_nothing(tmp_path):
    table = TABLE.copy()
    table.loc[:499, ["click", "time"]] = None
    table.loc[500:, ["w"]] = 0.0
    table.to_parquet(tmp_path / "x.parquet", row_group_size=500)
    batches = list(TableStream(tmp_path, TRANSFORM).batches(500))
    assert np.isnan(batches[0][1]["click"]).all() and not np.isnan(batches[1][1]["click"]).all()
    assert not batches[1][2]["click"].numpy().any()


def test_files_may_differ_in_width_of_numbers_and_order_of_columns(tmp_path):
    one, two = TABLE.iloc[:500][["item", "price", "click"]], TABLE.iloc[500:][["click", "price", "item"]]
    two = two.astype({"price": "float32"})
    one.to_parquet(tmp_path / "1.parquet")
    two.assign(click=two["click"].astype("float64")).to_parquet(tmp_path / "2.parquet")
    stream = TableStream(tmp_path, SIMPLE, shuffle_rows=4000)  # both files in one piece
    assert flattened(items(stream.batches(64))) == (np.arange(ROWS) + 2).tolist()


def test_unseen_values_are_logged_once_an_epoch(files, caplog):
    transform = FeatureTransform(Categorical("item"), BinaryTask("click")).fit(TABLE.iloc[:600])
    list(TableStream(files, transform, shuffle_rows=64).batches(64))
    assert ["item: 400 values" in record.getMessage() for record in caplog.records] == [True]


# CSV


@pytest.fixture
def csv_transform():
    table = TABLE.drop(columns="history")
    return FeatureTransform([f for f in FEATURES if f.name != "history"], TASKS, sample_weight="w").fit(table)


@pytest.mark.parametrize("block", [300, 4 << 20])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv_gives_the_same_batches(tmp_path, csv_transform, monkeypatch, block, ends):
    monkeypatch.setattr(_stream_files, "CSV_BLOCK_BYTES", block)
    table = TABLE.drop(columns="history")
    table.iloc[:700].to_csv(tmp_path / "1.csv", index=False, lineterminator=ends)
    text = table.iloc[700:].to_csv(index=False, lineterminator=ends)
    (tmp_path / "2.csv").write_bytes((text.rstrip() + ends * 3).encode())
    stream = TableStream([tmp_path / "1.csv", tmp_path / "2.csv"], csv_transform, shuffle_rows=128)
    assert stream.rows == ROWS
    for ours, theirs in zip(stream.batches(64), csv_transform.batches(table, 64), strict=True):
        for one, other in zip(flat(ours), flat(theirs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    shuffled = items(stream.batches(64, shuffle=True, seed=0))
    assert sorted(flattened(shuffled)) == list(range(2, ROWS + 2)) and shuffled != items(stream.batches(64))


def test_csv_types_do_not_vary_by_block(tmp_path, monkeypatch):
    """A block whose values all look like numbers, or are all missing, holds strings like the others."""
    monkeypatch.setattr(_stream_files, "CSV_BLOCK_BYTES", 16)
    table = pd.DataFrame({"code": ["x1"] * 5 + ["007"] * 5 + [None] * 5 + ["1.5"] * 5, "y": [True, False] * 10})
    table.to_csv(tmp_path / "t.csv", index=False)
    transform = FeatureTransform(Categorical("code"), BinaryTask("y")).fit(table)
    inputs, labels = next(iter(TableStream(tmp_path / "t.csv", transform).batches(20)))
    np.testing.assert_array_equal(inputs["code"], transform.encode(table)["code"])
    np.testing.assert_array_equal(labels["y"], [1, 0] * 10)


def test_tsv_and_ids_that_pandas_wrote_as_floats(tmp_path):
    (tmp_path / "t.tsv").write_text("item\tprice\tclick\n1099511627776.0\t1\t1\n\t2\t0.0\n")
    inputs, labels = next(iter(TableStream(tmp_path, SIMPLE).batches()))
    assert inputs["item"].numpy().tolist() == [2, 0] and labels["click"].numpy().tolist() == [1, 0]


def test_csv_with_line_breaks_in_values_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text('item,price,click,note\n1,2,1,x\n3,4,0,"y\nz"\n')
    with pytest.raises(Exception, match="values with line breaks are not read from CSV files"):
        list(TableStream(tmp_path, SIMPLE).batches())


# fault 9
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_compressed_csv_is_read_beside_plain_csv(tmp_path, monkeypatch, suffix, shuffle):
    table = TABLE[["item", "price", "click"]]
    monkeypatch.setattr(_stream_files, "CSV_BLOCK_BYTES", 900)
    (tmp_path / "a.csv").write_text(table[:400].to_csv(index=False))
    with pa.CompressedOutputStream(
        str(tmp_path / f"b.csv{suffix}"), {".zst": "zstd", ".gz": "gzip"}.get(suffix, "bz2")
    ) as file:
        file.write(table[400:].to_csv(index=False).replace("\n", "\n\n", 300).encode())
    stream = TableStream(tmp_path, SIMPLE, shuffle_rows=64)
    assert stream.rows == ROWS and len(stream.files) == 2
    found = flattened(items(stream.batches(64, shuffle=shuffle, seed=0)))
    assert sorted(found) == list(range(2, ROWS + 2)) and (found == sorted(found)) is not shuffle
    rest = stream.batches(64, shuffle=shuffle, seed=0, start=10)
    assert flattened(items(rest.take(3))) == found[640:832]


# fault 9
def test_what_is_not_read_of_a_folder_is_named(tmp_path):
    TABLE[["item", "price", "click"]].to_csv(tmp_path / "a.csv", index=False)
    for name in ("b.csv.lz4", "notes.txt", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_text("")
    with pytest.warns(
        UserWarning, match=r"2 files in '.*' are not read: b.csv.lz4, notes.txt. Files that are: "
    ) as told:
        TableStream(tmp_path, SIMPLE)
    assert told[0].filename == __file__


# fault 9
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_columns_from_the_names_of_folders(tmp_path, kind):
    table = TABLE[:90].assign(code=np.repeat(["000", "a/b", None], 30), day=np.repeat([1, 2, 3], 30))
    transform = FeatureTransform(
        (Categorical("item"), Categorical("code"), Numeric("day"), Numeric("price", missing="mean")),
        BinaryTask("click"),
    ).fit(table)
    for i, name in enumerate(("000", "a%2Fb", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"code={name}" / f"day={i + 1}"
        folder.mkdir(parents=True)
        part = table[30 * i : 30 * i + 30][["item", "price", "click"]]
        part.to_parquet(folder / "p.parquet") if kind == "parquet" else part.to_csv(folder / "p.csv", index=False)
    ((inputs, _),) = TableStream(tmp_path, transform).batches(100)
    order = np.argsort(inputs["item"].numpy())
    for name, expected in transform.encode(table).items():
        np.testing.assert_allclose(inputs[name].numpy()[order], expected, rtol=1e-6, err_msg=name)
    (tmp_path / "code=a%2Fb").rename(tmp_path / "x")
    (tmp_path / "x" / "day=2").rename(tmp_path / "x" / "day=two")
    with pytest.raises(
        ValueError, match="`day` must hold values of one kind in all files. Received: '.*day=two.*'two'"
    ):
        TableStream(tmp_path / "x" / "day=two", transform)


# fault 15
def test_other_encodings_and_marks_of_missing_values(tmp_path):
    table = pd.DataFrame({"city": ["北京", "上海", None], "price": [1.5, np.nan, 2.0], "click": [0.0, 1.0, 0.0]})
    transform = FeatureTransform((Categorical("city"), Numeric("price", missing="mean")), BinaryTask("click")).fit(
        table
    )
    (tmp_path / "a.csv").write_text(table.to_csv(index=False, na_rep="\\N"), encoding="gbk")
    stream = TableStream(tmp_path, transform, encoding="gbk", null_values=("\\N",))
    ((inputs, _),) = stream.batches()
    for name, expected in transform.encode(table).items():
        np.testing.assert_array_equal(inputs[name].numpy(), expected)
    for encoding in ("utf-16", "no-such-codec", None):
        with pytest.raises(ValueError, match="`encoding` must be the name of a codec that writes a line break as one"):
            TableStream(tmp_path, transform, encoding=encoding)
    with pytest.raises(ValueError, match="`null_values` must be a list of texts"):
        TableStream(tmp_path, transform, null_values="-")


# fault 15
def test_decimals_are_numbers(tmp_path):
    from decimal import Decimal

    table = TABLE[["item", "price", "click"]][:20].assign(price=np.arange(20) / 4)
    as_decimals = pa.table(
        {
            "item": pa.array([Decimal(int(i)) for i in table["item"]], pa.decimal128(38, 0)),
            "price": pa.array([Decimal(p) for p in table["price"]], pa.decimal128(20, 2)),
            "click": [None if pd.isna(c) else int(c) for c in table["click"]],
        }
    )
    pq.write_table(as_decimals, tmp_path / "a.parquet")
    ((inputs, _),) = TableStream(tmp_path, SIMPLE).batches()
    for name, expected in SIMPLE.encode(table).items():
        np.testing.assert_array_equal(inputs[name].numpy(), expected)


# fault 37
def test_flipped_bytes_are_found_where_pages_have_checksums(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pandas(TABLE[["item", "price", "click"]])
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    for at in range(200, 16_000, 3_000):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Exception, match=r"must hold files that can be read. Received: '.*a.parquet'"):
            list(TableStream(path, SIMPLE).batches())


# Damage


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


# fault 37
def test_numbers_of_numpy_are_numbers(tmp_path):
    TABLE.to_parquet(tmp_path / "x.parquet")
    stream = TableStream(tmp_path, SIMPLE)
    assert len(next(iter(stream.batches(np.int64(3), start=np.int64(2))))[1]["click"]) == 3
    assert len(next(iter(SIMPLE.batches(TABLE, batch_size=np.int64(3))))[1]["click"]) == 3


# fault 40
def test_the_bound_of_memory_counts_the_length_of_strings(tmp_path):
    bounds = []
    for length in (10, 10_000):
        table = pd.DataFrame({"city": ["x" * length + str(i) for i in range(500)], "click": [0, 1] * 250})
        table.to_parquet(tmp_path / f"{length}.parquet")
        transform = FeatureTransform(Categorical("city"), BinaryTask("click")).fit(table)
        bounds.append(TableStream(tmp_path / f"{length}.parquet", transform, workers=2).memory_bound)
    assert bounds[1] - bounds[0] == pytest.approx(2 * 500 * 3 * 9_990, rel=0.01)


# Arguments


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        ([], ValueError, r"`paths` must name at least one file. Received: paths=\[\]"),
        ("nowhere.parquet", FileNotFoundError, "`paths` must name files that exist. Received: '.*nowhere.parquet'"),
        ("*.pq", FileNotFoundError, r"`paths` must name files that exist. Received: '.*\*.pq'"),
        ("empty", FileNotFoundError, "Received: folder '.*empty' without any"),
        ("mixed", ValueError, r"if it holds several kinds. Received: .* with \['.csv', '.parquet'\]"),
        ("notes.txt", ValueError, r"`suffix of .*notes.txt` must be one of the known values. Received: .*'.txt'"),
        (["x.parquet", "x.parquet"], ValueError, "`paths` must name each file once. Received twice: .*x.parquet"),
        ([3], TypeError, "`paths` must be paths of files or folders. Received: 3"),
        ("none.parquet", ValueError, "`paths` must hold at least one row. Received: 1 files without any"),
        ("lacks.parquet", ValueError, r"lacks.parquet` lacks 2 columns. Received without: \['item', 'click'\]"),
        ("twice.csv", ValueError, r"twice.csv` must have different column names. Received twice: \['item'\]"),
        (
            ["x.parquet", "text.parquet"],
            ValueError,
            "`item` must hold the same kind of values in all files. Received: n",
        ),
    ],
)
def test_refuses_paths(tmp_path, paths, error, message):
    simple = TABLE[["item", "price", "click"]]
    simple.to_parquet(tmp_path / "x.parquet")
    simple.iloc[:0].to_parquet(tmp_path / "none.parquet")
    simple[["price"]].to_parquet(tmp_path / "lacks.parquet")
    simple.assign(item="a").to_parquet(tmp_path / "text.parquet")
    (tmp_path / "twice.csv").write_text("item,item,price,click\n1,1,1,1\n")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text("")
    simple.to_parquet(tmp_path / "mixed" / "a.parquet")
    several = [tmp_path / path if isinstance(path, str) else path for path in paths]
    given = several if isinstance(paths, list) else str(tmp_path / paths)
    with pytest.raises(error, match=message):
        TableStream(given, SIMPLE)


def test_refuses_arguments(files):
    with pytest.raises(ValueError, match="`transform` must be a fitted FeatureTransform. Received: transform=Feature"):
        TableStream(files, FeatureTransform(Categorical("item")))
    with pytest.raises(ValueError, match="`on_corrupt` must be one of the known values. Received: on_corrupt='ignore'"):
        TableStream(files, SIMPLE, on_corrupt="ignore")
    with pytest.raises(ValueError, match="`workers` must be a whole number >= 1. Received: workers=0"):
        TableStream(files, SIMPLE, workers=0)
    with pytest.raises(ValueError, match="`shuffle_rows` must be a whole number >= 1. Received: shuffle_rows=0"):
        TableStream(files, SIMPLE, shuffle_rows=0)
    with pytest.raises(ValueError, match="`start` must be below the 16 batches of an epoch. Received: start=16"):
        TableStream(files, SIMPLE).batches(64, start=16)
    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0. Received: seed=-1"):
        TableStream(files, SIMPLE).batches(64, shuffle=True, seed=-1)


def test_hidden_files_of_a_folder_are_no_data(files):
    (files / "_metadata.parquet").write_text("")
    (files / ".part.parquet").write_text("")
    assert len(TableStream(files, SIMPLE).files) == 3


# The plan, threads and memory


@pytest.mark.parametrize("seed", [None, (1, 0)])
@pytest.mark.parametrize("window_rows", [1, 7, 1000, 10**6])
def test_a_plan_covers_every_row_once(seed, window_rows):
    part_rows = [3, 1000, 0, 17, 120, 501]
    plan = make_plan(part_rows, window_rows, seed)
    assert all(window.rows <= window_rows for window in plan.windows) and plan.rows == sum(part_rows)
    covered = [set() for _ in part_rows]
    for window in plan.windows:
        places = np.concatenate([np.arange(window.rows)[d] for d in window.destinations()])
        assert sorted(places.tolist()) == list(range(window.rows))
        for piece in window.pieces:
            for s in piece.slices:
                rows = set(range(s.start, s.start + s.rows))
                assert not covered[s.part] & rows
                assert s.start == len(covered[s.part]), "slices of a part come in order"
                covered[s.part] |= rows
    assert [len(rows) for rows in covered] == part_rows


def test_parts_larger_than_a_window_are_read_in_turns():
    plan = make_plan([1000] * 10, 100, (0, 0))
    parts = {s.part for window in plan.windows[:2] for piece in window.pieces for s in piece.slices}
    assert len(parts) == OPEN_PARTS


def stream_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mtl_zoo_stream")]


def test_an_iterator_dropped_early_leaves_no_thread(files):
    iterator = iter(TableStream(files, SIMPLE, shuffle_rows=64, workers=3).batches(16, shuffle=True, seed=0))
    next(iterator)
    assert stream_threads()
    del iterator
    gc.collect()
    end = time.monotonic() + 5
    while stream_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not stream_threads()


def test_memory_stays_within_the_stated_bound(tmp_path):
    rows, columns = 260_000, 24
    names = [f"c{i}" for i in range(columns)]
    rng = np.random.default_rng(0)
    table = pa.table({**{n: rng.integers(0, 2**50, rows) for n in names}, "y": rng.integers(0, 2, rows)})
    pq.write_table(table, tmp_path / "big.parquet", row_group_size=rows, use_dictionary=False)
    size = (tmp_path / "big.parquet").stat().st_size
    assert size > 45e6
    features = [Categorical(n, hash_buckets=50) if n == "c0" else Numeric(n) for n in names]
    transform = FeatureTransform(features, BinaryTask("y")).fit(table.slice(0, 1000))
    del table
    stream = TableStream(tmp_path, transform, shuffle_rows=16_384)
    gc.collect()
    arrow = 0
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for _ in stream.batches(4096, shuffle=True, seed=0):
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        numpy = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What allocators hold on to beyond that is the fixed part.
    assert numpy + arrow < stream.memory_bound - streaming._FIXED_BYTES
    assert numpy + arrow < size, "far below what the table takes in memory"


def test_a_model_trains_from_a_stream(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user": rng.integers(0, 20, 4000)})
    table["click"] = (rng.random(4000) < 0.1 + 0.04 * table["user"]).astype(int)
    table["like"] = (rng.random(4000) < 0.9 - 0.04 * table["user"]).astype(int)
    table.to_parquet(tmp_path / "t.parquet", row_group_size=500)
    transform = FeatureTransform(Categorical("user", dim=4), (BinaryTask("click"), BinaryTask("like"))).fit(table)
    model = create_model("shared_bottom", transform, transform.tasks, bottom_units=(8,), tower_units=(4,))
    model.compile("adam")
    data = TableStream(tmp_path, transform, shuffle_rows=1024).batches(100, shuffle=True, seed=0)
    history = model.fit(data, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.05
