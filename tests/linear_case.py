"""A model of the zoo whose losses have any given values, and any given gradients at its one shared weight.

One row with the input 1 goes through a shared kernel of ones, so that the bottom's output is 1 everywhere and its
derivative too. A task's head is linear: with the residual `r = sqrt(L)` its loss is L, and with the head's kernel
`g / (2 r)` its gradient at the shared kernel is g. A step of SGD(1.0) takes the method's direction from that kernel.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from mtl_zoo import Numeric, RegressionTask, create_model


@functools.cache
def _model(names, width):
    tasks = [RegressionTask(name) for name in names]
    model = create_model("shared_bottom", [Numeric("x")], tasks, bottom_units=(width,), tower_units=())
    # The same gradient would flow into the bias: a second shared weight.
    model.get_layer("bottom").dense[0].bias.trainable = False
    return model


def take_step(method, gradients, losses, names=None, active=None):
    """One training step with a method: what it takes from the shared weight, and the coefficients it recorded."""
    gradients, residuals = np.asarray(gradients, "float64"), np.sqrt(np.asarray(losses, "float64"))
    names = names or tuple("abcdefgh"[: len(residuals)])
    active = np.ones(len(names)) if active is None else active
    model = _model(tuple(names), gradients.shape[1])
    model.compile(keras.optimizers.SGD(1.0), balancing=method, metrics=None, run_eagerly=True)
    kernel = model.get_layer("bottom").dense[0].kernel
    kernel.assign(np.ones(kernel.shape))
    labels = {}
    for name, gradient, residual, counts in zip(names, gradients, residuals, active, strict=True):
        weights = gradient / (2 * residual)
        model.get_layer(f"{name}_head").set_weights([weights[:, None], np.zeros(1)])
        labels[name] = np.array([weights.sum() - residual if counts else np.nan], "float32")
    model.train_on_batch({"x": np.ones(1, "float32")}, labels)
    coefficients = None if model.balancing is None else ops.convert_to_numpy(model.balancing.last_coefficients)
    return 1 - ops.convert_to_numpy(kernel)[0], coefficients
