"""What the kinds of methods share that compare the tasks' gradients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from mtl_zoo._halves import halves
from mtl_zoo.balancing._method import TINY, Balancing
from mtl_zoo.balancing.engine.shared import logits_of_losses

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients

_IN_WORDS = {
    "weight": "dense weights that several losses share",
    "layer": "the last shared layer",
    "representation": "the shared representation",
}
_NOTHING = {
    "weight": "weights, tables aside",
    "layer": "weights, tables aside",
    "representation": "representation",
}


class GradientMethod(Balancing):
    """What the kinds of methods share that compare the tasks' gradients. TensorFlow only.

    A task's private weights receive its own gradient, unweighed. Where the losses share nothing that could be weighed,
    each weight receives the plain sum, with a warning.
    """

    needs_task_gradients = True
    # What the tasks' gradients are taken of: "weight", those that several losses depend on, "layer", the last of them,
    # or "representation", what lies between shared layers and private ones.
    taken_of: ClassVar[str] = "weight"

    @property
    def gradients_of(self) -> str | None:
        return _IN_WORDS[self.taken_of]

    def prepare_for(self, model: Any, labels: Sequence[str], kinds: Sequence[str]) -> None:
        if self.taken_of == "representation":
            if not all(task.is_labelled for task in model.tasks):
                raise ValueError(
                    "`balancing` must not look at the shared representation in a model with tasks without a label, "
                    "which see one of other rows: with features dropped. Received: balancing="
                    f"{self.method_name!r}. Expected: a method of losses or of the gradients of weights"
                )
            self.halves = halves(model, logits_of_losses(model, labels))
        super().prepare_for(model, labels, kinds)

    def prepare(self, names: Sequence[str], kinds: Sequence[str]) -> None:
        super().prepare(names, kinds)
        count = len(self.loss_names)
        self.last_norms = self.state("last_norms", (count,), 0.0)
        self.last_cosines = self.state("last_cosines", (count, count), 0.0)
        # Sums over the steps in which both tasks were active and gradients were at hand, and how many those were.
        self.sum_norms = self.state("sum_norms", (count,), 0.0)
        self.sum_cosines = self.state("sum_cosines", (count, count), 0.0)
        self.conflicts = self.state("conflicts", (count, count), 0.0)
        self.compared = self.state("compared", (count, count), 0.0)

    def record_gram(self, gram: Any, active: Any) -> None:
        """Keeps what reports show of the products of the tasks' gradients."""
        norms = ops.sqrt(ops.maximum(ops.diagonal(gram), 0.0))
        both = active[:, None] * active[None, :]
        cosines = both * gram / ops.maximum(norms[:, None] * norms[None, :], TINY)
        self.last_norms.assign(norms)
        self.last_cosines.assign(cosines)
        self.sum_norms.assign_add(norms)
        self.sum_cosines.assign_add(cosines)
        self.conflicts.assign_add(ops.cast(cosines < 0, "float32"))
        self.compared.assign_add(both)

    def plain_sum(self, tasks: TaskGradients) -> list:
        """Every weight's own gradient, with a warning: the losses share nothing that could be weighed."""
        import tensorflow as tf

        if len(tasks.per_task) > 1:
            warnings.warn(
                f"`balancing={self.method_name!r}` has nothing to weigh: the losses of {tasks.model.name!r} "
                f"share no {_NOTHING[self.taken_of]}. They are summed.",
                stacklevel=2,
            )
        active, keep, _ = tasks.guards(tf.square(tasks.losses))
        self.record(active, active)
        everywhere = {i: tasks.sum_of(tasks.by_source[i], active, keep) for i in tasks.shared}
        return tasks.assemble(everywhere, keep)
