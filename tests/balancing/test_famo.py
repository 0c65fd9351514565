import keras
import numpy as np
import pytest
from keras import ops
from loss_methods import number, prepared, weigh
from toys import TASKS, build, compile_eagerly, inputs, labels

from mtl_zoo import MLP
from mtl_zoo.balancing import FAMO


def test_golden_weights():
    np.testing.assert_allclose(weigh(prepared(FAMO()), [1.0, 4.0]), [0.8, 0.2], rtol=1e-6)


def test_golden_gradient():
    method = prepared(FAMO())
    delta = np.log([1.0, 4.0]) - np.log([0.9, 3.9])
    gradient = number(method.xi_gradient(ops.convert_to_tensor(delta, "float32"), ops.ones(2)))
    np.testing.assert_allclose(gradient, [0.020011, -0.020011], atol=2e-6)


class NumpyFAMO:
    """The same, in plain NumPy, with Adam and its weight decay written out."""

    def __init__(self, count, rate=0.025, decay=1e-3):
        self.xi, self.m, self.v, self.t = np.zeros(count), np.zeros(count), np.zeros(count), 0
        self.rate, self.decay = rate, decay

    def z(self):
        return np.exp(self.xi) / np.exp(self.xi).sum()

    def weights(self, losses):
        shares = self.z() / (losses + 1e-8)
        return shares / shares.sum()

    def learn(self, before, after):
        delta, z = np.log(before + 1e-8) - np.log(after + 1e-8), self.z()
        gradient = (np.diag(z) - np.outer(z, z)) @ delta + self.decay * self.xi
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        self.xi = self.xi - self.rate * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def test_lagged_against_numpy():
    losses = np.random.default_rng(0).uniform(0.1, 2, (6, 3))
    method, plain = prepared(FAMO(), 3), NumpyFAMO(3)
    for t, row in enumerate(losses):
        if t:
            plain.learn(losses[t - 1], row)
        weights = weigh(method, row)
        np.testing.assert_allclose(weights, plain.weights(row), rtol=1e-3)
        assert weights.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(number(method.xi), plain.xi, rtol=1e-2, atol=1e-4)


def test_exact_against_numpy():
    rng = np.random.default_rng(1)
    method, plain = prepared(FAMO(reevaluates=True, weight_decay=0.1), 3), NumpyFAMO(3, decay=0.1)
    for _ in range(5):
        before = rng.uniform(0.1, 2, 3)
        after = before * rng.uniform(0.8, 1.1, 3)
        np.testing.assert_allclose(weigh(method, before), plain.weights(before), rtol=1e-3)
        method.see_again(ops.convert_to_tensor(after, "float32"))
        plain.learn(before, after)
    np.testing.assert_allclose(number(method.xi), plain.xi, rtol=1e-2, atol=1e-4)


def test_a_task_that_falls_faster_loses_weight():
    method = prepared(FAMO(reevaluates=True))
    weigh(method, [1.0, 1.0])
    method.see_again(ops.convert_to_tensor([0.5, 0.9]))
    after = weigh(method, [1.0, 1.0])
    assert after[0] < 0.5 < after[1]


def test_least_losses_are_taken_off():
    method = prepared(FAMO(least={"click": 0.5, "conversion": 0.0}))
    np.testing.assert_allclose(weigh(method, [1.0, 0.5]), [0.5, 0.5], rtol=1e-5)


def test_absent_tasks_neither_learn_nor_count():
    method = prepared(FAMO(), 3)
    weigh(method, [1.0, 4.0, 0.0], [1, 1, 0])
    weights = weigh(method, [0.5, 3.9, 2.0], [1, 1, 1])
    xi = number(method.xi)
    assert xi[2] == 0  # nothing to compare with yet
    assert xi[0] < 0 < xi[1]
    assert np.isfinite(weights).all()
    weigh(method, [0.0, 0.0, 0.0], [0, 0, 0])
    np.testing.assert_array_equal(number(method.xi), xi)


def test_refuses():
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number and > 0"):
        FAMO(learning_rate=0)
    with pytest.raises(ValueError, match="`weight_decay` must be a finite number and >= 0"):
        FAMO(weight_decay=-1)
    with pytest.raises(ValueError, match=r"`least\['click'\]` must be a finite number and >= 0"):
        FAMO(least={"click": -1})
    with pytest.raises(ValueError, match=r"`least` must name every loss.*unknown: \['like'\]"):
        prepared(FAMO(least={"like": 0.1}))


def test_evaluating_again_needs_tensorflow():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("is TensorFlow")
    with pytest.raises(ValueError, match="`balancing` must not evaluate a batch twice on the 'jax' backend"):
        build("shared_bottom", TASKS).compile(balancing=FAMO(reevaluates=True))


def noisy_model(method, rate):
    """With dropout and batch normalisation, whose state a second pass would move."""
    keras.utils.set_random_seed(4)
    noisy = MLP((8,), norm="batch", dropout=0.5)
    model = build("shared_bottom", TASKS, bottom_units=noisy, tower_units=noisy)
    return compile_eagerly(model, keras.optimizers.SGD(rate), balancing=method)


@pytest.mark.tensorflow
def test_the_second_pass_repeats_the_first():
    """Without an update it gives the same losses, dropout masks included: nothing is learned from it."""
    model = noisy_model(FAMO(reevaluates=True), 0.0)
    x, y = inputs(), labels()
    for _ in range(2):
        model.train_on_batch(x, y)
    assert float(model.balancing.updates) == 2
    np.testing.assert_array_equal(number(model.balancing.xi), 0)


@pytest.mark.tensorflow
def test_the_second_pass_leaves_no_trace():
    """Moving statistics and seeds are those of training in which the losses are not evaluated again."""
    found = []
    for method in (FAMO(reevaluates=True, learning_rate=1e-30), FAMO(learning_rate=1e-30)):
        model = noisy_model(method, 0.1)
        for _ in range(2):
            model.train_on_batch(inputs(), labels())
        method = {id(v) for v in model.balancing.variables}
        found.append([ops.convert_to_numpy(v) for v in model.variables if id(v) not in method])
    assert len(found[0]) > len(model.trainable_variables)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.tensorflow
def test_exact_in_a_graph_is_exact_by_hand():
    x, y = inputs(), labels()
    keras.utils.set_random_seed(2)
    model = build("shared_bottom", TASKS)
    model.compile(keras.optimizers.SGD(0.3), balancing=FAMO(reevaluates=True), metrics=None)
    before = np.array([float(loss) for loss in model.task_losses(y, model(x)).values()])
    model.train_on_batch(x, y)
    after = np.array([float(loss) for loss in model.task_losses(y, model(x)).values()])
    plain = NumpyFAMO(3)
    np.testing.assert_allclose(number(model.balancing.last_coefficients), plain.weights(before), rtol=1e-4)
    plain.learn(before, after)
    np.testing.assert_allclose(number(model.balancing.xi), plain.xi, rtol=1e-3, atol=1e-5)
    assert np.any(plain.xi)
