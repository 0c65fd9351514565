"""The picture of a `BalancingReport`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.evaluation._figures import heat_map, new_figure, save_figure

# With more lines than this a legend would hide the panel; the heat map names the pairs in its place.
_MOST_NAMED = 8


def draw_balancing_report(report: Any, path: str | Path) -> Path:
    """Draws weights over the steps and, with gradients, their norms, shares, cosines, and conflict rates."""
    looked = report.gradients_of is not None and report.table["norm"].notna().any()
    pairs = looked and report.pairs["cosine"].notna().any()
    panels = ["weight", *(["norm", "share"] if looked else []), *(["cosine", "conflicts"] if pairs else [])]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(4.4 * columns, 3.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        if panel == "conflicts":
            _draw_conflicts(axis, report)
        elif panel == "cosine":
            _draw_lines(axis, report.pairs, ["loss", "other"], "cosine")
            axis.axhline(0.0, color="0.4", linewidth=0.8)
            axis.set_ylabel("cosine of gradients")
        else:
            _draw_lines(axis, report.table, ["loss"], panel)
            axis.set_ylabel({"weight": "weight", "norm": "gradient norm", "share": "share of weight x norm"}[panel])
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(report.method if not looked else f"{report.method}; gradients of {report.gradients_of}", fontsize=9)
    return save_figure(figure, path)


def _draw_lines(axis: Any, table: Any, keys: list[str], column: str) -> None:
    groups = list(table.groupby(keys, sort=False))
    for names, part in groups:
        axis.plot(part["step"], part[column], marker="." if len(part) < 50 else None, label=" / ".join(names))
    if len(groups) <= _MOST_NAMED:
        axis.legend(fontsize="x-small", frameon=False)
    values = table[column].to_numpy(dtype="float64")
    positive = values[np.isfinite(values) & (values > 0)]
    if column in ("weight", "norm") and len(positive) and positive.max() > 20 * positive.min():
        axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)


def _draw_conflicts(axis: Any, report: Any) -> None:
    names = list(dict.fromkeys(report.table["loss"]))
    matrix = np.full((len(names), len(names)), np.nan)
    for row in report.conflicts.itertuples():
        i, j = names.index(row.loss), names.index(row.other)
        matrix[i, j] = matrix[j, i] = row.conflict_rate
    heat_map(axis, matrix, names, names, vmin=0, vmax=1)
    axis.tick_params(axis="x", rotation=90 if len(names) > 4 else 0)
    axis.set_title("conflict rate", fontsize="medium")
