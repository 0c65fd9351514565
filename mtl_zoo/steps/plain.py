from __future__ import annotations

from typing import Any

from mtl_zoo import _backend
from mtl_zoo.balancing import Balancing
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps import _by_row
from mtl_zoo.steps._base import Outcome, Step, register_step


@register_step("plain")
class PlainStep(Step):
    """One forward and one backward pass of the model's loss, and an update by its optimizer.

        g = d loss / d weights;   weights <- optimizer(weights, g)

    The loss is the sum of the tasks' losses times their weights, or what a balancing method of losses makes of them,
    and of all penalties. On JAX `run_state` does the same with optimizers by
    row; with others, and elsewhere, it stands for Keras' own step.

    Example:

    >>> import mtl_zoo
    >>> model = mtl_zoo.SharedBottom([mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")], bottom_units=(4,))
    >>> model.compile("sgd")
    >>> model.training_step.step_name
    'plain'
    """

    def check(self, model: Any, balancing: Balancing | None) -> None:
        if _backend.is_tensorflow():
            super().check(model, balancing)

    def run(self, model: Any, batch: Batch) -> Outcome:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            logits = model(batch.inputs, training=True)
            outcome = model.outcome_of(batch, logits)
            scaled = model.optimizer.scale_loss(outcome.loss)
        variables = model.trainable_variables
        gradients = tape.gradient(scaled, [v.value for v in variables])
        model.optimizer.apply(model.anchored(gradients), variables)
        return outcome

    def run_state(self, model: Any, state: Any, data: Any) -> tuple[Any, Any]:
        """A step on JAX, which takes all variables' values and gives the next: tables by row, as on TensorFlow.

        Args:
            model: A compiled model.
            state: As Keras' `train_step` takes it there.
            data: A batch, as Keras has it.

        Returns:
            The logs, and the state after the step.
        """
        return _by_row.train_step(model, state, data)
