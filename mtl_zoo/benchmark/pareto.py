"""`pareto(model_builder, data)`: what tasks cost each other, by a sweep of static weights and by balancing methods."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.balancing import Balancing, Static, as_balancing, label_of, static_grid
from mtl_zoo.benchmark.training import train_once
from mtl_zoo.datasets import Dataset, Split
from mtl_zoo.evaluation import evaluate_scores
from mtl_zoo.evaluation._figures import new_figure, save_figure
from mtl_zoo.evaluation.gain import lower_is_better, score_of
from mtl_zoo.optimizers import as_optimizer
from mtl_zoo.training.selection import Selection, WeightedScore, judged_outputs

STATIC, METHOD = "static", "method"


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """What `pareto` found.

    Attributes:
        table: One row for each static weight vector and method: `name`, `kind` ("static" or "method"), for each task
            the mean over seeds of its metric (a column of the task's name) and `<task>_std`, `on_front`,
            `dominated_by` (names of the points that are as good for every task and better for one), `train_seconds`
            (mean over seeds), `seeds`.
        metrics: The metric of each task.
        split: Which split the metrics are of.
    """

    table: pd.DataFrame
    metrics: dict[str, str]
    split: str

    @property
    def front(self) -> pd.DataFrame:
        """The rows that no other point dominates, by the first task."""
        return self.table[self.table["on_front"]].sort_values(next(iter(self.metrics)), ignore_index=True)

    def __str__(self) -> str:
        shown = ["name", *self.metrics, "on_front", "dominated_by"]
        return self.table[shown].to_string(index=False, float_format="{:.5g}".format)

    def plot(self, path: str | Path) -> Path:
        """Draws a panel for each pair of tasks and writes it to `path` (png, svg, pdf).

        Static weights are dots, methods are named crosses; a line joins the points that no other dominates in the two
        tasks of the panel. Axes of errors are turned round, so that better is up and to the right.
        """
        return draw_pareto(self, path)


def pareto(
    model_builder: Callable[[], Any],
    data: Dataset,
    methods: Sequence[str | Balancing] = (),
    *,
    weights: Sequence[Mapping[str, float]] | None = None,
    steps: int = 8,
    ratio: float = 100.0,
    seeds: int = 1,
    epochs: int = 5,
    patience: int | None = None,
    batch_size: int = 1024,
    optimizer: Any = "auto",
    select: Selection | None = None,
    split: str = "test",
    verbose: int = 1,
) -> ParetoFront:
    """Trains one model with static weights and with balancing methods, and says which points are best for the tasks.

    A point dominates another if it is as good for every task and better for one; the front are the points that none
    dominates. Every point is trained alike: the same epochs, optimizer and seeds, the best epoch on the validation
    split. A method that the static weights dominate is not worth its cost here. Differences below a few times the
    standard deviation over seeds are no differences: `<task>_std` says how large that is.

    Args:
        model_builder: Function without arguments that makes a new model, not compiled.
        data: A data set with training, validation and test rows.
        methods: Names of `list_balancing()`, or methods of `mtl_zoo.balancing`.
        weights: Static weights to try, dicts by loss name. None: those of `static_grid` with `steps` and `ratio`.
        steps, ratio: Of the grid: `steps + 1` points with two tasks, with ratios from `1 / ratio` to `ratio`.
        seeds: Every point is trained with the seeds 0 to `seeds` - 1, which draw the weights and the order of rows.
        epochs: The most epochs trained.
        patience: Stop after so many epochs without improvement. None: train all.
        batch_size: Rows a step.
        optimizer: As `compile` takes it; every model gets a fresh copy.
        select: What the best epoch is, and by which metrics tasks are compared. None: `WeightedScore()`, the mean
            of AUC, accuracy or 1 - NRMSE.
        split: Which split the table shows: `"test"` or `"validation"`.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: A number out of its range, an unknown method or split, no point at all, weights that do not name
            the losses.
        TypeError: A method that is neither a name nor a Balancing.

    Example:

    >>> from mtl_zoo import create_model, load_dataset
    >>> from mtl_zoo.benchmark.pareto import pareto
    >>> data = load_dataset("synthetic_regression", correlation=-0.5, size=1000)
    >>> def build():
    ...     return create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,), tower_units=(4,))
    >>> found = pareto(build, data, ["imtl_l"], steps=2, epochs=2, batch_size=200)
    >>> list(found.table["name"])
    ['static(y1=0.019802, y2=1.9802)', 'static(y1=1, y2=1)', 'static(y1=1.9802, y2=0.019802)', 'imtl_l']
    >>> found.metrics
    {'y1': 'nrmse', 'y2': 'nrmse'}

    Reference: the static front as the measure of methods: Xin et al., NeurIPS 2022.
    """
    for argument, value in (("seeds", seeds), ("epochs", epochs), ("batch_size", batch_size)):
        check.check_int(argument, value)
    check.check_choice("split", split, ("validation", "test"))
    known = model_builder()
    given = static_grid(known.loss_names, steps, ratio) if weights is None else list(weights)
    points: list[tuple[str, Balancing]] = [(STATIC, Static(point)) for point in given]
    points += [(METHOD, balancing) for method in methods if (balancing := as_balancing(method)) is not None]
    if not points or None in methods:
        raise ValueError(
            "`weights` and `methods` must hold at least one point, and no None. "
            f"Received: {len(given)} weights, methods={list(methods)}"
        )
    check.check_unique_names("methods", [label_of(balancing) for _, balancing in points])
    rule = WeightedScore() if select is None else select
    metrics = rule.metrics_of(known)
    rows: list[dict[str, Any]] = []
    with Bar("Training points", len(points) * seeds, verbose) as bar:
        for kind, balancing in points:

            def compile_arguments(model: Any, balancing: Balancing = balancing) -> dict[str, Any]:
                fresh = as_optimizer(optimizer)
                return {"optimizer": type(fresh).from_config(fresh.get_config()), "balancing": balancing}

            values, seconds = [], []
            for seed in range(seeds):
                sizes: dict[str, Any] = {"epochs": epochs, "patience": patience, "batch_size": batch_size, "rule": rule}
                trained = train_once(model_builder, compile_arguments, data, seed, **sizes)
                values.append(_metrics_of(trained.model, data.splits[split], metrics))
                seconds.append(trained.timer.total_seconds)
                bar.advance()
            table = pd.DataFrame(values)
            row = {"name": label_of(balancing), "kind": kind, **table.mean()}
            row |= {f"{task}_std": std for task, std in table.std(ddof=1).items()}
            rows.append({**row, "train_seconds": float(np.mean(seconds)), "seeds": seeds})
    return front_of(pd.DataFrame(rows), metrics, split)


def front_of(table: pd.DataFrame, metrics: Mapping[str, str], split: str = "test") -> ParetoFront:
    """The front of points that were measured before: a table with `name` and a column for each task."""
    columns = [[score_of(metric, value) for value in table[task]] for task, metric in metrics.items()]
    scores = np.array(columns, "float64").T
    # A metric that is not defined compares with nothing.
    defined = np.isfinite(scores).all(axis=1)
    dominated = []
    for own in scores:
        better = (scores >= own).all(axis=1) & (scores > own).any(axis=1)
        dominated.append(", ".join(table["name"][better & defined]))
    on_front = defined & np.array([not names for names in dominated])
    return ParetoFront(table.assign(on_front=on_front, dominated_by=dominated), dict(metrics), split)


def _metrics_of(model: Any, rows: Split, metrics: Mapping[str, str]) -> dict[str, float]:
    table = evaluate_scores(model, rows, model.predict(rows.inputs, verbose=0), only=set(metrics.values()))
    values: dict[Any, Any] = {(row.task, row.metric): row.value for row in table.itertuples()}
    outputs = judged_outputs(model)
    return {name: values[outputs.get(name, name), metric] for name, metric in metrics.items()}


def draw_pareto(found: ParetoFront, path: str | Path) -> Path:
    """A panel for each pair of tasks: static weights as dots, methods as named crosses, the pair's front as a line.

    Args:
        found: A `ParetoFront`.
        path: Where to.
    """
    pairs: list[Any] = list(itertools.combinations(found.metrics, 2)) or [tuple(found.metrics) * 2]
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = new_figure(5.0 * columns, 4.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (first, second) in zip(panels, pairs, strict=False):
        _draw_pair(panel, found, first, second)
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    return save_figure(figure, path)


def _draw_pair(panel: Any, found: ParetoFront, first: str, second: str) -> None:
    two = front_of(found.table, {name: found.metrics[name] for name in dict.fromkeys((first, second))}, found.split)
    panel.plot(two.front[first], two.front[second], color="0.6", linewidth=1, zorder=0, label="front")
    for kind, marker, color in (("static", "o", "C0"), ("method", "x", "C3")):
        points = found.table[found.table["kind"] == kind]
        spread = {f"{axis}err": points[f"{name}_std"].fillna(0.0) for axis, name in (("x", first), ("y", second))}
        label = f"{kind}s" if kind == "method" else "static weights"
        style = {"fmt": marker, "color": color, "elinewidth": 0.6, "alpha": 0.8, "markersize": 5, "label": label}
        if len(points):
            panel.errorbar(points[first], points[second], **spread, **style)
    for row in found.table[found.table["kind"] == "method"].to_dict("records"):
        panel.annotate(row["name"], (row[first], row[second]), xytext=(4, 3), textcoords="offset points", fontsize=6)
    panel.set_xlabel(f"{first} {found.metrics[first]}")
    panel.set_ylabel(f"{second} {found.metrics[second]}")
    if lower_is_better(found.metrics[first]):
        panel.invert_xaxis()
    if lower_is_better(found.metrics[second]):
        panel.invert_yaxis()
    panel.grid(alpha=0.3)
    panel.legend(fontsize="x-small", frameon=False)
