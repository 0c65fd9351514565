"""Social attention against NumPy."""

import keras
import numpy as np
from keras import ops

from mtl_zoo.layers import NeighbourAttention


def made(units=5, dim=4, length=3, seed=0):
    rng = np.random.default_rng(seed)
    layer = NeighbourAttention(units)
    layer.build((None, 1 + length, dim))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer, rng.normal(size=(6, 1 + length, dim)).astype("float32"), rng.random((6, 1 + length)) < 0.6


def run(layer, vectors, mask=None):
    return ops.convert_to_numpy(layer(vectors, mask=mask))


def test_it_is_a_softmax_over_real_neighbours():
    layer, vectors, real = made()
    of_neighbours, of_node, bias, score = layer.get_weights()
    wanted = np.zeros((6, 4))
    for row in range(6):
        at = np.flatnonzero(real[row, 1:]) + 1
        if len(at):
            hidden = np.maximum(vectors[row, at] @ of_neighbours + vectors[row, 0] @ of_node + bias, 0)
            shares = np.exp(hidden @ score)
            wanted[row] = (shares / shares.sum() * vectors[row, at]).sum(0)
    np.testing.assert_allclose(run(layer, vectors, real), wanted, atol=1e-5)
    every = np.ones_like(real)
    np.testing.assert_allclose(run(layer, vectors), run(layer, vectors, every), atol=1e-6)


def test_order_and_padding_do_not_matter_and_no_neighbour_gives_zeros():
    layer, vectors, real = made()
    out = run(layer, vectors, real)
    order = [0, 3, 1, 2]
    np.testing.assert_allclose(run(layer, vectors[:, order], real[:, order]), out, atol=1e-6)
    padded = np.concatenate([vectors, np.full((6, 2, 4), 9.0, "float32")], axis=1)
    mask = np.concatenate([real, np.zeros((6, 2), bool)], axis=1)
    np.testing.assert_allclose(run(layer, padded, mask), out, atol=1e-6)
    real[:, 1:] = False
    assert not run(layer, vectors, real).any()


def test_it_attends_evenly_without_scores_and_keeps_its_config():
    layer, vectors, _ = made()
    layer.set_weights([np.zeros(w.shape) for w in layer.get_weights()])
    np.testing.assert_allclose(run(layer, vectors), vectors[:, 1:].mean(1), atol=1e-6)
    again = NeighbourAttention.from_config(layer.get_config())
    assert again.units == 5 and again(keras.KerasTensor((None, 4, 7))).shape == (None, 7)
