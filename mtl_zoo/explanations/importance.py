"""`permutation_importance(model, split)`: what each task's metric loses when a feature says nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.evaluation.evaluate import as_split
from mtl_zoo.evaluation.significance import bootstrap_interval
from mtl_zoo.explanations._given import inputs_of, missing_inputs, output_of

METHODS = ("permute", "missing")
COLUMNS = ("task", "feature", "metric", "importance", "low", "high", "value", "without", "observed")


@dataclasses.dataclass(frozen=True)
class Importance:
    """The result of `permutation_importance`.

    Attributes:
        table: One row for each task and feature (or group of features), the most important of a task first:
            `importance`, what the metric loses, positive where the feature helps, and its interval, `low` and `high`;
            `value` of the metric with all features and `without` this one; `observed`, how many rows counted.
        method: `"permute"` or `"missing"`.
        repeats: How often rows were shuffled.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.datasets import Split
    >>> from mtl_zoo.explanations import permutation_importance
    >>> model = create_model("shared_bottom", [Categorical("item_id", size=9)], [BinaryTask("click")])
    >>> split = Split({"item_id": [2, 3, 4, 5]}, {"click": [0.0, 1.0, 0.0, 1.0]})
    >>> permutation_importance(model, split, resamples=20).table["feature"].tolist()
    ['item_id']
    """

    table: pd.DataFrame
    method: str
    repeats: int

    def plot(self, path: str | Path) -> Path:
        """Draws a panel of bars for each task, with intervals, and writes them to `path` (png, svg, pdf)."""
        from mtl_zoo.explanations._figures import draw_importance

        return draw_importance(self, path)

    def __str__(self) -> str:
        return self.table.to_string(index=False, float_format="{:.4f}".format)


def permutation_importance(
    model: Any,
    split: Any,
    tasks: str | Sequence[str] | None = None,
    *,
    method: str = "permute",
    groups: Mapping[str, Sequence[str]] | None = None,
    metric: str | Mapping[str, str] | None = None,
    repeats: int = 3,
    resamples: int = 100,
    confidence: float = 0.95,
    batch_size: int = 4096,
    seed: int = 0,
    verbose: int = 1,
) -> Importance:
    """What the metric of each task loses when a feature's values are shuffled over the rows, or are missing.

    With M the metric on a split, and more of it better,

        importance_f = M(scores) - mean over repeats of M(scores, f shuffled)

    and the sign turned where less is better. Features that say the same each cover for the other, and look less
    important than both together are: `groups` shuffles several as one.

    Rows count as in `evaluate`, with the split's weights. The interval is a paired bootstrap of those rows: of what was
    drawn as the split, and of how values fell on rows, not of how the model was trained.

    Args:
        model: A model of the zoo.
        split: A split of a data set, or a table if the model was made with a transform.
        tasks: Names of outputs. Default: all.
        method: `"permute"`, or `"missing"`: the feature is left out, its values are missing in all rows. A model that
            has seen no missing values does not know what to do with them.
        groups: By name, features that are shuffled together. Default: each feature alone.
        metric: Name of an exact metric, or one for each task. Default: the one that epochs of the kind of task are
            compared by, such as `"auc"`.
        repeats: How often each feature is shuffled. 1 with `method="missing"`.
        resamples: Of the bootstrap; 0 leaves intervals out.
        confidence: The probability that intervals are meant to cover.
        batch_size: Rows a step of `predict`.
        seed: Of shuffles and resamples.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: No such output, feature or metric; the split is empty.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.explanations import permutation_importance
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> found = permutation_importance(model, data.test.take(300), "click", repeats=1, resamples=20)
    >>> list(found.table.columns)[:6]
    ['task', 'feature', 'metric', 'importance', 'low', 'high']

    Reference: Breiman, "Random Forests", Machine Learning 45, 2001, doi:10.1023/A:1010933404324; Fisher et al., "All
    Models are Wrong, but Many are Useful", JMLR 20, 2019, arXiv:1801.01489.
    """
    check.check_choice("method", method, METHODS)
    repeats = check.check_int("repeats", repeats) if method == "permute" else 1
    check.check_int("resamples", resamples, minimum=0)
    split = as_split(model, split, verbose)
    inputs, named = inputs_of(model, split, "split"), _groups(model, groups)
    names = [tasks] if isinstance(tasks, str) else tasks
    wanted = model.outputs_info if names is None else [output_of(model, name) for name in names]
    if not wanted or not named:
        raise ValueError(f"`{'groups' if wanted else 'tasks'}` must name at least one. Received: none")
    if isinstance(metric, Mapping):
        for name in metric:
            check.check_choice("metric", name, tuple(output.name for output in wanted))
    measures = {o.name: _Measure.of(model, split, o, _metric_of(metric, o)) for o in wanted}

    def scored(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found = model.predict(dict(arrays), batch_size=batch_size, verbose=0)
        return {name: measure.counted(found[name]) for name, measure in measures.items()}

    rng, rows = np.random.default_rng(seed), []
    with Bar("Features", len(named), verbose) as bar:
        before = scored(inputs)
        for group, features in named.items():
            parts = [scored(_without(features, inputs, method, rng)) for _ in range(repeats)]
            for name, measure in measures.items():
                after = np.stack([part[name] for part in parts], axis=1)
                rows.append((name, group, *measure.compared(before[name], after, resamples, confidence, seed)))
            bar.advance()
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    order = {name: place for place, name in enumerate(measures)}
    table = table.sort_values("importance", ascending=False, kind="stable")
    table = table.sort_values("task", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    return Importance(table, method, repeats)


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A metric of one output on the rows that count."""

    metric: str
    function: Callable[..., float]
    direction: int
    rows: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None
    units: int

    @classmethod
    def of(cls, model: Any, split: Any, output: Any, metric: str) -> _Measure:
        known = output.task.exact_metrics()
        directed = tuple(name for name, found in known.items() if found.direction)
        found = known[check.check_choice("metric", metric, directed)]
        label, counts = (
            keras.ops.convert_to_numpy(part).reshape(-1) for part in model.targets(split.labels)[output.name]
        )
        rows = np.flatnonzero(counts > 0)
        weights = split.weights.get(output.task.name) if isinstance(split.weights, Mapping) else split.weights
        weight = None if weights is None else np.asarray(weights, "float64").reshape(-1)[rows]
        return cls(metric, found.function, found.direction, rows, label[rows], weight, output.units)

    def counted(self, scores: np.ndarray) -> np.ndarray:
        return scores[self.rows] if self.units > 1 else scores[self.rows, 0]

    def compared(
        self, before: np.ndarray, after: np.ndarray, resamples: int, confidence: float, seed: int
    ) -> tuple[Any, ...]:
        """The columns of a row behind task and feature, from scores (rows, ...) and (rows, repeats, ...)."""
        weight = np.ones(len(self.rows)) if self.weight is None else self.weight

        def value(label: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
            return self.function(label, scores, None if self.weight is None else weights)

        def loss(label: np.ndarray, first: np.ndarray, others: np.ndarray, weights: np.ndarray) -> float:
            without = [value(label, others[:, i], weights) for i in range(others.shape[1])]
            return self.direction * (value(label, first, weights) - float(np.mean(without)))

        columns = (self.label, before, after, weight)
        low = high = float("nan")
        if len(self.rows) == 0:
            return (self.metric, *[float("nan")] * 5, 0)
        importance = loss(*columns)
        if resamples and len(self.rows) > 1 and np.isfinite(importance):
            _, low, high = bootstrap_interval(loss, *columns, resamples=resamples, confidence=confidence, seed=seed)
        with_all = value(self.label, before, weight)
        return self.metric, importance, low, high, with_all, with_all - self.direction * importance, len(self.rows)


def _groups(model: Any, groups: Mapping[str, Sequence[str]] | None) -> dict[str, list[Any]]:
    known = {feature.name: feature for feature in model.features}
    if groups is None:
        return {name: [feature] for name, feature in known.items()}
    if not isinstance(groups, Mapping):
        raise ValueError(f"`groups` must be lists of features by a name. Received: groups={groups!r}")
    for name, members in groups.items():
        unknown = [member for member in members if member not in known]
        if unknown or isinstance(members, str) or not members:
            raise ValueError(
                f"`groups` must hold lists of features. Received: {name!r}: {members!r}. Features: {list(known)}"
            )
    return {name: [known[member] for member in members] for name, members in groups.items()}


def _metric_of(metric: str | Mapping[str, str] | None, output: Any) -> str:
    if isinstance(metric, Mapping):
        metric = metric.get(output.name)
    return output.task.selection_metric if metric is None else metric


def _without(features: Sequence[Any], inputs: Mapping[str, Any], method: str, rng: Any) -> dict[str, Any]:
    """The inputs with some features' values on other rows, or missing."""
    rows = len(next(iter(inputs.values())))
    changed, order = dict(inputs), rng.permutation(rows)
    for feature in features:
        if method == "missing":
            changed |= missing_inputs(feature, inputs, rows)
        else:
            changed |= {name: inputs[name][order] for name in feature.input_specs()}
    return changed
