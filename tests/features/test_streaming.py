"""Batches from files larger than memory: the rows of a table in memory, in an order that a seed decides."""

import gc
import time
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamed import ROWS, SIMPLE, TABLE, TRANSFORM, flat, flattened, items, stream_threads

from mtl_zoo import (
    BinaryTask,
    Categorical,
    FeatureTransform,
    Numeric,
    create_model,
)
from mtl_zoo.features import streaming
from mtl_zoo.features._stream_plan import OPEN_PARTS, make_plan
from mtl_zoo.features.streaming import TableStream

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def files(tmp_path):
    """Three Parquet files with row groups of unequal size."""
    for i, (start, stop, group) in enumerate([(0, 400, 37), (400, 450, 50), (450, ROWS, 300)]):
        TABLE.iloc[start:stop].to_parquet(tmp_path / f"part{i}.parquet", row_group_size=group)
    return tmp_path


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


@pytest.mark.extended
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
