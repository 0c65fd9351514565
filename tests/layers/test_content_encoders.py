"""Layers of vectors, dates and pictures against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.layers import DatetimeEncoder, ImageCNN, ImageEncoder, VectorEncoder
from mtl_zoo.layers.text import TextCNN

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype("float32")
MISSING = np.array([0, 1, 0, 0, 1], "float32")


def number(x):
    return ops.convert_to_numpy(x)


def test_a_vector_stands_beside_its_indicator():
    np.testing.assert_array_equal(number(VectorEncoder()(X)), X)
    both = {"v": X, "v.missing": MISSING}
    np.testing.assert_array_equal(number(VectorEncoder()(both)), np.c_[X, MISSING])
    layer = VectorEncoder(keras.layers.Dense(2))
    expected = np.c_[X, MISSING] @ number((layer(both), layer.encoder.kernel)[1])
    np.testing.assert_allclose(number(layer(both)), expected, rtol=1e-5)


def test_parts_of_dates_are_rows_side_by_side():
    layer = DatetimeEncoder((4, 3), dim=2)
    ids, numbers = np.array([[0, 2], [3, 1], [9, -1]], "int32"), RNG.normal(size=(3, 2)).astype("float32")
    found = number(layer({"t": ids, "t.numbers": numbers}))
    rows = number(layer.table)
    expected = [np.r_[rows[0], rows[6]], np.r_[rows[3], rows[5]], np.r_[rows[1], rows[5]]]
    np.testing.assert_allclose(found, np.c_[expected, numbers], rtol=1e-6)
    np.testing.assert_allclose(number(layer(ids)), expected, rtol=1e-6)


def convolved(x, kernel, bias):
    """3 x 3 with stride 2 and zeros at the end, then at the start, as 'same' has it."""
    height, width = x.shape[1:3]
    new = (-(-height // 2), -(-width // 2))
    pads = [max((n - 1) * 2 + 3 - size, 0) for n, size in zip(new, (height, width), strict=True)]
    padded = np.pad(x, [(0, 0), *[(p // 2, p - p // 2) for p in pads], (0, 0)])
    out = np.zeros((len(x), *new, kernel.shape[-1]))
    for i in range(new[0]):
        for j in range(new[1]):
            out[:, i, j] = np.tensordot(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, axes=3) + bias
    return np.maximum(out, 0)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_the_network_is_convolutions_a_mean_and_a_map(size):
    x = RNG.uniform(size=(2, *size, 3)).astype("float32")
    layer = ImageCNN(4, filters=(5, 6))
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(size=weight.shape))
    h = x
    for convolution in layer.convolutions:
        h = convolved(h, number(convolution.kernel), number(convolution.bias))
    expected = h.mean(axis=(1, 2)) @ number(layer.linear.kernel) + number(layer.linear.bias)
    np.testing.assert_allclose(number(layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_the_mean_over_places_does_not_depend_on_where_a_thing_is():
    x = np.zeros((2, 32, 32, 3), "float32")
    x[0, 8:12, 8:12], x[1, 16:20, 12:16] = 1, 1
    found = number(ImageCNN(4, filters=(5, 6))(x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_a_picture_is_scaled_and_stands_beside_its_indicator():
    x = RNG.integers(0, 256, (5, 4, 4, 3)).astype("uint8")
    layer = ImageEncoder(keras.layers.Flatten())
    np.testing.assert_allclose(number(layer(x)), x.reshape(5, -1) / 255.0, rtol=1e-6)
    found = number(layer({"p": x, "p.missing": MISSING}))
    np.testing.assert_allclose(found, np.c_[x.reshape(5, -1) / 255.0, MISSING], rtol=1e-6)
    maps = ImageEncoder(keras.layers.Activation("linear"))
    np.testing.assert_allclose(number(maps(x)), x.mean(axis=(1, 2)) / 255.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (VectorEncoder(keras.layers.Dense(2)), {"v": X, "v.missing": MISSING}),
        (VectorEncoder(), X),
        (DatetimeEncoder((4, 3), dim=2), np.array([[0, 2]], "int32")),
        (ImageCNN(4), RNG.uniform(size=(2, 9, 5, 3)).astype("float32")),
        (ImageEncoder(ImageCNN(3, filters=(4,))), {"p": np.zeros((2, 9, 5, 3), "uint8"), "p.missing": MISSING[:2]}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_configs_shapes_and_policies(layer, x, policy):
    layer = type(layer).from_config({**layer.get_config(), "dtype": policy})
    y = layer(x)
    shape = {name: array.shape for name, array in x.items()} if isinstance(x, dict) else x.shape
    assert tuple(y.shape) == tuple(layer.compute_output_shape(shape))
    again = type(layer).from_config(layer.get_config())
    again.build(shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(number(ops.cast(again(x), "float32")), number(ops.cast(y, "float32")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DatetimeEncoder((1,)), "`sizes` must be a whole number >= 2"),
        (lambda: DatetimeEncoder((4,), dim=0), "`dim` must be a whole number"),
        (lambda: ImageCNN(0), "`units` must be a whole number"),
        (lambda: ImageCNN(4, filters=()), "`filters` must hold at least one"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.tensorflow
@pytest.mark.parametrize(("layer", "shape"), [(ImageCNN(3), (6, 4, 3)), (TextCNN(3, widths=(2, 5)), (4, 2))])
def test_convolutions_take_no_rows_too(layer, shape):
    """The last batch may leave a device without rows; where oneDNN computes, its convolutions need one."""
    import tensorflow as tf

    layer(np.zeros((2, *shape), "float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
    def gradients(x):
        with tf.GradientTape() as tape:
            y = layer(x)
        return y, tape.gradient(y, layer.trainable_weights)

    y, found = gradients(np.zeros((0, *shape), "float32"))
    assert y.shape[0] == 0 and all(float(tf.reduce_sum(tf.abs(g))) == 0 for g in found)
