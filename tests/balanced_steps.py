"""Small models and methods that change nothing, for the tests of the balanced step."""

import keras
import numpy as np
from keras import ops
from toys import inputs, labels_for, loss_gradients

from mtl_zoo import BinaryTask, Categorical, Numeric, Sequence, create_model
from mtl_zoo.balancing import GradientBalancing, GramBalancing, RepresentationBalancing

TWO_TASKS = (BinaryTask("click"), BinaryTask("like"))


def small(name="shared_bottom", tasks=TWO_TASKS, **hyperparameters):
    """A model whose step is quickly traced. Its one table is read for a single value and for a history."""
    features = [
        Categorical("click", size=6, dim=4),
        Sequence("history", size=6, dim=4, key="click", length=5),
        Numeric("age"),
    ]
    if name == "shared_bottom":
        hyperparameters.setdefault("bottom_units", (6,))
    return create_model(name, features, tasks, **{"tower_units": (4,), **hyperparameters})


@keras.saving.register_keras_serializable(package="test")
class Ones(GramBalancing):
    """Coefficients of 1: the step must be Keras' own."""

    method_name = "ones"

    def coefficients(self, gram, losses, active):
        return ops.ones_like(losses)


@keras.saving.register_keras_serializable(package="test")
class OnesOfBorder(Ones):
    taken_of = "representation"


@keras.saving.register_keras_serializable(package="test")
class OnesOfLayer(Ones):
    taken_of = "layer"
    weighs_private = True


@keras.saving.register_keras_serializable(package="test")
class Sum(GradientBalancing):
    method_name = "sum"

    def direction(self, gradients, losses, active, sizes):
        assert sum(sizes) == gradients.shape[1]
        return ops.sum(gradients, axis=0), ops.ones_like(losses)


@keras.saving.register_keras_serializable(package="test")
class Mixed(RepresentationBalancing):
    method_name = "mixed"

    def mix(self, gradients, values, losses, active):
        assert gradients.shape[2] == values.shape[1]
        return ops.sum(gradients, axis=0)


LIKE_PLAIN = {
    "coefficients": Ones,
    "with tables": lambda: Ones(include_tables=True),
    "every other step": lambda: Ones(update_every=2),
    "with tables, every other step": lambda: Ones(include_tables=True, update_every=2),
    "layer": OnesOfLayer,
    "border": OnesOfBorder,
    "border, every other step": lambda: OnesOfBorder(update_every=2),
    "direction": Sum,
    "mixture": Mixed,
}


# One of each place that gradients are taken of.
PLACES = ("with tables, every other step", "border", "direction", "mixture")


def compiled(model, balancing, optimizer=None, eager=True, **options):
    optimizer = keras.optimizers.SGD(1.0) if optimizer is None else optimizer
    model.compile(optimizer, balancing=balancing, metrics=None, run_eagerly=eager, **options)
    return model


def values(variables):
    return {v.path: ops.convert_to_numpy(v) for v in variables}


def trained(make, balancing, optimizer=None, eager=True, steps=2, y=None, **options):
    """The weights, by path, after some steps from the same start."""
    keras.utils.set_random_seed(5)
    model = compiled(make(), balancing, optimizer() if optimizer else None, eager, **options)
    for step in range(steps):
        targets = labels_for(model, 24) if y is None else y
        model.train_on_batch(inputs_for(model, 24, seed=step), targets)
    method = model.balancing
    own = set() if method is None else {id(v) for v in method.weights}
    return {v.path: ops.convert_to_numpy(v) for v in model.weights if id(v) not in own}, model


def assert_same(a, b, atol=2e-6):
    assert list(a) == list(b)
    for path, value in a.items():
        np.testing.assert_allclose(b[path], value, atol=atol, rtol=1e-5, err_msg=path)


def inputs_for(model, rows=64, seed=0):
    return {name: inputs(rows, seed)[name] for name in model.input}


def step_of(model, y=None):
    """What one step of SGD(1.0) takes from each weight, by path."""
    before = values(model.trainable_variables)
    model.train_on_batch(inputs_for(model), labels_for(model) if y is None else y)
    return {path: before[path] - value for path, value in values(model.trainable_variables).items()}


def by_task(model):
    """{loss: {path: gradient}}, a tape each; and the paths of shared weights that are no tables."""
    found = {loss: loss_gradients(model, loss) for loss in model.loss_names}
    touched = {p: [loss for loss in found if np.any(found[loss][p])] for p in next(iter(found.values()))}
    dense = [p for p, losses in touched.items() if len(losses) > 1 and "/table_" not in p]
    return found, touched, dense


def gram_of(found, paths):
    rows = np.stack([np.concatenate([found[loss][p].ravel() for p in paths]) for loss in found])
    return (rows @ rows.T).astype("float32")
