import keras
import numpy as np
import pytest

from mtl_zoo.evaluation import (
    evaluate,
    plot_calibration,
    plot_lift,
    plot_precision_recall,
    plot_roc,
    plot_score_histograms,
    plot_training_curves,
    scored_rows,
)
from mtl_zoo.evaluation._figures import DASHES, PALETTE, line_style

PLOTS = (plot_calibration, plot_roc, plot_precision_recall, plot_lift, plot_score_histograms)


@pytest.fixture(scope="module")
def rows():
    """Scores that are the true rates, and ones that are twice too high, of one in five labels."""
    rng = np.random.default_rng(0)
    rate = rng.beta(1, 4, 20_000)
    label = (rng.random(20_000) < rate).astype(float)
    return {"true": (label, rate), "high": (label, np.minimum(2 * rate, 1.0), rng.uniform(0.5, 2, 20_000))}


@pytest.mark.parametrize("plot", PLOTS)
def test_each_is_a_figure_with_labelled_axes(plot, rows, tmp_path):
    figure = plot(rows)
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in figure.axes)
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_a_calibration_curve_is_on_the_diagonal_where_scores_are_rates(rows):
    true, high = plot_calibration(rows, bins=8).axes
    mean, rate = true.lines[0].get_xdata(), true.lines[0].get_ydata()
    assert len(mean) == 8 and np.abs(mean - rate).max() < 0.02
    y, p = rows["true"]
    parts = np.array_split(np.argsort(p, kind="stable"), 8)
    np.testing.assert_allclose(mean, [p[part].mean() for part in parts])
    np.testing.assert_allclose(rate, [y[part].mean() for part in parts])
    assert (high.lines[0].get_xdata()[:6] > 1.5 * high.lines[0].get_ydata()[:6]).all()
    bars = true.containers[0].lines[2][0].get_segments()
    inside = [low[1] <= m <= up[1] for (low, up), m in zip(bars, mean, strict=True)]
    assert sum(inside) >= 6, "the interval covers the rate about 19 times in 20"


def test_curves_hold_what_they_say(rows):
    y, p = rows["true"]
    panel = plot_roc(rows).axes[0]
    curve = panel.lines[0]
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert f"{area:.3f}" in curve.get_label() and len(curve.get_xdata()) <= 2001
    panel = plot_precision_recall(rows).axes[0]
    assert panel.lines[0].get_ydata()[-1] == pytest.approx(y.mean(), abs=1e-6)
    assert panel.lines[1].get_ydata()[0] == pytest.approx(y.mean())
    panel = plot_lift({"true": rows["true"]}).axes[0]
    top = np.argsort(-p)[:2000]
    assert f"top 10 % {y[top].mean() / y.mean():.2f}" in panel.lines[0].get_label()
    assert panel.lines[0].get_ydata()[-1] == pytest.approx(1)
    assert panel.lines[0].get_xdata()[0] >= 0.1


def test_ties_are_drawn_at_their_end():
    panel = plot_lift({"same": (np.array([1.0, 0, 0, 0]), np.full(4, 0.3))}).axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [1.0])


def test_histograms_sum_to_all_rows_of_a_label(rows):
    panel = plot_score_histograms({"high": rows["high"]}, bins=10).axes[0]
    assert [patch.get_data().values.sum() for patch in panel.patches] == pytest.approx([100, 100])


def test_training_curves():
    history = keras.callbacks.History()
    history.history = {
        "click_auc": [0.6, 0.7],
        "loss": [1.0, 0.9],
        "val_click_auc": [0.5, 0.6],
        "val_score": [0.5, 0.6],
    }
    figure = plot_training_curves(history)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "click_auc", "score"]
    auc = figure.axes[1]
    assert [line.get_label() for line in auc.lines] == ["training", "validation"]
    np.testing.assert_array_equal(auc.lines[1].get_ydata(), [0.5, 0.6])
    np.testing.assert_array_equal(auc.lines[1].get_xdata(), [1, 2])
    with pytest.raises(ValueError, match="`history` must hold at least one epoch"):
        plot_training_curves({})


def test_rows_of_a_model_are_those_that_evaluate_counts(stand_in, funnel):
    split, scores, tasks = funnel
    model = stand_in(tasks, scores, funnel=True)
    found = scored_rows(model, split)
    table = evaluate(model, split)
    observed = table[table["metric"] == "auc"].set_index("task")["observed"]
    assert {name: len(part.label) for name, part in found.items()} == observed.to_dict()
    auc = table[table["metric"] == "auc"].set_index("task")["value"]
    for line in plot_roc(found).axes[0].lines[:-1]:
        name = line.get_label().partition(":")[0]
        assert line.get_label().endswith(f"{auc[name]:.3f}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "`rows` must be"),
        ({"x": ([0, 1], [0.2, 1.7])}, r"`rows\['x'\]` must have scores within 0..1"),
        ({"x": ([0, 2], [0.2, 0.7])}, "`y` must be 0 or 1"),
        ({"x": ([1, 1], [0.2, 0.7])}, r"`rows\['x'\]` must have rows of both labels"),
        ({"x": ([], [])}, r"`rows\['x'\]` must"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        plot_roc(given)


def test_lines_differ_in_colour_and_dashes():
    styles = [tuple(line_style(number).values()) for number in range(len(PALETTE))]
    assert len(set(styles)) == len(PALETTE) and len({dashes for _, dashes in styles}) == len(DASHES)
