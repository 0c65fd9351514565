"""From the tapes of a forward pass to one gradient for each weight. TensorFlow only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo.balancing._forward import Forward
from mtl_zoo.balancing._sources import add, gradients


class TaskGradients:
    """The gradients of every task's loss on one batch, and the ways to put them together.

    A weight that one loss alone depends on receives that loss's gradient.

    Args:
        model: A model that is compiled with a balancing method.
        forward: A forward pass of it.

    Attributes:
        per_task: For each task the gradients of its loss, by source; None where it does not depend on one.
        by_source: For each source the gradients of all losses.
        shared: The indices of the sources that more than one loss depends on; `shared_dense` those that are no tables.
        losses: The losses of the global batch, (losses,).
    """

    def __init__(self, model: Any, forward: Forward):
        import tensorflow as tf

        self.model, self.method, self.forward, self.sources = model, model.balancing, forward, forward.sources
        # In a graph only what is used of these is computed.
        self.per_task = [self.sources.gradients(forward.tape, loss) for loss in forward.scaled]
        self.by_source = list(zip(*self.per_task, strict=True))
        self.shared = [i for i, found in enumerate(self.by_source) if sum(g is not None for g in found) > 1]
        self.shared_dense = [i for i in self.shared if not self.sources.is_read(i)]
        self.losses = _backend.sum_over_replicas(tf.stack([tf.cast(loss, tf.float32) for loss in forward.losses]))
        # An optimizer that scales the loss looks for overflow itself, and must see it.
        self.leaves_overflow = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)

    def guards(self, squares: Any) -> tuple[Any, Any, Any]:
        """Of each task: whether it counts, 0 or 1; whether its gradient can be used; and what to add to the result.

        The last is 0, or NaN where a gradient overflowed and the optimizer must take no step.

        Args:
            squares: (losses,) squared norms of the gradients.
        """
        import tensorflow as tf

        finite = tf.math.is_finite(self.losses)
        fine = finite & tf.math.is_finite(squares)
        active = tf.cast(fine & (squares > 0), tf.float32)
        if not self.leaves_overflow:
            return active, fine, tf.zeros(())
        overflow = tf.reduce_any(finite & ~fine)
        return active, finite, tf.where(overflow, float("nan"), 0.0)

    def rows(self, per_task: Sequence[Sequence[Any]], indices: Sequence[int]) -> Any:
        """(losses, parameters): each task's gradients of these sources, side by side, without the loss scale."""
        import tensorflow as tf

        if not indices:
            return tf.zeros([len(per_task), 0])
        sizes = self.sources.sizes(indices)
        parts = [
            tf.zeros([size]) if found[i] is None else tf.reshape(tf.cast(found[i], tf.float32), [-1])
            for found in per_task
            for i, size in zip(indices, sizes, strict=True)
        ]
        return tf.reshape(tf.concat(parts, 0), [len(per_task), -1]) / self.forward.scale

    def sum_of(self, found: Sequence[Any], weights: Any, keep: Any) -> Any:
        """`sum_k w_k g_k` over the tasks that can be used."""
        import tensorflow as tf

        parts = [
            None if g is None else tf.where(ok, tf.cast(w, g.dtype) * g, tf.zeros_like(g))
            for g, w, ok in zip(found, tf.unstack(weights), tf.unstack(keep), strict=True)
        ]
        return add(*parts)

    def combined(self, indices: Sequence[int], weights: Any, keep: Any) -> dict[int, Any]:
        """`sum_k w_k g_k` of each of these sources, by one backward pass.

        A loss whose gradient is not finite spoils that pass even at weight 0: then the tasks go one by one.
        """
        import tensorflow as tf

        if not indices:
            return {}
        tensors = [self.sources.tensors[i] for i in indices]
        together = gradients(self.forward.tape, list(self.forward.scaled), tensors, tf.unstack(weights))
        fine = tf.reduce_all(keep)
        if not self.leaves_overflow:
            fine &= _all_finite(together)
        found = only_if(~fine, lambda: self._one_by_one(tensors, weights, keep), lambda: together)
        return dict(zip(indices, found, strict=True))

    def _one_by_one(self, tensors: Sequence[Any], weights: Any, keep: Any) -> list:
        import tensorflow as tf

        by_task = [gradients(self.forward.tape, loss, tensors) for loss in self.forward.scaled]
        if not self.leaves_overflow:
            found = [[g for g in task if g is not None] for task in by_task]
            keep = keep & tf.stack([_all_finite(task) if task else tf.constant(True) for task in found])
        return [self.sum_of(found, weights, keep) for found in zip(*by_task, strict=True)]

    def assemble(self, shared: dict[int, Any], keep: Any, private_weights: Any = None) -> list:
        """The gradients of all sources: those given of shared ones, a task's own of private ones."""
        import tensorflow as tf

        weights = tf.ones(len(self.per_task)) if private_weights is None else private_weights
        found = [shared.get(i) for i in range(len(self.by_source))]
        for i, given in enumerate(self.by_source):
            if i not in shared:
                found[i] = own = self.sum_of(given, weights, keep)
                if own is not None and not self.leaves_overflow:
                    found[i] = tf.where(_all_finite([own]), own, tf.zeros_like(own))
        return found

    def spread(self, direction: Any) -> dict[int, Any]:
        """A direction, (parameters,), as gradients of the shared dense weights, with the loss scale."""
        import tensorflow as tf

        found = {}
        parts = tf.split(direction * self.forward.scale, self.sources.sizes(self.shared_dense))
        for i, part in zip(self.shared_dense, parts, strict=True):
            tensor = self.sources.tensors[i]
            found[i] = tf.cast(tf.reshape(part, tensor.shape), tensor.dtype)
        return found


def shared_representation(forward: Forward) -> list[tuple[Any, list]]:
    """Tensors of the representation that more than one loss depends on from there, each with its gradients by task."""
    import tensorflow as tf

    by_task = [gradients(forward.upper, loss, forward.representation) for loss in forward.scaled]
    return [
        (value, [tf.zeros_like(value) if g is None else g for g in found])
        for value, found in zip(forward.representation, zip(*by_task, strict=True), strict=True)
        if sum(g is not None for g in found) > 1
    ]


def flat_representation(by_task: Sequence[Sequence[Any]]) -> Any:
    """(losses, batch, features) of the gradients of several values, each a list by task."""
    import tensorflow as tf

    flat = []
    for found in by_task:
        together = tf.cast(tf.stack(found), tf.float32)
        flat.append(tf.reshape(together, [len(found), tf.shape(together)[1], width_of(found[0])]))
    return tf.concat(flat, 2)


def width_of(value: Any) -> int:
    """The numbers in each row of a tensor of the representation."""
    return int(value.shape[1:].num_elements())


def only_if(needed: Any, compute: Callable, otherwise: Callable) -> Any:
    """`compute()` where needed, `otherwise()` elsewhere. With several replicas the former always.

    What crosses replicas, as gradients of a synchronised normalisation do, cannot stand in a branch.
    """
    import tensorflow as tf

    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return compute() if several else tf.cond(needed, compute, otherwise)


def _all_finite(values: Sequence[Any]) -> Any:
    import tensorflow as tf

    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(value)) for value in values]))
