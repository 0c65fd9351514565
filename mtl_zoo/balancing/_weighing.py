"""From the tapes of a forward pass to one gradient for each weight. TensorFlow only."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo.balancing._base import GradientBalancing, RepresentationBalancing
from mtl_zoo.balancing._sources import Sources, add, gradients

_NOTHING = {
    "weight": "weights, tables aside",
    "layer": "weights, tables aside",
    "representation": "representation",
}


@dataclasses.dataclass(frozen=True)
class Forward:
    """A forward pass: its tape, what its losses are, and what their gradients are taken of."""

    tape: Any
    sources: Sources
    logits: Any
    losses: Sequence[Any]
    # The losses times the scale of mixed float16, and that scale.
    scaled: Sequence[Any]
    scale: Any
    # What belongs to no task, the number 0 if there is nothing.
    rest: Any
    scaled_rest: Any
    # Of methods that look at the shared representation: the tape of what lies above it, and its tensors.
    upper: Any = None
    representation: Sequence[Any] = ()


def weighing_of(model: Any, forward: Forward) -> Weighing:
    """The weighing that the model's method asks for."""
    if isinstance(model.balancing, RepresentationBalancing):
        return MixedRepresentation(model, forward)
    return Direction(model, forward) if isinstance(model.balancing, GradientBalancing) else Coefficients(model, forward)


class Weighing:
    """One step: from the gradients of each task to those of all sources, by place; None where no loss depends on one.

    A weight that one loss alone depends on receives that loss's gradient. `shared` holds what several depend on.
    """

    def __init__(self, model: Any, forward: Forward):
        import tensorflow as tf

        self.model, self.method, self.forward, self.sources = model, model.balancing, forward, forward.sources
        # In a graph only what is used of these is computed.
        self.per_task = [self.sources.gradients(forward.tape, loss) for loss in forward.scaled]
        self.by_place = list(zip(*self.per_task, strict=True))
        self.shared = [i for i, found in enumerate(self.by_place) if sum(g is not None for g in found) > 1]
        self.shared_dense = [i for i in self.shared if not self.sources.is_read(i)]
        self.losses = _backend.sum_over_replicas(tf.stack([tf.cast(loss, tf.float32) for loss in forward.losses]))
        # An optimizer that scales the loss looks for overflow itself, and must see it.
        self.leaves_overflow = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)

    def gradients(self) -> list:
        raise NotImplementedError

    # Guards.

    def guards(self, squares):
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

    def nothing_shared(self, what: str) -> list:
        """Every weight's own gradient: there is nothing to weigh."""
        import tensorflow as tf

        if len(self.per_task) > 1:
            warnings.warn(
                f"`balancing={self.method.method_name!r}` has nothing to weigh: the losses of {self.model.name!r} "
                f"share no {what}. They are summed.",
                stacklevel=2,
            )
        active, keep, _ = self.guards(tf.square(self.losses))
        self.method.record(active, active)
        everywhere = {i: self.sum_of(self.by_place[i], active, keep) for i in self.shared}
        return self.assemble(everywhere, keep)

    # Gradients.

    def rows(self, per_task: Sequence[Sequence[Any]], places: Sequence[int]):
        """(losses, parameters): each task's gradients at these places, side by side, without the loss scale."""
        import tensorflow as tf

        if not places:
            return tf.zeros([len(per_task), 0])
        sizes = self.sources.sizes(places)
        parts = [
            tf.zeros([size]) if found[i] is None else tf.reshape(tf.cast(found[i], tf.float32), [-1])
            for found in per_task
            for i, size in zip(places, sizes, strict=True)
        ]
        return tf.reshape(tf.concat(parts, 0), [len(per_task), -1]) / self.forward.scale

    def sum_of(self, found: Sequence[Any], weights, keep):
        """`sum_k w_k g_k` over the tasks that can be used."""
        import tensorflow as tf

        parts = [
            None if g is None else tf.where(ok, tf.cast(w, g.dtype) * g, tf.zeros_like(g))
            for g, w, ok in zip(found, tf.unstack(weights), tf.unstack(keep), strict=True)
        ]
        return add(*parts)

    def combined(self, places: Sequence[int], weights, keep) -> dict[int, Any]:
        """`sum_k w_k g_k` at each of these places, by one backward pass.

        A loss whose gradient is not finite spoils that pass even at weight 0: then the tasks go one by one.
        """
        import tensorflow as tf

        if not places:
            return {}
        tensors = [self.sources.tensors[i] for i in places]
        together = gradients(self.forward.tape, list(self.forward.scaled), tensors, tf.unstack(weights))
        fine = tf.reduce_all(keep)
        if not self.leaves_overflow:
            fine &= _all_finite(together)
        found = _only_if(~fine, lambda: self._one_by_one(tensors, weights, keep), lambda: together)
        return dict(zip(places, found, strict=True))

    def _one_by_one(self, tensors, weights, keep):
        import tensorflow as tf

        by_task = [gradients(self.forward.tape, loss, tensors) for loss in self.forward.scaled]
        if not self.leaves_overflow:
            found = [[g for g in task if g is not None] for task in by_task]
            keep = keep & tf.stack([_all_finite(task) if task else tf.constant(True) for task in found])
        return [self.sum_of(found, weights, keep) for found in zip(*by_task, strict=True)]

    def assemble(self, shared: dict[int, Any], keep, private_weights=None) -> list:
        """The gradients of all places: those given of shared ones, a task's own of private ones."""
        import tensorflow as tf

        weights = tf.ones(len(self.per_task)) if private_weights is None else private_weights
        found = [shared.get(i) for i in range(len(self.by_place))]
        for i, given in enumerate(self.by_place):
            if i not in shared:
                found[i] = own = self.sum_of(given, weights, keep)
                if own is not None and not self.leaves_overflow:
                    found[i] = tf.where(_all_finite([own]), own, tf.zeros_like(own))
        return found

    def spread(self, direction) -> dict[int, Any]:
        """A direction, (parameters,), as gradients of the shared dense weights, with the loss scale."""
        import tensorflow as tf

        found = {}
        parts = tf.split(direction * self.forward.scale, self.sources.sizes(self.shared_dense))
        for i, part in zip(self.shared_dense, parts, strict=True):
            tensor = self.sources.tensors[i]
            found[i] = tf.cast(tf.reshape(part, tensor.shape), tensor.dtype)
        return found


