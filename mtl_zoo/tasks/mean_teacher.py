from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._self_supervised import SelfSupervisedTask, checked_names, listed
from mtl_zoo.tasks.base import TASKS


@TASKS.register("mean_teacher")
@dataclasses.dataclass(frozen=True)
class MeanTeacherTask(SelfSupervisedTask):
    """A task without a label: the model must agree with a teacher whose weights are the mean of its own past ones.

    At training step t (0 the first) the teacher's weights `theta'`, of the layers that make the model's outputs, become

        theta' <- d theta' + (1 - d) theta,    d = min(decay, 1 - 1 / (t + 1))

    The teacher reads the complete row, as in prediction; the model (the student) reads it with each feature dropped
    with probability `rate`, as in training. With `f_k` and `f'_k` what they give for output k, probabilities or, of a
    regression, the standardised value,

        loss = r(t) * mean_k mean_c (f_kc - f'_kc)^2,    r(t) = exp(-5 (1 - min(t / ramp_up, 1))^2)

    Nothing but the student receives a gradient. Every row counts, with labels or without. A step takes about two and a
    half times as long, and the teacher as much memory as the model. Predictions, exports and `evaluate` are the
    student's and have none of it, and neither has validation.

    The logs show `<task>_loss` and `<task>_distance`, which is the loss without `r(t)`. See `Task` for `loss_weight`;
    probabilities differ by little, so that weights of 1 to 100 are usual.

    Args:
        decay: How much of the teacher stays at each step.
        ramp_up: Steps until the loss has its full size; 0: at once.
        rate: Probability with which a feature of a row is dropped for the student.
        of: Names of the outputs that count. Default: None, all that a tower makes.
        features: Names of the features that may be dropped. Default: None, all that are numbers or ids.
        tables: Whether the teacher has the mean of embedding tables too, all of whose rows a step then reads and
            writes. False: it reads those of the student.

    Raises:
        ValueError: `decay` is not in 0..1; `ramp_up` is below 0; `rate` is not in 0..1; `label`, `sample_space`,
            `sample_weight` or `metrics` are given. When a model is made: `of` names no such output.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, MeanTeacherTask, SharedBottom
    >>> tasks = [BinaryTask("like"), MeanTeacherTask("teacher", ramp_up=100, loss_weight=10)]
    >>> SharedBottom([Categorical("city", size=9)], tasks).loss_names
    ('like', 'teacher')

    Reference: Tarvainen and Valpola, "Mean Teachers Are Better Role Models", NIPS 2017, arXiv:1703.01780.
    """

    decay: float = dataclasses.field(default=0.99, kw_only=True)
    ramp_up: int = dataclasses.field(default=1000, kw_only=True)
    rate: float = dataclasses.field(default=0.2, kw_only=True)
    of: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    features: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    tables: bool = dataclasses.field(default=True, kw_only=True)

    kind: ClassVar[str] = "mean_teacher"
    measures: ClassVar[tuple[str, ...]] = ("distance",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("decay", self.decay, minimum=0, below=1)
        check.check_int("ramp_up", self.ramp_up, minimum=0)
        check.check_number("rate", self.rate, minimum=0, maximum=1)
        check.check_choice("tables", self.tables, (True, False))
        object.__setattr__(self, "of", checked_names("of", self.of))
        object.__setattr__(self, "features", checked_names("features", self.features))

    @property
    def copies_tables(self) -> bool:
        return self.tables

    def get_config(self) -> dict[str, Any]:
        return listed(super().get_config(), "of", "features")
