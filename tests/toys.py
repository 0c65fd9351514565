"""Small features, tasks and data that tests of layers and models share, and gradients on any backend."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, Encoded, MulticlassTask, Numeric, RegressionTask, Sequence
from mtl_zoo._reads import RowGradient
from mtl_zoo.losses import Batch, TaskLoss

CLICK = BinaryTask("click")
CONVERSION = BinaryTask("conversion", sample_space="click")
CART = BinaryTask("cart", sample_space="click")
TASKS = (CLICK, CONVERSION, BinaryTask("like"))
FIVE_TASKS = (
    *TASKS,
    RegressionTask("watch_time"),
    MulticlassTask("effect", classes=("none", "mild", "severe")),
)

SMALL = {
    "num_experts": 3,
    "num_task_experts": 2,
    "num_shared_experts": 1,
    "expert_units": (8, 6),
    "bottom_units": (8, 6),
    "column_units": (8, 8),
    "stage_units": (5,),
    "tower_units": (5,),
}


# One model of each way to share: what they prove about a path that all models take need not be proved thirty times.
FAMILIES = ("shared_bottom", "cross_stitch", "mmoe", "ple", "esmm", "star", "mose")
# Of these, a plain one, one of experts and one with a head of its own.
FEW = ("shared_bottom", "mmoe", "esmm")


def sample_of(names, always=None):
    """All of the names as parameters of a test. Those of `always` run always, the others when slow tests do.

    By default the few models run always, and the other families when extended tests do.
    """
    wanted = FAMILIES if always is None else always
    unknown = set(wanted) - set(names)
    assert not unknown, f"the sample names what is not there: {sorted(unknown)}"
    extended = set(FAMILIES) - set(FEW) if always is None else set()
    marks = {name: pytest.mark.extended if name in extended else () for name in wanted}
    return [pytest.param(name, marks=marks.get(name, pytest.mark.slow)) for name in names]


def small_arguments(model):
    """Few experts and narrow layers, as far as a model has such arguments, so that its steps take no time."""
    names = inspect.signature(mtl_zoo.model_info(model).cls).parameters
    given = {argument: value for argument, value in SMALL.items() if argument in names}
    if "backbone" in names:
        inner = small_arguments(names["backbone"].default)
        given["backbone_options"] = {a: v for a, v in inner.items() if a != "tower_units"}
    return given


def features():
    """One of every kind; a feature and a task are both called `click`."""
    return [
        Categorical("user_id", size=30, dim=4),
        Categorical("click", size=6, dim=4),
        Categorical("tags", size=8, dim=3, multi_hot=True, length=3),
        Sequence("history", size=6, dim=4, key="click", length=5),
        Numeric("age"),
        Numeric("price", normalization="quantile", buckets=4, dim=3),
        Encoded("title", keras.layers.Dense(2, name="title_encoder"), shape=(3,)),
        Categorical("domain", size=3, dim=2),
    ]


def inputs(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "user_id": rng.integers(0, 32, rows).astype("int32"),
        "click": rng.integers(0, 8, rows).astype("int32"),
        "tags": rng.integers(0, 10, (rows, 3)).astype("int32"),
        "history": rng.integers(0, 8, (rows, 5)).astype("int32"),
        "age": rng.normal(size=rows).astype("float32"),
        "price": rng.integers(0, 6, rows).astype("int32"),
        "title": rng.normal(size=(rows, 3)).astype("float32"),
        "domain": rng.integers(2, 5, rows).astype("int32"),
    }


def labels(rows=64, seed=1):
    """Labels that the inputs do not explain, with unobserved ones; conversions happen on clicked rows only."""
    rng = np.random.default_rng(seed)
    click = (rng.random(rows) < 0.5).astype("float32")
    like = (rng.random(rows) < 0.4).astype("float32")
    like[rng.random(rows) < 0.3] = np.nan
    return {
        "click": click,
        "conversion": click * (rng.random(rows) < 0.5).astype("float32"),
        "watch_time": rng.normal(size=rows).astype("float32"),
        "effect": rng.integers(0, 3, rows).astype("float32"),
        "like": like,
        "cart": click * (rng.random(rows) < 0.6).astype("float32"),
    }


def tasks_of(name, tasks=TASKS):
    """`tasks`, and a middle action between click and conversion for a model that needs one."""
    if "middle_action" in mtl_zoo.model_info(name).requires and CART not in tasks:
        return (*tasks[:1], CART, *tasks[1:])
    return tuple(tasks)


def build(name, tasks=TASKS, **hyperparameters):
    """A small model of the catalogue."""
    small = small_arguments(name)
    if "backbone" in hyperparameters:
        small.pop("backbone_options", None)
    return mtl_zoo.create_model(name, features(), tasks_of(name, tasks), **{**small, **hyperparameters})


def compile_eagerly(model, optimizer="sgd", **arguments):
    """Compiles for a handful of small batches, for which tracing a graph would take most of the time.

    On JAX it compiles as usual: there each operation of an eager step is compiled by itself.
    """
    model.compile(optimizer, run_eagerly=keras.backend.backend() == "tensorflow", **arguments)
    return model


def labels_for(model, rows=64):
    every = labels(rows)
    return {name: every[name] for name in mtl_zoo.tasks.label_names(model.tasks)}


def row_gradient(values, ids, shape):
    """The gradient of rows of a table, as this backend has it."""
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return RowGradient(jnp.asarray(values, "float32"), jnp.asarray(ids, "int32"), tuple(shape))
    import tensorflow as tf

    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(ids, tf.int32), tf.constant(shape))


def gradients(model, scalar):
    """d scalar(model) / d weight for each trainable variable, by its path; zeros where it does not matter."""
    return gradients_of_each(model, lambda m: {"": scalar(m)})[""]


def gradients_of_each(model, scalars):
    """`gradients` of each of the scalars that a function of the model gives, by name."""
    variables = model.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            values = scalars(model)
        zero = tf.UnconnectedGradients.ZERO
        weights = [v.value for v in variables]
        found = {
            name: [tf.convert_to_tensor(g) for g in tape.gradient(value, weights, unconnected_gradients=zero)]
            for name, value in values.items()
        }
    else:
        import jax

        def of_weights(weights):
            with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
                return scalars(model)

        @jax.jit  # one compilation, where each operation by itself would have one
        def of_each(weights):
            values, pull = jax.vjp(of_weights, weights)
            zeros = {name: 0.0 * value for name, value in values.items()}
            return {name: pull({**zeros, name: zeros[name] + 1})[0] for name in values}

        found = of_each([v.value for v in variables])
    return {
        name: {v.path: ops.convert_to_numpy(g) for v, g in zip(variables, grads, strict=True)}
        for name, grads in found.items()
    }


def assert_equal_scores(found, expected):
    """The same outputs, float32 and of the same shapes, with the same scores."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32 and found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)


