from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.layers.text import (
    TEXT_ENCODERS,
    TextAttention,
    TextCNN,
    TextGRU,
    TextLSTM,
    TextTransformer,
    make_text_encoder,
)

RNG = np.random.default_rng(0)
DIM = 4
TOKENS = RNG.normal(size=(5, 6, DIM)).astype("float32")
LENGTHS = (6, 4, 2, 1, 0)
REAL = np.arange(6) < np.array(LENGTHS)[:, None]
every_encoder = pytest.mark.parametrize("name", sorted(TEXT_ENCODERS))


def array(x):
    return ops.convert_to_numpy(x)


def made(name, length=6, seed=1):
    """An encoder whose weights, biases and norms too, are none of the starting ones."""
    layer = make_text_encoder(name, DIM, length)
    layer.build((None, length, DIM))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape, scale=0.5) for w in layer.get_weights()])
    return layer


def named_weights(layer):
    return {w.path.split("/", 1)[1]: array(w) for w in layer.weights}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_text(encode):
    """The vectors of the texts, each encoded alone and without its padding; zeros for the empty one."""
    vectors = [encode(x[:n].astype("float64")) if n else None for x, n in zip(TOKENS, LENGTHS, strict=True)]
    return np.stack([np.zeros_like(vectors[0]) if v is None else v for v in vectors])


def test_cnn_is_the_largest_answer_of_each_filter():
    layer = made("cnn")
    assert layer.widths == (3, 4, 5) and layer.width == 12

    def encode(x):
        found = []
        for width, convolution in zip(layer.widths, layer.convolutions, strict=True):
            kernel, bias = (array(w) for w in convolution.weights)
            padded = np.concatenate([x, np.zeros((width - 1, DIM))])
            windows = [np.einsum("wd,wdf->f", padded[i : i + width], kernel) + bias for i in range(len(x))]
            found.append(np.maximum(windows, 0).max(axis=0))
        return np.concatenate(found)

    np.testing.assert_allclose(array(layer(TOKENS, mask=REAL)), by_text(encode), atol=1e-5)


def gru_steps(cell, x):
    kernel, recurrent, (bias, recurrent_bias) = (array(w) for w in cell.weights)
    h = np.zeros(cell.units)
    for step in x:
        z, r, g = np.split(step @ kernel + bias, 3)
        uz, ur, ug = np.split(h @ recurrent + recurrent_bias, 3)
        z, r = sigmoid(z + uz), sigmoid(r + ur)
        h = z * h + (1 - z) * np.tanh(g + r * ug)
    return h


def lstm_steps(cell, x):
    kernel, recurrent, bias = (array(w) for w in cell.weights)
    h, c = np.zeros(cell.units), np.zeros(cell.units)
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


@pytest.mark.parametrize(("name", "steps"), [("gru", gru_steps), ("lstm", lstm_steps)])
def test_recurrent_encoders_are_a_loop_in_each_direction(name, steps):
    layer = made(name)

    def encode(x):
        return np.concatenate([steps(layer.forward.cell, x), steps(layer.backward.cell, x[::-1])])

    np.testing.assert_allclose(array(layer(TOKENS, mask=REAL)), by_text(encode), atol=1e-5)


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_attention_is_a_weighted_mean_of_the_real_tokens():
    layer = made("attention")
    w = named_weights(layer)

    def encode(x):
        scores = np.tanh(x @ w["hidden/kernel"] + w["hidden/bias"]) @ w["score/kernel"]
        return softmax(scores[:, 0]) @ x

    np.testing.assert_allclose(array(layer(TOKENS, mask=REAL)), by_text(encode), atol=1e-5)
    weights = array(layer.weights_of_tokens(TOKENS, REAL))
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 1, 0], atol=1e-6)
    assert not weights[~REAL].any()


def layer_norm(x, gamma, beta):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * gamma + beta


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(__import__("math").erf)(x / np.sqrt(2)))


def transformer_block(x, w):
    n = layer_norm(x, w["first_norm/gamma"], w["first_norm/beta"])
    q, k, v = (
        np.einsum("td,dhe->the", n, w[f"attention/{p}/kernel"]) + w[f"attention/{p}/bias"]
        for p in ("query", "key", "value")
    )
    weights = softmax(np.einsum("the,she->hts", q, k) / np.sqrt(q.shape[-1]))
    mixed = np.einsum("hts,she->the", weights, v)
    x = (
        x
        + np.einsum("the,hed->td", mixed, w["attention/attention_output/kernel"])
        + w["attention/attention_output/bias"]
    )
    n = layer_norm(x, w["second_norm/gamma"], w["second_norm/beta"])
    return x + gelu(n @ w["hidden/kernel"] + w["hidden/bias"]) @ w["out/kernel"] + w["out/bias"]


