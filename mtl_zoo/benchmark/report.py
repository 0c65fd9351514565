"""Tables from a file of results: mean and spread over seeds, gain over single-task models, parameters, speed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtl_zoo import options
from mtl_zoo.benchmark.results import ResultStore, rows_by
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
    values: tuple[float, ...] = ()  # one a seed

    @property
    def text(self) -> str:
        return _number(self.mean, ".4f", "-") + (f" ± {self.std:.4f}" if np.isfinite(self.std) else "")


_NO_CELL = Cell(float("nan"), float("nan"), float("nan"), float("nan"))


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

    `reference` is the line of `shared_bottom` and `rows` how many test rows each task has.
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


def summarise(table: pd.DataFrame, split: str = "test") -> list[Section]:
    """One section for each data set, variant and version in a table of results.

    The gain is the mean minus that of `single_task` on the same data, with the sign turned where lower is better. If
    there are several settings of `single_task`, the one with the best validation score counts. Lines are sorted by
    the mean of AUC, 1 - NRMSE or accuracy over the outputs that all models have (a funnel's product is one that others
    lack).

    Args:
        table: What `ResultStore.read` gives.
        split: `"test"` or `"validation"`.

    Raises:
        ValueError: There are no results of that split.
    """
    return [_section(rows, split, failed) for rows, failed in rows_by(table, _DATA, split, lambda row: row.model)]


def _section(rows: pd.DataFrame, split: str, failed: dict[str, str]) -> Section:
    first = rows.iloc[0]
    shown = rows[rows["split"] == split]
    columns = _columns(shown)
    labels = _labels(rows)
    settings = shown.groupby(["model", *_SETTING], sort=False)
    lines = {setting: _line(own, labels[setting], columns) for setting, own in settings}
    common = [column for column in columns if all(column in line.cells for line in lines.values())]
    for setting, own in settings:
        lines[setting].score = _score(own, common)
    baseline, reference = (_best_setting(model, rows, lines, common) for model in (BASELINE, REFERENCE))
    if baseline is not None:
        _add_gains(lines.values(), baseline)
    in_order = sorted(lines.values(), key=lambda line: (-np.nan_to_num(line.score, nan=-np.inf), line.label))
    oracle = {
        column: float(found["value"].mean())
        for column in columns
        if len(found := _values(shown, column, "oracle_auc")) and column.metric == "auc"
    }
    seed = json.loads(first["dataset_options"] or "{}").get("seed")
    title = f"{first['dataset']} ({first['variant']}{'' if seed in (None, 0) else f', seed {seed}'})"
    usual, varying = _usual_training(rows)
    training = ", ".join(
        f"{name.replace('_', ' ')} {value}" + (" where no other is named" if name in varying else "")
        for name, value in usual.items()
        if value != ""
    )
    observed = {column: int(_values(shown, column)["observed"].max()) for column in columns}
    return Section(
        title, first["split_rule"], split, training, columns, in_order, baseline, reference, observed, oracle, failed
    )


def _best_setting(model: str, rows: pd.DataFrame, lines: dict[tuple, Line], columns: Sequence[Column]) -> Line | None:
    """The line of a model; of several settings the one with the best validation score."""
    validation = rows[rows["split"] == "validation"]
    scores = {}
    for setting in lines:
        if setting[0] == model:
            same = [validation[name] == value for name, value in zip(["model", *_SETTING], setting, strict=True)]
            score = _score(validation[np.logical_and.reduce(same)], columns)
            scores[setting] = -np.inf if np.isnan(score) else score
    return lines[max(scores, key=lambda setting: scores[setting])] if scores else None


def _usual_training(rows: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    """What most settings were trained with, and the names of that which others were not."""
    settings = rows[["model", *_SETTING]].drop_duplicates()
    usual = {name: settings[name].value_counts(sort=True).index[0] for name in _TRAINING}
    return usual, [name for name in _TRAINING if settings[name].nunique() > 1]


def _columns(rows: pd.DataFrame) -> list[Column]:
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
            values = tuple(map(float, found))
            cells[column] = Cell(float(found.mean()), float(found.std(ddof=1)), float("nan"), float(share), values)
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
    )


def _score(rows: pd.DataFrame, columns: Sequence[Column]) -> float:
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
            apart |= {name: row[name] for name in varying if row[name] != usual[name]}
            text = ", ".join(f"{name}={_short(value)}" for name, value in apart.items())
            labels[tuple(row.values())] = f"{model} ({text})" if text else str(model)
    return labels


def _short(value) -> str:
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


def _number(value: float, form: str, missing: str = "") -> str:
    return missing if not np.isfinite(value) else format(value, form)


def _texts(section: Section) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a section as text."""
    with_share = {column for column in section.columns if column in section.oracle}
    headers = ["model", "parameters"]
    for column in section.columns:
        headers += [column.title, "gain"] + (["share of lift"] if column in with_share else [])
    headers += ["rows/s", "train s", "seeds"]
    rows = []
    for line in section.lines:
        row = [line.label, _size(line)]
        for column in section.columns:
            cell = line.cells.get(column, _NO_CELL)
            row += [cell.text, _number(cell.gain, "+.4f")]
            row += [_number(cell.share, ".1%")] if column in with_share else []
        row += [_number(line.examples_per_second, ",.0f"), _number(line.train_seconds, ".1f"), str(line.seeds)]
        rows.append(row)
    if section.oracle:
        row = ["oracle", ""]
        for column in section.columns:
            row += [_number(section.oracle.get(column, float("nan")), ".4f", "-"), ""]
            row += ["100.0%"] if column in with_share else []
        rows.append([*row, "", "", ""])
    return headers, rows


