"""Methods of products of gradients inside a real model's step: against separate tapes, and on two replicas."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops
from toys import build, inputs, labels_for, loss_gradients

from mtl_zoo.balancing import create_balancing

pytestmark = pytest.mark.tensorflow

METHODS = ("aligned_mtl", "cagrad", "fair_grad", "gradvac", "imtl_g", "mgda", "nash_mtl", "pcgrad", "up_grad")
LOSSES = ("click", "conversion", "like")
PRIVATE = tuple(f"{loss}_{part}/" for loss in LOSSES for part in ("tower", "head"))


@pytest.fixture(scope="module")
def case():
    """A model, its first weights, and each loss's gradients by path, tables as if they were dense."""
    keras.utils.set_random_seed(2)
    model = build("shared_bottom")
    start = model.get_weights()
    return model, start, {loss: loss_gradients(model, loss) for loss in LOSSES}


def taken(model, start, method, steps=1, **options):
    """What steps of SGD(1.0) take from each weight, by path."""
    model.compile(keras.optimizers.SGD(1.0), balancing=method, metrics=None, run_eagerly=True, **options)
    own = {id(v) for v in model.balancing.weights}
    for variable, value in zip([v for v in model.weights if id(v) not in own], start, strict=True):
        variable.assign(value)
    moved = []
    for _ in range(steps):
        before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
        model.train_on_batch(inputs(), labels_for(model))
        moved.append({v.path: before[v.path] - ops.convert_to_numpy(v) for v in model.trainable_variables})
    return moved


def gram_of(gradients, paths):
    rows = np.stack([np.concatenate([gradients[loss][path].ravel() for path in paths]) for loss in LOSSES])
    return (rows @ rows.T).astype("float32")


def expected_of(name, gradients, include_tables, **options):
    shared = [path for path in gradients["click"] if not path.startswith(PRIVATE)]
    tables = [path for path in shared if "/table_" in path]
    assert tables
    weighed = shared if include_tables else [path for path in shared if path not in tables]
    method = create_balancing(name, **options)
    method.prepare(LOSSES, ["binary"] * 3)
    ones = np.ones(3, "float32")
    return shared, ops.convert_to_numpy(method.coefficients(gram_of(gradients, weighed), ones, ones))


def assert_combined(moved, gradients, shared, coefficients):
    for path, step in moved.items():
        weights = coefficients if path in shared else np.ones(3)
        parts = [weight * gradients[loss][path] for weight, loss in zip(weights, LOSSES, strict=True)]
        largest = max(np.abs(part).max() for part in parts)
        np.testing.assert_allclose(step, sum(parts), atol=1e-6 + 2e-3 * largest, err_msg=path)


@pytest.mark.parametrize("include_tables", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_shared_weights_receive_the_combination_and_private_ones_their_own(case, name, include_tables):
    """Rows that a batch reads twice, and a table that two features share, count with their summed gradient."""
    model, start, gradients = case
    shared, coefficients = expected_of(name, gradients, include_tables)
    (moved,) = taken(model, start, create_balancing(name, include_tables=include_tables))
    assert_combined(moved, gradients, shared, coefficients)
    # Each private weight knows one loss.
    private = [path for path in moved if path not in shared]
    assert len(private) >= 6
    assert all(sum(np.any(gradients[loss][path]) for loss in LOSSES) == 1 for path in private)
    found = ops.convert_to_numpy(model.balancing.last_coefficients)
    np.testing.assert_allclose(found, coefficients, rtol=1e-2, atol=1e-3 * np.abs(coefficients).max())


def test_tables_change_what_is_found(case):
    """Or the test above could not tell the two apart."""
    _, without = expected_of("nash_mtl", case[2], False)
    _, with_them = expected_of("nash_mtl", case[2], True)
    assert np.abs(without / with_them - 1).max() > 1e-2


def test_the_cut_is_of_all_that_is_weighed(case):
    model, start, gradients = case
    shared, _ = expected_of("nash_mtl", gradients, True)
    (moved,) = taken(model, start, create_balancing("nash_mtl", include_tables=True, max_norm=0.5))
    assert np.sqrt(sum((moved[path] ** 2).sum() for path in shared)) == pytest.approx(0.5, rel=1e-3)


def test_coefficients_are_kept_between_updates(case):
    model, start, _ = case
    taken(model, start, create_balancing("nash_mtl", update_every=2))
    first = ops.convert_to_numpy(model.balancing.last_coefficients)
    moved = taken(model, start, create_balancing("nash_mtl", update_every=2), steps=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.balancing.last_coefficients), first)
    assert any(np.any(moved[0][path] != moved[1][path]) for path in moved[0])


SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, numpy as np, tensorflow as tf
    from toys import FIVE_TASKS, build, inputs, labels
    from mtl_zoo.balancing import PCGrad

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    def train(strategy, seed=0, eager=False):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            model = build("shared_bottom", FIVE_TASKS)
            optimizer = keras.optimizers.SGD(0.5)
        model.compile(optimizer, balancing=PCGrad(seed=seed), metrics=None, run_eagerly=eager)
        y = labels()
        y["like"] = 1 - y["click"]  # what is good for one is bad for the other
        y = {name: y[name] for name in ("click", "conversion", "like", "watch_time", "effect")}
        for step in range(4):
            model.train_on_batch(inputs(64, seed=step), y)
        return [w.numpy() for w in model.weights]

    one = train(tf.distribute.get_strategy())
    two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    other = train(tf.distribute.get_strategy(), seed=1, eager=True)
    print(json.dumps([max(float(np.abs(a - b).max()) for a, b in zip(one, found)) for found in (two, other)]))
    """
)


@pytest.mark.slow
def test_random_orders_are_the_same_on_replicas():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    replicas, other_orders = json.loads(done.stdout.strip().splitlines()[-1])
    assert replicas <= 1e-5
    # Orders do matter here.
    assert other_orders > 1e-4
