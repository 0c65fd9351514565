"""The training steps of methods that weigh the tasks' gradients, or see a batch twice. TensorFlow only.

One forward pass; the gradient of every task's loss from it; what the method makes of them for the shared weights. Which
weights are shared is read from the tape: those that more than one loss depends on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from mtl_zoo import _backend, _distribute
from mtl_zoo.balancing._sources import Sources, add
from mtl_zoo.balancing._weighing import Forward, weighing_of


def balanced_train_step(model: Any, data: Any) -> dict[str, Any]:
    """What `train_step` does for a model compiled with a gradient method.

    The `loss` of the logs is the sum of the losses times their weights, and of what belongs to no task, whatever the
    method makes of them.
    """
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    forward = forward_pass(model, x, y, weights)
    _distribute.track_loss(model, sum(forward.losses) + forward.rest, x)
    found = weighing_of(model, forward).gradients()
    if not isinstance(forward.rest, int):
        rest = forward.sources.gradients(forward.tape, forward.scaled_rest)
        found = [add(*both) for both in zip(found, rest, strict=True)]
    variables = model.trainable_variables
    model.optimizer.apply(forward.sources.of_variables(found), variables)
    return model.compute_metrics(x, y, forward.logits, sample_weight=weights)


def forward_pass(model: Any, x: Any, y: Any, weights: Any) -> Forward:
    """One forward pass, over the two halves if the method looks at gradients of the representation."""
    import tensorflow as tf

    parts = model.balancing.halves if getattr(model.balancing, "taken_of", None) == "representation" else None
    scale = model.optimizer.scale_loss(tf.ones(()))
    with contextlib.ExitStack() as stack:
        tape = stack.enter_context(tf.GradientTape(persistent=True))
        reads = stack.enter_context(_backend.record_reads())
        upper, representation = None, ()
        if parts is None:
            logits = model(x, training=True)
        else:
            upper = stack.enter_context(tf.GradientTape(persistent=True))
            logits, representation = parts.record(model.select_inputs(x), upper)
        losses, rest = model.loss_parts(y, logits, weights)
        scaled = [loss * scale for loss in losses]
        scaled_rest = rest * scale
    sources = Sources.of(model.trainable_variables, reads)
    return Forward(tape, sources, logits, losses, scaled, scale, rest, scaled_rest, upper, representation)


def reevaluating_train_step(model: Any, step: Callable, data: Any) -> dict[str, Any]:
    """Keras' `step`, after which the model's loss-weighting method sees the losses of the same batch once more.

    The second forward pass is one of training, with the random numbers of the first and the batch's own statistics, so
    that only the update tells the losses apart. What it assigns, moving statistics and seeds, is dropped.
    """
    import tensorflow as tf

    saved = {id(variable) for variable in model.weights}
    seeds = [(v, tf.identity(v.value)) for v in model.variables if id(v) not in saved]
    logs = step(data)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    with keras.StatelessScope(state_mapping=seeds, collect_losses=True):
        losses = model.weighted_losses(y, model(x, training=True), weights)
    model.balancing.see_again(tf.stack(losses))
    return logs
