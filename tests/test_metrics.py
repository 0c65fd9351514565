import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from mtl_zoo.evaluation import auc
from mtl_zoo.metrics import StreamingAUC


def streamed(y, p, weight=None, batch=500, **kwargs):
    metric = StreamingAUC(**kwargs)
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        metric.update_state(y[rows], p[rows], None if weight is None else weight[rows])
    return float(metric.result())


def rows(n=20_000, rate=0.06, seed=0):
    rng = np.random.default_rng(seed)
    logit = np.log(rate / (1 - rate)) + rng.normal(size=n)
    p = (1 / (1 + np.exp(-logit))).astype("float32")
    return (rng.random(n) < p).astype("float32"), p, rng.uniform(0, 2, n).astype("float32")


@pytest.mark.parametrize("rate", [0.3, 0.002])
def test_close_to_the_exact_auc_also_where_all_scores_are_small(rate):
    y, p, weight = rows(rate=rate)
    assert streamed(y, p) == pytest.approx(auc(y, p), abs=1e-3)
    assert streamed(y, p, weight) == pytest.approx(auc(y, p, weight), abs=1e-3)
    if rate == 0.002:
        usual = keras.metrics.AUC()
        usual.update_state(y, p)
        assert abs(float(usual.result()) - auc(y, p)) > 0.05


def test_shapes_labels_that_are_not_observed_and_weights_of_zero():
    y, p, weight = rows(3000)
    hidden = y.copy()
    hidden[:1000] = np.nan
    expected = streamed(y[1000:], p[1000:])
    assert streamed(hidden[:, None], p[:, None]) == pytest.approx(expected, abs=1e-6)
    weight = (np.arange(3000) >= 1000).astype("float32")
    assert streamed(y, p, weight[:, None]) == pytest.approx(expected, abs=1e-6)


def test_certain_scores_and_one_class():
    assert streamed(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 1.0
    assert streamed(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 0.0
    assert np.isnan(streamed(np.ones(3), np.full(3, 0.5)))


def test_reset_and_config():
    y, p, _ = rows(2000)
    metric = StreamingAUC(name="click_auc", bins=200)
    metric.update_state(y, p)
    metric.reset_state()
    assert np.isnan(float(metric.result()))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert (again.name, again.bins) == ("click_auc", 200)
    with pytest.raises(ValueError, match="`bins` must be a whole number >= 2"):
        StreamingAUC(bins=1)


def test_in_compile_and_under_jit():
    y, p, _ = rows(2000)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile("sgd", "mse", weighted_metrics=[StreamingAUC()], jit_compile=True)
    assert model.evaluate(p[:, None], y[:, None], verbose=0, return_dict=True)["auc"] == pytest.approx(
        auc(y, p), abs=1e-3
    )


JAX = """
import keras, numpy as np, jax
assert keras.backend.backend() == "jax"
from mtl_zoo.metrics import StreamingAUC
rng = np.random.default_rng(0)
p = (1 / (1 + np.exp(6 - rng.normal(size=5000)))).astype("float32")
y = (rng.random(5000) < 30 * p).astype("float32")
metric = StreamingAUC()
step = jax.jit(lambda state, y, p: metric.stateless_update_state(state, y, p))
state = metric.stateless_reset_state()
for i in range(5):
    state = step(state, y[i * 1000 : (i + 1) * 1000], p[i * 1000 : (i + 1) * 1000])
from sklearn.metrics import roc_auc_score
assert abs(float(metric.stateless_result(state)) - roc_auc_score(y, p)) < 1e-3
"""


@pytest.mark.slow  # `make test-jax` runs this whole file there
def test_on_jax():
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", JAX], check=True, env=environment, timeout=120)