class Coefficients(Weighing):
    """For a `GramBalancing`: a coefficient for each task from the products of their gradients."""

    def gradients(self):
        method = self.method
        places = self._places()
        over_tables = method.include_tables and any(self.sources.is_read(i) for i in self.shared)
        if not places and not over_tables and not self._at_border():
            return self.nothing_shared(_NOTHING[method.taken_of])
        if method.update_every == 1:
            # The gradients that the products are made of are at hand, and need no other pass.
            rows, gram = self._rows_and_gram(self.per_task)
            coefficients, keep = self._weigh(gram)
            at_hand = method.taken_of == "weight"
        else:
            coefficients, keep = self._weigh_now_and_then()
            at_hand = False
        shared = {}
        if at_hand and places:
            import tensorflow as tf

            rows = tf.where(keep[:, None], rows, 0.0)
            shared = self.spread(tf.matmul(coefficients[None, :], rows)[0])
        if at_hand and over_tables:
            # Elsewhere one more pass is cheaper: of a pass by task, the product that leads to the rows is left out.
            shared |= {i: self.sum_of(self.by_place[i], coefficients, keep) for i in self.shared if i not in shared}
        shared |= self.combined([i for i in self.shared if i not in shared], coefficients, keep)
        return self.assemble(shared, keep, coefficients if method.weighs_private else None)

    def _at_border(self):
        """Values at the border that several losses depend on, and their gradients by task."""
        return [] if self.forward.upper is None else shared_border(self.forward)

    def _places(self):
        """The weights whose gradients are multiplied."""
        if self.method.taken_of == "weight":
            return self.shared_dense
        return last_shared(self.model, self) if self.method.taken_of == "layer" else []

    def _rows_and_gram(self, per_task):
        """Each task's gradients of this replica's rows, and their products over the global batch."""
        import tensorflow as tf

        if self.method.taken_of == "representation":
            _, by_task = zip(*self._at_border(), strict=True)
            rows = tf.reshape(flat_border(by_task), [len(self.per_task), -1]) / self.forward.scale
            # Replicas have different rows of the batch: their products add up.
            return rows, _backend.sum_over_replicas(tf.matmul(rows, rows, transpose_b=True))
        rows = self.rows(per_task, self._places())
        whole = _backend.sum_over_replicas(rows)
        gram = tf.matmul(whole, whole, transpose_b=True)
        if self.method.include_tables:
            gram += self.sources.gram_of_tables(per_task, self.shared, self.forward.scale)
        return rows, gram

    def _weigh(self, gram):
        import tensorflow as tf

        active, keep, spoil = self.guards(tf.linalg.diag_part(gram))
        gram = tf.where(active[:, None] * active[None, :] > 0, gram, 0.0)
        coefficients = self.method.weigh(gram, tf.where(tf.math.is_finite(self.losses), self.losses, 0.0), active)
        self.method.record_gram(gram, active)
        self.method.record(coefficients, active)
        self.method.put_in_force(coefficients, active)
        return coefficients + spoil, keep

    def _weigh_now_and_then(self):
        """The coefficients of every `update_every`-th step, which stay in force until the next."""
        import tensorflow as tf

        method, count = self.method, len(self.per_task)
        fresh = tf.equal(tf.math.floormod(tf.cast(method.step, tf.int32), method.update_every), 0)

        def gram():
            # Taken anew: those at hand would be computed at every step.
            per_task = [self.sources.gradients(self.forward.tape, loss) for loss in self.forward.scaled]
            return self._rows_and_gram(per_task)[1]

        def kept():
            active, keep, _ = self.guards(tf.square(self.losses))
            coefficients = tf.convert_to_tensor(method.kept_coefficients)
            method.record(coefficients * active, active)
            return coefficients, keep

        now = _only_if(fresh, gram, lambda: tf.zeros([count, count]))
        # No replica talks to another in here, and each computes the same.
        return tf.cond(fresh, lambda: self._weigh(now), kept)