def _size(line: Line) -> str:
    if line.match is None:
        return f"{line.parameters:,}"
    found, target = line.match["parameters"], line.match["target"]
    return f"{found:,}" + ("" if line.match["within_tolerance"] else f" ({found / target - 1:+.1%})")


def _worse(line: Line, reference: Line) -> str:
    if line is reference:
        return ""
    found = []
    for column, every_seed in line.worse_on(reference).items():
        less = gain(column.metric, line.cells[column].mean, reference.cells[column].mean)
        found.append(f"{column.task} {less:+.4f}" + (" (every seed)" if every_seed else ""))
    return ", ".join(found) or "no"


def comparison(section: Section, model: str) -> list[str]:
    """What to say of a model beside `shared_bottom`, one sentence for each of its lines: worse where, by how much.

    Nothing where one of the two has no results, or the model is `shared_bottom` itself.
    """
    reference = section.reference
    sentences = []
    for line in section.lines:
        if reference is None or line.model != model or model == REFERENCE:
            continue
        worse = line.worse_on(reference)
        described = []
        for column in [column for column in line.cells if column in reference.cells]:
            text = f"{column.title} {line.cells[column].text} against {reference.cells[column].text}"
            described.append((column in worse, text + (" (every seed)" if worse.get(column) else "")))
        name = "" if line.label == model else f" ({line.label})"
        parts = []
        for word, flag in (("Worse than", True), ("Not worse than", False)):
            texts = [text for is_worse, text in described if is_worse == flag]
            if texts:
                parts.append(f"{word} `{REFERENCE}`: {', '.join(texts)}.")
        seeds = f"{line.seeds} seed{'s' if line.seeds > 1 else ''}"
        sentences.append(f"{section.title}{name}, {seeds}. " + " ".join(parts))
    return sentences


def _captions(section: Section) -> list[str]:
    captions = [f"{section.split.capitalize()} split: {section.split_rule}."]
    if section.training:
        captions.append(f"Training: {section.training}.")
    sizes = {(line.match["like"], line.match["target"]) for line in section.lines if line.match is not None}
    for like, target in sizes:
        captions.append(
            f"Parameters: above the embedding, brought to {like}'s {target:,}; what stays more than 2 % off is named."
        )
    rows = ", ".join(f"{column.task} {count:,}" for column, count in section.rows.items())
    captions.append(f"Rows that count: {rows}.")
    captions.append("Mean ± standard deviation over seeds.")
    if section.baseline is not None:
        captions.append(f"Gain: over {section.baseline.label}, positive is better.")
    if section.oracle:
        captions.append("Share of lift: (AUC - 0.5) / (AUC of the true probabilities - 0.5).")
    return captions


