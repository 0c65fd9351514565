"""Pictures of explanations: bars of features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._figures import new_figure, save_figure

_FOR, _AGAINST = "#3b6ea8", "#b00020"


def draw_explanation(explanation: Any, path: str | Path, row: int | None) -> Path:
    """Mean absolute parts of all rows, or the signed parts of one."""
    figure = new_figure(7.0, 1.2 + 0.3 * explanation.table.shape[1])
    axes = figure.subplots()
    if row is None:
        summary = explanation.summary()
        bars(axes, list(summary["feature"]), summary["mean_absolute"].to_numpy())
        axes.set_xlabel(f"mean |part| of the {explanation.on} of {explanation.task}, {len(explanation.table):,} rows")
        return save_figure(figure, path)
    check.check_int("row", row, 0, len(explanation.table) - 1)
    parts = explanation.table.iloc[row]
    names = list(parts.abs().sort_values(ascending=False, kind="stable").index)
    told = [f"{name} = {explanation.shown(name, row)}" for name in names]
    bars(axes, told, parts[names].to_numpy())
    about = explanation.rows.iloc[row]
    axes.set_title(f"{explanation.task} {about['score']:.3g}, baseline {about['baseline']:.3g}")
    axes.set_xlabel(f"part of the {explanation.on}")
    return save_figure(figure, path)


def draw_importance(importance: Any, path: str | Path) -> Path:
    """A panel for each task: what its metric loses without each feature, with intervals."""
    parts = list(importance.table.groupby("task", sort=False))
    figure = new_figure(1.5 + 4.5 * len(parts), 1.2 + 0.3 * len(parts[0][1]))
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (task, part) in zip(panels, parts, strict=True):
        part = part.sort_values("importance", ascending=False, kind="stable")
        middle = part["importance"].to_numpy()
        bars(axes, list(part["feature"]), middle)
        ends = part[["low", "high"]].to_numpy().T
        axes.hlines(np.arange(len(part)), *ends, color="black", linewidth=1)
        axes.set_title(task)
        axes.set_xlabel(f"loss of {part['metric'].iloc[0]}")
    return save_figure(figure, path)


def bars(axes: Any, names: Sequence[str], values: np.ndarray) -> None:
    """Horizontal bars, the first at the top."""
    axes.barh(range(len(names)), values, color=[_FOR if value >= 0 else _AGAINST for value in values])
    axes.set_yticks(range(len(names)), names, parse_math=False)  # values may hold dollars
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
