"""Methods that weigh the losses themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import ops

from mtl_zoo import _backend
from mtl_zoo.balancing._method import Balancing
from mtl_zoo.balancing.engine.sources import gradients

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients


class LossBalancing(Balancing):
    """A method that weighs the losses themselves: one forward, one backward pass, on any backend.

    A subclass gives `coefficients(losses, active)`. The step's objective is `sum_k c_k L_k` with the `c_k` held
    constant, for shared and private weights alike.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import LossBalancing
    >>> class InverseLoss(LossBalancing):
    ...     def coefficients(self, losses, active):
    ...         return 1.0 / losses
    >>> method = InverseLoss()
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> np.asarray(method.weigh(np.array([0.5, 2.0], "float32"), np.ones(2, "float32"))).tolist()
    [2.0, 0.5]
    """

    def coefficients(self, losses: Any, active: Any) -> Any:
        """`c`, (losses,), from the losses, (losses,), and which are active, (losses,) of 0 and 1. May update state."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients(losses, active)`.")

    def after_step(self, losses: Any, active: Any) -> None:
        """Called with the losses of the same batch after the update, if `reevaluates`."""

    def objective(self, losses: Any) -> Any:
        """What a training step differentiates, from the losses, (losses,), of this replica's rows.

        A loss that is not finite is left out of the gradient but not of the value: it must be seen.
        """
        everywhere = _backend.sum_over_replicas(losses)
        coefficients = self.weigh(everywhere, ops.cast(everywhere != 0, "float32"))
        fine = ops.isfinite(everywhere)
        spoiled = ops.stop_gradient(ops.sum(ops.where(fine, 0.0, losses)))
        return ops.sum(coefficients * ops.where(fine, losses, 0.0)) + spoiled

    def weigh(self, losses: Any, active: Any) -> Any:
        """The coefficients of a training step, guarded and recorded."""
        losses, active = _finite(losses, active)
        given = ops.where(active > 0, self.coefficients(losses, active), 0.0)
        coefficients = ops.stop_gradient(ops.where(ops.all(ops.isfinite(given)), given, active))
        self.record(coefficients, active)
        return coefficients

    def see_again(self, losses: Any) -> None:
        """`after_step` with the losses, (losses,), of this replica's rows."""
        everywhere = _backend.sum_over_replicas(losses)
        self.after_step(*_finite(everywhere, ops.cast(everywhere != 0, "float32")))

    def gradients(self, tasks: TaskGradients) -> list:
        import tensorflow as tf

        coefficients = self.weigh(tasks.losses, tf.cast(tasks.losses != 0, tf.float32))
        forward = tasks.forward
        return gradients(forward.tape, forward.scaled, forward.sources.tensors, tf.unstack(coefficients))


def _finite(losses: Any, active: Any) -> tuple[Any, Any]:
    """The losses with 0 for what is not finite, which is inactive then."""
    fine = ops.isfinite(losses)
    return ops.where(fine, losses, 0.0), active * ops.cast(fine, "float32")
