"""Batches from arrays in memory."""

import numpy as np
import pytest
import tensorflow as tf

from mtl_zoo.features import batching, make_batches

INPUTS = {"x": np.arange(10), "s": np.arange(20).reshape(10, 2)}
LABELS = {"y": np.arange(10, dtype="float32")}


def rows(data):
    return [batch["x"].numpy().tolist() for batch in data]


def test_in_order_with_a_short_last_batch():
    data = make_batches(INPUTS, batch_size=4)
    assert rows(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(data) == 3
    assert rows(make_batches(INPUTS, batch_size=4, drop_remainder=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows(make_batches(INPUTS, batch_size=99)) == [list(range(10))]


def test_shuffled_epochs_differ_and_a_seed_repeats_them():
    first, again = (make_batches(INPUTS, batch_size=5, shuffle=True, seed=3) for _ in range(2))
    epochs = [np.concatenate(rows(first)).tolist() for _ in range(2)]
    assert [np.concatenate(rows(again)).tolist() for _ in range(2)] == epochs
    assert epochs[0] != epochs[1]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)


def test_rows_stay_together():
    weights = {"y": np.arange(10) / 2}
    for inputs, labels, row_weights in make_batches(INPUTS, LABELS, weights, batch_size=3, shuffle=True):
        x = inputs["x"].numpy()
        np.testing.assert_array_equal(inputs["s"][:, 0], 2 * x)
        np.testing.assert_array_equal(labels["y"], x)
        np.testing.assert_array_equal(row_weights["y"], x / 2)


def test_one_weight_array_for_all_tasks():
    inputs, labels, weights = next(iter(make_batches(INPUTS, LABELS, np.ones(10), batch_size=4)))
    assert weights.shape == (4,) and set(labels) == {"y"} and set(inputs) == {"x", "s"}


def test_shapes_are_static_where_every_batch_is_full():
    assert make_batches(INPUTS, batch_size=5).element_spec["x"].shape == (5,)
    assert make_batches(INPUTS, batch_size=4).element_spec["s"].shape.as_list() == [None, 2]


def test_the_order_is_the_generators_permutation():
    """Stored orders of earlier versions stay valid."""
    data = make_batches(INPUTS, LABELS, batch_size=4, shuffle=True, seed=7)
    generator = np.random.default_rng(7)
    for _ in range(2):
        order = generator.permutation(10)
        batches = list(data)
        np.testing.assert_array_equal(np.concatenate([inputs["x"] for inputs, _ in batches]), order)
        np.testing.assert_array_equal(np.concatenate([labels["y"] for _, labels in batches]), order)


@pytest.mark.parametrize("shuffle", [False, True])
def test_columns_of_every_type_keep_type_and_value(shuffle):
    types = ("int32", "int64", "float32", "float64", "bool", "uint8")
    inputs = {f"{dtype}_{i}": (np.arange(10) * (i + 1)).astype(dtype) for dtype in types for i in range(3)}
    inputs |= {"t": np.arange(10).astype(str).astype(object), "s": np.arange(40).reshape(10, 2, 2)[:, ::-1]}
    for batch in make_batches(inputs, batch_size=4, shuffle=shuffle, seed=0):
        rows = batch["int32_0"].numpy()
        assert set(batch) == set(inputs)
        for name, array in inputs.items():
            found = batch[name].numpy()
            expected = array[rows].astype("S") if name == "t" else array[rows]
            np.testing.assert_array_equal(found.astype(expected.dtype), expected)
            assert name == "t" or found.dtype == array.dtype


def test_one_weight_array_and_labels_of_one_name():
    """An input, a label and a weight of one name and type share a matrix, and are told apart."""
    parts = [{"y": np.arange(6.0) + 10 * i} for i in range(3)]
    for batch in make_batches(*parts, batch_size=4, shuffle=True, seed=0):
        first = batch[0]["y"].numpy()
        for i, part in enumerate(batch):
            np.testing.assert_array_equal(part["y"], first + 10 * i)


def test_memory_mapped_columns_are_read_where_they_lie(tmp_path):
    np.arange(60, dtype="int32").tofile(tmp_path / "m.bin")
    matrix = np.memmap(tmp_path / "m.bin", "int32", "r", shape=(10, 6))
    arrays = [matrix[:, i] for i in (4, 2, 1, 0)] + [np.arange(10, dtype="int32"), np.arange(10, dtype="int32")]
    groups = batching._groups_in_memory(arrays)
    assert groups == [[4, 5], [3, 2, 1], [0]]  # copied; columns 0, 1 and 2; column 4
    layout = batching.Layout(arrays, [(array.dtype, ()) for array in arrays], groups)
    copied, run, alone = layout.pack(arrays)
    assert np.shares_memory(run, matrix) and run.shape == (10, 3) and np.shares_memory(alone, matrix)
    assert not np.shares_memory(copied, arrays[4])
    np.testing.assert_array_equal(run, matrix[:, :3])
    inputs = {str(i): array for i, array in enumerate(arrays)}
    for batch in make_batches(inputs, batch_size=4, shuffle=True, seed=0):
        rows = batch["4"].numpy()
        for name, array in inputs.items():
            np.testing.assert_array_equal(batch[name], array[rows])


@pytest.mark.parametrize("batch_size", [1, 3, 1000, 20_000])
def test_runs_of_batches_cover_every_row(batch_size):
    rows = 40_001
    for first, drop in ((0, False), (2, False), (0, True)):
        stop = rows // batch_size if drop else -(-rows // batch_size)
        runs = list(batching.batch_runs(range(first, stop), rows, batch_size))
        covered = [row for start, end in runs for row in range(start, end)]
        assert covered == list(range(first * batch_size, min(stop * batch_size, rows)))
        assert all((end - start) % batch_size == 0 for start, end in runs[:-1])


def test_strings():
    batch = next(iter(make_batches({"t": np.array(["a", ""], dtype=object)})))
    assert batch["t"].numpy().tolist() == [b"a", b""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1. Received: batch_size=0"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number >= 1. Received: batch_size=2.5"),
        ({"labels": {"y": np.zeros(9)}}, "must have the same number of rows. Received: {9, 10}"),
        ({"weights": np.ones(10)}, "`weights` need labels. Received: labels=None"),
        ({"inputs": {"x": np.zeros(0)}}, "`inputs` must have at least one row. Received: an empty table"),
        ({"inputs": {}}, "`inputs` must have at least one row. Received: an empty table"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_batches(**{"inputs": INPUTS, **arguments})


def test_what_a_step_does_to_a_batch_does_not_reach_the_arrays():
    """TensorFlow may write an operation's result into its input's memory; that must never be the caller's."""
    inputs = {"ids": np.arange(64 * 5, dtype="int32").reshape(64, 5)}
    labels = {"y": np.where(np.arange(64) % 3 == 0, np.nan, 1).astype("float32")}
    ids, y = inputs["ids"].copy(), labels["y"].copy()
    for _ in range(10):
        data = make_batches(inputs, labels, batch_size=32)

        @tf.function
        def step(batches):
            x, y = next(batches)
            cleaned = tf.where(tf.math.is_nan(y["y"]), 0.0, y["y"] * 2)
            return tf.reduce_sum(tf.where(x["ids"] >= 0, x["ids"] + 7, 1)), tf.reduce_sum(cleaned)

        batches = iter(data)
        for _ in range(2):
            step(batches)
        np.testing.assert_array_equal(inputs["ids"], ids)
        np.testing.assert_array_equal(labels["y"], y)
