"""`explain(model, rows, task)`: what each feature adds to a score."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.evaluation.gate_report import decoded
from mtl_zoo.explanations._given import Given, index_of, inputs_of, missing_inputs, output_of
from mtl_zoo.explanations._paths import ROUNDING, Line, integrate, values_of
from mtl_zoo.models._data import is_table

METHODS, BASELINES, SCALES = ("integrated_gradients",), ("missing", "mean"), ("logit", "score")
TOLERANCE = 0.01
# Of a change near 0 that large parts make together, 1 % is out of reach of any number of gradients.
_OF_PARTS = 0.001


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of `explain`.

    Attributes:
        table: What each feature adds, a row for each row and a column for each feature.
        rows: One row for each row: `score` and `baseline`, as `predict` gives them; `change`, what is explained: the
            difference on the scale `on`; `gap`, what the features' parts lack of it; `relative_gap`, its share of the
            change; `gradients`, how many were taken; `complete`, whether the gap is below 1 % of the change, below
            .1 % of the parts' sizes together where they cancel out, or no more than float32 rounds of values of this
            size (1e-6 of the largest).
        values: The features' values: those of the table, or what ids stand for.
        task: The output that is explained.
        on: `"logit"` or `"score"`.
        unit: For a task of several classes, the position of each row's class that is explained.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model, explain
    >>> model = create_model("shared_bottom", [Categorical("item_id", size=9)], [BinaryTask("click")])
    >>> found = explain(model, {"item_id": [2, 3]})
    >>> found.table.shape, list(found.summary()["feature"])
    ((2, 1), ['item_id'])
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    values: pd.DataFrame
    task: str
    on: str
    unit: np.ndarray

    def summary(self) -> pd.DataFrame:
        """A row for each feature, the strongest first: `mean`, `mean_absolute` and its `share` of all features'."""
        strength = self.table.abs().mean()
        found = pd.DataFrame({"mean": self.table.mean(), "mean_absolute": strength})
        found["share"] = strength / max(float(strength.sum()), np.finfo("float64").tiny)
        found = found.sort_values("mean_absolute", ascending=False, kind="stable")
        return found.rename_axis("feature").reset_index()

    def reason(self, row: int = 0, features: int = 3) -> str:
        """Why one row has its score, in a line: the features with the largest parts, the largest first.

        Args:
            row: The row's position.
            features: The most features that are named.
        """
        check.check_int("row", row, 0, len(self.table) - 1)
        check.check_int("features", features)
        parts, about = self.table.iloc[row], self.rows.iloc[row]
        order = parts.abs().sort_values(ascending=False, kind="stable").index
        named = [name for name in order if parts[name] != 0][:features]
        told = [f"{'+' if parts[n] > 0 else '-'} {n}={self.shown(n, row)}" for n in named]
        text = f"{self.task} {about['score']:.3g}, baseline {about['baseline']:.3g}"
        text += f": {', '.join(told)}" if told else ": no feature matters"
        return text if about["complete"] else f"{text} (incomplete: the parts lack {about['gap']:.2g})"

    def shown(self, feature: str, row: int) -> str:
        """The value of a feature in a row, as reasons and pictures show it."""
        value = self.values[feature].iloc[row]
        return f"{value:.4g}" if isinstance(value, float | np.floating) else check.shown(value, 30)

    def plot(self, path: str | Path, row: int | None = None) -> Path:
        """Draws bars of the features' parts, and writes them to `path` (png, svg, pdf).

        Args:
            path: The file.
            row: The position of one row, whose parts are drawn with their signs. Default: the mean absolute parts of
                all rows.
        """
        from mtl_zoo.explanations._figures import draw_explanation

        return draw_explanation(self, path, row)

    def __str__(self) -> str:
        return self.summary().to_string(index=False, float_format="{:.4f}".format)


