"""What happens to logits before they become scores: the sampling of the training rows undone, and calibrations."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from mtl_zoo.features.sampling import NegativeSampling
from mtl_zoo.heads import Output
from mtl_zoo.heads._base import IMPRESSIONS
from mtl_zoo.heads._funnel import space_owner
from mtl_zoo.models._calibration import Calibration, calibration_from_config
from mtl_zoo.tasks import Task

# How an output's probability on the rows that stayed differs from that on all rows.
_OWN, _WITHIN, _SAME = "own", "within", "same"


@dataclasses.dataclass(frozen=True)
class Corrections:
    """The maps from a model's logits to those that scores are made of. Saved with the model's config.

    Args:
        sampling: How the training rows were sampled.
        calibrations: Monotone maps by output, which come after it.
    """

    sampling: NegativeSampling | None = None
    calibrations: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.sampling is not None or bool(self.calibrations)

    @property
    def key(self) -> str:
        """What tells these corrections from others."""
        return json.dumps(self.get_config(), sort_keys=True)

    def get_config(self) -> dict[str, Any]:
        return {
            "sampling": None if self.sampling is None else self.sampling.get_config(),
            "calibrations": {name: found.get_config() for name, found in self.calibrations.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Corrections:
        if config is None:
            return cls()
        sampling = config["sampling"]
        return cls(
            None if sampling is None else NegativeSampling(**sampling),
            {name: calibration_from_config(found) for name, found in config["calibrations"].items()},
        )

    def apply(self, outputs: Sequence[Output], tasks: Sequence[Task], logits: Mapping[str, Any]) -> dict[str, Any]:
        """The logits that scores are made of; what has no correction stays as it is."""
        found = dict(logits)
        if self.sampling is not None and self.sampling.rate < 1:
            effects = effects_of(self.sampling, outputs, tasks)
            own = ops.cast(logits[next(name for name, effect in effects.items() if effect == _OWN)], "float32")
            for name, effect in effects.items():
                if effect == _OWN:
                    found[name] = own + math.log(self.sampling.rate)
                elif effect == _WITHIN:
                    found[name] = _unsampled(logits[name], own, self.sampling.rate)
        for name, calibration in self.calibrations.items():
            found[name] = calibration(found[name])
        return found


def _unsampled(logits: Any, sampled: Any, rate: float) -> Any:
    """The logit of an event that only happens with the sampled label, from logits of rows that stayed.

    With `Z = rate / (1 - (1 - rate) p')` the share of rows that stayed, the odds against are `1 / (Z P') - 1`. With
    `k = 1 / Z - 1 = (1 - p') (1 / rate - 1)` they are `e^-c (1 + k) + k`, of which no part is rounded to 0 or 1.
    """
    log_k = math.log(1 / rate - 1) - ops.softplus(sampled)
    against = ops.stack([ops.softplus(log_k) - ops.cast(logits, "float32"), log_k], axis=0)
    return -ops.logsumexp(against, axis=0)


def effects_of(sampling: NegativeSampling, outputs: Sequence[Output], tasks: Sequence[Task]) -> dict[str, str]:
    """What dropping rows does to each output.

    Raises:
        ValueError: There is no such task, or an output whose probability would be another in a way that nobody knows.
    """
    task = sampling.task_among(tasks)
    space = task.sample_space or IMPRESSIONS
    effects, wrong = {}, []
    for output in outputs:
        if output.task == task and output.space == space and output.name == task.name:
            effects[output.name] = _OWN
        elif output.task != task and task in _before(tasks, output.task):
            effects[output.name] = _WITHIN if output.space == space else _SAME
        else:
            wrong.append(output.name)
    if wrong or _OWN not in effects.values():
        raise ValueError(
            f"`sampling` must not drop negative rows of {task.name!r} in a model with outputs {wrong or list(effects)},"
            " whose labels may go with those of the rows that are dropped. Right are the outputs of "
            f"{task.name!r}, and of tasks whose sample space is its label. Received: {sampling!r}. Train the others in "
            "a model of their own, or weigh classes by `positive_weight`"
        )
    return effects


def _before(tasks: Sequence[Task], task: Task) -> list[Task]:
    """The tasks whose labels a task's sample space leads back to."""
    found: list[Task] = []
    owner = space_owner(tasks, task)
    while owner is not None and owner not in found:
        found.append(owner)
        owner = space_owner(tasks, owner)
    return found
