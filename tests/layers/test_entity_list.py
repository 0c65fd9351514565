"""Lists of entities against NumPy: each entity alone, then the list of them."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.layers import EntityListEncoder
from mtl_zoo.layers.history import TargetAttention
from mtl_zoo.layers.text import TextAttention

RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(2, 6, 4)).astype("float32")  # 3 entities of 2 tokens
REAL = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], bool)


def test_a_mean_of_means_is_no_mean_of_all():
    found = ops.convert_to_numpy(EntityListEncoder(3, "mean", "mean", tokens=2)(TOKENS, mask=REAL))
    first = (TOKENS[0, :2].mean(axis=0) + TOKENS[0, 2]) / 2
    second = (TOKENS[1, 3] + TOKENS[1, 4:].mean(axis=0)) / 2
    np.testing.assert_allclose(found, [first, second], atol=1e-6)


@pytest.mark.parametrize("pooling", ["sum", "max"])
def test_other_poolings(pooling):
    found = ops.convert_to_numpy(EntityListEncoder(3, "sum", pooling, tokens=2)(TOKENS, mask=REAL))
    one = np.stack([TOKENS[0, :2].sum(axis=0), TOKENS[0, 2]])
    np.testing.assert_allclose(found[0], getattr(one, pooling)(axis=0), atol=1e-6)


def test_layers_see_entities_and_the_candidate_and_are_saved():
    layer = EntityListEncoder(3, TextAttention(2), TargetAttention((3,)), tokens=2)
    candidate = RNG.normal(size=(2, 4)).astype("float32")
    found = ops.convert_to_numpy(layer(TOKENS, query=candidate, mask=REAL))
    alone = layer.item(TOKENS.reshape(6, 2, 4), mask=REAL.reshape(6, 2))
    wanted = layer.history(ops.reshape(alone, (2, 3, 4)), query=candidate, mask=REAL.reshape(2, 3, 2).any(axis=2))
    np.testing.assert_allclose(found, ops.convert_to_numpy(wanted), atol=1e-6)
    again = EntityListEncoder.from_config(layer.get_config())
    again(TOKENS, query=candidate, mask=REAL)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(TOKENS, query=candidate, mask=REAL)), found)
    assert layer.compute_output_shape((None, 6, 4), (None, 4)) == (None, 4)


def test_vectors_of_zeros_are_padding():
    layer = EntityListEncoder(3, keras.layers.Dense(2, bias_initializer="ones"), "mean")
    x = RNG.normal(size=(2, 3, 5)).astype("float32")
    x[0, 1:] = 0
    x[1] = 0
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found[0], ops.convert_to_numpy(layer.item(x[:1, 0]))[0], atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)
    assert layer.compute_output_shape((None, 3, 5)) == (None, 2)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`item` must be a layer where entities have no tokens"):
        EntityListEncoder(3, "mean", "mean")
    with pytest.raises(ValueError, match="`history` must be"):
        EntityListEncoder(3, "mean", "median", tokens=2)
    with pytest.raises(ValueError, match="`tokens` must be"):
        EntityListEncoder(3, "mean", "mean", tokens=0)
