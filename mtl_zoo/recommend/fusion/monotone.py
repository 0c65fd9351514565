"""A learned fusion: a small network that never lowers its score when a task's score rises."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from mtl_zoo import _validation as check
from mtl_zoo.recommend.fusion._base import Fusion, column, register_fusion, total
from mtl_zoo.recommend.fusion._math import Math

SMALLEST = 1e-12


@register_fusion("monotone")
@dataclasses.dataclass(frozen=True)
class MonotoneNetwork(Fusion):
    """A network with weights that are not negative, on standardised logarithms of scores; `fit` learns it.

        x_k = (ln max(s_k, 1e-12) - mean_k) / scale_k
        score = sum_k a_k x_k + sum_h v_h tanh(sum_k W_hk x_k + b_h),      a, v, W >= 0

    So a candidate that scores no lower for any task never ranks behind. Without hidden units the order is that of
    `Powers`.

    Args:
        names: The tasks.
        mean, scale: Of the logarithms, by task; scales are > 0.
        linear: a, by task.
        kernel: W, one row of numbers by task for each hidden unit.
        bias: b, by hidden unit.
        output: v, by hidden unit.
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: A weight is negative, or lengths differ.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import MonotoneNetwork
    >>> rng = np.random.default_rng(0)
    >>> click, conversion = rng.uniform(0.01, 0.3, (2, 2000))
    >>> bought = (rng.random(2000) < click * conversion).astype(float)
    >>> fusion = MonotoneNetwork.fit({"click": click, "conversion": conversion}, bought, np.arange(2000) // 20)
    >>> low, high = fusion({"click": [0.1, 0.1], "conversion": [0.05, 0.2]})
    >>> bool(high > low)
    True

    Reference: Sill, Monotonic Networks, NeurIPS 1997; the loss: Cao et al., Learning to Rank: From Pairwise Approach to
    Listwise Approach, ICML 2007, https://doi.org/10.1145/1273496.1273513
    """

    names: Sequence[str]
    mean: Sequence[float]
    scale: Sequence[float]
    linear: Sequence[float]
    kernel: Sequence[Sequence[float]] = ()
    bias: Sequence[float] = ()
    output: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("names", "mean", "scale", "linear", "bias", "output"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "kernel", tuple(tuple(row) for row in self.kernel))
        tasks, units = len(self.names), len(self.bias)
        widths = {len(self.mean), len(self.scale), len(self.linear), *(len(row) for row in self.kernel)}
        if not tasks or widths != {tasks} or {len(self.kernel), len(self.output)} != {units}:
            raise ValueError(
                "`kernel` must have a row a unit and a number a task. "
                f"Received: {len(self.kernel)} rows, {units} biases, {tasks} tasks"
            )
        check.check_unique_names("names", self.names)
        numbers = [*self.linear, *self.output, *(weight for row in self.kernel for weight in row)]
        for value in numbers:
            check.check_number("weights", value, minimum=0)
        for value in self.scale:
            check.check_number("scale", value, above=0)
        for value in (*self.mean, *self.bias):
            check.check_number("bias", value)

    def tasks(self) -> tuple[str, ...]:
        return tuple(self.names)

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        x = []
        for name, mean, scale in zip(self.names, self.mean, self.scale, strict=True):
            log = math.log(math.maximum(scores[name], math.constant(SMALLEST, scores[name])))
            x.append((log - mean) / scale)
        parts = [weight * value for weight, value in zip(self.linear, x, strict=True)]
        for row, bias, weight in zip(self.kernel, self.bias, self.output, strict=True):
            inner = total([w * value for w, value in zip(row, x, strict=True)]) + bias
            parts.append(weight * math.tanh(inner))
        return total(parts)

    @classmethod
    def fit(
        cls,
        scores: Mapping[str, Any],
        labels: Any,
        groups: Any,
        *,
        units: int = 4,
        l2: float = 1e-3,
        iterations: int = 200,
        seed: int = 0,
        floors: Mapping[str, float] | None = None,
    ) -> MonotoneNetwork:
        """Learns the network from lists with labels, by L-BFGS-B with bounds at 0.

        The loss is the listwise softmax, `-sum_i y_i ln softmax(score)_i` summed over lists and divided by `sum y`,
        plus `l2` times the sum of squared weights. Lists without a positive label have no say.

        Args:
            scores: Scores by task, each of shape (rows,).
            labels: What a good candidate has, numbers >= 0, of shape (rows,).
            groups: The list of each row.
            units: Hidden units; 0 for none.
            l2: Strength of the penalty.
            iterations: At most so many.
            seed: Of the first weights.
            floors: As for the class.

        Raises:
            ValueError: No list has a positive label; scores, labels and groups differ in length or are not finite.
        """
        units = check.check_int("units", units, minimum=0, maximum=64)
        l2 = check.check_number("l2", l2, minimum=0)
        iterations = check.check_int("iterations", iterations)
        names = tuple(scores)
        x = np.stack([np.log(np.maximum(column(scores[name]), SMALLEST)) for name in names], axis=1)
        y = np.asarray(labels, "float64").reshape(-1)
        codes = np.unique(np.asarray(groups).reshape(-1), return_inverse=True)[1]
        if not len(x) == len(y) == len(codes) or not np.isfinite(x).all():
            raise ValueError(
                "`scores` must be finite, one for each label and group. "
                f"Received: {len(x)}, {len(y)} and {len(codes)} rows"
            )
        if not np.isfinite(y).all() or (y < 0).any() or not y.any():
            raise ValueError("`labels` must be finite, >= 0, and positive for at least one row. Received: others")
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        order = np.argsort(codes, kind="stable")
        problem = _Listwise((x[order] - mean) / scale, y[order], codes[order], units, l2)
        found = minimize(
            problem.loss, problem.start(seed), jac=True, method="L-BFGS-B", bounds=problem.bounds(),
            options={"maxiter": iterations},
        )  # fmt: skip
        linear, kernel, bias, output = problem.parts(found.x)
        return cls(
            names, mean.tolist(), scale.tolist(), linear.tolist(), kernel.tolist(), bias.tolist(), output.tolist(),
            floors=floors or {},
        )  # fmt: skip


class _Listwise:
    """The loss of `MonotoneNetwork.fit` and its gradient; rows of a list stand together."""

    def __init__(self, x: np.ndarray, y: np.ndarray, codes: np.ndarray, units: int, l2: float):
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        sums = np.add.reduceat(y, starts)
        sizes = np.diff(np.r_[starts, len(codes)])
        kept = np.repeat(sums > 0, sizes)
        self.x, self.y, self.units, self.l2 = x[kept], y[kept] / sums.sum(), units, l2
        self.sizes, self.sums = sizes[sums > 0], sums[sums > 0] / sums.sum()
        self.starts = np.cumsum(self.sizes) - self.sizes

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        tasks, units = self.x.shape[1], self.units
        linear, kernel, bias, output = np.split(theta, np.cumsum([tasks, tasks * units, units]))
        return linear, kernel.reshape(units, tasks), bias, output

    def bounds(self) -> list[tuple[float | None, float | None]]:
        tasks, units = self.x.shape[1], self.units
        positive: tuple[float | None, float | None] = (0.0, None)
        return [positive] * (tasks + tasks * units) + [(None, None)] * units + [positive] * units

    def start(self, seed: int) -> np.ndarray:
        rng, tasks, units = np.random.default_rng(seed), self.x.shape[1], self.units
        kernel, bias = rng.uniform(0, 1, tasks * units), rng.normal(size=units)
        return np.concatenate([np.full(tasks, 0.5), kernel, bias, np.full(units, 0.1)])

    def loss(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        linear, kernel, bias, output = self.parts(theta)
        hidden = np.tanh(self.x @ kernel.T + bias)
        score = self.x @ linear + hidden @ output
        score = score - np.repeat(np.maximum.reduceat(score, self.starts), self.sizes)
        mass = np.exp(score)
        sums = np.add.reduceat(mass, self.starts)
        loss = float(self.sums @ np.log(sums) - self.y @ score)
        slope = mass * np.repeat(self.sums / sums, self.sizes) - self.y
        inner = slope[:, None] * output * (1 - hidden**2)
        gradient = np.concatenate([slope @ self.x, (inner.T @ self.x).reshape(-1), inner.sum(axis=0), slope @ hidden])
        penalised = theta.copy()
        tasks = self.x.shape[1]
        penalised[tasks * (1 + self.units) : tasks * (1 + self.units) + self.units] = 0  # biases
        return loss + self.l2 * float(penalised @ penalised), gradient + 2 * self.l2 * penalised
