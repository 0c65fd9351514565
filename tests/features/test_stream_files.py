"""What kinds of files and folders a stream reads: CSV, compressed or not, partitioned folders, encodings, types."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamed import FEATURES, ROWS, SIMPLE, TABLE, TASKS, flat, flattened, items

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo.features import _stream_files
from mtl_zoo.features.streaming import TableStream

pytestmark = pytest.mark.tensorflow


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