class Direction(Weighing):
    """For a `GradientBalancing`: a direction for the shared weights from the tasks' gradients themselves."""

    def gradients(self):
        import tensorflow as tf

        method, sizes = self.method, self.sources.sizes(self.shared_dense)
        if not sizes:
            return self.nothing_shared(_NOTHING["weight"])
        if method.sizes and method.sizes != sizes:
            raise ValueError(
                "`compile()` must be called again after weights were frozen or freed: the method keeps averages of "
                f"the gradients. Received: shared weights of sizes {sizes}, compiled with {method.sizes}"
            )
        whole = _backend.sum_over_replicas(self.rows(self.per_task, self.shared_dense))
        gram = tf.matmul(whole, whole, transpose_b=True)
        active, keep, spoil = self.guards(tf.linalg.diag_part(gram))
        whole = tf.where(active[:, None] > 0, whole, 0.0)
        losses = tf.where(active > 0, self.losses, 0.0)
        direction, coefficients = method.combine(whole, losses, active, sizes)
        method.record_gram(tf.where(active[:, None] * active[None, :] > 0, gram, 0.0), active)
        method.record(coefficients, active)
        # The optimizer sums over replicas what is the same on all of them.
        shared = self.spread(direction / tf.distribute.get_strategy().num_replicas_in_sync + spoil)
        shared |= self.combined([i for i in self.shared if i not in shared], coefficients + spoil, keep)
        return self.assemble(shared, keep)


