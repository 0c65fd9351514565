from __future__ import annotations

from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo.balancing import Balancing
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import Outcome, register_step
from mtl_zoo.steps.plain import PlainStep


@register_step("reevaluated")
class ReevaluatedStep(PlainStep):
    """A plain step, after which the balancing method sees the losses of the same batch once more.

        weights <- optimizer(weights, g);   method.see_again(losses with the new weights)

    The second forward pass is one of training, with the random numbers of the first and the batch's own statistics, so
    that only the update tells the losses apart. What it assigns, moving statistics and seeds, is dropped. TensorFlow
    only, on one replica.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.balancing import FAMO
    >>> model = mtl_zoo.SharedBottom([mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")], bottom_units=(4,))
    >>> model.compile("sgd", balancing=FAMO(reevaluates=True))
    >>> model.training_step.step_name
    'reevaluated'
    """

    def check(self, model: Any, balancing: Balancing | None) -> None:
        name = None if balancing is None else balancing.method_name
        if balancing is None or not balancing.reevaluates:
            raise ValueError(
                f"`balancing` must evaluate a batch twice with step='reevaluated'. Received: balancing={name!r}"
            )
        if not _backend.is_tensorflow():
            raise ValueError(
                f"`balancing` must not evaluate a batch twice on the {keras.backend.backend()!r} backend. "
                f"Received: {name!r} with reevaluates=True"
            )
        if _backend.num_replicas() > 1:
            raise ValueError(
                "`balancing` must not evaluate a batch twice with several replicas, on which the second pass fails. "
                f"Received: {name!r} with reevaluates=True, {_backend.num_replicas()} replicas"
            )

    def run(self, model: Any, batch: Batch) -> Outcome:
        import tensorflow as tf

        saved = {id(variable) for variable in model.weights}
        seeds = [(v, tf.identity(v.value)) for v in model.variables if id(v) not in saved]
        outcome = super().run(model, batch)
        with keras.StatelessScope(state_mapping=seeds, collect_losses=True):
            losses = model.weigh_losses(model.row_losses(batch, model(batch.inputs, training=True)))
        model.balancing.see_again(tf.stack(losses))
        return outcome
