"""Pictures of training and of scores, as matplotlib figures: curves by task, calibration, ROC, precision, lift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._figures import PALETTE, line_style, new_figure
from mtl_zoo.evaluation.evaluate import rows_and_scores, weights_of
from mtl_zoo.metrics import exact

# More points than a picture shows.
_MOST_POINTS = 2000
_WIDTH, _HEIGHT = 3.8, 3.4


class ScoredRows(NamedTuple):
    """Labels, scores and weights of the rows that one output is measured on.

    Args:
        label: 0 and 1, of shape (rows,).
        score: Probabilities, of shape (rows,).
        weight: Of shape (rows,). Default: None, all alike.

    Example:

    >>> from mtl_zoo.evaluation import ScoredRows
    >>> ScoredRows([0, 1], [0.2, 0.7]).weight is None
    True
    """

    label: ArrayLike
    score: ArrayLike
    weight: ArrayLike | None = None


def scored_rows(model: Any, split: Any, *, batch_size: int = 4096) -> dict[str, ScoredRows]:
    """What the pictures of scores take: of each binary output, the rows where it is observed and in its sample space.

    Args:
        model: A model of the zoo.
        split: What `evaluate` takes.
        batch_size: Rows a step of `predict`. Default: 4096.

    Raises:
        ValueError: The split is empty; the model has no binary output.

    Example:

    >>> from mtl_zoo import create_model, load_dataset
    >>> from mtl_zoo.evaluation import plot_roc, scored_rows
    >>> data = load_dataset("synthetic_funnel", size=1000)
    >>> model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> rows = scored_rows(model, data.train)
    >>> len(rows["click"].label) > len(rows["conversion"].label)
    True
    >>> plot_roc(rows).axes[0].get_xlabel()
    'false positive rate'
    """
    split, scores = rows_and_scores(model, split, batch_size)
    targets = model.targets(split.labels)
    found = {}
    for output in model.outputs_info:
        if output.task.is_event:
            label, mask = (keras.ops.convert_to_numpy(part).reshape(-1) for part in targets[output.name])
            weight, there = weights_of(split, output), mask > 0
            score = np.asarray(scores[output.name], "float64").reshape(-1)
            found[output.name] = ScoredRows(label[there], score[there], None if weight is None else weight[there])
    if not found:
        raise ValueError(f"`model` must have a binary output. Received: {[o.name for o in model.outputs_info]}")
    return found


def plot_training_curves(history: Any) -> Figure:
    """Losses and metrics over the epochs: a panel for each, with a line of the training and one of the validation rows.

    Args:
        history: What `fit` returned, its `history`, or a dict of lists by the name of the log.

    Raises:
        ValueError: There is no epoch.

    Example:

    >>> from mtl_zoo.evaluation import plot_training_curves
    >>> figure = plot_training_curves({"click_auc": [0.6, 0.7], "val_click_auc": [0.58, 0.64]})
    >>> figure.axes[0].get_ylabel(), [line.get_label() for line in figure.axes[0].lines]
    ('click_auc', ['training', 'validation'])
    """
    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    names = list(dict.fromkeys(name.removeprefix("val_") for name in logs if len(logs[name])))
    if not names:
        raise ValueError("`history` must hold at least one epoch. Received: none")
    # Losses first, then metrics task by task, since the names begin with those of the tasks.
    names = [name for name in names if name.endswith("loss")] + [name for name in names if not name.endswith("loss")]
    figure, panels = _panels(len(names))
    for panel, name in zip(panels, names, strict=True):
        for number, (key, label) in enumerate(((name, "training"), (f"val_{name}", "validation"))):
            if key in logs:
                epochs = np.arange(1, len(logs[key]) + 1)
                panel.plot(epochs, logs[key], marker="o", markersize=3, label=label, **line_style(number))
        panel.set_ylabel(name)
        panel.set_xlabel("epoch")
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", frameon=False)
    return figure


def plot_calibration(rows: Mapping[str, Any], *, bins: int = 10) -> Figure:
    """The rate of label 1 against the mean score, bin by bin: on the diagonal a score is the rate that it stands for.

    Bins hold equally many rows. Bars are 95 % intervals of the rate (Wilson), as of rows that all weigh the same; the
    title has the expected calibration error of these bins, the mean distance from the diagonal.

    Args:
        rows: What `scored_rows` gives, or `(label, score)` or `(label, score, weight)` by name.
        bins: How many. Default: 10.

    Raises:
        ValueError: Labels are not 0 and 1, or scores no probabilities; there are no rows.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.evaluation import plot_calibration
    >>> score = np.linspace(0.01, 0.99, 1000)
    >>> label = np.random.default_rng(0).random(1000) < score
    >>> plot_calibration({"click": (label * 1, score)}).axes[0].get_ylabel()
    'rate of label 1'

    Reference: Niculescu-Mizil and Caruana, Predicting Good Probabilities with Supervised Learning, ICML 2005; Wilson,
    Journal of the American Statistical Association 22, 1927.
    """
    check.check_int("bins", bins)
    checked = _checked(rows)
    figure, panels = _panels(len(checked))
    for panel, (name, (label, score, weight)) in zip(panels, checked.items(), strict=True):
        order = np.argsort(score, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        mean = np.array([np.average(score[part], weights=weight[part]) for part in parts])
        rate = np.array([np.average(label[part], weights=weight[part]) for part in parts])
        low, high = _wilson(rate, np.array([len(part) for part in parts]))
        error = [np.maximum(rate - low, 0), np.maximum(high - rate, 0)]
        panel.errorbar(mean, rate, yerr=error, fmt="o-", color=PALETTE[0], markersize=4, capsize=2, label="model")
        most = 1.05 * float(max(mean.max(), high.max()))
        panel.plot([0, most], [0, most], color="0.4", linestyle=":", label="perfect")
        gap = np.average(np.abs(mean - rate), weights=[weight[part].sum() for part in parts])
        _finish(panel, "mean score", "rate of label 1", f"{name}: error {gap:.4f}")
    return figure


def plot_roc(rows: Mapping[str, Any]) -> Figure:
    """The share of positive rows found against that of negative ones, over all thresholds: a line for each output.

    Args:
        rows: What `scored_rows` gives, or `(label, score)` or `(label, score, weight)` by name.

    Raises:
        ValueError: Labels are not 0 and 1, or all alike; scores are no probabilities.

    Example:

    >>> from mtl_zoo.evaluation import plot_roc
    >>> plot_roc({"click": ([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8])}).axes[0].lines[0].get_label()
    'click: AUC 0.750'
    """
    from sklearn.metrics import roc_curve

    figure, (panel,) = _panels(1)
    for number, (name, (label, score, weight)) in enumerate(_checked(rows, both=True).items()):
        false, true, _ = roc_curve(label, score, sample_weight=weight)
        title = f"{name}: AUC {exact.auc(label, score, weight):.3f}"
        panel.plot(*_thinned(false, true), label=title, **line_style(number))
    panel.plot([0, 1], [0, 1], color="0.4", linestyle=":", label="by chance")
    _finish(panel, "false positive rate", "true positive rate")
    return figure


def plot_precision_recall(rows: Mapping[str, Any]) -> Figure:
    """Precision against recall over all thresholds: a line for each output, and a dotted one at its rate of label 1.

    Args:
        rows: What `scored_rows` gives, or `(label, score)` or `(label, score, weight)` by name.

    Raises:
        ValueError: Labels are not 0 and 1, or all alike; scores are no probabilities.

    Example:

    >>> from mtl_zoo.evaluation import plot_precision_recall
    >>> plot_precision_recall({"click": ([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8])}).axes[0].lines[0].get_label()
    'click: average precision 0.833'
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, (panel,) = _panels(1)
    for number, (name, (label, score, weight)) in enumerate(_checked(rows, both=True).items()):
        precision, recall, _ = precision_recall_curve(label, score, sample_weight=weight)
        mean = average_precision_score(label, score, sample_weight=weight)
        style = line_style(number)
        points = _thinned(recall[::-1], precision[::-1])
        panel.plot(*points, drawstyle="steps-pre", label=f"{name}: average precision {mean:.3f}", **style)
        panel.axhline(np.average(label, weights=weight), color=style["color"], linestyle=":", linewidth=1)
    _finish(panel, "recall", "precision")
    panel.set_ylim(bottom=0)
    return figure


