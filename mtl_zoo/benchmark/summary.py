"""What a file of results says: mean and spread over seeds, gain over single-task models, parameters, speed."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtl_zoo import options
from mtl_zoo.benchmark.baselines import BASELINES
from mtl_zoo.benchmark.results import rows_by
from mtl_zoo.evaluation import gain

BASELINE = "single_task"
_FEWEST_SEEDS = 3
# What a model that shares anything should beat.
REFERENCE = "shared_bottom"
# The metric that a task is judged by: the first of these that it has.
HEADLINES = ("auc", "rmse", "accuracy")
_DATA = ["dataset", "variant", "data_version", "dataset_options", "split_rule"]
_TRAINING = ["epochs", "patience", "batch_size", "optimizer", "balancing"]
_SETTING = ["hyperparameters", *_TRAINING]


class Column(NamedTuple):
    """One task of one section: what it is measured by, and on which rows."""

    task: str
    metric: str
    space: str

    @property
    def title(self) -> str:
        where = "" if self.space == "impressions" else f"|{self.space}"
        return f"{self.task}{where} {'AUC' if self.metric == 'auc' else self.metric}"


class Cell(NamedTuple):
    """A model's result on a task: mean and standard deviation over seeds; NaN where there is none."""

    mean: float
    std: float
    gain: float
    share: float
    values: tuple[float, ...] = ()  # one a run
    runs: tuple[tuple[int, int], ...] = ()  # (fold, seed) of each
    interval: tuple[float, float] | None = None  # of the gain, see `leaderboard`

    @property
    def text(self) -> str:
        return number_text(self.mean, ".4f", "-") + (f" ± {self.std:.4f}" if np.isfinite(self.std) else "")


NO_CELL = Cell(float("nan"), float("nan"), float("nan"), float("nan"))


@dataclasses.dataclass
class Line:
    """A model with one set of hyperparameters."""

    label: str
    model: str
    seeds: int
    parameters: int
    match: dict[str, Any] | None  # to what size it was brought, see `RunConfig.parameter_matched`
    examples_per_second: float
    train_seconds: float
    score: float
    cells: dict[Column, Cell]
    keys: tuple[str, ...] = ()  # of the runs, in the order of `seeds`

    @property
    def is_baseline(self) -> bool:
        return self.model in BASELINES

    @property
    def title(self) -> str:
        return f"{self.label} (baseline)" if self.is_baseline else self.label

    def worse_on(self, other: Line) -> dict[Column, bool]:
        """The tasks on which the mean is worse than the other model's, and whether every seed is worse than any there.

        By luck alone all of 3 seeds are worse than all of 3 others once in 20 times; with fewer nothing is said.
        """
        found = {}
        for column, cell in self.cells.items():
            if column in other.cells and round(gain(column.metric, cell.mean, other.cells[column].mean), 4) < 0:
                own, theirs = _goodness(column, cell), _goodness(column, other.cells[column])
                found[column] = min(len(own), len(theirs)) >= _FEWEST_SEEDS and max(own) < min(theirs)
        return found


def _goodness(column: Column, cell: Cell) -> list[float]:
    return [gain(column.metric, value, 0.0) for value in cell.values]


@dataclasses.dataclass
class Section:
    """All models on one data set, best first. `oracle` holds the best AUC that is possible, where it is known.

    `reference` is the line of `shared_bottom` and `rows` how many test rows each task has. `baseline` is the line that
    gains are over, `folds` how many folds the means are over (0: none), and `intervals` says what those of gains are.
    """

    title: str
    split_rule: str
    split: str
    training: str
    columns: list[Column]
    lines: list[Line]
    baseline: Line | None
    reference: Line | None
    rows: dict[Column, int]
    oracle: dict[Column, float]
    failed: dict[str, str]
    folds: int = 0
    ratio: float = 0.0  # rows tested / rows trained on in a fold
    intervals: str = ""