def print_report(sections: Sequence[Section], console: Console) -> None:
    """The sections as tables on a terminal, narrow: below a task's value stand its gain and its share of the lift."""
    for section in sections:
        headers, rows = _texts(section)
        end = len(headers) - 3  # rows/s, train s and seeds stand below the model and its parameters
        starts = [i for i, header in enumerate(headers[:end]) if i > 1 and header not in ("gain", "share of lift")]
        tasks = [range(start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True)]
        groups = [(0, end + 2), (1, end, end + 1), *tasks]
        cells = [[_stacked(headers, row, group) for group in groups] for row in rows]
        caption = "\n".join(_captions(section))
        table = Table(
            title=section.title, caption=caption, caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for number, group in enumerate(groups):
            # A long name is folded, so that the numbers need not be.
            first, *below = [headers[i] for i in group]
            first = first.replace(" ", "\n").replace("|", "\n|").replace("_and_", "\n_and_")
            title = "\n".join([escape(first), *(f"[dim]{text}[/]" for text in below)])
            width = max(len(line) for row in cells for line in row[number])
            table.add_column(title, justify="left" if number == 0 else "right", min_width=width, overflow="fold")
        for row in cells:
            table.add_row(*("\n".join([escape(first), *(f"[dim]{text}[/]" for text in rest)]) for first, *rest in row))
        console.print(table)
        for run, error in section.failed.items():
            console.print(f"[red]failed:[/] {escape(run)}: {escape(error)}", highlight=False)


def _stacked(headers: Sequence[str], row: Sequence[str], group: Iterable[int]) -> list[str]:
    """The texts of one cell, line by line."""
    units = {"rows/s": "/s", "train s": " s", "seeds": " seeds"}
    first, *below = group
    gains = "  ".join(row[i] for i in below if headers[i] not in units and row[i])
    measured = [row[i] + units[headers[i]] for i in below if headers[i] in units and row[i]]
    return [row[first], *filter(None, [gains]), *measured]


def markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown tables, with a column that names the tasks on which `shared_bottom` is better."""
    parts = []
    for section in sections:
        headers, rows = _texts(section)
        reference = section.reference
        if reference is not None and len(section.lines) > 1:
            headers.append(f"worse than {REFERENCE}?")
            for row, line in zip(rows, section.lines, strict=False):
                row.append(_worse(line, reference))
            rows = [row + [""] * (len(headers) - len(row)) for row in rows]
        lines = [f"## {section.title}", "", " ".join(_captions(section)), ""]
        lines += [_markdown_row(headers), _markdown_row(["---", *["---:"] * (len(headers) - 1)])]
        lines += [_markdown_row(row) for row in rows]
        lines += ["", *(f"- failed: {run}: {error}" for run, error in section.failed.items())]
        parts.append("\n".join(lines).rstrip() + "\n")
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def report_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.report`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Mean ± standard deviation over seeds, gain over single_task, parameters and speed.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.csv", help="results of benchmarks.run")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables as Markdown, too")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw them, too")
    args = parser.parse_args(arguments)
    try:
        missing = [str(file) for file in args.files if not file.exists()]
        if missing:
            raise ValueError(f"`FILE.csv` must exist. Received: {', '.join(missing)}")
        sections = summarise(pd.concat([ResultStore(file).read() for file in args.files]), args.split)
    except ValueError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    console = Console() if sys.stdout.isatty() else Console(width=160)
    print_report(sections, console)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(markdown(sections), encoding="utf-8")
    if args.picture:
        from mtl_zoo.benchmark.plots import draw_report

        draw_report(sections, args.picture)
    return 0
