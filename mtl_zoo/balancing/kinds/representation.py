"""Methods that mix what flows back from the shared representation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl_zoo import _backend
from mtl_zoo.balancing.engine.sources import add, gradients
from mtl_zoo.balancing.engine.task_gradients import flat_representation, shared_representation, width_of
from mtl_zoo.balancing.kinds.gradients import GradientMethod

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients


class RepresentationBalancing(GradientMethod):
    """A method that mixes the gradients of the shared representation: what lies between shared layers and private ones.

    A subclass gives `mix(gradients, values, losses, active)`; shared weights, tables among them, receive what flows
    down from the mixture in one backward pass.

    Example:

    >>> from mtl_zoo.balancing import GradDrop, RepresentationBalancing
    >>> isinstance(GradDrop(), RepresentationBalancing)
    True
    """

    taken_of = "representation"
    has_coefficients = False

    def mix(self, gradients: Any, values: Any, losses: Any, active: Any) -> Any:
        """One gradient of the representation from those of the tasks. May update state.

        Args:
            gradients: (losses, batch, features), of this replica's rows; 0 for inactive tasks.
            values: (batch, features), the representation itself.
            losses: (losses,); 0 for inactive tasks.
            active: (losses,) of 0 and 1.

        Returns:
            (batch, features).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `mix(gradients, values, losses, active)`.")

    def gradients(self, tasks: TaskGradients) -> list:
        import tensorflow as tf

        forward, scale = tasks.forward, tasks.forward.scale
        shared = shared_representation(forward)
        if not shared:
            return self.plain_sum(tasks)
        values, by_task = zip(*shared, strict=True)
        together = flat_representation(by_task) / scale
        rows = tf.reshape(together, [len(tasks.per_task), -1])
        gram = _backend.sum_over_replicas(tf.matmul(rows, rows, transpose_b=True))
        active, keep, spoil = tasks.guards(tf.linalg.diag_part(gram))
        together = tf.where(active[:, None, None] > 0, together, 0.0)
        flat = [tf.reshape(tf.cast(v, tf.float32), [tf.shape(v)[0], width_of(v)]) for v in values]
        mixed = self.mix(together, tf.concat(flat, 1), tf.where(active > 0, tasks.losses, 0.0), active)
        self.record_gram(tf.where(active[:, None] * active[None, :] > 0, gram, 0.0), active)
        self.record(active, active)
        parts = tf.split((mixed + spoil) * scale, [width_of(value) for value in values], axis=1)
        given = {id(v): tf.cast(tf.reshape(p, tf.shape(v)), v.dtype) for v, p in zip(values, parts, strict=True)}
        weights = tf.ones(len(tasks.per_task))
        # What one task alone depends on of the representation is not mixed.
        private = [gradients(forward.upper, loss, forward.representation) for loss in forward.scaled]
        for value, by_loss in zip(forward.representation, zip(*private, strict=True), strict=True):
            if id(value) not in given:
                given[id(value)] = tasks.sum_of(by_loss, weights, keep)
        targets = [value for value in forward.representation if given[id(value)] is not None]
        tensors = tasks.sources.tensors
        below = gradients(forward.tape, targets, tensors, [given[id(v)] for v in targets])
        above = zip(*(gradients(forward.upper, loss, tensors) for loss in forward.scaled), strict=True)
        return [add(lower, tasks.sum_of(upper, weights, keep)) for lower, upper in zip(below, above, strict=True)]
