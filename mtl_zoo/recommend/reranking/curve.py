"""What diversity costs: a table and a picture over the trade-offs of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._figures import new_figure, save_figure
from mtl_zoo.recommend.reranking._base import Candidates, Stage, rerank


def diversity_curve(
    lists: Sequence[Candidates],
    stages: Mapping[str, Callable[[float], Stage]],
    trade_offs: Sequence[float],
    *,
    vectors: str,
    value: str | None = None,
    k: int = 10,
) -> pd.DataFrame:
    """The mean value and the mean diversity of lists, for each stage and trade-off.

    Args:
        lists: The candidates of several users.
        stages: By name, a function from a trade-off to a stage, such as `lambda t: MMR("vector", trade_off=t)`.
        trade_offs: The numbers to try.
        vectors: The column that diversity is measured on, the mean over pairs of `1 - cos`; it may be another than
            that of the stages.
        value: The column whose mean over the first k is the accuracy, such as labels. Default: the scores.
        k: Length of the lists, at least 2.

    Returns:
        One row for each stage and trade-off: `stage`, `trade_off`, `value`, `diversity`.

    Raises:
        ValueError: There are no lists, stages or trade-offs; a list has fewer than 2 candidates; a column is missing.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import MMR, Candidates, diversity_curve
    >>> rng = np.random.default_rng(0)
    >>> lists = [Candidates(range(50), rng.random(50), {"vector": rng.normal(size=(50, 4))}) for _ in range(3)]
    >>> curve = diversity_curve(lists, {"MMR": lambda t: MMR("vector", t)}, [0.2, 1.0], vectors="vector", k=5)
    >>> bool(curve["diversity"][0] > curve["diversity"][1]), bool(curve["value"][0] < curve["value"][1])
    (True, True)
    """
    k = check.check_int("k", k, minimum=2)
    if not len(lists) or not stages or not len(trade_offs) or min(map(len, lists)) < 2:
        raise ValueError(
            "`lists` must have lists of at least 2 candidates, `stages` and `trade_offs` at least one each. Received: "
            f"{len(lists)} lists, {len(stages)} stages, {len(trade_offs)} trade-offs"
        )
    rows = []
    for name, make in stages.items():
        for trade_off in trade_offs:
            shown = [rerank(candidates, make(trade_off), k=k) for candidates in lists]
            values = [np.mean(one.scores if value is None else one.numbers(value)) for one in shown]
            diversity = [_diversity(one, vectors) for one in shown]
            rows.append((name, float(trade_off), float(np.mean(values)), float(np.mean(diversity))))
    return pd.DataFrame(rows, columns=["stage", "trade_off", "value", "diversity"])


def _diversity(shown: Candidates, vectors: str) -> float:
    unit = shown.unit_vectors(vectors)
    same = float((unit**2).sum())
    return 1 - (float((unit.sum(axis=0) ** 2).sum()) - same) / (len(unit) * (len(unit) - 1))


def draw_diversity_curve(curve: pd.DataFrame, path: str | Path, *, value: str = "mean score") -> Path:
    """Writes the picture that `plot_diversity_curve` makes.

    Args:
        curve: What `diversity_curve` returned.
        path: The picture; its ending says the format.
        value: What the value is, for the axis.

    Returns:
        The path.

    Raises:
        ValueError: A column is missing.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.recommend import draw_diversity_curve
    >>> curve = pd.DataFrame({"stage": "MMR", "trade_off": [0.5, 1], "value": [1, 2], "diversity": [0.8, 0.4]})
    >>> draw_diversity_curve(curve, "curve.png").name
    'curve.png'
    """
    return save_figure(plot_diversity_curve(curve, value=value), path)


def plot_diversity_curve(curve: pd.DataFrame, *, value: str = "mean score") -> Figure:
    """Value against diversity, a line for each stage, with the trade-offs beside the points.

    Args:
        curve: What `diversity_curve` returned.
        value: What the value is, for the axis.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: A column is missing.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.recommend import plot_diversity_curve
    >>> curve = pd.DataFrame({"stage": "MMR", "trade_off": [0.5, 1], "value": [1, 2], "diversity": [0.8, 0.4]})
    >>> plot_diversity_curve(curve, value="NDCG@10").axes[0].get_ylabel()
    'NDCG@10'
    """
    missing = [name for name in ("stage", "trade_off", "value", "diversity") if name not in curve]
    if missing:
        raise ValueError(f"`curve` must have the columns of `diversity_curve`. Received: none named {missing}")
    figure = new_figure(5.2, 3.8)
    axis: Any = figure.subplots()
    for name, part in curve.groupby("stage", sort=False):
        axis.plot(part["diversity"], part["value"], marker="o", markersize=4, label=name)
        for row in part.itertuples():
            place = (row.diversity, row.value)
            axis.annotate(f"{row.trade_off:g}", place, fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set_xlabel("diversity within a list, mean of 1 - cos")
    axis.set_ylabel(value)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", frameon=False)
    return figure