def logits_of(model, x):
    """`model(x)`, compiled whole on JAX: operation by operation takes several times as long."""
    if keras.backend.backend() != "jax":
        return model(x)
    import jax

    return jax.jit(model)(x)


def outputs(model):
    """The logits of a model on the inputs that `inputs()` gives, as arrays."""
    return {name: ops.convert_to_numpy(z) for name, z in model(inputs()).items()}


def assert_same_function(a, b):
    for name, z in outputs(a).items():
        np.testing.assert_allclose(outputs(b)[name], z, atol=1e-6)


def loss_gradients(model, loss=None):
    """Gradients of one loss, or of the sum of all, on the inputs and labels of this module."""
    compile_eagerly(model)

    def scalar(m):
        losses = m.task_losses(labels(), m(inputs()))
        return sum(losses.values()) if loss is None else losses[loss]

    return gradients(model, scalar)


def weight(model, path):
    return next(v for v in model.weights if v.path == path)


def set_layer(model, name, *values):
    for variable, value in zip(model.get_layer(name).weights, values, strict=True):
        variable.assign(value)


def copy_heads_and_embedding(source, target, embedding="embedding"):
    for variable in target.weights:
        root = variable.path.split("/")[0]
        if root.endswith(("_tower", "_head")) or root == embedding:
            variable.assign(weight(source, variable.path))


def copy_bank_to_stack(bank, stack, expert=0):
    for i, dense in enumerate(stack.dense):
        dense.kernel.assign(bank.kernels[i][expert])
        dense.bias.assign(bank.biases[i][expert])


def copy_layers(source, target, pairs):
    """Weights by layer, `pairs` being (layer of the source, layer of the target)."""
    for a, b in pairs:
        set_layer(target, b, *[ops.convert_to_numpy(v) for v in source.get_layer(a).weights])


def tensor_value(model, tensor):
    """A tensor of a model's graph, as an array, on the inputs that `inputs()` gives."""
    return ops.convert_to_numpy(keras.Model(model.input, tensor)(inputs()))


def numpy_experts(bank, x):
    """An `ExpertBank` in plain NumPy: x (batch, width), or (batch, experts, width), to (batch, experts, units)."""
    outputs = []
    for e in range(bank.num_experts):
        y = x if x.ndim == 2 else x[:, e]
        for kernel, bias in zip(bank.kernels, bank.biases, strict=True):
            y = np.maximum(y @ ops.convert_to_numpy(kernel)[e] + ops.convert_to_numpy(bias)[e], 0)
        outputs.append(y)
    return np.stack(outputs, axis=1)


def numpy_mix(gate, x, experts):
    """`softmax(x W)` over experts, (batch, experts, units), in plain NumPy."""
    z = x @ ops.convert_to_numpy(gate.kernel)
    weights = np.exp(z - z.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return sum(weights[:, i, None] * experts[:, i] for i in range(experts.shape[1]))


def head_losses(head, y, logits, weights=None, tasks=(CLICK, CONVERSION)):
    """A head's losses by name, as numbers, from labels and logits given as lists: no model is made."""
    functions = {
        name: TaskLoss(name, output.task, output.task.loss_name) for name, output in head.losses(tasks).items()
    }
    y = {name: np.asarray(values, "float32") for name, values in y.items()}
    logits = {name: ops.convert_to_tensor(values, "float32")[:, None] for name, values in logits.items()}
    rows = head.row_losses(tasks, Batch({}, y, weights), logits, functions)
    return {name: float(loss) for name, loss in rows.means().items()}


def copy_shared_weights(source, target):
    """Every weight of `target` from the one of that path in `source`."""
    for variable in target.weights:
        variable.assign(weight(source, variable.path))


def set_logit(model, tower, value):
    """A tower's logit becomes a constant."""
    head = model.get_layer(f"{tower}_head")
    set_layer(model, head.name, np.zeros(head.kernel.shape), [value])


def moved(grads, *prefixes):
    """The paths under these prefixes whose gradient is not all zero; there must be some paths."""
    paths = [path for path in grads if path.startswith(prefixes)]
    assert paths, f"no weights under {prefixes}"
    return [path for path in paths if np.any(grads[path])]
