"""The layers of retrieval: packed pairs with counts of items, vectors of a side, inputs that do not matter."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import _pairs
from mtl_zoo.layers import MissingInputs, SideVector, UserItemPair
from mtl_zoo.layers.user_item_pair import _MOST_ROWS

RNG = np.random.default_rng(0)
U, V = RNG.normal(size=(2, 6, 3)).astype("float32")


def test_it_packs_vectors_ids_and_shares():
    ids = np.array([5, 2**31 - 2, 5, 1 << 24, (1 << 24) + 1, 5], "int32")
    packed = ops.convert_to_numpy(_pairs.pack(U, V, ops.ones(6), ops.convert_to_tensor(ids)))
    assert packed.shape == (6, _pairs.packed_width(3))
    np.testing.assert_array_equal(_pairs.users_of(packed), U)
    np.testing.assert_array_equal(_pairs.items_of(packed).vectors, V)
    same = (_pairs.items_of(packed).id_parts[:, None] == _pairs.items_of(packed).id_parts).all(axis=2)
    np.testing.assert_array_equal(same, ids[:, None] == ids)


def test_shares_are_those_of_all_rows_so_far():
    pair = UserItemPair(num_ids=8)
    seen = []
    for ids in ([5, 5, 5, 7, 2, 2], [7, 7, 7, 7, 7, 3], [9, -1, 1, 1, 0, 0]):
        seen += [i if 0 <= i < 8 else 1 for i in ids]
        shares = ops.convert_to_numpy(_pairs.items_of(pair(U, V, np.array(ids), training=True)).probabilities)
        counts = np.bincount(seen, minlength=8)
        np.testing.assert_allclose(shares, counts[seen[-6:]] / len(seen), rtol=1e-6)
    kept = np.array(pair.counts)
    again = _pairs.items_of(pair(U, V, np.array([6, 7, 7, 7, 7, 7]))).probabilities
    np.testing.assert_allclose(ops.convert_to_numpy(again)[:2], [1 / 18, 6 / 18], rtol=1e-6)
    np.testing.assert_array_equal(kept, np.array(pair.counts))


def test_counts_forget():
    pair = UserItemPair(num_ids=4)
    pair(U, V, np.full(6, 2))
    pair.counts.assign([0, 0, _MOST_ROWS, 6])
    pair(U, V, np.full(6, 2), training=True)
    np.testing.assert_array_equal(np.array(pair.counts), [0, 0, _MOST_ROWS / 2 + 6, 3])


def test_side_vectors():
    joined = np.arange(12, dtype="float32").reshape(2, 6)
    np.testing.assert_array_equal(ops.convert_to_numpy(SideVector([(4, 6), (0, 1)])(joined)), joined[:, [4, 5, 0]])
    steps = np.array([[[1, 2], [3, 4], [0, 0]], [[0, 0]] * 3], "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(SideVector()([joined[:, :1], steps])), [[0, 2, 3], [6, 0, 0]])


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (UserItemPair(9), (U, V, np.arange(6))),
        (SideVector([(0, 1), (1, 3)]), (U,)),
        (MissingInputs({"a": [None, 2], "b": []}, {"a": "float32", "b": "int32"}), (U,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_they_are_made_again_and_know_their_shapes(layer, inputs):
    again = type(layer).from_config(layer.get_config())
    symbolic = again(*(keras.KerasTensor((None, *x.shape[1:]), str(x.dtype)) for x in inputs))
    for spec, value in zip(keras.tree.flatten(symbolic), keras.tree.flatten(again(*inputs)), strict=True):
        assert tuple(spec.shape[1:]) == tuple(value.shape[1:]) and spec.dtype == keras.backend.standardize_dtype(
            value.dtype
        )


def test_the_number_of_ids_is_checked():
    with pytest.raises(ValueError, match="num_ids"):
        UserItemPair(1)
