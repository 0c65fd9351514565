"""Tables of a file of results, on the terminal, as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtl_zoo.benchmark.summary import NO_CELL, REFERENCE, Cell, Column, Line, Section, number_text
from mtl_zoo.evaluation import gain


def _texts(section: Section) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a section as text."""
    with_share = {column for column in section.columns if column in section.oracle}
    headers = ["model", "parameters"]
    for column in section.columns:
        headers += [column.title, "gain"] + (["share of lift"] if column in with_share else [])
    headers += ["rows/s", "train s", _runs(section)]
    rows = []
    for line in section.lines:
        row = [line.title, _size(line)]
        for column in section.columns:
            cell = line.cells.get(column, NO_CELL)
            row += [cell.text, " ".join(filter(None, (number_text(cell.gain, "+.4f"), interval_text(cell))))]
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


def interval_text(cell: Cell) -> str:
    """`[+0.0010, +0.0030]`, or nothing."""
    return "" if cell.interval is None else "[{:+.4f}, {:+.4f}]".format(*cell.interval)


def _runs(section: Section) -> str:
    return "runs" if section.folds else "seeds"


def verdict(section: Section) -> list[str]:
    """For each task a sentence: which networks are better than the best baseline by more than chance, if any is.

    Args:
        section: One of `leaderboard`, with intervals.

    Returns:
        Nothing where there is no baseline, or no network.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark import ResultStore, RunConfig, leaderboard, verdict, run_config
    >>> store = ResultStore(pathlib.Path(tempfile.mkdtemp()) / "rows.csv")
    >>> config = RunConfig("synthetic_funnel", "constant", dataset_options={"size": "small"})
    >>> _ = run_config(config, store)
    >>> verdict(leaderboard(store.read())[0])  # there is no network yet
    []
    """
    base = section.baseline
    if base is None or not base.is_baseline or not section.intervals:
        return []
    sentences = []
    for column in section.columns:
        cells = [(line, line.cells.get(column, NO_CELL)) for line in section.lines if not line.is_baseline]
        known = [(line, cell, *cell.interval) for line, cell in cells if cell.interval is not None]
        if not known:
            continue
        better = sorted(((line, cell) for line, cell, low, _ in known if low > 0), key=lambda pair: -pair[1].gain)
        if better:
            line, cell = better[0]
            more = f", and {len(better) - 1} more" if len(better) > 1 else ""
            text = f"{line.label} is better than {base.label} by {cell.gain:.4f} {interval_text(cell)}{more}"
        elif all(high < 0 for _, _, _, high in known):
            text = f"every network is worse than {base.label}: none is worth it here"
        else:
            text = f"no network is better than {base.label} by more than chance: none has shown that it is worth it"
        sentences.append(f"{column.title}: {text}.")
    return sentences


def _size(line: Line) -> str:
    if line.match is None:
        return f"{line.parameters:,}"
    found, target = line.match["parameters"], line.match["target"]
    return f"{found:,}" + ("" if line.match["within_tolerance"] else f" ({found / target - 1:+.1%})")


def _worse(line: Line, reference: Line) -> str:
    if line is reference or line.is_baseline:
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


def captions(section: Section) -> list[str]:
    said = [f"{section.split.capitalize()} split: {section.split_rule}."]
    if section.training:
        said.append(f"Training: {section.training}.")
    sizes = {(line.match["like"], line.match["target"]) for line in section.lines if line.match is not None}
    for like, target in sizes:
        said.append(
            f"Parameters: above the embedding, brought to {like}'s {target:,}; what stays more than 2 % off is named."
        )
    rows = ", ".join(f"{column.task} {count:,}" for column, count in section.rows.items())
    said.append(f"Rows that count: {rows}.")
    said.append(f"Mean ± standard deviation over {'folds and ' if section.folds else ''}seeds.")
    if section.baseline is not None:
        which = ", the best baseline on validation rows" if section.baseline.is_baseline else ""
        how = f"; in brackets its interval, {section.intervals}" if section.intervals else ""
        said.append(f"Gain: over {section.baseline.label}{which}, positive is better{how}.")
    if section.oracle:
        said.append("Share of lift: (AUC - 0.5) / (AUC of the true probabilities - 0.5).")
    return said


