"""Tables of a file of results, on the terminal, as Markdown and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.summary import NO_CELL, REFERENCE, Column, Line, Section, number_text, summarise
from mtl_zoo.evaluation import gain


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
            cell = line.cells.get(column, NO_CELL)
            row += [cell.text, number_text(cell.gain, "+.4f")]
            row += [number_text(cell.share, ".1%")] if column in with_share else []
        row += [number_text(line.examples_per_second, ",.0f"), number_text(line.train_seconds, ".1f"), str(line.seeds)]
        rows.append(row)
    if section.oracle:
        row = ["oracle", ""]
        for column in section.columns:
            row += [number_text(section.oracle.get(column, float("nan")), ".4f", "-"), ""]
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
    """The sections on a terminal of 80 columns: for each task a line for each model, then what the models cost."""
    for section in sections:
        console.print(f"\n[bold]{escape(section.title)}[/]", highlight=False)
        for column in section.columns:
            console.print(_task_table(section, column))
        costs = _table("cost", "parameters", "train s", "rows/s", "seeds")
        for line in section.lines:
            seconds, rate = number_text(line.train_seconds, ".1f"), number_text(line.examples_per_second, ",.0f")
            costs.add_row(escape(line.label), _size(line), seconds, rate, str(line.seeds))
        console.print(costs)
        for caption in _captions(section):
            console.print(f"[dim]{escape(caption)}[/]", highlight=False)
        for run, error in section.failed.items():
            console.print(f"[red]failed:[/] {escape(run)}: {escape(error)}", highlight=False)


def _table(title: str, *headers: str) -> Table:
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Long names are folded, so that the numbers need not be.
    made.add_column(escape(title), min_width=24, overflow="fold")
    for header in headers:
        made.add_column(header, justify="right", no_wrap=True)
    return made


def _task_table(section: Section, column: Column) -> Table:
    has_share = column in section.oracle
    made = _table(column.title, "mean ± std", "gain", *(["share of lift"] if has_share else []))
    rows = [(line.label, line.cells[column]) for line in section.lines if column in line.cells]
    for label, cell in sorted(rows, key=lambda row: -gain(column.metric, row[1].mean, 0.0)):
        share = [number_text(cell.share, ".1%")] if has_share else []
        made.add_row(escape(label), cell.text, number_text(cell.gain, "+.4f"), *share)
    if has_share:
        made.add_row("oracle", number_text(section.oracle[column], ".4f"), "", "100.0%")
    return made


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


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench report`."""
    missing = [str(file) for file in args.files if not file.exists()]
    if missing:
        raise ValueError(f"`FILE.csv` must exist. Received: {', '.join(missing)}")
    sections = summarise(pd.concat([ResultStore(file).read() for file in args.files]), args.split)
    print_report(sections, Console() if sys.stdout.isatty() else Console(width=160))
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(markdown(sections), encoding="utf-8")
    if args.picture:
        from mtl_zoo.benchmark.plots import draw_report

        draw_report(sections, args.picture)
    return 0
