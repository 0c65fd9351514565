"""Steps that learn to adapt: their gradients against another implementation, and what must not change."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import MLP, BinaryTask, Categorical, Embedding, Numeric, RegressionTask, create_model
from mtl_zoo.steps import MAML, Reptile

pytestmark = pytest.mark.tensorflow

ROWS, CITIES = 12, 6


def toy(step, learning_rate=1.0, eager=True, **options):
    """A shared bottom of one layer with two tasks, small enough to write again. Eager mode traces nothing."""
    keras.utils.set_random_seed(5)
    features = [Categorical("city", size=CITIES - 2, dim=2), Numeric("age")]
    tasks = [BinaryTask("click", loss_weight=0.5), RegressionTask("stars", scale=None)]
    model = create_model("shared_bottom", features, tasks, bottom_units=(3,), tower_units=())
    model.compile(keras.optimizers.SGD(learning_rate), step=step, run_eagerly=eager, **options)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # no bias is 0, and no unit is dead
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    x = {"city": rng.integers(0, CITIES, ROWS).astype("int32"), "age": rng.normal(size=ROWS).astype("float32")}
    y = {"click": rng.integers(0, 2, ROWS).astype("float32"), "stars": rng.normal(size=ROWS).astype("float32")}
    y["click"][[1, 7]] = np.nan
    return model, x, y


def weights_of(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]


def places(model):
    """Where each weight stands: the table, the bottom's kernel and bias, those of each task."""
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    paths = [v.path for v in model.trainable_variables]
    found = {"table": shapes.index((CITIES, 2)), "kernel": shapes.index((3, 3)), "bias": shapes.index((3,))}
    for task in ("click", "stars"):
        of_task = [i for i, path in enumerate(paths) if task in path]
        found[task] = sorted(of_task, key=lambda i: -len(shapes[i]))
    return found


def reference(jnp, at):
    """The toy's loss of some rows as a function of its weights."""

    def loss(weights, x, y, rows):
        vectors = jnp.concatenate([weights[at["table"]][x["city"][rows]], x["age"][rows][:, None]], 1)
        hidden = jnp.maximum(vectors @ weights[at["kernel"]] + weights[at["bias"]], 0)
        click, stars = ((hidden @ weights[k] + weights[b])[:, 0] for k, b in (at["click"], at["stars"]))
        target, seen = jnp.nan_to_num(y["click"][rows]), ~jnp.isnan(y["click"][rows])
        entropy = jnp.where(seen, jnp.logaddexp(0, click) - target * click, 0).sum() / seen.sum()
        return 0.5 * entropy + ((stars - y["stars"][rows]) ** 2).mean()

    return loss


@pytest.mark.extended
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_maml_is_that_of_another_implementation(second_order, inner_steps):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    step = MAML(support=2, query=4, inner_rate=0.3, inner_steps=inner_steps, second_order=second_order)
    model, x, y = toy(step)
    before, at = weights_of(model), places(model)
    loss = reference(jnp, at)

    def adapted(weights, rows):
        for _ in range(inner_steps):
            found = jax.grad(loss)(weights, x, y, rows)
            found = found if second_order else jax.lax.stop_gradient(found)
            weights = [
                w if i == at["table"] else w - 0.3 * g for i, (w, g) in enumerate(zip(weights, found, strict=True))
            ]
        return weights

    def outer(weights):
        episodes = (np.arange(0, 6), np.arange(6, 12))
        return sum(loss(adapted(weights, rows[:2]), x, y, rows[2:]) for rows in episodes) / 2

    logs = model.train_on_batch(x, y, return_dict=True)
    value, wanted = jax.value_and_grad(outer)([jnp.array(w) for w in before])
    assert float(logs["loss"]) == pytest.approx(float(value), abs=1e-5)
    for old, new, gradient, variable in zip(before, weights_of(model), wanted, model.trainable_variables, strict=True):
        np.testing.assert_allclose(old - new, gradient, atol=1e-5, err_msg=variable.path)


@pytest.mark.parametrize("inner_steps", [1, 4])
def test_reptile_goes_to_where_the_users_rows_lead(inner_steps):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    model, x, y = toy(Reptile(support=2, query=4, inner_rate=0.2, inner_steps=inner_steps))
    before, at = weights_of(model), places(model)
    loss = reference(jnp, at)
    wanted = [np.zeros_like(w) for w in before]
    for rows in (np.arange(0, 6), np.arange(6, 12)):
        weights = [jnp.array(w) for w in before]
        for _ in range(inner_steps):
            found = jax.grad(loss)(weights, x, y, rows)
            wanted[at["table"]] += np.array(found[at["table"]]) / 2 / inner_steps
            weights = [
                w if i == at["table"] else w - 0.2 * g for i, (w, g) in enumerate(zip(weights, found, strict=True))
            ]
        for i, (old, new) in enumerate(zip(before, weights, strict=True)):
            if i != at["table"]:
                wanted[i] += (old - np.array(new)) / 0.2 / inner_steps / 2
    model.train_on_batch(x, y)
    for old, new, gradient, variable in zip(before, weights_of(model), wanted, model.trainable_variables, strict=True):
        np.testing.assert_allclose(old - new, gradient, atol=1e-5, err_msg=variable.path)


