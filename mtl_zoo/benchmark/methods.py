"""Which balancing methods helped: the rows of a suite against the plain sum and the tuned grid of static weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.balancing import CHOSEN_WEIGHT, spec_of_row, static_weights
from mtl_zoo.benchmark.config import EQUAL, STATIC_SWEEP
from mtl_zoo.benchmark.results import rows_by
from mtl_zoo.evaluation.gain import score_of

# What a task's runs are compared by: the first of these that it has, as the best epoch and the sweep's point are.
METRICS = ("auc", "nrmse", "accuracy")
# Differences below what the tables show are none.
_DIGITS = 5


class Difference(NamedTuple):
    """Of two methods' scores on the same seeds: the mean, its 95 % interval, and on how many seeds it is above 0."""

    mean: float
    low: float
    high: float
    above: int
    below: int
    seeds: int

    @property
    def text(self) -> str:
        interval = f" ({self.low:+.4f} .. {self.high:+.4f})" if np.isfinite(self.low) else ""
        return f"{self.mean:+.4f}{interval}" if self.seeds else "-"

    @property
    def always_above(self) -> bool:
        return self.above == self.seeds > 1

    @property
    def always_below(self) -> bool:
        return self.below == self.seeds > 1

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The methods of one suite.

    Attributes:
        title: Data set and model.
        split_rule: How the rows were split.
        training: How all were trained.
        metrics: The metric of each task.
        table: A row for each method, best first: `method` with its options, `balancing` (its name), `seeds`, `score`
            (the mean over tasks and seeds of AUC, accuracy or 1 - NRMSE), `<task>` and `<task>_std`, `to_equal` and
            `to_sweep` (a `Difference` of scores, or None) and `epochs` (the mean that was trained; of a sweep those of
            all its points).
        points: A row for each vector of static weights that was tried: `method`, `weights`, `seeds`, `score`, tasks.
        chosen: The weights that the sweep chose, by seed: {seed: {loss: weight}}.
        failed: Errors by run.
    """

    title: str
    split_rule: str
    training: str
    metrics: dict[str, str]
    table: pd.DataFrame
    points: pd.DataFrame
    chosen: dict[int, dict[str, float]]
    failed: dict[str, str]


def compare_methods(table: pd.DataFrame, split: str = "test") -> list[Comparison]:
    """Compares balancing methods that trained one model alike: one `Comparison` for each model and data set.

    A run's score is the mean over tasks of AUC, accuracy or 1 - NRMSE, by which epochs and the sweep's point are
    chosen too (on the validation split). Runs of the same seed start from the same weights and see the rows in the same
    order, so differences are taken seed by seed.

    Args:
        table: What `ResultStore.read` gives.
        split: Whose metrics are compared: `"test"` or `"validation"`.

    Raises:
        ValueError: There are no results of that split.
    """
    check.check_choice("split", split, ("validation", "test"))
    suite = ["dataset", "variant", "data_version", "dataset_options", "split_rule", "model", "hyperparameters"]
    return [
        _comparison(rows, split, failed) for rows, failed in rows_by(table, suite, split, lambda row: row.balancing)
    ]


def _comparison(rows: pd.DataFrame, split: str, failed: dict[str, str]) -> Comparison:
    # The tasks, without a funnel's product: only they have a score by which the epoch is chosen.
    judged = rows[rows["metric"] == "epochs_trained"][["task", "space"]].drop_duplicates()
    epochs = rows[rows["metric"] == "epochs_trained"].groupby("key")["value"].max()
    own = rows[rows["split"] == split].merge(judged, on=["task", "space"])
    metrics = {task: metric for task in judged["task"] for metric in _metric_of(own, task)}
    runs = _runs(own, metrics).assign(epochs=lambda found: found["key"].map(epochs))
    is_point = runs["weights"].notna()
    table, points = _by_method(runs[~is_point], metrics), _by_method(runs[is_point], metrics)
    scores = runs[~is_point].pivot(index="seed", columns="method", values="score")
    sweep = next(iter(table.loc[table["balancing"] == STATIC_SWEEP, "method"]), None)
    for column, reference in (("to_equal", EQUAL), ("to_sweep", sweep)):
        differs = [None if m == reference else _difference(scores, m, reference) for m in table["method"]]
        table[column] = pd.Series(differs, index=table.index, dtype=object)
    # Of the point that was chosen, a sweep's rows say.
    table.loc[table["method"] == sweep, "epochs"] = points["epochs"].sum()
    chosen = rows[rows["metric"] == CHOSEN_WEIGHT]
    first = rows.iloc[0]
    training = (
        f"at most {first['epochs']} epochs, patience {first['patience'] or 'none'}, batch size {first['batch_size']}"
    )
    return Comparison(
        title=f"{first['dataset']} ({first['variant']}), {first['model']}",
        split_rule=str(first["split_rule"]),
        training=f"{training}, {first['optimizer']}",
        metrics=metrics,
        table=table,
        points=points,
        chosen={
            int(str(seed)): dict(zip(of_seed["task"], of_seed["value"], strict=True))
            for seed, of_seed in chosen.groupby("seed")
        },
        failed=failed,
    )


def _metric_of(rows: pd.DataFrame, task: str) -> list[str]:
    has = set(rows.loc[rows["task"] == task, "metric"])
    return [metric for metric in METRICS if metric in has][:1]


def _runs(rows: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """One row a run: key, method, seed, each task's metric, and the score."""
    found = []
    for _, run in rows.groupby("key", sort=False):
        records: list[dict[Any, Any]] = run.to_dict("records")
        first = records[0]
        values = {(row["task"], row["metric"]): float(row["value"]) for row in records}
        own = {task: values.get((task, metric), float("nan")) for task, metric in metrics.items()}
        score = float(np.mean([score_of(metric, own[task]) for task, metric in metrics.items()]))
        spec = spec_of_row(first)
        about = {"key": first["key"], "method": str(first["balancing"]), "seed": int(first["seed"])}
        about |= {"balancing": spec["method"], "weights": static_weights(spec)}
        found.append({**about, **own, "score": score})
    return pd.DataFrame(found)


