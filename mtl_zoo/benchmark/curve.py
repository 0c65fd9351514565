"""`mtl-zoo bench curve`: the same models on more and more of the training rows, and on the same test rows."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.command import check_configs, count_runs, cut_short, interruptible, run_each
from mtl_zoo.benchmark.leaderboard import Place, leaderboard, place_of, write_text
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.plots import figure_svg
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.report import markdown_table, plain_table
from mtl_zoo.benchmark.requests import configs_of
from mtl_zoo.benchmark.summary import NO_CELL, Cell, Column, Section
from mtl_zoo.evaluation._figures import new_figure


@dataclasses.dataclass(frozen=True)
class Curve:
    """A leaderboard for each number of training rows.

    Args:
        sections: Those of one data set, by the number of training rows, few first.

    Example:

    >>> from mtl_zoo.benchmark.curve import Curve
    >>> Curve({}).columns
    []
    """

    sections: dict[int, Section]

    @property
    def columns(self) -> list[Column]:
        """The tasks."""
        return list(dict.fromkeys(column for section in self.sections.values() for column in section.columns))

    @property
    def names(self) -> list[str]:
        """Models and baselines, those that are best with all rows first."""
        ordered = [line.title for section in reversed(self.sections.values()) for line in section.lines]
        return list(dict.fromkeys(ordered))

    def cells(self, name: str, column: Column) -> list[Cell]:
        """A model's results on a task, by the number of rows."""
        found = []
        for section in self.sections.values():
            lines = {line.title: line.cells for line in section.lines}
            found.append(lines.get(name, {}).get(column, NO_CELL))
        return found

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """(title, headers, rows) of a table for each task."""
        heads = [f"{rows:,} rows" for rows in self.sections]
        return [
            (column.title, heads, [[name, *(cell.text for cell in self.cells(name, column))] for name in self.names])
            for column in self.columns
        ]

    def figure(self) -> Figure:
        """A panel a task, a line a model; baselines are dashed."""
        figure = new_figure(1.0 + 4.2 * max(len(self.columns), 1), 3.6)
        panels = figure.subplots(1, max(len(self.columns), 1), squeeze=False)[0]
        for panel, column in zip(panels, self.columns, strict=False):
            for name in self.names:
                cells = self.cells(name, column)
                spread = [cell.std if np.isfinite(cell.std) else 0.0 for cell in cells]
                style = "--" if name.endswith("(baseline)") else "-"
                means = [cell.mean for cell in cells]
                panel.errorbar(
                    list(self.sections),
                    means,
                    yerr=spread,
                    linestyle=style,
                    marker="o",
                    markersize=3,
                    capsize=2,
                    label=name,
                )
            panel.set_xscale("log")
            panel.set_title(column.title, fontsize="medium")
            panel.set_xlabel("training rows")
            panel.grid(alpha=0.3)
        panels[0].legend(fontsize="x-small")
        return figure

    @property
    def is_rising(self) -> dict[str, bool]:
        """By task, whether the best model still gains from the last step of rows by more than its deviation."""
        found = {}
        for column in self.columns:
            cells = self.cells(self.names[0], column)[-2:]
            if len(cells) == 2 and all(np.isfinite(cell.mean) for cell in cells):
                better = cells[0].mean - cells[1].mean if column.metric == "rmse" else cells[1].mean - cells[0].mean
                found[column.title] = bool(better > np.nan_to_num(cells[1].std))
        return found


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench curve`; returns the exit code."""
    shares = sorted({check.check_number("shares", share, above=0, maximum=1) for share in args.shares})
    if args.folds is not None or args.train_fraction is not None:
        raise ValueError("`--folds` and `--train-fraction` have no meaning for a curve. Use `--shares` and `--seeds`.")
    asked = configs_of(args)
    check_configs(asked)
    configs = [dataclasses.replace(config, train_fraction=share) for share in shares for config in asked]
    console, place = Console(stderr=True), place_of(args, asked[0], "-curve")
    keys: dict[int, list[str]] = {}
    failed = 0
    try:
        with Shown(console, count_runs(configs)) as progress, interruptible():
            for config, dataset, summary in run_each(configs, place.store, progress, data_dir=args.data_dir):
                rows = max(1, round(config.train_fraction * len(dataset.train)))
                keys.setdefault(rows, []).extend(summary.keys)
                failed += summary.failed
    except KeyboardInterrupt:
        return cut_short(console, place.path)
    table = place.store.read()
    tested = set(table.loc[(table["error"] == "") & (table["split"] == "test"), "key"])
    sections = {
        rows: leaderboard(table[table["key"].isin(own)])[0] for rows, own in keys.items() if not tested.isdisjoint(own)
    }
    if not sections:
        console.print(f"[bold red]nothing to draw:[/] {failed} runs failed: {escape(str(place.path))}", soft_wrap=True)
        return 1
    curve = Curve(sections)
    for title, heads, lines in curve.tables():
        Console().print(plain_table(title, heads, lines))
    for task, rising in curve.is_rising.items():
        text = "more rows would help" if rising else "the last step of rows gained nothing that seeds would not"
        Console().print(f"[bold]*[/] {escape(task)}: {text}.", highlight=False)
    for file in _write(curve, place):
        console.print(f"learning curve: {escape(str(file))}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _write(curve: Curve, place: Place) -> list[Path]:
    text = "\n".join(markdown_table(*table) for table in curve.tables())
    last = list(curve.sections.values())[-1:]
    figures = {"Learning curve": figure_svg(curve.figure(), "curve")}
    return [
        write_text(place.path.with_suffix(".md"), text),
        write_text(place.path.with_suffix(".html"), page(last, place.path.stem, figures)),
    ]