def test_transformer_is_pre_norm_blocks_and_a_mean():
    layer = made("transformer")
    assert (layer.num_blocks, layer.num_heads, layer.hidden_units) == (2, 4, 16)
    w = named_weights(layer)

    def encode(x):
        x = x + w["positions"][: len(x)]
        for i in range(2):
            prefix = f"block_{i}/"
            x = transformer_block(x, {k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)})
        return layer_norm(x, w["norm/gamma"], w["norm/beta"]).mean(axis=0)

    np.testing.assert_allclose(array(layer(TOKENS, mask=REAL)), by_text(encode), atol=1e-4)


@every_encoder
def test_padding_changes_nothing(name):
    layer = made(name, length=9)
    vectors = array(layer(TOKENS, mask=REAL))
    assert vectors.shape == (5, layer.width) == layer.compute_output_shape(TOKENS.shape)
    noise = np.full((5, 3, DIM), 7.0, "float32")
    longer, real = np.concatenate([TOKENS, noise], axis=1), np.pad(REAL, ((0, 0), (0, 3)))
    np.testing.assert_allclose(array(layer(longer, mask=real)), vectors, atol=1e-6)
    other = np.where(REAL[..., None], TOKENS, np.float32(1e3))
    np.testing.assert_allclose(array(layer(other, mask=REAL)), vectors, atol=1e-6)
    np.testing.assert_array_equal(vectors[4], 0)  # a text without tokens
    every = array(layer(TOKENS, mask=np.ones((5, 6), bool)))
    np.testing.assert_allclose(array(layer(TOKENS)), every, atol=1e-6)


@every_encoder
def test_what_is_said_of_it_and_saved(name):
    layer = made(name)
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    again.build((None, 6, DIM))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(again(TOKENS, mask=REAL)), array(layer(TOKENS, mask=REAL)))
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is type(layer) and restored.get_config() == config


@every_encoder
def test_it_works_in_half_precision(name):
    layer = type(made(name)).from_config({**made(name).get_config(), "dtype": "mixed_bfloat16"})
    vectors = layer(ops.cast(TOKENS, "bfloat16"), mask=REAL)
    assert keras.backend.standardize_dtype(vectors.dtype) == "bfloat16"
    values = array(ops.cast(vectors, "float32"))
    assert np.isfinite(values).all() and not values[4].any()


@every_encoder
@pytest.mark.tensorflow
def test_gradients_are_finite_and_reach_every_weight(name):
    import tensorflow as tf

    layer = made(name)
    with tf.GradientTape() as tape:
        tape.watch(tokens := tf.constant(TOKENS))
        loss = tf.reduce_sum(layer(tokens, mask=REAL, **({"training": True} if name == "transformer" else {})) ** 2)
    gradients = tape.gradient(loss, [tokens, *layer.trainable_variables])
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)
    assert all(np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients)
    assert not np.abs(gradients[0].numpy()[~REAL]).any()


@every_encoder
@pytest.mark.tensorflow
def test_xla_compiles_it(name):
    import tensorflow as tf

    layer = made(name)
    compiled = tf.function(lambda x, real: layer(x, mask=real), jit_compile=True)
    np.testing.assert_allclose(compiled(TOKENS, REAL).numpy(), array(layer(TOKENS, mask=REAL)), atol=1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`filters` must be a whole number >= 1. Received: filters=0"):
        TextCNN(0)
    with pytest.raises(ValueError, match="`widths` must have different names. Received twice: \\['3'\\]"):
        TextCNN(2, widths=(3, 3))
    for kind in (TextGRU, TextLSTM, TextAttention):
        with pytest.raises(ValueError, match="`units` must be a whole number >= 1. Received: units=0"):
            kind(0)
    with pytest.raises(ValueError, match="`dropout` must be a finite number and >= 0"):
        TextTransformer(dropout=1.0)
    with pytest.raises(ValueError, match="`num_heads` must divide the width.*Received: num_heads=3, tokens of width 4"):
        TextTransformer(num_heads=3).build((None, 6, 4))
    with pytest.raises(ValueError, match="`max_positions` must be at least.*Received: max_positions=5, 6 tokens"):
        TextTransformer(max_positions=5)(TOKENS)
    with pytest.raises(ValueError, match="`encoder` must be one of the known values. Received: encoder='bert'"):
        make_text_encoder("bert", 4, 6)