def print_report(sections: Sequence[Section], console: Console) -> None:
    """The sections on a terminal of 80 columns: for each task a line for each model, then what the models cost."""
    for section in sections:
        console.print(f"\n[bold]{escape(section.title)}[/]", highlight=False)
        for column in section.columns:
            console.print(_task_table(section, column))
        costs = _table("cost", "parameters", "train s", "rows/s", _runs(section))
        for line in section.lines:
            seconds, rate = number_text(line.train_seconds, ".1f"), number_text(line.examples_per_second, ",.0f")
            costs.add_row(escape(line.title), _size(line), seconds, rate, str(line.seeds))
        console.print(costs)
        for sentence in verdict(section):
            console.print(f"[bold]*[/] {escape(sentence)}", highlight=False)
        for caption in captions(section):
            console.print(f"[dim]{escape(caption)}[/]", highlight=False)
        for run, error in section.failed.items():
            console.print(f"[red]failed:[/] {escape(run)}: {escape(error)}", highlight=False)


def plain_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column names something, and the others are numbers."""
    made = _table(title, *headers)
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def markdown_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as Markdown."""
    rule = _markdown_row(["---", *["---:"] * len(headers)])
    return "\n".join([_markdown_row([title, *headers]), rule, *map(_markdown_row, rows)]) + "\n"


def _table(title: str, *headers: str) -> Table:
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Long names are folded, so that the numbers need not be.
    made.add_column(escape(title), min_width=24, overflow="fold")
    for header in headers:
        made.add_column(header, justify="right", no_wrap=True)
    return made


def _task_table(section: Section, column: Column) -> Table:
    has_share = column in section.oracle
    rows = [(line.title, line.cells[column]) for line in section.lines if column in line.cells]
    has_interval = any(cell.interval for _, cell in rows)
    further = [*(["95 %"] if has_interval else []), *(["share of lift"] if has_share else [])]
    made = _table(column.title, "mean ± std", "gain", *further)
    for label, cell in sorted(rows, key=lambda row: -gain(column.metric, row[1].mean, 0.0)):
        more = [interval_text(cell)] if has_interval else []
        more += [number_text(cell.share, ".1%")] if has_share else []
        made.add_row(escape(label), cell.text, number_text(cell.gain, "+.4f"), *map(escape, more))
    if has_share:
        blank = [""] * (1 + has_interval)
        made.add_row("oracle", number_text(section.oracle[column], ".4f"), *blank, "100.0%")
    return made


def markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown tables, with a column that names the tasks on which `shared_bottom` is better.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark import ResultStore, RunConfig, leaderboard, markdown, run_config
    >>> store = ResultStore(pathlib.Path(tempfile.mkdtemp()) / "rows.csv")
    >>> config = RunConfig("synthetic_funnel", "constant", dataset_options={"size": "small"})
    >>> _ = run_config(config, store)
    >>> markdown(leaderboard(store.read())).splitlines()[0]
    '## synthetic_funnel (small)'
    """
    parts = []
    for section in sections:
        headers, rows = _texts(section)
        reference = section.reference
        if reference is not None and len(section.lines) > 1:
            headers.append(f"worse than {REFERENCE}?")
            for row, line in zip(rows, section.lines, strict=False):
                row.append(_worse(line, reference))
            rows = [row + [""] * (len(headers) - len(row)) for row in rows]
        lines = [f"## {section.title}", "", " ".join(captions(section)), ""]
        lines += [*(f"- {sentence}" for sentence in verdict(section)), *([""] if verdict(section) else [])]
        lines += [_markdown_row(headers), _markdown_row(["---", *["---:"] * (len(headers) - 1)])]
        lines += [_markdown_row(row) for row in rows]
        lines += ["", *(f"- failed: {run}: {error}" for run, error in section.failed.items())]
        parts.append("\n".join(lines).rstrip() + "\n")
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