def summarise(table: pd.DataFrame, split: str = "test") -> list[Section]:
    """One section for each data set, variant and version in a table of results; folds of one table are one section.

    The gain is the mean minus that of the best baseline (see `list_baselines`) on the same data, or where none was run
    that of `single_task`, with the sign turned where lower is better. Of several baselines, or settings of
    `single_task`, the one with the best validation score counts. Lines are sorted by
    the mean of AUC, 1 - NRMSE or accuracy over the outputs that all models have (a funnel's product is one that others
    lack).

    Args:
        table: What `ResultStore.read` gives.
        split: `"test"` or `"validation"`.

    Raises:
        ValueError: There are no results of that split.
    """
    table = with_folds(table)
    found = [
        (_section(rows, split, failed), rows) for rows, failed in rows_by(table, _DATA, split, lambda row: row.model)
    ]
    alike = Counter((section.title, section.split_rule) for section, _ in found)
    for section, rows in found:
        # A table that was changed under the same name: its version alone tells one section from the other.
        if alike[section.title, section.split_rule] > 1 and rows["data_version"].iloc[0]:
            section.title += f", version {rows['data_version'].iloc[0]}"
    return [section for section, _ in found]


def with_folds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `fold`, which is no part of the options any more; -1 where there are none."""
    texts = table["dataset_options"]
    options_of = {text: json.loads(text or "{}") for text in texts.unique()}
    folds = {text: values.pop("fold", -1) for text, values in options_of.items()}
    plain = {text: json.dumps(values, sort_keys=True) for text, values in options_of.items()}
    of_folds = {text: plain[text] if fold >= 0 else text for text, fold in folds.items()}
    return table.assign(dataset_options=texts.map(of_folds), fold=texts.map(folds))


def _section(rows: pd.DataFrame, split: str, failed: dict[str, str]) -> Section:
    first = rows.iloc[0]
    shown = rows[rows["split"] == split]
    columns = columns_of_rows(shown)
    labels = _labels(rows)
    settings = shown.groupby(["model", *_SETTING], sort=False)
    lines = {setting: _line(own, labels[setting], columns) for setting, own in settings}
    common = [column for column in columns if all(column in line.cells for line in lines.values())]
    for setting, own in settings:
        lines[setting].score = score_of_rows(own, common)
    baseline = _best_setting(set(BASELINES), rows, lines, common) or _best_setting({BASELINE}, rows, lines, common)
    reference = _best_setting({REFERENCE}, rows, lines, common)
    if baseline is not None:
        _add_gains(lines.values(), baseline)
    in_order = sorted(lines.values(), key=lambda line: (-np.nan_to_num(line.score, nan=-np.inf), line.label))
    oracle = {
        column: float(found["value"].mean())
        for column in columns
        if len(found := _values(shown, column, "oracle_auc")) and column.metric == "auc"
    }
    of_data = json.loads(first["dataset_options"] or "{}")
    seed, folds = of_data.get("seed"), int(of_data.get("folds") or 0)
    title = f"{first['dataset']} ({first['variant']}{'' if seed in (None, 0) else f', seed {seed}'})"
    usual, varying = _usual_training(rows)
    training = ", ".join(
        f"{name.replace('_', ' ')} {value}" + (" where no other is named" if name in varying else "")
        for name, value in usual.items()
        if value != ""
    )
    observed = {column: int(_values(shown, column).groupby("fold")["observed"].max().sum()) for column in columns}
    return Section(
        title, first["split_rule"], split, training, columns, in_order, baseline, reference, observed, oracle, failed,
        folds, fold_ratio(first),
    )  # fmt: skip


def fold_ratio(row: Any) -> float:
    """Rows tested / rows trained on, the mean over folds, of a row of results; 0 where there are no folds.

    Forward in time fold i, from 1, is tested after i blocks of its size.
    """
    of_data = json.loads(row["dataset_options"] or "{}")
    folds = int(of_data.get("folds") or 0)
    if folds < 2:
        return 0.0
    forward = of_data.get("time") is not None
    return float(np.mean([1 / i for i in range(1, folds + 1)])) if forward else 1 / (folds - 1)


def _best_setting(
    models: set[str], rows: pd.DataFrame, lines: dict[tuple, Line], columns: Sequence[Column]
) -> Line | None:
    """The line of these models with the best validation score."""
    validation = rows[rows["split"] == "validation"]
    scores = {}
    for setting in lines:
        if setting[0] in models:
            same = [validation[name] == value for name, value in zip(["model", *_SETTING], setting, strict=True)]
            score = score_of_rows(validation[np.logical_and.reduce(same)], columns)
            scores[setting] = -np.inf if np.isnan(score) else score
    return lines[max(scores, key=lambda setting: scores[setting])] if scores else None


def _usual_training(rows: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    """What most settings were trained with, and the names of that which others were not; baselines aside."""
    settings = rows[["model", *_SETTING]].drop_duplicates()
    networks = settings[~settings["model"].isin(set(BASELINES))]
    if networks.empty:
        return {}, []
    settings = networks
    usual = {name: settings[name].value_counts(sort=True).index[0] for name in _TRAINING}
    return usual, [name for name in _TRAINING if settings[name].nunique() > 1]


def columns_of_rows(rows: pd.DataFrame) -> list[Column]:
    columns = []
    for (task, space), own in rows.groupby(["task", "space"], sort=False):
        metric = next((metric for metric in HEADLINES if metric in set(own["metric"])), None)
        if metric is not None:
            columns.append(Column(str(task), metric, str(space)))
    return columns


def _values(rows: pd.DataFrame, column: Column, metric: str | None = None) -> pd.DataFrame:
    metric = metric or column.metric
    return rows[(rows["task"] == column.task) & (rows["space"] == column.space) & (rows["metric"] == metric)]


def _line(rows: pd.DataFrame, label: str, columns: Sequence[Column]) -> Line:
    cells = {}
    for column in columns:
        found = _values(rows, column)["value"]
        if len(found):
            share = _values(rows, column, "lift_share")["value"].mean()
            own = rows.loc[found.index]
            of_runs = tuple(zip(own["fold"].astype(int), own["seed"].astype(int), strict=True))
            mean, std = float(found.mean()), float(found.std(ddof=1))
            cells[column] = Cell(mean, std, float("nan"), float(share), tuple(map(float, found)), of_runs)
    runs = rows.drop_duplicates("key")
    match = str(runs["parameter_match"].iloc[0] or "")
    return Line(
        label=label,
        model=str(runs["model"].iloc[0]),
        seeds=len(runs),
        parameters=int(runs["parameters"].iloc[0]),
        match=json.loads(match) if match else None,
        examples_per_second=float(runs["examples_per_second"].mean()),
        train_seconds=float(runs["train_seconds"].mean()),
        score=float("nan"),
        cells=cells,
        keys=tuple(runs["key"].astype(str)),
    )


def score_of_rows(rows: pd.DataFrame, columns: Sequence[Column]) -> float:
    """Mean over tasks of AUC, 1 - NRMSE or accuracy."""
    scores = []
    for column in columns:
        if column.metric == "rmse":
            scores.append(1 - _values(rows, column, "nrmse")["value"].mean())
        else:
            scores.append(_values(rows, column)["value"].mean())
    return float(np.mean(scores)) if scores else float("nan")


def _add_gains(lines: Iterable[Line], base: Line) -> None:
    for line in lines:
        for column, cell in line.cells.items():
            if line is not base and column in base.cells:
                better = gain(column.metric, cell.mean, base.cells[column].mean)
                line.cells[column] = cell._replace(gain=better)


def _labels(rows: pd.DataFrame) -> dict[tuple, str]:
    """A name for each setting: the model, and what sets it apart from the others."""
    settings = rows[["model", *_SETTING]].drop_duplicates()
    usual, varying = _usual_training(rows)
    labels = {}
    for model, own in settings.groupby("model", sort=False):
        arguments = [json.loads(text or "{}") for text in own["hyperparameters"]]
        names = dict.fromkeys(name for values in arguments for name in values)
        differ = [name for name in names if len({json.dumps(values.get(name)) for values in arguments}) > 1]
        for row, values in zip(own.to_dict("records"), arguments, strict=True):
            apart = {name: values.get(name) for name in differ}
            trained = () if model in BASELINES else varying
            apart |= {name: row[name] for name in trained if row[name] != usual[name]}
            text = ", ".join(f"{name}={_short(value)}" for name, value in apart.items())
            labels[tuple(row.values())] = f"{model} ({text})" if text else str(model)
    return labels


def _short(value: Any) -> str:
    """A hyperparameter in few letters: widths as `256x128`, an option by what it has of its own."""
    if isinstance(value, list):
        return "x".join(map(str, value))
    if isinstance(value, dict) and len(value) == 1:
        ((name, fields),) = value.items()
        option = getattr(options, name, None)
        if option is not None:
            defaults = {field.name: field.default for field in dataclasses.fields(option)}
            own = {field: item for field, item in fields.items() if item != defaults.get(field)}
            return f"{name}({', '.join(f'{field}={_short(item)}' for field, item in own.items())})"
    return str(value)


def number_text(value: float, form: str, missing: str = "") -> str:
    return missing if not np.isfinite(value) else format(value, form)
