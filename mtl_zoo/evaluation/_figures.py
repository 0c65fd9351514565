"""How figures are made, shared by all modules that draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that are told apart with any kind of colour vision, and in grey by their order (Okabe and Ito, 2008).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beside colours, so that lines are told apart without any.
DASHES = ("-", "--", "-.", ":")


def line_style(number: int) -> dict[str, str]:
    """Colour and dashes of the line with this number."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}


def new_figure(width: float, height: float) -> Figure:
    # Not through pyplot: nothing of the user's matplotlib session is touched, and no display is needed.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def heat_map(panel: Any, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], **scale: Any) -> Any:
    """Draws a matrix as coloured cells with their numbers; NaN is an empty cell."""
    image = panel.imshow(matrix, aspect="auto", cmap="viridis", **scale)
    panel.set_facecolor("0.93")
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xticks(range(len(columns)), columns)
    middle = (image.norm.vmin + image.norm.vmax) / 2
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > middle else "white")
    return image