def plot_lift(rows: Mapping[str, Any]) -> Figure:
    """How much higher the rate of label 1 is among the rows with the highest scores than among all of them.

    The lift of a share `x` of the rows is the rate among these over the rate of all; a model by chance has 1
    everywhere. It is drawn from the first 0.1 % of the rows, or the first 10, on.

    Args:
        rows: What `scored_rows` gives, or `(label, score)` or `(label, score, weight)` by name.

    Raises:
        ValueError: Labels are not 0 and 1, or all alike; scores are no probabilities.

    Example:

    >>> from mtl_zoo.evaluation import plot_lift
    >>> figure = plot_lift({"click": ([0, 1] * 50, [0.1, 0.9] * 50)})
    >>> figure.axes[0].lines[0].get_ydata().max().round(6)
    np.float64(2.0)
    """
    figure, (panel,) = _panels(1)
    for number, (name, (label, score, weight)) in enumerate(_checked(rows, both=True).items()):
        share, lift = _lift(label, score, weight)
        first = int(np.searchsorted(share, max(0.001, min(10 / len(label), 1.0))))
        points = _thinned(100 * share[first:], lift[first:])
        panel.plot(*points, label=f"{name}: top 10 % {np.interp(0.1, share, lift):.2f}", **line_style(number))
    panel.axhline(1.0, color="0.4", linestyle=":", label="by chance")
    panel.set_xscale("log")
    _finish(panel, "rows with the highest scores (%)", "lift over the rate of all rows")
    panel.set_ylim(bottom=0)
    return figure