def _by_method(runs: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    grouped = runs.groupby("method", sort=False)
    table = grouped[["score", *metrics, "epochs"]].mean()
    table = table.assign(
        balancing=grouped["balancing"].first(),
        weights=grouped["weights"].first(),
        seeds=grouped.size(),
        **{f"{task}_std": grouped[task].std(ddof=1) for task in metrics},
    )
    return table.reset_index().sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _difference(scores: pd.DataFrame, method: str, reference: str | None) -> Difference | None:
    if reference is None or reference not in scores:
        return None
    differences = (scores[method] - scores[reference]).dropna().round(_DIGITS)
    count, mean = len(differences), float(differences.mean())
    half = float("nan")
    if count > 1:
        half = float(stats.t.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / count**0.5
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return Difference(mean, mean - half, mean + half, above, below, count)


def methods_verdict(comparison: Comparison) -> list[str]:
    """What the rows say, in sentences: who beat the tuned grid, who did worse, what the grid itself gained.

    "On every seed" is a weak sign with 3 seeds: of two methods that are the same, one is above the other on all of them
    once in 4 times, one way or the other. The sentences say how many that makes.
    """
    table = comparison.table
    sweep = next((row for row in table.to_dict("records") if row["balancing"] == STATIC_SWEEP), None)
    methods = [row for row in table.to_dict("records") if row["method"] != EQUAL and row["balancing"] != STATIC_SWEEP]
    sentences = []
    if sweep is not None and sweep["to_equal"] is not None:
        gained = sweep["to_equal"]
        sentences.append(f"The tuned grid against the plain sum: {gained.text}, {_seeds_above(gained)}.")
    if comparison.chosen:
        chosen = "; ".join(_ratio(weights) for _, weights in sorted(comparison.chosen.items()))
        sentences.append(f"Weights that the grid chose, by seed: {chosen}.")
    for name, column in (("the tuned grid", "to_sweep"), ("the plain sum", "to_equal")):
        known = [(row["method"], row[column]) for row in methods if row[column] is not None and row[column].seeds > 1]
        if known:
            sentences.append(_sentence(name, known))
    return sentences


def _sentence(reference: str, known: Sequence[tuple[str, Difference]]) -> str:
    seeds = max(difference.seeds for _, difference in known)
    by_luck = len(known) / 2**seeds
    above = [(method, difference) for method, difference in known if difference.always_above]
    below = [(method, difference) for method, difference in known if difference.always_below]
    rest = len(known) - len(above) - len(below)
    return (
        f"Against {reference}, of {len(known)} methods: better on every seed {_list(above)}; "
        f"worse on every seed {_list(below[::-1])}; {rest} neither. "
        f"By luck alone {by_luck:.1f} would be better on all of {seeds} seeds, and as many worse. "
        f"The 95 % interval lies above 0 for {_names(above)}, below 0 for {_names(below[::-1])}."
    )


def _list(found: Sequence[tuple[str, Difference]]) -> str:
    named = ", ".join(f"`{method}` {difference.mean:+.4f}" for method, difference in found)
    return f"{len(found)} ({named})" if found else "none"


def _names(found: Sequence[tuple[str, Difference]]) -> str:
    return ", ".join(f"`{method}`" for method, difference in found if difference.excludes_zero) or "none"


def _seeds_above(difference: Difference) -> str:
    return f"above it on {difference.above} of {difference.seeds} seeds"


def _ratio(weights: dict[str, float]) -> str:
    """Weights by their ratio to the largest, since their sum says nothing."""
    largest = max(weights.values())
    return " : ".join(f"{task} {weight / largest:.2g}" for task, weight in weights.items())


def methods_markdown(comparison: Comparison, step_costs: Mapping[str, float] | None = None) -> str:
    """A comparison as Markdown: the verdict, the table of methods and that of the grid's points.

    Args:
        comparison: One of those that `compare_methods` gives.
        step_costs: What a step costs against the plain sum's, by the name of the method, or by its label where options
            change the cost: a column more.
    """
    tasks = list(comparison.metrics)
    titles = [f"{task} {'AUC' if metric == 'auc' else metric.upper()}" for task, metric in comparison.metrics.items()]
    headers = ["method", *titles, "score", "to the plain sum", "to the tuned grid", "seeds above", "epochs"]
    headers += [] if step_costs is None else ["step"]
    lines = [
        f"### {comparison.title}",
        "",
        f"Split: {comparison.split_rule}. Training: {comparison.training}.",
        "",
        *(f"* {sentence}" for sentence in methods_verdict(comparison)),
        "",
        _row(headers),
        _row(["---", *["---:"] * (len(headers) - 1)]),
    ]
    for row in comparison.table.to_dict("records"):
        to_equal, to_sweep = row["to_equal"], row["to_sweep"]
        differences = [difference.text if difference is not None else "" for difference in (to_equal, to_sweep)]
        above = f"{to_sweep.above} of {to_sweep.seeds}" if to_sweep is not None else ""
        scores = [*_values(row, tasks), f"{row['score']:.4f}"]
        cells = [row["method"], *scores, *differences, above, f"{row['epochs']:.1f}"]
        lines.append(_row([*cells, *([] if step_costs is None else [_step_cost(row, step_costs)])]))
    if len(comparison.points):
        lines += ["", "The points of the grid, weights relative to the largest:", ""]
        lines += [_row(["weights", *titles, "score", "seeds"]), _row(["---", *["---:"] * (len(tasks) + 2)])]
        for row in comparison.points.to_dict("records"):
            lines.append(_row([_ratio(row["weights"]), *_values(row, tasks), f"{row['score']:.4f}", str(row["seeds"])]))
    lines += ["", *(f"- failed: {run}: {error}" for run, error in comparison.failed.items())]
    return "\n".join(lines).rstrip() + "\n"


def _step_cost(row: Mapping[Any, Any], step_costs: Mapping[str, float]) -> str:
    cost = step_costs.get(row["method"], step_costs.get(row["balancing"]))
    return "" if cost is None else f"{cost:.2f}"


def _values(row: Mapping[Any, Any], tasks: Sequence[str]) -> list[str]:
    stds = [f" ± {row[f'{task}_std']:.4f}" if np.isfinite(row[f"{task}_std"]) else "" for task in tasks]
    return [f"{row[task]:.4f}{std}" for task, std in zip(tasks, stds, strict=True)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