def explain(
    model: Any,
    rows: Any,
    task: str | None = None,
    *,
    method: str = "integrated_gradients",
    baseline: Any = "missing",
    on: str = "logit",
    label: Any = None,
    steps: int = 2048,
    batch_size: int = 4096,
    verbose: int = 1,
) -> Explanation:
    """What each feature adds to the scores of rows: integrated gradients in what features give the model.

    With `v_f` the vector that feature f has in the embedding (a row of a table, a number, what an encoder makes of a
    text or a list), `v'_f` that of the baseline, and F the model from all vectors to the logit,

        part_f = sum_i (v_fi - v'_fi) int_0^1 dF(v' + t (v - v')) / dv_fi dt
        change = F(v) - F(v') = sum_f part_f

    A vector that a feature has in several embeddings counts in all of them. Where the model reads a feature in another
    way too (which domain a row is of, where a list ends), that is switched from the baseline's to the row's at the
    start of the way, one feature after another, and what it changes counts as the feature's. Gradients pass where
    training stops them, since scores follow what is behind.

    The integral is one of Gauss and Legendre on pieces of the way. How far the parts on a piece are from F's difference
    between its ends is known, and where it is too far the piece is split, until all errors of a row are below 1 % of
    its change, or `steps` gradients are taken. What is left is told: `rows["gap"]`.

    Args:
        model: A model of the zoo, trained or not; how it was balanced does not matter.
        rows: A table if the model was made with a transform, a split of a data set, or a dict of arrays.
        task: Name of the output, such as `"click_and_conversion"` of ESMM. Default: the only one.
        method: `"integrated_gradients"`.
        baseline: What scores are compared with. `"missing"`: all values are missing; where none was in the training
            rows, what stands for a missing one is as it was drawn at the start. `"mean"`: the mean of each feature's
            vectors over `rows`. Or rows of reference in any of the forms of `rows`, of whose vectors the mean is taken.
            A mean leaves how long a list is, and of which domain a row, as they are.
        on: What parts add up to. `"logit"`: the log-odds where scores are probabilities, as they are served
            (calibrated, sampling undone), and the score itself for other tasks. `"score"`: the score.
        label: For a task of several classes, the class. Default: each row's most probable one.
        steps: The most gradients of a row. Wide networks of ReLUs have many bends, and need hundreds.
        batch_size: Points at once.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: No such output, class or row; values that the model cannot read.

    Example:

    >>> import mtl_zoo
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(8,))
    >>> found = mtl_zoo.explain(model, data.test.take(5), "click")
    >>> found.table.shape, bool(found.rows["complete"].all())
    ((5, 14), True)

    Reference: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv:1703.01365. Splitting by
    the gap is ours.
    """
    check.check_choice("method", method, METHODS)
    check.check_choice("on", on, SCALES)
    check.check_int("steps", steps, minimum=16)
    check.check_int("batch_size", batch_size, minimum=4)
    output, given = output_of(model, task), Given(model)
    with Bar("Explaining rows", verbose=verbose):
        inputs = inputs_of(model, rows, verbose=verbose)
        units = _units(model, output, inputs, label, batch_size)
        line, before = _way(given, inputs, baseline, units, verbose)
        return _Explaining(given, output, line, before, on, steps, batch_size).explanation(inputs, rows)


