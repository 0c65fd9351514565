"""Where every row has a gradient, the lazy optimizers are Keras' own."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import CLICK, build, compile_eagerly, inputs, labels, row_gradient

from mtl_zoo.optimizers import LazyAdagrad, LazyAdam, LazyFtrl, LazySGD, RowWiseAdagrad, SplitOptimizer

ROWS, WIDTH = 7, 3
FTRL = {"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.1, "beta": 0.2}
SHRINKAGE = {"l2_shrinkage_regularization_strength": 0.1}
PAIRS = {
    "adam": (LazyAdam, keras.optimizers.Adam, {"learning_rate": 0.05}),
    "amsgrad": (LazyAdam, keras.optimizers.Adam, {"learning_rate": 0.05, "amsgrad": True, "beta_2": 0.6}),
    "adagrad": (LazyAdagrad, keras.optimizers.Adagrad, {"learning_rate": 0.1}),
    "ftrl": (LazyFtrl, keras.optimizers.Ftrl, {"learning_rate": 0.1, **FTRL}),
    "ftrl_shrinkage": (LazyFtrl, keras.optimizers.Ftrl, {"learning_rate": 0.1, **SHRINKAGE}),
    "sgd": (LazySGD, keras.optimizers.SGD, {"learning_rate": 0.1}),
    "momentum": (LazySGD, keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9}),
    "nesterov": (LazySGD, keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
}
CLIPPING = [{}, {"clipnorm": 0.7}, {"clipvalue": 0.2}, {"global_clipnorm": 0.9}]


def sparse(rows, ids):
    return row_gradient(rows, ids, (ROWS, WIDTH))


def dense(rows, ids):
    summed = np.zeros((ROWS, WIDTH), "float32")
    np.add.at(summed, ids, rows)
    return ops.convert_to_tensor(summed)


def gradients(step, every_row=True, lookups=20):
    """Gradients of looked-up rows, ids twice and more, and of a kernel."""
    rng = np.random.default_rng(step)
    ids = rng.integers(0, ROWS, lookups)
    if every_row:
        ids[:ROWS] = rng.permutation(ROWS)
    kernel = ops.convert_to_tensor(rng.normal(size=(WIDTH, 2)).astype("float32"))
    return rng.normal(size=(lookups, WIDTH)).astype("float32"), ids.astype("int32"), kernel


def train(optimizer, as_gradient, steps=4, every_row=True):
    rng = np.random.default_rng(9)
    table = keras.Variable(rng.normal(size=(ROWS, WIDTH)).astype("float32"), name="table")
    kernel = keras.Variable(rng.normal(size=(WIDTH, 2)).astype("float32"), name="kernel")
    table.is_embedding_table = True
    optimizer.build([table, kernel])
    for step in range(steps):
        rows, ids, of_kernel = gradients(step, every_row)
        optimizer.apply([as_gradient(rows, ids), of_kernel], [table, kernel])
    slots = [ops.convert_to_numpy(v) for v in optimizer.variables if tuple(v.shape) == (ROWS, WIDTH)]
    return [ops.convert_to_numpy(table), ops.convert_to_numpy(kernel), *slots]


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clipping", CLIPPING, ids=lambda c: next(iter(c), "no_clipping"))
@pytest.mark.parametrize("name", PAIRS)
def test_lazy_is_keras_where_every_row_is_touched(name, clipping):
    lazy, keras_own, options = PAIRS[name]
    # An optimizer of the plain kind sees one dense gradient: sums and clipping are exact, slots included.
    expected = train(keras_own(**options, **clipping), dense)
    assert_equal(train(lazy(**options, **clipping), dense), expected)
    assert_equal(train(lazy(**options, **clipping), sparse), expected)


@pytest.mark.parametrize("name", ["adagrad", "sgd"])
def test_adagrad_and_sgd_are_keras_whatever_rows_are_touched(name):
    lazy, keras_own, options = PAIRS[name]
    options = {**options, "global_clipnorm": 0.5}
    expected = train(keras_own(**options), dense, every_row=False)
    assert_equal(train(lazy(**options), sparse, every_row=False), expected)


def row_wise_adagrad(learning_rate, start, epsilon, every_row):
    rng = np.random.default_rng(9)
    weights = [rng.normal(size=(ROWS, WIDTH)), rng.normal(size=(WIDTH, 2))]
    sums = [np.full(len(w), start) for w in weights]
    for step in range(4):
        rows, ids, of_kernel = gradients(step, every_row)
        grads = [np.zeros((ROWS, WIDTH)), ops.convert_to_numpy(of_kernel)]
        np.add.at(grads[0], ids, rows)
        for w, a, g in zip(weights, sums, grads, strict=True):
            a += (g**2).mean(axis=1)
            w -= learning_rate * g / (np.sqrt(a) + epsilon)[:, None]
    return weights


@pytest.mark.parametrize("every_row", [True, False])
def test_row_wise_adagrad_is_its_formula(every_row):
    expected = row_wise_adagrad(0.1, 0.02, 1e-6, every_row)
    for as_gradient in (dense, sparse):
        optimizer = RowWiseAdagrad(0.1, initial_accumulator_value=0.02, epsilon=1e-6)
        assert_equal(train(optimizer, as_gradient, every_row=every_row), expected)
        assert [tuple(a.shape) for a in optimizer.accumulators] == [(ROWS,), (WIDTH,)]


def test_row_wise_adagrad_of_a_vector_is_by_element():
    bias, scalar = keras.Variable([1.0, 1.0]), keras.Variable(1.0)
    RowWiseAdagrad(0.5).apply([ops.convert_to_tensor([3.0, -0.1]), ops.convert_to_tensor(4.0)], [bias, scalar])
    np.testing.assert_allclose(ops.convert_to_numpy(bias), [0.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(scalar), 0.5, atol=1e-6)


def test_split_gives_each_part_its_optimizer():
    split = SplitOptimizer(keras.optimizers.SGD(0.1), keras.optimizers.Adagrad(0.2))
    table, kernel = train(split, dense)[:2]
    np.testing.assert_array_equal(table, train(keras.optimizers.SGD(0.1), dense)[0])
    np.testing.assert_array_equal(kernel, train(keras.optimizers.Adagrad(0.2), dense)[1])
    assert int(split.iterations) == int(split.embeddings.iterations) == int(split.dense.iterations) == 4


def test_a_model_trains():
    model = build("shared_bottom", [CLICK])
    compile_eagerly(model, SplitOptimizer(RowWiseAdagrad(0.05), LazyAdam(0.01)))
    losses = model.fit(
        inputs(), {"click": labels()["click"]}, batch_size=32, epochs=3, shuffle=False, verbose=0
    ).history["loss"]
    assert losses[-1] < losses[0]