def plot_score_histograms(rows: Mapping[str, Any], *, bins: int = 40) -> Figure:
    """How scores are spread among the rows with label 0 and among those with label 1: a panel for each output.

    Args:
        rows: What `scored_rows` gives, or `(label, score)` or `(label, score, weight)` by name.
        bins: Of equal width, between the least and the greatest score. Default: 40.

    Raises:
        ValueError: Labels are not 0 and 1; scores are no probabilities; there are no rows.

    Example:

    >>> from mtl_zoo.evaluation import plot_score_histograms
    >>> figure = plot_score_histograms({"click": ([0, 0, 1], [0.1, 0.2, 0.8])})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['label 0 (2 rows)', 'label 1 (1 rows)']
    """
    check.check_int("bins", bins)
    checked = _checked(rows)
    figure, panels = _panels(len(checked))
    for panel, (name, (label, score, weight)) in zip(panels, checked.items(), strict=True):
        edges = np.histogram_bin_edges(score, bins=bins)
        for number in (0, 1):
            there = label == number
            if there.any():
                shares = 100 * np.histogram(score[there], edges, weights=weight[there])[0] / weight[there].sum()
                text = f"label {number} ({int(there.sum()):,} rows)"
                panel.stairs(shares, edges, label=text, linewidth=1.5, **line_style(number))
        _finish(panel, "score", "rows of the label in the bin (%)", name)
    return figure


def _panels(count: int) -> tuple[Figure, list[Any]]:
    columns = min(count, 3)
    lines = math.ceil(count / columns)
    # A panel alone has its legend within, and needs room for it.
    wide = 1.35 if count == 1 else 1.0
    figure = new_figure(wide * _WIDTH * columns, (1.1 if count == 1 else 1.0) * _HEIGHT * lines)
    panels = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def _finish(panel: Any, x: str, y: str, title: str = "") -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if title:
        panel.set_title(title, fontsize="medium")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", frameon=False)


def _checked(rows: Mapping[str, Any], both: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels, scores and weights as float64 arrays."""
    if not isinstance(rows, Mapping) or not rows:
        raise ValueError(f"`rows` must be (label, score) by name, at least one. Received: {type(rows).__name__}")
    found = {}
    for name, given in rows.items():
        label, score, weight = (*given, None)[:3]
        y, p, w = exact.checked_arrays(label, score, weight)
        y, p, w = (np.asarray(part, "float64").reshape(-1) for part in (y, p, np.ones(len(y)) if w is None else w))
        if len(y) == 0 or not np.isin(y, (0, 1)).all():
            raise ValueError(f"`rows[{name!r}]` must have labels 0 and 1. Received: {sorted(set(y.tolist()))[:5]}")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"`rows[{name!r}]` must have scores within 0..1. Received: {p.min():g} to {p.max():g}")
        if both and len(set(y[w > 0].tolist())) < 2:
            raise ValueError(f"`rows[{name!r}]` must have rows of both labels. Received: {y[0]:g} alone")
        found[name] = (y, p, w)
    return found


def _wilson(rate: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a rate among so many rows."""
    z = 1.959964
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half


def _lift(label: np.ndarray, score: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the rows from the top on, at the end of each tie, and the lift there."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    rows = np.cumsum(weight[order])
    positive = np.cumsum((weight * label)[order])
    return rows[ends] / rows[-1], positive[ends] / rows[ends] / (positive[-1] / rows[-1])


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many points as a picture shows, the first and the last among them."""
    if len(x) <= _MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).astype("int64"))
    return x[kept], y[kept]
