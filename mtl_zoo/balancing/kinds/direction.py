"""Methods that make a direction of the tasks' gradients themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from mtl_zoo import _backend
from mtl_zoo.balancing.engine.shared import shared_sizes
from mtl_zoo.balancing.kinds.gradients import GradientMethod

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients


class GradientBalancing(GradientMethod):
    """A method that needs the gradients of shared weights themselves, tables aside.

    A subclass gives `direction(gradients, losses, active, sizes)`. Tables receive `sum_k c_k g_k`.

    Example:

    >>> from mtl_zoo.balancing import GradientBalancing, MoCo
    >>> isinstance(MoCo(), GradientBalancing)
    True
    """

    # Whether the method has state by parameter: then `sizes` must be known when it is made.
    keeps_gradients: ClassVar[bool] = False

    def __init__(self, name: str | None = None):
        super().__init__(name)
        # How many parameters each shared weight has, tables aside; set before `prepare` if the method keeps gradients.
        self.sizes: tuple[int, ...] = ()

    def prepare_for(self, model: Any, labels: Sequence[str], kinds: Sequence[str]) -> None:
        if self.keeps_gradients:
            self.sizes = shared_sizes(model, labels)
        super().prepare_for(model, labels, kinds)

    def direction(self, gradients: Any, losses: Any, active: Any, sizes: tuple[int, ...]) -> tuple[Any, Any]:
        """What the shared weights receive, and the coefficients that tables receive. May update state.

        Args:
            gradients: (losses, parameters), of the global batch; rows of inactive tasks are 0.
            losses: (losses,); 0 for inactive tasks.
            active: (losses,) of 0 and 1.
            sizes: How many of the parameters belong to each variable, in order.

        Returns:
            (parameters,) and (losses,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `direction(gradients, losses, active, sizes)`.")

    def combine(self, gradients: Any, losses: Any, active: Any, sizes: tuple[int, ...]) -> tuple[Any, Any]:
        """The direction of a training step, guarded."""
        shared, coefficients = self.direction(gradients, losses, active, sizes)
        fine = ops.logical_and(ops.all(ops.isfinite(shared)), ops.all(ops.isfinite(coefficients)))
        shared = ops.where(fine, shared, ops.matmul(active[None, :], gradients)[0])
        return shared, ops.where(fine, coefficients * active, active)

    def gradients(self, tasks: TaskGradients) -> list:
        import tensorflow as tf

        sizes = tasks.sources.sizes(tasks.shared_dense)
        if not sizes:
            return self.plain_sum(tasks)
        if self.sizes and self.sizes != sizes:
            raise ValueError(
                "`compile()` must be called again after weights were frozen or freed: the method keeps averages of "
                f"the gradients. Received: shared weights of sizes {sizes}, compiled with {self.sizes}"
            )
        whole = _backend.sum_over_replicas(tasks.rows(tasks.per_task, tasks.shared_dense))
        gram = tf.matmul(whole, whole, transpose_b=True)
        active, keep, spoil = tasks.guards(tf.linalg.diag_part(gram))
        whole = tf.where(active[:, None] > 0, whole, 0.0)
        losses = tf.where(active > 0, tasks.losses, 0.0)
        direction, coefficients = self.combine(whole, losses, active, sizes)
        self.record_gram(tf.where(active[:, None] * active[None, :] > 0, gram, 0.0), active)
        self.record(coefficients, active)
        # The optimizer sums over replicas what is the same on all of them.
        shared = tasks.spread(direction / tf.distribute.get_strategy().num_replicas_in_sync + spoil)
        shared |= tasks.combined([i for i in tasks.shared if i not in shared], coefficients + spoil, keep)
        return tasks.assemble(shared, keep)
