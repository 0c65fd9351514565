"""The leaderboard of a file of results: sections with intervals of the gains, and the files they are written to."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo._files import whole_file
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.identity import dataset_name
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.report import markdown
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.scores import KeptScores
from mtl_zoo.benchmark.summary import Cell, Column, Line, Section, summarise
from mtl_zoo.datasets._base import is_table
from mtl_zoo.evaluation import bootstrap_auc_difference, bootstrap_interval, fold_interval, gain, rmse

# A bootstrap of more rows takes longer, and its interval is steadier.
_RESAMPLES, _FEWER_RESAMPLES, _MANY_ROWS = 400, 150, 50_000


def leaderboard(table: pd.DataFrame, *, scores: str | Path | None = None, split: str = "test") -> list[Section]:
    """Sections of results, with 95 % intervals of the gains over the best baseline (or over `single_task`).

    Of a cross-validation they are those of `fold_interval`, of the differences on each fold. Of one split they are from
    a paired bootstrap of the test rows, for which the runs' scores must have been kept; without them there are none.

    Args:
        table: What `ResultStore.read` gives.
        scores: The folder that `save_scores` named.
        split: `"test"` or `"validation"`.

    Raises:
        ValueError: If there are no results of that split.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark import ResultStore, RunConfig, leaderboard, run_config
    >>> store = ResultStore(pathlib.Path(tempfile.mkdtemp()) / "rows.csv")
    >>> for name in ("constant", "popularity"):
    ...     _ = run_config(RunConfig("synthetic_funnel", name, dataset_options={"size": "small"}), store)
    >>> [line.title for line in leaderboard(store.read())[0].lines]
    ['popularity (baseline)', 'constant (baseline)']
    """
    sections = summarise(table, split)
    for section in sections:
        if section.baseline is None:
            continue
        if section.folds:
            _add(section, _of_folds)
            section.intervals = f"95 % over {section.folds} folds, corrected for the training rows that they share"
        elif scores is not None and split == "test":
            _add(section, functools.partial(_of_rows, kept=KeptScores(Path(scores))))
            section.intervals = "95 % by a paired bootstrap of the test rows"
    return sections


def _add(section: Section, interval: Any) -> None:
    for line in section.lines:
        for column, cell in line.cells.items():
            if line is not section.baseline and np.isfinite(cell.gain):
                line.cells[column] = cell._replace(interval=interval(section, line, column))


def _of_folds(section: Section, line: Line, column: Column) -> tuple[float, float] | None:
    assert section.baseline is not None
    own, theirs = (_by_fold(each.cells[column]) for each in (line, section.baseline))
    folds = sorted(set(own) & set(theirs))
    if len(folds) < 2:
        return None
    differences = [gain(column.metric, own[fold], theirs[fold]) for fold in folds]
    found = fold_interval(differences, section.ratio)
    return found.low, found.high


def _by_fold(cell: Cell) -> dict[int, float]:
    """The mean over seeds on each fold."""
    table = pd.DataFrame({"fold": [fold for fold, _ in cell.runs], "value": cell.values})
    means = table.groupby("fold", as_index=False)["value"].mean()
    return dict(zip(means["fold"].tolist(), means["value"].tolist(), strict=True))


def _of_rows(section: Section, line: Line, column: Column, kept: KeptScores) -> tuple[float, float] | None:
    assert section.baseline is not None
    own, theirs = kept.of(line, column), kept.of(section.baseline, column)
    if own is None or theirs is None or len(own[0]) < 2 or not np.array_equal(own[0], theirs[0]):
        return None
    labels, resamples = own[0], _FEWER_RESAMPLES if len(own[0]) > _MANY_ROWS else _RESAMPLES
    found: Any
    if column.metric == "auc":
        if len(np.unique(labels)) < 2:
            return None
        found = bootstrap_auc_difference(labels, theirs[1][..., 0], own[1][..., 0], resamples=resamples)
        value = found.difference
    else:
        found = bootstrap_interval(_difference(column.metric), labels, theirs[1], own[1], resamples=resamples)
        value = found.value
    # Sample weights are not kept with the scores: where they matter, an interval would be of another figure.
    agrees = abs(value - line.cells[column].gain) < 1e-4 * max(1.0, abs(line.cells[column].mean))
    return (found.low, found.high) if agrees else None


def _difference(metric: str) -> Any:
    def mean(labels: np.ndarray, scores: np.ndarray) -> float:
        if metric == "rmse":
            return float(np.mean([rmse(labels, scores[:, run, 0]) for run in range(scores.shape[1])]))
        return float(np.mean(scores.argmax(axis=-1) == labels[:, None]))

    return lambda labels, theirs, own: gain(metric, mean(labels, own), mean(labels, theirs))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the results of a command go.

    Args:
        path: The rows.
        pages: Whether Markdown and an HTML page are written beside them.
    """

    path: Path
    pages: bool

    @property
    def store(self) -> ResultStore:
        return ResultStore(self.path)

    @property
    def scores(self) -> Path | None:
        """The folder of the runs' test scores, of which intervals are made."""
        return self.path.with_suffix("") / "scores" if self.pages else None

    def write(self, sections: list[Section]) -> list[Path]:
        """The leaderboard's files, each whole or not at all; their paths."""
        if not self.pages:
            return []
        return [
            write_text(self.path.with_suffix(".md"), markdown(sections)),
            write_text(self.path.with_suffix(".html"), page(sections, self.path.stem)),
        ]


def write_text(path: Path, text: str) -> Path:
    """Writes a text file whole or not at all, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def place_of(args: argparse.Namespace, config: RunConfig, suffix: str = "") -> Place:
    """What `--out` says: a folder, the file of the rows, or nothing."""
    file = args.config or args.config_option
    name = (file.stem if file else dataset_name(config)) + suffix
    if args.out is None or args.out.suffix != ".csv":
        folder = Path("results") if args.out is None else args.out
        return Place(folder / f"{name}.csv", args.out is not None or is_table(config.dataset))
    return Place(args.out, is_table(config.dataset))
