"""`balancing_report(logger)`: weights, gradients and conflicts of the tasks in training, and what balancing took."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

# What a method keeps of all steps so far, by the name of its attribute.
_KEPT = ("step", "skipped", "sum_coefficients", "sum_norms", "sum_cosines", "conflicts", "compared")
ON_BATCHES = "dense weights that several losses share, on one batch a reading"


@dataclasses.dataclass(frozen=True)
class Interval:
    """What happened in training from one reading to the next.

    Args:
        step: The last step, counted from 1.
        steps: How many there were.
        seconds: Of training them.
        logger_seconds: Of this reading itself.
        active: In how many steps each loss counted, (losses,).
        weights: Mean coefficients over those, (losses,); NaN where there is none.
        norms: Mean norms of the gradients, (losses,).
        cosines: Their mean cosines, (losses, losses).
        conflict_rates: Shares of the compared steps whose cosine was negative, (losses, losses).
        compared: In how many steps the gradients of two losses were compared, (losses, losses).
    """

    step: int
    steps: int
    seconds: float
    logger_seconds: float
    active: np.ndarray
    weights: np.ndarray
    norms: np.ndarray
    cosines: np.ndarray
    conflict_rates: np.ndarray
    compared: np.ndarray


@dataclasses.dataclass(frozen=True)
class BalancingReport:
    """What `balancing_report` found.

    Attributes:
        method: Name of the method; `"none"` for the plain sum.
        gradients_of: What gradients were taken of; None where none were looked at.
        table: One row for each reading and loss: `step`, `loss`, `weight` (the mean over the steps since the last
            reading in which the loss counted), `norm` of its gradient, `share`, and `active`, how many steps counted.
            The share is that of `weight x norm` in the sum over losses: how much of the pull on shared weights is its.
        pairs: One row for each reading and pair of losses: `step`, `loss`, `other`, `cosine` of their gradients (mean),
            `conflict_rate` (share of the compared steps with a negative cosine), `compared` (how many steps).
        time: One row for each reading: `step`, `steps`, `seconds` (of training), `seconds_per_step`, `logger_seconds`
            (what the reading took).
        gradient_seconds: None, or what the gradients of one batch take `(as the plain sum's, as the method's)`.

    Example:

    >>> import dataclasses
    >>> from mtl_zoo.evaluation import BalancingReport
    >>> [field.name for field in dataclasses.fields(BalancingReport)][:4]
    ['method', 'gradients_of', 'table', 'pairs']
    """

    method: str
    gradients_of: str | None
    table: pd.DataFrame
    pairs: pd.DataFrame
    time: pd.DataFrame
    gradient_seconds: tuple[float, float] | None = None

    @property
    def losses(self) -> pd.DataFrame:
        """One row for each loss, over the whole training: mean weight, norm and share, first and last weight."""
        rows = []
        for loss, part in self.table.groupby("loss", sort=False):
            counted = part[part["active"] > 0]
            ends = {"first": np.nan, "last": np.nan}
            if len(counted):
                ends = {"first": counted["weight"].iloc[0], "last": counted["weight"].iloc[-1]}
            means = {name: _mean(counted[name], counted["active"]) for name in ("weight", "norm", "share")}
            rows.append({"loss": loss, **means, **ends, "active": int(part["active"].sum())})
        return pd.DataFrame(rows)

    @property
    def conflicts(self) -> pd.DataFrame:
        """One row for each pair of losses, over the whole training: mean cosine, and the share of steps in conflict."""
        rows = []
        for (loss, other), part in self.pairs.groupby(["loss", "other"], sort=False):
            means = {name: _mean(part[name], part["compared"]) for name in ("cosine", "conflict_rate")}
            rows.append({"loss": loss, "other": other, **means, "compared": int(part["compared"].sum())})
        return pd.DataFrame(rows, columns=["loss", "other", "cosine", "conflict_rate", "compared"])

    @property
    def seconds_per_step(self) -> float:
        """The median over readings, of which the first also traces and compiles."""
        return float(self.time["seconds_per_step"].median())

    def __str__(self) -> str:
        parts = [self.losses.to_string(index=False, float_format="{:.4g}".format)]
        if self.gradients_of is not None and len(self.pairs):
            conflicts = self.conflicts.to_string(index=False, float_format="{:.3f}".format)
            parts.append(f"gradients of {self.gradients_of}:\n{conflicts}")
        if np.isfinite(self.seconds_per_step):
            read = self.time["logger_seconds"].sum() / self.time["seconds"].sum()
            parts.append(f"{1e3 * self.seconds_per_step:.3g} ms a step; readings took {read:.1%} of that")
        if self.gradient_seconds is not None:
            plain, balanced = self.gradient_seconds
            parts.append(
                f"gradients of a batch: {1e3 * balanced:.3g} ms with {self.method}, {1e3 * plain:.3g} ms as the plain "
                f"sum ({balanced / plain:.2f}x)"
            )
        return "\n\n".join(parts)

    def plot(self, path: str | Path) -> Path:
        """Draws the readings and writes them to `path` (png, svg, pdf).

        Weights by loss over the steps; where gradients were looked at also their norms and shares, the cosine of each
        pair, and the conflict rates as a heat map.
        """
        from mtl_zoo.evaluation._balancing_figure import draw_balancing_report

        return draw_balancing_report(self, path)


def balancing_report(source: Any) -> BalancingReport:
    """What a balancing method did: weights over time, norms and conflicts of the tasks' gradients, time spent.

    With `c_k` the coefficients and `g_k` the gradients of the losses (times their `loss_weights`), over the steps from
    one reading to the next:

        weight        = mean over steps of c_k
        norm          = mean over steps of || g_k ||
        share         = weight_k norm_k / sum_j weight_j norm_j
        cosine        = mean over steps of g_k . g_j / (|| g_k || || g_j ||)
        conflict_rate = share of the steps in which that is negative

    A step counts for a loss if it was active in it. Methods of gradients record theirs at every step (with
    `update_every`, whenever they find new coefficients). Methods of losses look at no task's gradient: then norms and
    cosines are those of one batch a reading, if the logger has a `split`, and NaN otherwise. Methods that mix the
    gradients of the representation have no coefficients: their weights are NaN.

    Args:
        source: A `BalancingLogger` that went through `fit`; or a model that was compiled with a method and trained,
            for one reading over all its steps, without times.

    Raises:
        TypeError: `source` is something else.
        ValueError: Nothing was trained yet; a model without a balancing method.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import BalancingLogger
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> model.compile("adam", balancing="uncertainty")
    >>> logger = BalancingLogger(every=10, split=data.train)
    >>> _ = model.fit(data.train.batches(1000), verbose=0, callbacks=[logger])
    >>> report = mtl_zoo.balancing_report(logger)
    >>> report.table["step"].unique().tolist(), list(report.losses["loss"])
    ([10, 20], ['click', 'conversion'])
    >>> list(report.conflicts.columns)
    ['loss', 'other', 'cosine', 'conflict_rate', 'compared']

    Reference: the conflict of two tasks as a negative cosine is that of Yu et al., NeurIPS 2020, arXiv:2001.06782.
    """
    if hasattr(source, "intervals"):
        if not source.intervals:
            raise ValueError("`source` must have gone through `fit`. Received: a BalancingLogger without a reading")
        method, names, intervals = source.method, source.loss_names, source.intervals
        gradients_of, timed = source.gradients_of, source.gradient_seconds
    elif hasattr(source, "balancing") and hasattr(source, "loss_names"):
        if source.balancing is None:
            raise ValueError("`source` must have been compiled with `balancing=...`. Received: a model without")
        method, names, timed = source.balancing.method_name, source.loss_names, None
        gradients_of = source.balancing.gradients_of
        state = read_state(source.balancing)
        if state["step"] == 0:
            raise ValueError("`source` must have been trained. Received: a model at step 0")
        steps = int(state["step"])
        intervals = [interval_between({}, state, source.balancing, step=steps, steps=steps)]
    else:
        raise TypeError(f"`source` must be a BalancingLogger or a compiled model. Received: {type(source).__name__}")
    return BalancingReport(method, gradients_of, *tables_of(intervals, names), timed)


def read_state(method: Any) -> dict[str, np.ndarray]:
    """What a method has kept of all steps so far; this waits for the device."""
    if method is None:
        return {}
    kept = {name: getattr(method, name) for name in _KEPT if hasattr(method, name)}
    return {name: np.asarray(keras.ops.convert_to_numpy(v), "float64") for name, v in kept.items()}


def interval_between(
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    method: Any,
    *,
    step: int,
    steps: int,
    seconds: float = float("nan"),
    logger_seconds: float = float("nan"),
    gram: np.ndarray | None = None,
    losses: int = 0,
) -> Interval:
    """The interval from one state to another; `gram` stands in for what the method did not look at.

    Args:
        before, after: What `read_state` gave.
        method: The model's method, or None.
        step, steps, seconds, logger_seconds: As in `Interval`.
        gram: Products of the losses' gradients on one batch, (losses, losses).
        losses: How many there are, where `method` is None.
    """
    risen = {name: value - before.get(name, 0.0) for name, value in after.items()}
    if method is None:
        active, weights = np.full(losses, float(steps)), np.ones(losses)
    else:
        active = risen["step"] - risen["skipped"]
        weights = _divided(risen["sum_coefficients"], active)
        if not method.has_coefficients:
            weights = np.full_like(weights, np.nan)
    if gram is not None:
        risen |= _as_one_step(gram)
    # A method of losses that nobody looked at on a batch either has compared nothing.
    nothing = np.zeros((len(active), len(active)))
    compared, products = risen.get("compared", nothing), risen.get("sum_cosines", nothing)
    return Interval(
        step=step,
        steps=steps,
        seconds=seconds,
        logger_seconds=logger_seconds,
        active=active,
        weights=weights,
        norms=_divided(risen.get("sum_norms", np.zeros(len(active))), np.diagonal(compared)),
        cosines=_divided(products, compared),
        conflict_rates=_divided(risen.get("conflicts", nothing), compared),
        compared=compared,
    )


def _as_one_step(gram: np.ndarray) -> dict[str, np.ndarray]:
    """What a method of gradients would keep of one step with these products."""
    norms = np.sqrt(np.diagonal(gram))
    lengths = np.multiply.outer(norms, norms)
    compared = (lengths > 0).astype("float64")
    cosines = compared * gram / np.where(lengths > 0, lengths, 1.0)
    return {"sum_norms": norms, "sum_cosines": cosines, "conflicts": 1.0 * (cosines < 0), "compared": compared}


def tables_of(intervals: Sequence[Interval], names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of a report: by loss, by pair of losses, and of times."""
    losses, pairs, times = [], [], []
    for interval in intervals:
        pulls = interval.weights * interval.norms
        shares = pulls / np.nansum(pulls) if np.nansum(pulls) > 0 else np.full_like(pulls, np.nan)
        for k, name in enumerate(names):
            row = {"weight": interval.weights[k], "norm": interval.norms[k], "share": shares[k]}
            losses.append({"step": interval.step, "loss": name, **row, "active": int(interval.active[k])})
        for i, j in itertools.combinations(range(len(names)), 2):
            row = {"cosine": interval.cosines[i, j], "conflict_rate": interval.conflict_rates[i, j]}
            both = {"step": interval.step, "loss": names[i], "other": names[j]}
            pairs.append({**both, **row, "compared": int(interval.compared[i, j])})
        per_step = interval.seconds / max(interval.steps, 1)
        times.append(
            {
                "step": interval.step,
                "steps": interval.steps,
                "seconds": interval.seconds,
                "seconds_per_step": per_step,
                "logger_seconds": interval.logger_seconds,
            }
        )
    columns = ["step", "loss", "other", "cosine", "conflict_rate", "compared"]
    return pd.DataFrame(losses), pd.DataFrame(pairs, columns=columns), pd.DataFrame(times)


def _divided(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means; NaN of nothing."""
    return np.where(counts > 0, sums / np.where(counts > 0, counts, 1.0), np.nan)


def _mean(values: pd.Series, weights: pd.Series) -> float:
    """Their weighted mean, leaving out what is NaN."""
    there = values.notna() & (weights > 0)
    return float(np.average(values[there], weights=weights[there])) if there.any() else float("nan")
