from __future__ import annotations

from typing import Any

from keras import ops

from mtl_zoo import _backend
from mtl_zoo.self_supervision._base import Objective, Setting, checked_of, register_objective, rows
from mtl_zoo.self_supervision._dropping import FeatureDropping


@register_objective("mean_teacher")
class MeanTeacher(Objective):
    """A teacher of averaged weights, to agree with: see `MeanTeacherTask`.

    Example:

    >>> from mtl_zoo.self_supervision import OBJECTIVES
    >>> OBJECTIVES["mean_teacher"].__name__
    'MeanTeacher'
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(task, setting)
        known = {output.name: output for output in setting.outputs}
        self.compared = [known[name] for name in checked_of("of", task, task.of, known)]
        self.dropping = FeatureDropping(task, setting) if task.rate else None
        students = [v for v in setting.weights if task.tables or not _backend.is_table(v)]
        self._students = lambda: students  # the model's, and no part of this layer, which Keras would make them
        self.step = self._state((), f"{task.name}_step")
        self.teachers = [self._state(v.shape, f"{task.name}_{i}", v.dtype) for i, v in enumerate(students)]

    def _state(self, shape: Any, name: str, dtype: str = "float32") -> Any:
        # Each replica writes its own copy, from what is the same on all.
        return self.add_weight(
            shape, "zeros", dtype=dtype, trainable=False, autocast=False, aggregation="none", name=name
        )

    def call(self, passes: Any) -> Any:
        step = ops.convert_to_tensor(self.step)
        ramp = self._ramp(step)  # of the step before it is written
        stays = ops.minimum(self.task.decay, 1.0 - 1.0 / (step + 1.0))
        averages = []
        for student, teacher in zip(self._students(), self.teachers, strict=True):
            now = ops.stop_gradient(ops.convert_to_tensor(student))
            kept = ops.cast(stays, teacher.dtype)
            averages.append(kept * ops.convert_to_tensor(teacher) + (1 - kept) * now)
            teacher.assign(averages[-1])
        self.step.assign(step + 1.0)
        taught = passes.taught(passes.inputs, list(zip(self._students(), averages, strict=True)))
        logits = passes.logits if self.dropping is None else passes.logits_of(self.dropping(passes.inputs)[0])
        distance = sum(_distance(output, logits, taught) for output in self.compared) / len(self.compared)
        ones = ops.ones_like(distance)
        return rows(ramp * distance, ones, (distance, ones))

    def _ramp(self, step: Any) -> Any:
        if not self.task.ramp_up:
            return 1.0
        return ops.exp(-5.0 * ops.square(1.0 - ops.minimum(step / float(self.task.ramp_up), 1.0)))


def _distance(output: Any, logits: Any, taught: Any) -> Any:
    """The mean square of what two passes differ by in an output, (batch,)."""
    ours, theirs = (ops.cast(given[output.name], "float32") for given in (logits, taught))
    if output.task.link != "identity":
        ours, theirs = output.scores(ours), output.scores(theirs)
    return ops.mean(ops.square(ours - ops.stop_gradient(theirs)), axis=-1)
