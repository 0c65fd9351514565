"""Batches from arrays in memory."""

import numpy as np
import pytest

from mtl_zoo.features import make_batches

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