def test_without_adaptation_it_trains_on_the_query_rows():
    adapting, x, y = toy(MAML(support=4, query=8, inner_rate=0))
    plain, _, _ = toy("plain")
    adapting.train_on_batch(x, y)
    plain.train_on_batch({n: v[4:] for n, v in x.items()}, {n: v[4:] for n, v in y.items()})
    for a, b in zip(weights_of(adapting), weights_of(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_one_step_of_reptile_is_plain_training():
    reptile, x, y = toy(Reptile(inner_steps=1, inner_rate=0.7))
    plain, _, _ = toy("plain")
    for model in (reptile, plain):
        model.train_on_batch(x, y)
    for a, b in zip(weights_of(reptile), weights_of(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_towers_alone_adapt():
    """With the towers frozen in the inner steps nothing is left that adapts, and with only them the bottom stays."""
    of_towers, x, y = toy(MAML(support=2, query=4, adapts="towers", inner_rate=0.5, second_order=False))
    none, _, _ = toy(MAML(support=2, query=4, inner_rate=0))
    every, _, _ = toy(MAML(support=2, query=4, inner_rate=0.5, second_order=False))
    for model in (of_towers, none, every):
        model.train_on_batch(x, y)
    assert not np.allclose(weights_of(of_towers)[-1], weights_of(none)[-1])
    assert not np.allclose(weights_of(of_towers)[-1], weights_of(every)[-1])


def test_logs_are_measured_on_query_rows_with_adapted_weights():
    model, x, y = toy(MAML(support=2, query=4, inner_rate=0.0), learning_rate=0.0)
    plain, _, _ = toy("plain", learning_rate=0.0)
    query = [2, 3, 4, 5, 8, 9, 10, 11]
    logs = model.train_on_batch(x, y, return_dict=True)
    wanted = plain.train_on_batch(
        {n: v[query] for n, v in x.items()}, {n: v[query] for n, v in y.items()}, return_dict=True
    )
    for name in ("click_auc", "click_loss", "stars_loss"):
        assert float(logs[name]) == pytest.approx(float(wanted[name]), abs=1e-6), name


def test_statistics_and_penalties_count_once():
    keras.utils.set_random_seed(1)
    model = create_model(
        "shared_bottom",
        [Categorical("city", size=4, dim=2)],
        [BinaryTask("click")],
        bottom_units=MLP((4,), norm="batch"),
        embedding=Embedding(l2=50.0),
    )
    model.compile(keras.optimizers.SGD(0.1), step=MAML(support=2, query=4), run_eagerly=True)
    moving = [v for v in model.weights if "moving" in v.path]
    before = [ops.convert_to_numpy(v) for v in moving]
    x, y = {"city": np.arange(12, dtype="int32") % 4}, {"click": np.array([0, 1] * 6)}
    table = ops.convert_to_numpy(next(v for v in model.trainable_variables if tuple(v.shape) == (6, 2)))
    logs = model.train_on_batch(x, y, return_dict=True)
    penalty = 50 * (table[x["city"]] ** 2).sum() / 12
    assert float(logs["loss"]) - float(logs["click_loss"]) == pytest.approx(penalty, rel=1e-3) and penalty > 0.01
    assert moving and all(not np.allclose(a, ops.convert_to_numpy(v)) for a, v in zip(before, moving, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"support": 3}, "`support` and `query` must be given together. Received: support=3, query=None"),
        ({"support": 0, "query": 3}, "`support` must"),
        ({"inner_rate": -1.0}, "`inner_rate` must"),
        ({"inner_steps": 0}, "`inner_steps` must"),
        ({"adapts": "tables"}, "`adapts` must be"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MAML(**arguments)


def test_a_batch_of_other_rows_is_refused():
    model, x, y = toy(MAML(support=3, query=4))
    with pytest.raises(Exception, match="A batch must hold whole episodes of support . query rows"):
        model.train_on_batch(x, y)


def test_a_balancing_method_and_half_precision_are_refused():
    with pytest.raises(ValueError, match="`balancing` must be None with step='maml'"):
        toy("maml", balancing="uncertainty")
    with pytest.raises(ValueError, match="`inner_rate` must be above 0"):
        Reptile(inner_rate=0)


@pytest.mark.parametrize("step", [MAML(2, 2), Reptile(2, 2)])
def test_an_anchor_holds_weights_of_steps_that_adapt(step):
    from mtl_zoo.continual import L2ToPrevious

    def after(rows, anchor=None):
        model, x, y = toy(step, learning_rate=0.5)
        before = weights_of(model)
        x, y = ({name: array[:rows] for name, array in part.items()} for part in (x, y))
        model.fit(x, y, batch_size=4, shuffle=False, anchor=anchor, verbose=0)
        return before, weights_of(model), places(model)["kernel"]

    start, first, kernel = after(4)
    free, held = (after(8, anchor)[1][kernel] for anchor in (None, L2ToPrevious(0.3)))
    np.testing.assert_allclose(held, free - 0.5 * 0.3 * (first[kernel] - start[kernel]), atol=1e-5)
