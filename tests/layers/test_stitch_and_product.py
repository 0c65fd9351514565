import keras
import numpy as np
import pytest
from keras import ops
from toys import gradients

from mtl_zoo.layers import CrossStitchUnit, DenseStack, ExpertBank, FunnelProduct
from mtl_zoo.options import MLP

RNG = np.random.default_rng(0)
COLUMNS = [RNG.normal(size=(5, 3)).astype("float32") for _ in range(3)]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("multiplier", [1.0, 50.0])
def test_stitch_against_numpy(per_channel, multiplier):
    unit = CrossStitchUnit(per_channel, diagonal=0.7, learning_rate_multiplier=multiplier)
    mixed = [ops.convert_to_numpy(y) for y in unit(COLUMNS)]
    alpha = np.full((3, 3), 0.15) + 0.55 * np.eye(3)
    for i in range(3):
        np.testing.assert_allclose(mixed[i], sum(alpha[i, j] * COLUMNS[j] for j in range(3)), atol=1e-5)
    shape = (3, 3, 3) if per_channel else (3, 3)
    assert tuple(unit.matrix.shape) == shape
    np.testing.assert_allclose(ops.convert_to_numpy(unit.matrix).sum(1), 1, atol=1e-5)


def test_stitch_with_the_identity_passes_columns_on_and_one_column_stays():
    for i, y in enumerate(CrossStitchUnit(diagonal=1.0)(COLUMNS)):
        np.testing.assert_allclose(ops.convert_to_numpy(y), COLUMNS[i], atol=1e-6)
    (alone,) = CrossStitchUnit()(COLUMNS[:1])
    np.testing.assert_array_equal(ops.convert_to_numpy(alone), COLUMNS[0])


def test_stitch_with_equal_weights_gives_equal_columns():
    mixed = CrossStitchUnit(diagonal=1 / 3)(COLUMNS)
    for y in mixed[1:]:
        np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(mixed[0]), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_learning_rate_multiplier_is_exact(optimizer):
    """A multiplier m with learning rate r moves alpha as a plain unit with learning rate m r does."""
    matrices = []
    for multiplier, rate in ((20.0, 0.001), (1.0, 0.02)):
        inputs = [keras.Input((3,)) for _ in range(2)]
        unit = CrossStitchUnit(learning_rate_multiplier=multiplier)
        model = keras.Model(inputs, unit(inputs))
        model.compile(keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}}), loss="mse")
        y = [2 * COLUMNS[0] - COLUMNS[1], COLUMNS[0]]
        model.fit(COLUMNS[:2], y, epochs=5, batch_size=5, shuffle=False, verbose=0)
        matrices.append(ops.convert_to_numpy(unit.matrix))
    np.testing.assert_allclose(*matrices, atol=1e-5)
    assert np.abs(matrices[0] - [[0.9, 0.1], [0.1, 0.9]]).max() > 0.01


@pytest.mark.parametrize("multiplier", [1.0, 10.0])
def test_gradient_of_alpha_is_an_inner_product(multiplier):
    """dL/dalpha_ij = <dL/dy_i, x_j>, whatever the multiplier."""
    inputs = [keras.Input((3,)) for _ in range(3)]
    unit = CrossStitchUnit(learning_rate_multiplier=multiplier)
    model = keras.Model(inputs, unit(inputs))
    outer = [RNG.normal(size=(5, 3)).astype("float32") for _ in range(3)]
    grads = gradients(model, lambda m: sum(ops.sum(c * y) for c, y in zip(outer, m(COLUMNS), strict=True)))
    expected = [[np.sum(outer[i] * COLUMNS[j]) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(grads[unit.stored.path][:, :, 0], expected, rtol=1e-4)


def test_product_of_logits():
    a = np.array([[-0.8473], [0.0], [-60.0], [80.0]], "float32")
    b = np.array([[-1.3863], [0.0], [-50.0], [90.0]], "float32")
    logit = ops.convert_to_numpy(FunnelProduct()(a, b)).astype("float64")
    np.testing.assert_allclose(1 / (1 + np.exp(-logit[:2, 0])), [0.06, 0.25], atol=1e-5)
    # Where a product of float32 probabilities is 0 or 1, the logit is still right.
    assert logit[2, 0] == pytest.approx(-110, abs=1e-3)
    assert logit[3, 0] == pytest.approx(80, abs=1e-3)


def test_dense_stack_against_numpy():
    x = RNG.normal(size=(4, 3)).astype("float32")
    stack = DenseStack(MLP((5, 5), activation="tanh", residual=True))
    out = ops.convert_to_numpy(stack(x))
    k0, k1 = (ops.convert_to_numpy(dense.kernel) for dense in stack.dense)
    first = np.tanh(x @ k0)
    np.testing.assert_allclose(out, first + np.tanh(first @ k1), atol=1e-5)


def test_dense_stack_without_layers_is_the_identity():
    x = RNG.normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(DenseStack(())(x)), x)


def test_dense_stack_normalises_and_drops():
    x = RNG.normal(size=(64, 3)).astype("float32")
    stack = DenseStack(MLP((8,), activation="linear", norm="batch", dropout=0.5))
    trained = ops.convert_to_numpy(stack(x, training=True))
    assert 0.3 < np.mean(trained == 0) < 0.7
    assert len(stack.non_trainable_variables) >= 2


@pytest.mark.parametrize("make", [DenseStack, lambda mlp: ExpertBank(3, mlp)])
def test_running_moments_follow_within_an_epoch_of_a_small_table(make):
    layer = make(MLP((4,), activation="linear", norm="batch"))
    x = RNG.normal(5.0, 2.0, (64, 6)).astype("float32")
    for _ in range(50):
        trained = layer(x, training=True)
    # Of the first moments, 0.9 ** 50 is left: half a percent.
    np.testing.assert_allclose(layer(x, training=False), trained, atol=0.05)
