"""Pictures of benchmarks: models beside each other and beside the oracle, gates, stitches."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mtl_zoo.benchmark.summary import Section
from mtl_zoo.evaluation._figures import heat_map, new_figure, save_figure


def draw_report(sections: Sequence[Section], path: str | Path) -> Path:
    """`report_figure` as a file."""
    return save_figure(report_figure(sections), path)


def report_figure(sections: Sequence[Section]) -> Figure:
    """One panel for each task of each section: a dot for each model, bars of one standard deviation over seeds.

    A dashed line marks what gains are over, a solid one the oracle where it is known.
    """
    columns = max(len(section.columns) for section in sections)
    heights = [0.9 + 0.32 * (len(section.lines) + 1) for section in sections]
    figure = new_figure(1.6 + 3.4 * columns, 0.3 + sum(heights))
    panels = figure.subplots(len(sections), columns, squeeze=False, height_ratios=heights)
    for row, section in zip(panels, sections, strict=True):
        lines = section.lines[::-1]
        for panel, column in zip(row, section.columns, strict=False):
            for position, line in enumerate(lines):
                cell = line.cells.get(column)
                if cell is not None and np.isfinite(cell.mean):
                    spread = cell.std if np.isfinite(cell.std) else 0.0
                    panel.errorbar(cell.mean, position, xerr=spread, fmt="o", color="C0", capsize=3)
            over = section.baseline
            base = over.cells.get(column) if over else None
            if over is not None and base is not None:
                panel.axvline(base.mean, linestyle="--", color="0.5", linewidth=1, label=over.label)
            if column in section.oracle:
                panel.axvline(section.oracle[column], color="C3", linewidth=1.5, label="oracle")
            if base is not None or column in section.oracle:
                panel.legend(loc="lower left", fontsize="x-small", ncols=2, frameon=False)
            panel.set_yticks(range(len(lines)), [line.title for line in lines] if panel is row[0] else [])
            panel.set_ylim(-1.3, len(lines) - 0.4)  # the legend has a row of its own
            panel.set_title(column.title, fontsize="medium")
            panel.grid(axis="x", alpha=0.3)
            panel.locator_params(axis="x", nbins=4)  # more of them run into each other
        for panel in row[len(section.columns) :]:
            panel.set_axis_off()
        row[0].set_xlabel(f"{section.title}, {section.split} split", fontsize="small", loc="left")
    return figure


def figure_svg(figure: Figure, salt: str) -> str:
    """A figure as an `<svg>` element for a page; two of one page need different salts."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"<metadata>.*?</metadata>", "", text.getvalue()[text.getvalue().index("<svg") :], flags=re.DOTALL)


def draw_gates(gates: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> Path:
    """Mean gate weight by task and expert, one panel for each run, with the gates' normalised entropy.

    Args:
        gates: {title: {task: mean weight of each expert}}.
        path: Where to.
    """
    figure = new_figure(1.2 + 3.6 * len(gates), 2.6)
    panels = figure.subplots(1, len(gates), squeeze=False)[0]
    # One scale of colours for all runs.
    largest = max(max(map(max, weights.values())) for weights in gates.values())
    for panel, (title, weights) in zip(panels, gates.items(), strict=True):
        matrix = np.array(list(weights.values()), dtype="float64")
        entropy = -(matrix * np.log(np.maximum(matrix, 1e-12))).sum(axis=1) / np.log(max(matrix.shape[1], 2))
        names = [f"{task}\nH = {h:.2f}" for task, h in zip(weights, entropy, strict=True)]
        experts = [str(i) for i in range(matrix.shape[1])]
        image = heat_map(panel, matrix, names, experts, vmin=0, vmax=max(largest, 1e-9))
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("expert")
    figure.colorbar(image, ax=list(panels), label="mean gate weight")
    return save_figure(figure, path)


def draw_stitches(
    stitches: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], tasks: Sequence[str], path: str | Path
) -> Path:
    """The stitch matrices, one row of panels for each run: how much of column j goes into column i, after each layer.

    Args:
        stitches: {title: {layer: (T, T) matrix}}.
        tasks: Names of the columns.
        path: Where to.
    """
    layers = max(len(matrices) for matrices in stitches.values())
    figure = new_figure(1.2 + 3.0 * layers, 0.3 + 2.4 * len(stitches))
    panels = figure.subplots(len(stitches), layers, squeeze=False)
    every = [np.asarray(matrix, dtype="float64") for matrices in stitches.values() for matrix in matrices.values()]
    limits = {"vmin": min(0.0, *(m.min() for m in every)), "vmax": max(1.0, *(m.max() for m in every))}
    for row, (title, matrices) in zip(panels, stitches.items(), strict=True):
        for panel, (layer, matrix) in zip(row, matrices.items(), strict=False):
            values = np.asarray(matrix, dtype="float64")
            image = heat_map(panel, values, tasks, tasks, **limits)
            panel.set_title(f"{title}: {layer}", fontsize="medium")
            panel.set_xlabel("from")
        row[0].set_ylabel("into")
        for panel in row[len(matrices) :]:
            panel.set_axis_off()
    figure.colorbar(image, ax=list(panels.ravel()), label="share")
    return save_figure(figure, path)