class MixedRepresentation(Weighing):
    """For a `RepresentationBalancing`: what flows back from the border is mixed there, and goes down in one pass."""

    def gradients(self):
        import tensorflow as tf

        upper, scale = self.forward.upper, self.forward.scale
        border = shared_border(self.forward)
        if not border:
            return self.nothing_shared(_NOTHING["representation"])
        values, by_task = zip(*border, strict=True)
        found, method = flat_border(by_task) / scale, self.method
        rows = tf.reshape(found, [len(self.per_task), -1])
        gram = _backend.sum_over_replicas(tf.matmul(rows, rows, transpose_b=True))
        active, keep, spoil = self.guards(tf.linalg.diag_part(gram))
        found = tf.where(active[:, None, None] > 0, found, 0.0)
        flat = [tf.reshape(tf.cast(v, tf.float32), [tf.shape(v)[0], _features(v)]) for v in values]
        mixed = method.mix(found, tf.concat(flat, 1), tf.where(active > 0, self.losses, 0.0), active)
        method.record_gram(tf.where(active[:, None] * active[None, :] > 0, gram, 0.0), active)
        method.record(active, active)
        parts = tf.split((mixed + spoil) * scale, [_features(value) for value in values], axis=1)
        given = {id(v): tf.cast(tf.reshape(p, tf.shape(v)), v.dtype) for v, p in zip(values, parts, strict=True)}
        # What one task alone depends on at the border is not mixed.
        own = [gradients(upper, loss, self.forward.representation) for loss in self.forward.scaled]
        for value, found in zip(self.forward.representation, zip(*own, strict=True), strict=True):
            if id(value) not in given:
                given[id(value)] = self.sum_of(found, tf.ones(len(own)), keep)
        targets = [value for value in self.forward.representation if given[id(value)] is not None]
        tensors = self.sources.tensors
        below = gradients(self.forward.tape, targets, tensors, [given[id(v)] for v in targets])
        above = zip(*(gradients(upper, loss, tensors) for loss in self.forward.scaled), strict=True)
        weights = tf.ones(len(self.per_task))
        return [add(lower, self.sum_of(upper, weights, keep)) for lower, upper in zip(below, above, strict=True)]


def shared_border(forward: Forward) -> list[tuple[Any, list]]:
    """Tensors of the representation that more than one loss depends on from there, each with its gradients by task."""
    import tensorflow as tf

    by_task = [gradients(forward.upper, loss, forward.representation) for loss in forward.scaled]
    border = zip(forward.representation, zip(*by_task, strict=True), strict=True)
    return [
        (value, [tf.zeros_like(value) if g is None else g for g in found])
        for value, found in border
        if sum(g is not None for g in found) > 1
    ]


def flat_border(by_task: Sequence[Sequence[Any]]):
    """(losses, batch, features) of the gradients of several values, each a list by task."""
    import tensorflow as tf

    flat = []
    for found in by_task:
        together = tf.cast(tf.stack(found), tf.float32)
        flat.append(tf.reshape(together, [len(found), tf.shape(together)[1], _features(found[0])]))
    return tf.concat(flat, 2)


def _features(value) -> int:
    return int(value.shape[1:].num_elements())


def last_shared(model: Any, weighing: Weighing) -> list[int]:
    """The place of the kernel that GradNorm measures, or none.

    Of the weights that the most losses depend on, the last one of the highest rank of the layer that comes last in the
    graph: the last kernel of a bottom or of a bank of experts.
    """
    sources, count = weighing.sources, {}
    for i in weighing.shared_dense:
        count[i] = sum(g is not None for g in weighing.by_place[i])
    candidates = {id(sources.dense[i]): i for i, n in count.items() if n == max(count.values())}
    for layer in reversed(model.layers):
        found = [v for v in layer.trainable_weights if id(v) in candidates]
        if found:
            rank = max(len(v.shape) for v in found)
            return [candidates[id([v for v in found if len(v.shape) == rank][-1])]]
    return []


def _only_if(needed, compute, otherwise):
    """`compute()` where needed, `otherwise()` elsewhere. With several replicas the former always.

    What crosses replicas, as gradients of a synchronised normalisation do, cannot stand in a branch.
    """
    import tensorflow as tf

    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return compute() if several else tf.cond(needed, compute, otherwise)


def _all_finite(values):
    import tensorflow as tf

    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(value)) for value in values]))