@dataclasses.dataclass(frozen=True)
class _Explaining:
    """One call of `explain`: the way from the baseline to the rows, and what is read as it is at its start."""

    given: Given
    output: Any
    line: Line
    before: dict[str, np.ndarray]
    on: str
    steps: int
    size: int

    def explanation(self, inputs: dict[str, np.ndarray], rows: Any) -> Explanation:
        names = [feature.name for feature in self.given.model.features]
        function = self.given.function(self._margins if self.on == "logit" else self._scores)
        switched, start = self._switched(function)
        end = self._values(function, self.line, 1.0)
        change = end - start
        found = integrate(function, self.line, most=self.steps, tolerance=0.9 * TOLERANCE, scale=change, size=self.size)
        parts = pd.DataFrame(0.0, index=index_of(rows, len(change)), columns=names)
        for owner, part in zip(self.given.owners, found.parts.T, strict=True):
            parts[owner] += part
        for owner, part in switched.items():
            parts[owner] += part
        about = self._about(parts, change, found.gradients, max(np.abs(start).max(), np.abs(end).max()))
        values = _shown(self.given.model, inputs, rows)
        return Explanation(parts, about, values, self.output.name, self.on, self.line.units)

    def _about(self, parts: pd.DataFrame, change: np.ndarray, gradients: np.ndarray, largest: float) -> pd.DataFrame:
        scores = self.given.function(self._scores)
        start = self._values(scores, self.line._replace(others=self.before), 0.0)
        gap = change - parts.to_numpy().sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(gap == 0, 0.0, np.abs(gap) / np.abs(change))
        allowed = np.maximum(ROUNDING * largest, _OF_PARTS * np.abs(parts.to_numpy()).sum(axis=1))
        complete = (relative < TOLERANCE) | (np.abs(gap) <= allowed)
        found = {"score": self._values(scores, self.line, 1.0), "baseline": start, "change": change, "gap": gap}
        found |= {"relative_gap": relative, "gradients": gradients, "complete": complete}
        if not complete.all():
            warnings.warn(
                f"The parts of {int((~complete).sum())} of {len(gap)} rows lack more than {TOLERANCE:.0%} of the "
                "change that they explain: see `rows`. Give more `steps`.",
                stacklevel=4,
            )
        return pd.DataFrame(found, index=parts.index)

    def _switched(self, function: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """By feature, what reading it as it is changes where all vectors are the baseline's; and the value before."""
        others, found = dict(self.before), {}
        first = now = self._values(function, self.line._replace(others=others), 0.0)
        for feature, names in self.given.read.items():
            if any(self.before[name] is not self.line.others[name] for name in names):
                others |= {name: self.line.others[name] for name in names}
                after = self._values(function, self.line._replace(others=dict(others)), 0.0)
                found[feature], now = after - now, after
        return found, first

    def _values(self, function: Any, line: Line, at: float) -> np.ndarray:
        rows = np.arange(len(line.units))
        return values_of(function, line, rows, np.full(len(rows), at, "float32"), self.size)

    def _margins(self, logits: dict[str, Any]) -> Any:
        return self.output.task.margins(self.given.model.corrected(logits)[self.output.name])

    def _scores(self, logits: dict[str, Any]) -> Any:
        return self.output.scores(self.given.model.corrected(logits)[self.output.name])


def _way(
    given: Given, inputs: Any, baseline: Any, units: np.ndarray, verbose: int
) -> tuple[Line, dict[str, np.ndarray]]:
    """The lines from the baseline's vectors to the rows', and what is read as it is at the baseline."""
    rows, end, others = len(units), given.vectors(inputs), given.others(inputs)
    if isinstance(baseline, str):
        check.check_choice("baseline", baseline, BASELINES)
    if isinstance(baseline, str) and baseline == "mean":
        return Line([vectors.mean(axis=0, keepdims=True) for vectors in end], end, others, units), others
    if isinstance(baseline, str):
        reference: dict[str, Any] = {}
        for feature in given.model.features:
            reference |= missing_inputs(feature, inputs, 1)
    else:
        reference = inputs_of(given.model, baseline, "baseline", verbose)
    start = [vectors.mean(axis=0, keepdims=True) for vectors in given.vectors(reference)]
    for owner, one, other in zip(given.owners, start, end, strict=True):
        if one.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"`baseline` must hold lists of {other.shape[1]} values for feature {owner!r}, as `rows` does. "
                f"Received: {one.shape[1]}"
            )
    count = len(next(iter(reference.values())))
    before = others if count > 1 else {n: np.repeat(x, rows, axis=0) for n, x in given.others(reference).items()}
    return Line(start, end, others, units), before


def _units(model: Any, output: Any, inputs: Any, label: Any, batch_size: int) -> np.ndarray:
    """The position of each row's class in the output."""
    rows = len(next(iter(inputs.values())))
    if label is not None:
        labels = getattr(output.task, "class_labels", ())
        if output.units == 1 or label not in labels:
            raise ValueError(
                f"`label` must be a class of task {output.task.name!r}. Received: label={label!r}. "
                f"Expected: {list(labels) if output.units > 1 else 'None, since it has one score'}"
            )
        return np.full(rows, list(labels).index(label), "int32")
    if output.units == 1:
        return np.zeros(rows, "int32")
    scores = model.predict(inputs, batch_size=batch_size, verbose=0)[output.name]
    return np.asarray(scores).argmax(axis=1).astype("int32")


def _shown(model: Any, inputs: Any, rows: Any) -> pd.DataFrame:
    """The features' values as their reader knows them."""
    columns, count = {}, len(next(iter(inputs.values())))
    for feature in model.features:
        if is_table(rows) and feature.source in getattr(rows, "column_names", rows.columns):
            column = rows[feature.source]
            values = column.to_numpy() if isinstance(rows, pd.DataFrame) else column.to_pylist()
        else:
            values = decoded(model, feature, inputs[next(iter(feature.input_specs()))])
        columns[feature.name] = pd.Series(list(values), index=index_of(rows, count), dtype=object)
    return pd.DataFrame(columns)
