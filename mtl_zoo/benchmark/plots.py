"""Pictures of benchmarks: models beside each other and beside the oracle, gates, stitches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.benchmark.pareto import front_of
from mtl_zoo.benchmark.summary import Section
from mtl_zoo.evaluation._figures import heat_map
from mtl_zoo.evaluation._figures import new_figure as _figure
from mtl_zoo.evaluation._figures import save_figure as _save
from mtl_zoo.evaluation.gain import lower_is_better


def draw_report(sections: Sequence[Section], path: str | Path) -> Path:
    """One panel for each task of each section: a dot for each model, bars of one standard deviation over seeds.

    A dashed line marks the single-task model, a solid one the oracle where it is known.
    """
    columns = max(len(section.columns) for section in sections)
    heights = [0.9 + 0.32 * (len(section.lines) + 1) for section in sections]
    figure = _figure(1.6 + 3.4 * columns, 0.3 + sum(heights))
    panels = figure.subplots(len(sections), columns, squeeze=False, height_ratios=heights)
    for row, section in zip(panels, sections, strict=True):
        lines = section.lines[::-1]
        for panel, column in zip(row, section.columns, strict=False):
            for position, line in enumerate(lines):
                cell = line.cells.get(column)
                if cell is not None and np.isfinite(cell.mean):
                    spread = cell.std if np.isfinite(cell.std) else 0.0
                    panel.errorbar(cell.mean, position, xerr=spread, fmt="o", color="C0", capsize=3)
            base = section.baseline.cells.get(column) if section.baseline else None
            if base is not None:
                panel.axvline(base.mean, linestyle="--", color="0.5", linewidth=1, label="single_task")
            if column in section.oracle:
                panel.axvline(section.oracle[column], color="C3", linewidth=1.5, label="oracle")
            if base is not None or column in section.oracle:
                panel.legend(loc="lower left", fontsize="x-small", ncols=2, frameon=False)
            panel.set_yticks(range(len(lines)), [line.label for line in lines] if panel is row[0] else [])
            panel.set_ylim(-1.3, len(lines) - 0.4)  # the legend has a row of its own
            panel.set_title(column.title, fontsize="medium")
            panel.grid(axis="x", alpha=0.3)
        for panel in row[len(section.columns) :]:
            panel.set_axis_off()
        row[0].set_xlabel(f"{section.title}, {section.split} split", fontsize="small", loc="left")
    return _save(figure, path)


def draw_gates(gates: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> Path:
    """Mean gate weight by task and expert, one panel for each run, with the gates' normalised entropy.

    Args:
        gates: {title: {task: mean weight of each expert}}.
        path: Where to.
    """
    figure = _figure(1.2 + 3.6 * len(gates), 2.6)
    panels = figure.subplots(1, len(gates), squeeze=False)[0]
    for panel, (title, weights) in zip(panels, gates.items(), strict=True):
        matrix = np.array(list(weights.values()), dtype="float64")
        entropy = -(matrix * np.log(np.maximum(matrix, 1e-12))).sum(axis=1) / np.log(max(matrix.shape[1], 2))
        names = [f"{task}\nH = {h:.2f}" for task, h in zip(weights, entropy, strict=True)]
        experts = [str(i) for i in range(matrix.shape[1])]
        image = heat_map(panel, matrix, names, experts, vmin=0, vmax=max(matrix.max(), 1e-9))
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("expert")
        figure.colorbar(image, ax=panel, label="mean gate weight")
    return _save(figure, path)


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
    figure = _figure(1.2 + 3.0 * layers, 0.3 + 2.4 * len(stitches))
    panels = figure.subplots(len(stitches), layers, squeeze=False)
    for row, (title, matrices) in zip(panels, stitches.items(), strict=True):
        for panel, (layer, matrix) in zip(row, matrices.items(), strict=False):
            values = np.asarray(matrix, dtype="float64")
            limits = {"vmin": min(0.0, values.min()), "vmax": max(1.0, values.max())}
            heat_map(panel, values, tasks, tasks, **limits)
            panel.set_title(f"{title}: {layer}", fontsize="medium")
            panel.set_xlabel("from")
        row[0].set_ylabel("into")
        for panel in row[len(matrices) :]:
            panel.set_axis_off()
    return _save(figure, path)


def draw_pareto(found: Any, path: str | Path) -> Path:
    """A panel for each pair of tasks: static weights as dots, methods as named crosses, the pair's front as a line.

    Args:
        found: A `ParetoFront`.
        path: Where to.
    """
    pairs = list(itertools.combinations(found.metrics, 2)) or [tuple(found.metrics) * 2]
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = _figure(5.0 * columns, 4.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (first, second) in zip(panels, pairs, strict=False):
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
            panel.annotate(
                row["name"], (row[first], row[second]), xytext=(4, 3), textcoords="offset points", fontsize=6
            )
        panel.set_xlabel(f"{first} {found.metrics[first]}")
        panel.set_ylabel(f"{second} {found.metrics[second]}")
        if lower_is_better(found.metrics[first]):
            panel.invert_xaxis()
        if lower_is_better(found.metrics[second]):
            panel.invert_yaxis()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small", frameon=False)
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    return _save(figure, path)
