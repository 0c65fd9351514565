"""The leaderboard as one HTML page that needs nothing else: tables that sort and filter, intervals and charts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

import numpy as np

from mtl_zoo.benchmark.plots import figure_svg, report_figure
from mtl_zoo.benchmark.report import captions, interval_text, verdict
from mtl_zoo.benchmark.summary import NO_CELL, Cell, Column, Line, Section, number_text

# Width and height of the chart of an interval in a table's cell.
_WIDTH, _HEIGHT = 120, 14


def page(sections: Sequence[Section], title: str, figures: Mapping[str, str] | None = None) -> str:
    """The page of a leaderboard.

    Args:
        sections: What `leaderboard` gave.
        title: Names the page.
        figures: Further charts below the tables, `<svg>` elements by their titles.

    Returns:
        HTML with its styles, its script and its pictures inside; it asks nothing of the network.

    Example:

    >>> from mtl_zoo.benchmark.page import page
    >>> page([], "visits").splitlines()[0]
    '<!doctype html>'
    """
    template = resources.files("mtl_zoo.benchmark").joinpath("leaderboard.html").read_text(encoding="utf-8")
    body = "\n".join(_section(section, number) for number, section in enumerate(sections))
    for name, svg in (figures or {}).items():
        body += f"<section><h2>{html.escape(name)}</h2><figure>{svg}</figure></section>"
    return template.replace("<!-- title -->", html.escape(title)).replace("<!-- body -->", body)


def _section(section: Section, number: int) -> str:
    sentences = "".join(f"<li>{html.escape(text)}</li>" for text in verdict(section))
    failed = "".join(
        f"<li>failed: {html.escape(run)}: {html.escape(error)}</li>" for run, error in section.failed.items()
    )
    said = " ".join(html.escape(text) for text in captions(section))
    return (
        f"<section><h2>{html.escape(section.title)}</h2>"
        f"<ul class='verdict'>{sentences}{failed}</ul>{_table(section)}<p class='caption'>{said}</p>"
        f"<figure>{figure_svg(report_figure([section]), f'section {number}')}</figure></section>"
    )


def _table(section: Section) -> str:
    has_gain = section.baseline is not None
    heads = ["model"]
    for column in section.columns:
        heads += [column.title, *(["gain"] if has_gain else [])]
    heads += ["parameters", "rows/s", "train s", "runs"]
    # Beside what knows nothing of a row, differences between the others could not be seen.
    lines = [line for line in section.lines if line.model != "constant"]
    scales = {column: _scale(line.cells.get(column, NO_CELL) for line in lines) for column in section.columns}
    rows = "".join(_row(section, line, scales, has_gain) for line in section.lines)
    cells = "".join(f"<th><button type='button'>{html.escape(head)}</button></th>" for head in heads)
    return f"<div class='wide'><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"


def _row(section: Section, line: Line, scales: dict[Column, float], has_gain: bool) -> str:
    cells = [_cell(html.escape(line.title), line.label)]
    for column in section.columns:
        cell = line.cells.get(column, NO_CELL)
        cells.append(_cell(html.escape(cell.text), cell.mean))
        if has_gain:
            shown = f"{number_text(cell.gain, '+.4f')} <small>{interval_text(cell)}</small>"
            cells.append(_cell(shown + _chart(cell, scales[column]), cell.gain))
    cells.append(_cell(f"{line.parameters:,}", line.parameters))
    cells.append(_cell(number_text(line.examples_per_second, ",.0f"), line.examples_per_second))
    cells.append(_cell(number_text(line.train_seconds, ".1f"), line.train_seconds))
    cells.append(_cell(str(line.seeds), line.seeds))
    return f"<tr data-kind='{'baseline' if line.is_baseline else 'network'}'>{''.join(cells)}</tr>"


def _cell(shown: str, value: float | str) -> str:
    text = value if isinstance(value, str) else ("" if not np.isfinite(value) else repr(float(value)))
    return f"<td data-value='{html.escape(text, quote=True)}'>{shown}</td>"


def _scale(cells: Iterable[Cell]) -> float:
    """The largest distance from 0 that a chart of this column has to show."""
    values = [abs(value) for cell in cells for value in (cell.gain, *(cell.interval or ())) if np.isfinite(value)]
    return max(values, default=0.0) or 1.0


def _chart(cell: Cell, scale: float) -> str:
    """A gain as a dot beside the line of no gain, with its interval."""
    if not np.isfinite(cell.gain):
        return ""

    def place(value: float) -> float:
        return round(_WIDTH / 2 + min(max(value / scale, -1.0), 1.0) * (_WIDTH / 2 - 4), 1)

    middle = _HEIGHT / 2
    low, high = cell.interval or (cell.gain, cell.gain)
    return (
        f"<svg class='gain' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='gain {cell.gain:+.4f}'>"
        f"<line class='zero' x1='{place(0)}' x2='{place(0)}' y1='0' y2='{_HEIGHT}'/>"
        f"<line class='reach' x1='{place(low)}' x2='{place(high)}' y1='{middle}' y2='{middle}'/>"
        f"<circle cx='{place(cell.gain)}' cy='{middle}' r='3'/></svg>"
    )
