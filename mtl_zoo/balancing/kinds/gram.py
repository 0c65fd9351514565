"""Methods that need only the products of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.balancing.engine.task_gradients import flat_representation, only_if, shared_representation
from mtl_zoo.balancing.kinds.gradients import GradientMethod

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients


class GramBalancing(GradientMethod):
    """A method that needs the tasks' gradients only through their products: `A_kl = g_k . g_l` over shared weights.

    A subclass gives `coefficients(gram, losses, active)`; shared weights, embedding tables among them, receive
    `sum_k c_k g_k`.

    Args:
        include_tables: Whether the touched rows of embedding tables count as shared parameters. By default they are
            left out of the weighing, and receive the combination that it found.
        update_every: Coefficients are found anew every so many steps, and kept in between, at the cost of one backward
            pass. A task that is inactive when they are found keeps the one it had. With several replicas the
            gradients are computed at every step all the same.

    Example:

    >>> from mtl_zoo.balancing import GramBalancing
    >>> class Shortest(GramBalancing):
    ...     def coefficients(self, gram, losses, active):
    ...         return active / gram.diagonal()
    >>> Shortest(update_every=10).update_every
    10
    """

    # Whether private weights receive their task's gradient times its coefficient.
    weighs_private: ClassVar[bool] = False

    def __init__(self, include_tables: bool = False, update_every: int = 1, name: str | None = None):
        super().__init__(name)
        self.include_tables = bool(include_tables)
        self.update_every = check.check_int("update_every", update_every)

    @property
    def gradients_of(self) -> str | None:
        return f"{super().gradients_of}{', and table rows' if self.include_tables else ''}"

    def prepare(self, names: Sequence[str], kinds: Sequence[str]) -> None:
        super().prepare(names, kinds)
        self.kept_coefficients = self.state("kept_coefficients", (len(self.loss_names),), 1.0)

    def coefficients(self, gram: Any, losses: Any, active: Any) -> Any:
        """`c`, (losses,), from A, (losses, losses), the losses and which are active. May update state.

        Rows and columns of inactive tasks are 0; what is returned for them is ignored.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients(gram, losses, active)`.")

    def weigh(self, gram: Any, losses: Any, active: Any) -> Any:
        """The coefficients of a training step, guarded."""
        coefficients = ops.where(active > 0, self.coefficients(gram, losses, active), 0.0)
        # A solver that fails must not spoil the weights: the plain sum of what is active in its place.
        coefficients = ops.where(ops.all(ops.isfinite(coefficients)), coefficients, active)
        return ops.stop_gradient(coefficients)

    def put_in_force(self, coefficients: Any, active: Any) -> None:
        """Keeps coefficients for the steps that find none; inactive tasks keep theirs."""
        self.kept_coefficients.assign(ops.where(active > 0, coefficients, self.kept_coefficients))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "include_tables": self.include_tables, "update_every": self.update_every}

    def gradients(self, tasks: TaskGradients) -> list:
        measured = self._measured(tasks)
        over_tables = self.include_tables and any(tasks.sources.is_read(i) for i in tasks.shared)
        if not measured and not over_tables and not self._at_representation(tasks):
            return self.plain_sum(tasks)
        if self.update_every == 1:
            # The gradients that the products are made of are at hand, and need no other pass.
            rows, gram = self._rows_and_gram(tasks, tasks.per_task)
            coefficients, keep = self._weigh_now(tasks, gram)
            at_hand = self.taken_of == "weight"
        else:
            coefficients, keep = self._weigh_now_and_then(tasks)
            at_hand = False
        shared: dict[int, Any] = {}
        if at_hand and measured:
            import tensorflow as tf

            rows = tf.where(keep[:, None], rows, 0.0)
            shared = tasks.spread(tf.matmul(coefficients[None, :], rows)[0])
        if at_hand and over_tables:
            # Elsewhere one more pass is cheaper: of a pass by task, the product that leads to the rows is left out.
            reads = [i for i in tasks.shared if i not in shared]
            shared |= {i: tasks.sum_of(tasks.by_source[i], coefficients, keep) for i in reads}
        shared |= tasks.combined([i for i in tasks.shared if i not in shared], coefficients, keep)
        return tasks.assemble(shared, keep, coefficients if self.weighs_private else None)

    def _at_representation(self, tasks: TaskGradients) -> list:
        """Tensors of the representation that several losses depend on, and their gradients by task."""
        return [] if tasks.forward.upper is None else shared_representation(tasks.forward)

    def _measured(self, tasks: TaskGradients) -> list[int]:
        """The weights whose gradients are multiplied."""
        if self.taken_of == "weight":
            return tasks.shared_dense
        return last_shared(tasks) if self.taken_of == "layer" else []

    def _rows_and_gram(self, tasks: TaskGradients, per_task: Sequence[Sequence[Any]]) -> tuple[Any, Any]:
        """Each task's gradients of this replica's rows, and their products over the global batch."""
        import tensorflow as tf

        if self.taken_of == "representation":
            _, by_task = zip(*self._at_representation(tasks), strict=True)
            rows = tf.reshape(flat_representation(by_task), [len(per_task), -1]) / tasks.forward.scale
            # Replicas have different rows of the batch: their products add up.
            return rows, _backend.sum_over_replicas(tf.matmul(rows, rows, transpose_b=True))
        rows = tasks.rows(per_task, self._measured(tasks))
        whole = _backend.sum_over_replicas(rows)
        gram = tf.matmul(whole, whole, transpose_b=True)
        if self.include_tables:
            gram += tasks.sources.gram_of_tables(per_task, tasks.shared, tasks.forward.scale)
        return rows, gram

    def _weigh_now(self, tasks: TaskGradients, gram: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        active, keep, spoil = tasks.guards(tf.linalg.diag_part(gram))
        gram = tf.where(active[:, None] * active[None, :] > 0, gram, 0.0)
        losses = tf.where(tf.math.is_finite(tasks.losses), tasks.losses, 0.0)
        coefficients = self.weigh(gram, losses, active)
        self.record_gram(gram, active)
        self.record(coefficients, active)
        self.put_in_force(coefficients, active)
        return coefficients + spoil, keep

    def _weigh_now_and_then(self, tasks: TaskGradients) -> tuple[Any, Any]:
        """The coefficients of every `update_every`-th step, which stay in force until the next."""
        import tensorflow as tf

        count = len(tasks.per_task)
        fresh = tf.equal(tf.math.floormod(tf.cast(self.step, tf.int32), self.update_every), 0)

        def gram() -> Any:
            # Taken anew: those at hand would be computed at every step.
            per_task = [tasks.sources.gradients(tasks.forward.tape, loss) for loss in tasks.forward.scaled]
            return self._rows_and_gram(tasks, per_task)[1]

        def kept() -> tuple[Any, Any]:
            active, keep, _ = tasks.guards(tf.square(tasks.losses))
            coefficients = tf.convert_to_tensor(self.kept_coefficients)
            self.record(coefficients * active, active)
            return coefficients, keep

        now = only_if(fresh, gram, lambda: tf.zeros([count, count]))
        # No replica talks to another in here, and each computes the same.
        return tf.cond(fresh, lambda: self._weigh_now(tasks, now), kept)


def last_shared(tasks: TaskGradients) -> list[int]:
    """The index of the kernel that GradNorm measures, or none.

    Of the weights that the most losses depend on, the last one of the highest rank of the layer that comes last in the
    graph: the last kernel of a bottom or of a bank of experts.
    """
    count = {i: sum(g is not None for g in tasks.by_source[i]) for i in tasks.shared_dense}
    candidates = {id(tasks.sources.dense[i]): i for i, n in count.items() if n == max(count.values())}
    for layer in reversed(tasks.model.layers):
        weights = [v for v in layer.trainable_weights if id(v) in candidates]
        if weights:
            rank = max(len(v.shape) for v in weights)
            return [candidates[id([v for v in weights if len(v.shape) == rank][-1])]]
    return []
