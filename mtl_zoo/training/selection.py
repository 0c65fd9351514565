"""Which of two epochs is better, when there are several tasks: rules for `ExactValidation`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks import Task


def judged_outputs(model: Any) -> dict[str, str]:
    """The output that each task is judged by: its own or, where it has none (AITM's later steps), its prediction."""
    outputs = {output.task.name: output.name for output in model.outputs_info}
    return outputs | {o.name: o.name for o in model.outputs_info if o.name == o.task.name}


def tasks_by_name(model: Any) -> dict[str, Task]:
    """The task of each output, and each task."""
    return {o.name: o.task for o in model.outputs_info} | {task.name: task for task in model.labelled_tasks}


class Selection:
    """Base of the rules: which scores they compare, and which of two epochs is better.

    A task's score is its AUC (binary), accuracy (multi-class) or 1 - NRMSE (regression), or the metric that `metrics`
    names for it: any of `evaluate`, the negative where lower is better. Names are those of tasks, or of a model's other
    outputs such as a funnel's product.
    """

    metrics: Mapping[str, str] | None

    def compared(self, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The names that the rule compares, by the argument that holds them; `tasks` are all of the model."""
        raise NotImplementedError

    def score(self, scores: Mapping[str, float]) -> float:
        """One number for an epoch, for logs."""
        raise NotImplementedError

    def is_better(self, new: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether an epoch with these scores is better than the best so far."""
        raise NotImplementedError

    def check_defined(self, scores: Mapping[str, float]) -> None:
        """Refuses scores that the rule cannot compare."""
        if all(np.isnan(score) for score in scores.values()):
            raise ValueError(
                "`split` must define the score of at least one task. Received: none for "
                f"{list(scores)} (no observed rows, or labels of one class only)"
            )

    def missed(self, scores: Mapping[str, float]) -> list[str]:
        """What these scores, the best ones, fall short of, in words."""
        del scores
        return []

    def metrics_of(self, model: Any) -> dict[str, str]:
        """The metric of each name that is compared; refuses what the model does not have."""
        known = tasks_by_name(model)
        arguments = self.compared([task.name for task in model.labelled_tasks])
        names = [name for given in arguments.values() for name in given]
        for argument, given in arguments.items():
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(
                    f"`{argument}` must name tasks, or other outputs of the model. Received unknown: {unknown}. "
                    f"Expected: names among {list(known)}"
                )
        chosen = {name: known[name].selection_metric for name in names}
        for name, metric in (self.metrics or {}).items():
            if name not in chosen:
                raise ValueError(
                    f"`metrics` must name tasks that are compared. Received unknown: {[name]}. "
                    f"Expected: names among {names}"
                )
            choices = [m for m, facts in known[name].exact_metrics().items() if facts.direction]
            chosen[name] = check.check_choice(f"metrics[{name!r}]", metric, choices)
        return chosen


@dataclasses.dataclass(frozen=True)
class WeightedScore(Selection):
    """The best epoch is the one with the highest weighted mean of the tasks' scores.

        score = sum_k w_k s_k / sum_k w_k

    Tasks without a defined score (no observed rows, one class only) are left out of the mean.

    Args:
        weights: Dict of numbers above 0 by task. None: 1 for every task.
        metrics: Dict of metric names by task. None: AUC, accuracy or NRMSE.

    Raises:
        ValueError: A weight that is not above 0; when training starts, a name that the model does not have, or a metric
            that its kind does not have.

    Example:

    >>> from mtl_zoo.training import WeightedScore
    >>> round(WeightedScore({"click": 1.0, "conversion": 3.0}).score({"click": 0.8, "conversion": 0.6}), 3)
    0.65
    """

    weights: Mapping[str, float] | None = None
    metrics: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, weight in _mapping("weights", self.weights).items():
            check.check_number(f"weights[{name!r}]", weight, above=0)
        _mapping("metrics", self.metrics)

    def compared(self, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"weights": tuple(tasks if self.weights is None else self.weights)}

    def score(self, scores: Mapping[str, float]) -> float:
        defined = {name: score for name, score in scores.items() if not np.isnan(score)}
        weights = [1.0 if self.weights is None else self.weights[name] for name in defined]
        return float(np.average(list(defined.values()), weights=weights))

    def is_better(self, new: Mapping[str, float], best: Mapping[str, float]) -> bool:
        return self.score(new) > self.score(best)


@dataclasses.dataclass(frozen=True)
class PrimaryTask(Selection):
    """The best epoch is the one with the highest score of one task, among those in which no other is below its floor.

    An epoch that keeps all floors is better than one that does not; of two that do not, the one that falls short by
    less in sum. If no epoch keeps them, the one that comes nearest is taken, with a warning.

    Args:
        primary: The task.
        floors: Dict of numbers by task: the least score that is accepted. Scores are better when higher: a floor of 0.4
            is an NRMSE of at most 0.6; with `metrics={"click": "logloss"}` a floor of -0.3 is a log loss of at most
            0.3. What a single-task model reaches, minus what one would give up, is a usual choice.
        metrics: Dict of metric names by task. None: AUC, accuracy or NRMSE.

    Raises:
        ValueError: A floor that is no number, or one for the primary task; when training starts, a name that the model
            does not have, a metric that its kind does not have; after an epoch, a task of the rule without a score.

    Example:

    >>> from mtl_zoo.training import PrimaryTask
    >>> rule = PrimaryTask("conversion", floors={"click": 0.7})
    >>> rule.is_better({"conversion": 0.6, "click": 0.71}, {"conversion": 0.65, "click": 0.69})
    True
    """

    primary: str
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, floor in _mapping("floors", self.floors).items():
            check.check_number(f"floors[{name!r}]", floor)
            if name == self.primary:
                raise ValueError(f"`floors` must name other tasks than the primary one. Received: {name!r} in both")
        _mapping("metrics", self.metrics)

    def compared(self, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        del tasks
        return {"primary": (self.primary,), "floors": tuple(self.floors)}

    def check_defined(self, scores: Mapping[str, float]) -> None:
        undefined = [name for name, score in scores.items() if np.isnan(score)]
        if undefined:
            raise ValueError(
                f"`split` must define the scores that `PrimaryTask` compares. Received: none for {undefined} (no "
                "observed rows, or labels of one class only)"
            )

    def score(self, scores: Mapping[str, float]) -> float:
        return scores[self.primary]

    def is_better(self, new: Mapping[str, float], best: Mapping[str, float]) -> bool:
        return self._rank(new) > self._rank(best)

    def missed(self, scores: Mapping[str, float]) -> list[str]:
        return [f"{name} {self.floors[name]:g}" for name, gap in self._shortfalls(scores).items() if gap > 0]

    def _rank(self, scores: Mapping[str, float]) -> tuple[float, float]:
        return -sum(self._shortfalls(scores).values()), scores[self.primary]

    def _shortfalls(self, scores: Mapping[str, float]) -> dict[str, float]:
        return {name: max(self.floors[name] - scores[name], 0.0) for name in self.floors}


@dataclasses.dataclass(frozen=True)
class ParetoImprovement(Selection):
    """An epoch is better than the best so far if no task is worse and one at least is better.

        s_k(new) >= s_k(best) - tolerance for all k,  and  s_k(new) > s_k(best) + tolerance for some k

    The kept epoch is at least as good for every task as all that were kept before it (tolerance aside): no task pays
    for another's gain. It stops earlier than a mean would, since any trade counts as no improvement. Tasks without a
    defined score are left out.

    Args:
        tasks: Names of the tasks to compare. None: all.
        tolerance: Differences up to this count as none.
        metrics: Dict of metric names by task. None: AUC, accuracy or NRMSE.

    Raises:
        ValueError: A negative tolerance, no or repeated names; when training starts, a name that the model does not
            have, or a metric that its kind does not have.

    Example:

    >>> from mtl_zoo.training import ParetoImprovement
    >>> ParetoImprovement().is_better({"click": 0.80, "conversion": 0.61}, {"click": 0.81, "conversion": 0.60})
    False
    """

    tasks: tuple[str, ...] | None = None
    tolerance: float = 0.0
    metrics: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check.check_number("tolerance", self.tolerance, minimum=0)
        if self.tasks is not None:
            names = (self.tasks,) if isinstance(self.tasks, str) else tuple(self.tasks)
            if not names:
                raise ValueError("`tasks` must name at least one task. Received: none")
            check.check_unique_names("tasks", names)
            object.__setattr__(self, "tasks", names)
        _mapping("metrics", self.metrics)

    def compared(self, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"tasks": tuple(tasks if self.tasks is None else self.tasks)}

    def score(self, scores: Mapping[str, float]) -> float:
        return float(np.nanmean(list(scores.values())))

    def is_better(self, new: Mapping[str, float], best: Mapping[str, float]) -> bool:
        gains = [new[name] - best[name] for name in new if not np.isnan(new[name] - best[name])]
        return min(gains) >= -self.tolerance and max(gains) > self.tolerance


def _mapping(argument: str, given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"`{argument}` must be a dict by task. Received: {argument}={given!r}")
    if argument == "weights" and not given:
        raise ValueError("`weights` must name at least one task. Received: weights={}")
    return given
