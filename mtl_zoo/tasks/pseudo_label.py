from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._self_supervised import SelfSupervisedTask, checked_names, listed
from mtl_zoo.tasks.base import TASKS, Task


@TASKS.register("pseudo_label")
@dataclasses.dataclass(frozen=True)
class PseudoLabelTask(SelfSupervisedTask):
    """A task that takes what a model is sure of for a label, where another task has none.

    Of the rows whose label of the task `of` is NaN (and, if it has a sample space, which are in it), with `p` the
    model's probabilities of the complete row, whose gradient is not taken, and `q` those of the row with each feature
    dropped with probability `rate`:

        loss = [max_c p_c >= threshold] * -log q_c*,    c* = argmax_c p_c

    and the task's loss is the mean over all these rows, sure or not, so that it grows as the model becomes sure. With
    `rate=0` there is no second pass, and `q` has the gradient of `p` itself (Lee 2013).

    The logs show `<task>_loss` and `<task>_share`, the share of rows that the model was sure of. Look at it: a share
    near 1 from the first epoch means that the commonest class is taken for granted, which labels that are seldom 1
    invite; a share near 0 that the task does nothing. See `Task` for `loss_weight`.

    Args:
        of: Name of a task with classes, whose output has the same name.
        threshold: The least probability that is taken for a label.
        rate: Probability with which a feature of a row is dropped for `q`.
        features: Names of the features that may be dropped. Default: None, all that are numbers or ids.

    Raises:
        ValueError: `threshold` is not in (0, 1]; `rate` is not in 0..1; `label`, `sample_space`, `sample_weight` or
            `metrics` are given. When a model is made: `of` names no task with classes, or none of its outputs.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, PseudoLabelTask, SharedBottom
    >>> tasks = [BinaryTask("like"), PseudoLabelTask("sure", of="like", threshold=0.9)]
    >>> SharedBottom([Categorical("city", size=9)], tasks).loss_names
    ('like', 'sure')

    Reference: Lee, "Pseudo-Label", ICML 2013 workshop; two passes as in Sohn et al., "FixMatch", NeurIPS 2020,
    arXiv:2001.07685.
    """

    of: str = dataclasses.field(kw_only=True)
    threshold: float = dataclasses.field(default=0.95, kw_only=True)
    rate: float = dataclasses.field(default=0.2, kw_only=True)
    features: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str] = "pseudo_label"
    measures: ClassVar[tuple[str, ...]] = ("share",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_name("of", self.of)
        check.check_number("threshold", self.threshold, above=0, maximum=1)
        check.check_number("rate", self.rate, minimum=0, maximum=1)
        object.__setattr__(self, "features", checked_names("features", self.features))

    def get_config(self) -> dict[str, Any]:
        return listed(super().get_config(), "features")

    def check_beside(self, tasks: Sequence[Task]) -> None:
        super().check_beside(tasks)
        known = [t.name for t in tasks if t.is_labelled and not t.compares_sides and t.num_classes is not None]
        if self.of not in known:
            raise ValueError(
                f"`of` must name a task with classes. Received: of={self.of!r} for task {self.name!r}. Expected: one "
                f"of {known}"
            )

    def counted(self, labels: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
        from keras import ops

        def column(name: str) -> Any:
            return ops.reshape(ops.cast(ops.convert_to_tensor(labels[name]), "float32"), (-1,))

        counts = ops.isnan(column(self.of))
        space = next(task.sample_space for task in tasks if task.name == self.of)
        if space is not None:
            counts = ops.logical_and(counts, ops.equal(column(space), 1.0))
        return ops.cast(counts, "float32")
