"""Penalties against forgetting, in plain NumPy."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, SharedBottom
from mtl_zoo.continual import EWC, L2ToPrevious

pytestmark = pytest.mark.tensorflow
RATE = 0.5
ROWS = pd.DataFrame(
    {
        "item": [1, 2, 1, 3, 2, 1],
        "x": [0.5, -1.0, 2.0, 0.0, 1.0, -0.3],
        "click": [0, 1, 1, 0, 1, 0],
        "like": [1, 1, 0, 0, 1, 0],
    }
)


def model_of(optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    features = [Categorical("item", dim=2), Numeric("x", normalization=None)]
    transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("like")]).fit(ROWS)
    model = SharedBottom(transform, bottom_units=(3,), tower_units=())
    model.compile(optimizer or keras.optimizers.SGD(RATE), run_eagerly=True, metrics=None, **arguments)
    return model


def arrays(model):
    return {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables}


def steps(model, count=2, **arguments):
    for _ in range(count):
        model.fit(ROWS, batch_size=6, verbose=0, shuffle=False, **arguments)
    return arrays(model)


@pytest.mark.parametrize("balancing", [None, "pcgrad"])
def test_a_second_step_is_pulled_back_by_the_distance(balancing):
    start = arrays(model_of())
    first = steps(model_of(balancing=balancing), 1)
    model = model_of(balancing=balancing)
    model.fit(ROWS, batch_size=6, epochs=2, verbose=0, shuffle=False, anchor=L2ToPrevious(0.3))
    held = arrays(model)
    free = steps(model_of(balancing=balancing), 2)
    for path, value in free.items():
        # SGD: w2 = w1 - rate (g(w1) + strength (w1 - w0)), and the first step is not pulled.
        np.testing.assert_allclose(held[path], value - RATE * 0.3 * (first[path] - start[path]), atol=1e-6)
    assert any(np.abs(first[path] - start[path]).max() > 1e-3 for path in start)


def test_tables_may_be_left_free_and_no_strength_is_no_anchor():
    start, first = arrays(model_of()), steps(model_of(), 1)
    free = steps(model_of(), 2)
    for anchor, pulled in ((L2ToPrevious(0.3, tables=False), False), (L2ToPrevious(0.0), None)):
        model = model_of()
        model.fit(ROWS, batch_size=6, epochs=2, verbose=0, shuffle=False, anchor=anchor)
        for path, value in arrays(model).items():
            is_free = pulled is None or "table" in path
            expected = free[path] - (0 if is_free else RATE * 0.3 * (first[path] - start[path]))
            np.testing.assert_allclose(value, expected, atol=1e-6)


def numpy_fisher(model):
    """The mean squared gradient of each row's loss, by the chain rule in NumPy."""
    x, y, w = model.transform.encode(ROWS), model.transform.encode_labels(ROWS), arrays(model)
    table, kernel, bias = w["embedding/table_2"], w["bottom/dense_0/kernel"], w["bottom/dense_0/bias"]
    found = {path: np.zeros(value.shape) for path, value in w.items()}
    for row, item in enumerate(x["item"]):
        given = np.append(table[item], x["x"][row])
        hidden = np.maximum(given @ kernel + bias, 0)
        one = {path: np.zeros(value.shape) for path, value in w.items()}
        back = np.zeros(3)
        for task in ("click", "like"):
            head = w[f"{task}_head/kernel"]
            z = (hidden @ head + w[f"{task}_head/bias"])[0]
            delta = 1 / (1 + np.exp(-z)) - y[task][row]
            one[f"{task}_head/kernel"], one[f"{task}_head/bias"] = delta * hidden[:, None], np.array([delta])
            back += delta * head[:, 0]
        back *= hidden > 0
        one["bottom/dense_0/kernel"], one["bottom/dense_0/bias"] = np.outer(given, back), back
        one["embedding/table_2"][item] = (kernel @ back)[:2]
        for path, gradient in one.items():
            found[path] += gradient**2 / len(ROWS)
    return found


def test_the_fisher_information_is_that_of_numpy():
    model = model_of()
    steps(model, 3)
    expected = numpy_fisher(model)
    for variable, found in zip(model.trainable_variables, EWC(1.0, ROWS, rows=100).importances(model), strict=True):
        np.testing.assert_allclose(found, expected[variable.path], atol=1e-6)
        assert found.max() > 0


def test_ewc_pulls_by_its_importances():
    start, first, free = arrays(model_of()), steps(model_of(), 1), steps(model_of(), 2)
    model = model_of()
    importances = EWC(5.0, ROWS).importances(model)
    model.fit(ROWS, batch_size=6, epochs=2, verbose=0, shuffle=False, anchor=EWC(5.0, ROWS))
    for variable, importance in zip(model.trainable_variables, importances, strict=True):
        path = variable.path
        expected = free[path] - RATE * 5.0 * importance * (first[path] - start[path])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, atol=1e-6)


def test_a_graph_does_what_eager_mode_does():
    eager, graph = model_of("lazy_adam"), model_of("lazy_adam")
    graph.compile("lazy_adam", metrics=None)
    for model in (eager, graph):
        model.fit(ROWS, batch_size=3, epochs=2, verbose=0, shuffle=False, anchor=L2ToPrevious(0.3))
        assert model.train_function is None  # what was traced must not hold the anchor on
    for path, value in arrays(eager).items():
        np.testing.assert_allclose(arrays(graph)[path], value, atol=1e-6)


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="`strength` must be"):
        L2ToPrevious(-1)
    with pytest.raises(ValueError, match="`rows` must be a whole number >= 1"):
        EWC(1.0, ROWS, rows=0)
    with pytest.raises(TypeError, match="`anchor` must be None, an L2ToPrevious or an EWC"):
        model_of().fit(ROWS, anchor=0.3, verbose=0)
