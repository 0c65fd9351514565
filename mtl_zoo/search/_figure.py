"""The picture of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mtl_zoo.evaluation._figures import PALETTE, new_figure
from mtl_zoo.search.objectives import PARAMETERS


def search_figure(found: Any) -> Figure:
    """The trials by number, for each objective; the front of the first two; and what mattered, if that is known."""
    table = found.table
    several, known = len(found.objectives) > 1, len(found.importances) > 0
    panels = [*found.objectives, *(["front"] if several else []), *(["importances"] if known else [])]
    figure = new_figure(4.6 * len(panels), 3.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        if panel == "front":
            _draw_front(axis, found, table)
        elif panel == "importances":
            _draw_importances(axis, found)
        else:
            _draw_trials(axis, panel, table)
    return figure


def _draw_trials(axis: Any, objective: Any, table: Any) -> None:
    done = table[table["state"] == "complete"]
    values = done[f"objective {objective.name}"].to_numpy(float)
    best = np.maximum.accumulate(values) if objective.larger else np.minimum.accumulate(values)
    axis.plot(done["trial"], values, "o", color=PALETTE[0], markersize=4, label="trial")
    axis.step(done["trial"], best, where="post", color=PALETTE[1], label="best so far")
    start = done[done["start"]]
    if len(start):
        value = float(start[f"objective {objective.name}"].iloc[0])
        axis.axhline(value, color="0.4", linestyle=":", label="where it starts")
    pruned = table.loc[table["state"] == "pruned", "trial"]
    if len(pruned):
        low = axis.get_ylim()[0]
        axis.plot(pruned, np.full(len(pruned), low), "x", color="0.5", markersize=5, label="stopped early")
    axis.set_xlabel("trial")
    rows = " on validation" if objective.name != PARAMETERS else ""
    axis.set_ylabel(f"{objective.name}{rows} ({'higher' if objective.larger else 'lower'} is better)")
    axis.locator_params(axis="x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", frameon=False)


def _draw_front(axis: Any, found: Any, table: Any) -> None:
    names = [f"objective {objective.name}" for objective in found.objectives[:2]]
    done, front = table[table["state"] == "complete"], found.front
    axis.plot(done[names[0]], done[names[1]], "o", color="0.6", markersize=4, label="trial")
    axis.plot(front[names[0]], front[names[1]], "o-", color=PALETTE[1], markersize=5, label="front")
    for row in front.to_dict("records"):
        place = (row[names[0]], row[names[1]])
        axis.annotate(str(row["trial"]), place, xytext=(4, 4), textcoords="offset points", fontsize="small")
    axis.set_xlabel(found.objectives[0].name)
    axis.set_ylabel(found.objectives[1].name)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", frameon=False)


def _draw_importances(axis: Any, found: Any) -> None:
    shares = found.importances.pivot(index="name", columns="objective", values="importance").fillna(0.0)
    shares = shares.loc[shares.sum(axis=1).sort_values().index]
    height = 0.8 / shares.shape[1]
    for i, objective in enumerate(shares.columns):
        places = np.arange(len(shares)) + (i - (shares.shape[1] - 1) / 2) * height
        axis.barh(places, shares[objective], height, color=PALETTE[i % len(PALETTE)], label=objective)
    axis.set_yticks(range(len(shares)), shares.index)
    axis.set_xlabel("share of the variance over the trials")
    axis.grid(axis="x", alpha=0.3)
    if shares.shape[1] > 1:
        axis.legend(fontsize="small", frameon=False)
