"""The heat map of a `GateReport`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.evaluation._figures import heat_map, new_figure, save_figure


def draw_gate_report(report: Any, path: str | Path) -> Path:
    """Draws one panel for gates that weigh the same experts, a row a gate and segment, a column an expert."""
    parts = [_panel(report, columns, seen) for columns, seen in report.panels]
    heights = [0.75 + 0.42 * len(rows) for rows, _, _, _ in parts]
    most = max(len(columns) for columns, _ in report.panels)
    width = max(len(label) for rows, *_ in parts for label in rows)
    figure = new_figure(1.6 + 0.075 * width + 0.95 * max(most, 3), sum(heights))
    highest = max(float(np.nanmax(matrix)) for _, matrix, _, _ in parts)
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    image: Any = None
    for panel, (rows, matrix, captured, columns) in zip(panels, parts, strict=True):
        image = heat_map(panel, matrix, rows, columns, vmin=0, vmax=highest)
        for label, is_captured in zip(panel.get_yticklabels(), captured, strict=True):
            label.set_color("#b00020" if is_captured else "black")
    figure.colorbar(image, ax=list(panels), label="mean gate weight")
    return save_figure(figure, path)


def _panel(
    report: Any, columns: tuple[str, ...], seen: dict[str, tuple[int, ...]]
) -> tuple[list[str], np.ndarray, list[bool], list[str]]:
    rows, weights, captured = [], [], []
    table = report.table[report.table["gate"].isin(seen)]
    for key, part in table.groupby(["gate"] if report.by is None else ["gate", report.by], sort=False):
        gate = key[0]
        line = np.full(len(columns), np.nan)
        line[list(seen[gate])] = part["weight"]
        first = part.iloc[0]
        segment = "" if report.by is None else f", {report.by} {key[1]}"
        rows.append(f"{gate}{segment}  H {first['entropy']:.2f}")
        weights.append(line)
        captured.append(bool(first["captured"]))
    return rows, np.array(weights), captured, list(columns)
