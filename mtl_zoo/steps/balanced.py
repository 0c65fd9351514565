from __future__ import annotations

from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo.balancing import Balancing
from mtl_zoo.balancing.engine.forward import forward_pass
from mtl_zoo.balancing.engine.sources import add
from mtl_zoo.balancing.engine.task_gradients import TaskGradients
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import Outcome, Step, register_step


@register_step("balanced")
class BalancedStep(Step):
    """One forward pass, the gradient of each task's loss from it, and what the balancing method makes of them.

        g_k = d loss_k / d weights;   g = method(g_1, .., g_T) + d penalties / d weights
        weights <- optimizer(weights, g)

    Which weights are shared is read from the tape: those that more than one loss depends on. The loss of the logs is
    the sum of the losses times their weights, and of all penalties, whatever the method makes of them. TensorFlow only.

    Example:

    >>> import mtl_zoo
    >>> model = mtl_zoo.SharedBottom([mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")], bottom_units=(4,))
    >>> model.compile("sgd", balancing="pcgrad")
    >>> model.training_step.step_name
    'balanced'
    """

    def check(self, model: Any, balancing: Balancing | None) -> None:
        if balancing is None:
            raise ValueError("`balancing` must be given with step='balanced'. Received: balancing=None")
        if not _backend.is_tensorflow():
            raise ValueError(
                f"`balancing` must be a method of losses on the {keras.backend.backend()!r} backend: "
                f"{balancing.method_name!r} works on the tasks' gradients, which needs TensorFlow."
            )
        super().check(model, balancing)

    def run(self, model: Any, batch: Batch) -> Outcome:
        forward = forward_pass(model, batch)
        total = _backend.sum_over_replicas(forward.loss)
        gradients = model.balancing.gradients(TaskGradients(model, forward))
        if not isinstance(forward.rest, int):  # there are penalties
            rest = forward.sources.gradients(forward.tape, forward.scaled_rest)
            gradients = [add(*both) for both in zip(gradients, rest, strict=True)]
        model.optimizer.apply(model.anchored(forward.sources.of_variables(gradients)), model.trainable_variables)
        return Outcome(forward.loss, forward.logits, forward.rows, total)
