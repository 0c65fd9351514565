"""Metrics over days, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mtl_zoo.evaluation._figures import new_figure, save_figure


def draw_days(scores: Mapping[str, pd.DataFrame], path: str | Path, metric: str = "auc") -> Path:
    """A panel a task, a line a way of training over the days.

    Args:
        scores: What `Progress.scores(metric)` gave, by the name of the way.
        path: Where to.
        metric: Names the axis.

    Returns:
        The path.

    Raises:
        ValueError: There is nothing to draw.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.continual import draw_days
    >>> days = pd.DataFrame({"click": [0.6, 0.7]}, index=["monday", "tuesday"])
    >>> draw_days({"extended": days}, "days.png").name
    'days.png'
    """
    tasks = list(dict.fromkeys(task for table in scores.values() for task in table.columns))
    if not tasks:
        raise ValueError(f"`scores` must hold a table with a column for each task. Received: {list(scores)}")
    figure = new_figure(5.0 * len(tasks), 3.6)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        for name, table in scores.items():
            if task in table:
                panel.plot(range(len(table)), table[task].to_numpy(float), marker="o", markersize=3, label=name)
                days = [str(day) for day in table.index]
        step = max(len(days) // 10, 1)
        panel.set_xticks(range(0, len(days), step), days[::step], rotation=30, ha="right", fontsize="small")
        panel.set_title(task, fontsize="medium")
        panel.set_xlabel("day")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(metric)
    if len(scores) > 1:
        panels[0].legend(fontsize="small")
    return save_figure(figure, path)
