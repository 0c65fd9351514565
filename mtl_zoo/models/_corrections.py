"""What happens to logits before they become scores: the sampling of the training rows undone, and calibrations."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from mtl_zoo.features.balanced import BalancedBatches
from mtl_zoo.features.sampling import NegativeSampling
from mtl_zoo.heads import Output
from mtl_zoo.heads._base import IMPRESSIONS
from mtl_zoo.heads._funnel import space_owner
from mtl_zoo.models._calibration import Calibration, calibration_from_config
from mtl_zoo.tasks import Task

# How an output's probability on the rows that stayed differs from that on all rows.
_OWN, _WITHIN, _SAME = "own", "within", "same"

Sampling = NegativeSampling | BalancedBatches


@dataclasses.dataclass(frozen=True)
class Corrections:
    """The maps from a model's logits to those that scores are made of. Saved with the model's config.

    Args:
        sampling: How the training rows were sampled.
        calibrations: Monotone maps by output, which come after it.
    """

    sampling: Sampling | None = None
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
            None if sampling is None else _sampling_from_config(sampling),
            {name: calibration_from_config(found) for name, found in config["calibrations"].items()},
        )

    def apply(self, outputs: Sequence[Output], tasks: Sequence[Task], logits: Mapping[str, Any]) -> dict[str, Any]:
        """The logits that scores are made of; what has no correction stays as it is."""
        found = dict(logits)
        if self.sampling is not None and any(rate != 1 for rate in self.sampling.rates):
            steps = [ops.cast(logits[task.name], "float32") for task in self.sampling.steps(tasks)]
            for name, effect in effects_of(self.sampling, outputs, tasks).items():
                if effect == _WITHIN:
                    found[name] = _unsampled(logits[name], steps, self.sampling.rates)
            own = _unsampled_steps(steps, self.sampling.rates)
            found.update(zip((task.name for task in self.sampling.steps(tasks)), own, strict=True))
        for name, calibration in self.calibrations.items():
            found[name] = calibration(found[name])
        return found


def _sampling_from_config(config: Mapping[str, Any]) -> Sampling:
    return BalancedBatches(**config) if "shares" in config else NegativeSampling(**config)


def _unsampled_steps(steps: Sequence[Any], rates: Sequence[float]) -> list[Any]:
    """The logits of a funnel's steps, each given the one before, from those of rows that came so often.

    With `A_k = (1 - q'_k) / m_k + q'_k A_{k+1}`, `A_{n+1} = 1` and `m_k` the rate of rows that stop at step k, they are
    `logit q'_k + log m_k + log A_{k+1}`.
    """
    found: list[Any] = []
    later: Any = 0.0
    for logit, rate in zip(reversed(steps), reversed(rates), strict=True):
        found.append(logit + math.log(rate) + later)
        if len(found) < len(steps):
            stops, goes_on = -ops.softplus(logit) - math.log(rate), later - ops.softplus(-logit)
            later = ops.logaddexp(stops, goes_on)
    return found[::-1]


def _unsampled(logits: Any, steps: Sequence[Any], rates: Sequence[float]) -> Any:
    """The logit of an event that only happens where all steps do, from logits of rows that came so often.

    With `p'_j` the probability that a row stops at step j, its share of all rows is divided by `A_1 = 1 + k`,
    `k = sum_j p'_j (1 / m_j - 1)`. The odds against the event are `e^-c (1 + k) + k`, of which no part is rounded to 0
    or 1.
    """
    reached: Any = 0.0
    terms = []
    for logit, rate in zip(steps, rates, strict=True):
        if rate < 1:
            terms.append(reached - ops.softplus(logit) + math.log(1 / rate - 1))
        reached = reached - ops.softplus(-logit)
    log_k = ops.logsumexp(ops.stack(terms, axis=0), axis=0)
    against = ops.stack([ops.softplus(log_k) - ops.cast(logits, "float32"), log_k], axis=0)
    return -ops.logsumexp(against, axis=0)


def effects_of(sampling: Sampling, outputs: Sequence[Output], tasks: Sequence[Task]) -> dict[str, str]:
    """What sampled rows do to each output.

    Raises:
        ValueError: There is no such task, or an output whose probability would be another in a way that nobody knows.
    """
    steps = sampling.steps(tasks)
    space, last = steps[0].sample_space or IMPRESSIONS, steps[-1]
    between = {task.sample_space for task in steps[1:]}
    effects, wrong = {}, []
    for output in outputs:
        task = output.task
        behind = task not in steps and last in _before(tasks, task)
        if task in steps and output.name == task.name and output.space == (task.sample_space or IMPRESSIONS):
            effects[output.name] = _OWN
        elif output.space == space and (behind or (task == last and len(steps) > 1)):
            effects[output.name] = _WITHIN
        elif behind and output.space not in between:
            effects[output.name] = _SAME
        else:
            wrong.append(output.name)
    if wrong or list(effects.values()).count(_OWN) < len(steps):
        names = " and ".join(repr(task.name) for task in steps)
        raise ValueError(
            f"`sampling` must not choose rows by {names} in a model with outputs {wrong or list(effects)}, "
            f"whose labels may go with theirs. Right are the outputs of {names}, and of tasks whose sample space is "
            f"the label of {last.name!r}. Received: {sampling!r}. Train the others in a model of their own, or weigh "
            "classes by `positive_weight`"
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
