"""What a suite of balancing methods shows, on rows that are made up."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.benchmark.methods import compare_methods, methods_markdown, methods_verdict
from mtl_zoo.benchmark.results import COLUMNS

SWEEP = "static_sweep(steps=8)"


def run(balancing, seed, values, metric="auc", *, epochs=3, error="", chosen=None, **more):
    """The rows of one run: `values` is {(task, space): its metric on test rows}; validation has half of it."""
    common = {
        "key": f"{balancing}-{seed}-{more}", "dataset": "d", "variant": "v", "split_rule": "at random", "model": "mmoe",
        "hyperparameters": "{}", "dataset_options": "{}", "data_version": "1", "seed": seed, "epochs": 5, "patience": 2,
        "batch_size": 8, "optimizer": "adam", "balancing": balancing, "error": error, **more,
    }  # fmt: skip
    if error:
        return [common]
    rows = []
    for (task, space), value in values.items():
        for split, factor in (("validation", 0.5), ("test", 1.0)):
            rows.append(
                {**common, "task": task, "space": space, "metric": metric, "value": value * factor, "split": split}
            )
        if "_and_" not in task:
            rows.append(
                {
                    **common,
                    "task": task,
                    "space": space,
                    "metric": "epochs_trained",
                    "value": epochs,
                    "split": "validation",
                }
            )
    for loss, weight in (chosen or {}).items():
        rows.append(
            {**common, "task": loss, "space": "", "metric": "static_weight", "value": weight} | {"split": "validation"}
        )
    return rows


def table(*runs):
    return pd.DataFrame([row for rows in runs for row in rows], columns=list(COLUMNS))


CLICK, SALE, BOTH = ("click", "impressions"), ("sale", "click"), ("click_and_sale", "impressions")


def seeds_of(balancing, clicks, sales=(0.6, 0.6, 0.6), **more):
    pairs = enumerate(zip(clicks, sales, strict=True))
    return [row for seed, (c, s) in pairs for row in run(balancing, seed, {CLICK: c, SALE: s, BOTH: 0.9}, **more)]


def suite(*more):
    weights = {"click": 1.8, "sale": 0.2}
    return table(
        seeds_of("equal", (0.70, 0.71, 0.72)),
        seeds_of("static(click=1.8, sale=0.2)", (0.72, 0.73, 0.74)),
        seeds_of("static(click=1, sale=1)", (0.70, 0.71, 0.72)),
        seeds_of(SWEEP, (0.72, 0.73, 0.74), chosen=weights),
        seeds_of("pcgrad", (0.74, 0.77, 0.80), epochs=4),
        seeds_of("mgda", (0.60, 0.61, 0.62)),
        seeds_of("dwa(steps=4)", (0.73, 0.72, 0.75)),
        *more,
    )


@pytest.fixture
def comparison():
    (found,) = compare_methods(suite())
    return found


def row_of(comparison, method):
    (row,) = comparison.table[comparison.table["method"] == method].to_dict("records")
    return row


def test_methods_are_ordered_and_points_of_the_grid_stand_apart(comparison):
    assert list(comparison.table["method"]) == ["pcgrad", "dwa(steps=4)", SWEEP, "equal", "mgda"]
    assert list(comparison.points["method"]) == ["static(click=1.8, sale=0.2)", "static(click=1, sale=1)"]
    assert comparison.title == "d (v), mmoe"
    assert comparison.metrics == {"click": "auc", "sale": "auc"}, "a product is no task that an epoch is chosen by"
    row = row_of(comparison, "pcgrad")
    assert (row["click"], row["click_std"], row["seeds"]) == (pytest.approx(0.77), pytest.approx(0.03), 3)
    assert row["score"] == pytest.approx((0.77 + 0.6) / 2)
    assert comparison.chosen == {seed: {"click": 1.8, "sale": 0.2} for seed in range(3)}


def test_differences_go_by_seed_with_a_t_interval(comparison):
    difference = row_of(comparison, "pcgrad")["to_sweep"]
    by_seed = (np.array([0.74, 0.77, 0.80]) - [0.72, 0.73, 0.74]) / 2
    half = 4.303 * by_seed.std(ddof=1) / 3**0.5
    assert difference.mean == pytest.approx(by_seed.mean())
    assert (difference.low, difference.high) == (
        pytest.approx(by_seed.mean() - half, rel=1e-3),
        pytest.approx(by_seed.mean() + half, rel=1e-3),
    )
    assert difference.always_above and not difference.excludes_zero, "0.02 +- 0.0248: above on all seeds, and yet noise"
    mgda = row_of(comparison, "mgda")["to_sweep"]
    assert mgda.always_below and mgda.excludes_zero and mgda.mean == pytest.approx(-0.06)
    dwa = row_of(comparison, "dwa(steps=4)")["to_sweep"]
    assert (dwa.above, dwa.below, dwa.seeds) == (2, 1, 3) and not dwa.always_above
    assert row_of(comparison, SWEEP)["to_sweep"] is None and row_of(comparison, "equal")["to_equal"] is None
    assert row_of(comparison, "equal")["to_sweep"].mean == pytest.approx(-0.01)


def test_epochs_are_those_trained_and_of_the_grid_those_of_all_points(comparison):
    assert row_of(comparison, "pcgrad")["epochs"] == 4 and row_of(comparison, "equal")["epochs"] == 3
    assert row_of(comparison, SWEEP)["epochs"] == 6


def test_the_verdict_is_plain(comparison):
    grid, weights, to_sweep, to_equal = methods_verdict(comparison)
    assert grid == "The tuned grid against the plain sum: +0.0100 (+0.0100 .. +0.0100), above it on 3 of 3 seeds."
    assert weights == "Weights that the grid chose, by seed: " + "; ".join(["click 1 : sale 0.11"] * 3) + "."
    assert to_sweep == (
        "Against the tuned grid, of 3 methods: better on every seed 1 (`pcgrad` +0.0200); worse on every seed 1 "
        "(`mgda` -0.0600); 1 neither. By luck alone 0.4 would be better on all of 3 seeds, and as many worse. "
        "The 95 % interval lies above 0 for none, below 0 for `mgda`."
    )
    assert "Against the plain sum, of 3 methods: better on every seed 2 (`pcgrad` +0.0300, `dwa(steps=4)`" in to_equal


def test_markdown(comparison):
    text = methods_markdown(comparison)
    assert (
        "### d (v), mmoe" in text
        and "Split: at random. Training: at most 5 epochs, patience 2, batch size 8, adam." in text
    )
    assert "| method | click AUC | sale AUC | score | to the plain sum | to the tuned grid | seeds above |" in text
    assert "| mgda | 0.6100 ± 0.0100 | 0.6000 ± 0.0000 | 0.6050 | -0.0500 (-0.0500 .. -0.0500) |" in text
    assert (
        "| equal | 0.7100 ± 0.0100 | 0.6000 ± 0.0000 | 0.6550 |  | -0.0100 (-0.0100 .. -0.0100) | 0 of 3 | 3.0 |"
        in text
    )
    assert (
        f"| {SWEEP} | 0.7300 ± 0.0100 | 0.6000 ± 0.0000 | 0.6650 | +0.0100 (+0.0100 .. +0.0100) |  |  | 6.0 |" in text
    )
    assert "| click 1 : sale 0.11 | 0.7300 ± 0.0100 | 0.6000 ± 0.0000 | 0.6650 | 3 |" in text


def test_costs_of_a_step_stand_beside_the_method(comparison):
    text = methods_markdown(comparison, {"pcgrad": 1.6, "dwa": 1.0, "dwa(steps=4)": 1.25})
    assert "| seeds above | epochs | step |" in text
    assert "| 3 of 3 | 4.0 | 1.60 |" in text and "| 2 of 3 | 3.0 | 1.25 |" in text and "|  |  | 6.0 |  |" in text


def test_errors_are_better_when_lower():
    rating = ("rating", "impressions")
    found = table(
        *(run("equal", seed, {rating: 0.8}, "nrmse") for seed in range(2)),
        *(run("gls", seed, {rating: 0.7}, "nrmse") for seed in range(2)),
        *(run("gls", seed, {rating: 0.7}, "rmse") for seed in range(2)),
    )
    (comparison,) = compare_methods(found)
    assert comparison.metrics == {"rating": "nrmse"}
    row = row_of(comparison, "gls")
    assert row["to_equal"].mean == pytest.approx(0.1) and row["to_equal"].above == 2
    assert row["to_sweep"] is None and len(comparison.points) == 0, "there was no sweep"
    assert "| gls | 0.7000 ± 0.0000 | 0.3000 | +0.1000 (+0.1000 .. +0.1000) |  |  | 3.0 |" in methods_markdown(
        comparison
    )
    assert not any("grid" in sentence for sentence in methods_verdict(comparison))


def test_seeds_that_one_of_two_lacks_are_left_out_and_one_seed_says_nothing():
    (comparison,) = compare_methods(suite(run("gls", 1, {CLICK: 0.9, SALE: 0.9})))
    difference = row_of(comparison, "gls")["to_sweep"]
    assert difference.seeds == 1 and not difference.always_above and difference.text == f"{(0.17 + 0.3) / 2:+.4f}"
    assert "of 3 methods" in methods_verdict(comparison)[2]
    assert "| gls | 0.9000 | 0.9000 | 0.9000 |" in methods_markdown(comparison)
    (other,) = compare_methods(table(seeds_of("equal", (0.7, 0.7, 0.7)), run("gls", 7, {CLICK: 0.9, SALE: 0.9})))
    assert row_of(other, "gls")["to_equal"].text == "-"


def test_failed_runs_are_named_unless_a_later_try_went_well():
    lost = run("moco", 0, {}, error="MemoryError: x")
    mended = [{**lost[0], "key": "mgda-0-{}"}]
    (comparison,) = compare_methods(suite(lost, mended))
    assert comparison.failed == {"moco, seed 0": "MemoryError: x"}
    assert methods_markdown(comparison).endswith("- failed: moco, seed 0: MemoryError: x\n")


def test_models_and_data_are_compared_apart():
    other = seeds_of("equal", (0.5, 0.5, 0.5), model="ple")
    assert [found.title for found in compare_methods(suite(other))] == ["d (v), mmoe", "d (v), ple"]


def test_refused():
    with pytest.raises(ValueError, match="`split` must be one of"):
        compare_methods(suite(), "train")
    with pytest.raises(ValueError, match=r"`split` must have results. Received: split='test'. Found: \[\]"):
        compare_methods(table())
