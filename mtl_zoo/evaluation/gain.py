"""What multi-task learning gains, compared with single-task models and with the best that is possible."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_zoo import _validation as check
from mtl_zoo.tasks import TASKS, ExactMetric


def facts_of(metric: str) -> ExactMetric | None:
    """What the first kind of task that has a metric of this name says of it."""
    for kind in TASKS.in_order():
        metrics = kind.exact_metrics()
        if metric in metrics:
            return metrics[metric]
    return None


def lower_is_better(metric: str) -> bool:
    """Whether a metric is better when lower. pcoc, best at 1, is neither; one that no kind has is as AUC is."""
    facts = facts_of(metric)
    return facts is not None and facts.direction < 0


def score_of(metric: str, value: float) -> float:
    """A metric's value as a score that is better when higher: `1 - nrmse`, the negative of other errors."""
    facts = facts_of(metric)
    return value if facts is None or not facts.direction else facts.score(value)


def lift_share(auc: float, oracle_auc: float) -> float:
    """The share of the oracle's lift over chance, `(AUC - 1/2) / (AUC* - 1/2)`: 1 for a model that knows the truth.

    Example:

    >>> from mtl_zoo.evaluation import lift_share
    >>> round(lift_share(0.740, 0.762), 3)
    0.916
    """
    lift = oracle_auc - 0.5
    return (auc - 0.5) / lift if lift != 0 else float("nan")


def gain(metric: str, value: float, baseline: float) -> float:
    """`value - baseline`, with the opposite sign for metrics where lower is better: an improvement is positive.

    Example:

    >>> from mtl_zoo.evaluation import gain
    >>> round(gain("auc", 0.72, 0.70), 2), round(gain("logloss", 0.48, 0.50), 2)
    (0.02, 0.02)
    """
    return baseline - value if lower_is_better(metric) else value - baseline


def delta_m(values: Mapping[str, float], baseline: Mapping[str, float], metrics: Mapping[str, str]) -> float:
    """The mean relative gain over tasks in per cent: `(100 / T) sum_k (-1)^{l_k} (M_k - B_k) / B_k`.

    Args:
        values: The multi-task model's metric by task.
        baseline: The single-task model's metric by task.
        metrics: The name of the metric of each task, which decides on l_k: 1 where lower is better, otherwise 0.

    Raises:
        ValueError: If the three do not name the same tasks.

    Example:

    >>> from mtl_zoo.evaluation import delta_m
    >>> metrics = {"click": "auc", "watch": "logloss"}
    >>> round(delta_m({"click": 0.78, "watch": 0.45}, {"click": 0.80, "watch": 0.50}, metrics), 2)
    3.75

    Reference: Maninis et al., Attentive Single-Tasking of Multiple Tasks, CVPR 2019, https://arxiv.org/abs/1904.08918
    """
    for argument, given in (("baseline", baseline), ("metrics", metrics)):
        if set(given) != set(values):
            raise ValueError(f"`{argument}` must name the tasks {sorted(values)}. Received: {sorted(given)}")
    check.check_int("number of tasks", len(values))
    return 100 * sum(gain(metrics[k], values[k], baseline[k]) / baseline[k] for k in values) / len(values)
