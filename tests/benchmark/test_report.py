import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mtl_zoo.benchmark.plots import draw_gates, draw_stitches
from mtl_zoo.benchmark.report import comparison, markdown, print_report
from mtl_zoo.benchmark.results import COLUMNS, ResultStore
from mtl_zoo.benchmark.summary import summarise
from mtl_zoo_cli import main


def run(model, seed, values, *, dataset="d", hyperparameters=None, validation=0.5, **more):
    """Rows of a run: `values` is {(task, space): {metric: value}}; validation AUCs are given by one number."""
    common = {
        "key": f"{dataset}-{model}-{seed}-{hyperparameters}-{more}", "dataset": dataset, "variant": "v", "model": model,
        "hyperparameters": json.dumps(hyperparameters or {}), "seed": seed, "split_rule": "at random", "epochs": 5,
        "batch_size": 8, "optimizer": "adam", "balancing": "equal", "parameters": 1234, "examples_per_second": 1000.0,
        "train_seconds": 2.0, "error": "", "observed": 10, "data_version": "1", "dataset_options": "{}", **more,
    }  # fmt: skip
    rows = []
    for (task, space), metrics in values.items():
        for metric, value in metrics.items():
            row = {**common, "task": task, "space": space, "metric": metric}
            rows.append({**row, "split": "test", "value": value})
            rows.append({**row, "split": "validation", "value": validation})
    return rows


def table(*runs):
    frame = pd.DataFrame([row for rows in runs for row in rows], columns=list(COLUMNS))
    return frame.assign(patience="", parameter_match=frame["parameter_match"].astype(object).fillna(""))


CLICK, SALE, BOTH = ("click", "impressions"), ("sale", "click"), ("click_and_sale", "impressions")


def funnel(*runs):
    return [
        run(model, seed, {CLICK: {"auc": click, "lift_share": 0.9, "oracle_auc": 0.8}, SALE: {"auc": sale}})
        for model, seed, click, sale in runs
    ]


def cells(section, label):
    (line,) = [line for line in section.lines if line.label == label]
    return {column.task: cell for column, cell in line.cells.items()}, line


def test_mean_spread_gain_and_order():
    (section,) = summarise(
        table(
            *funnel(
                ("single_task", 0, 0.7, 0.6),
                ("single_task", 1, 0.72, 0.62),
                ("mmoe", 0, 0.75, 0.6),
                ("mmoe", 1, 0.75, 0.64),
            )
        )
    )
    found, line = cells(section, "mmoe")
    assert found["click"].mean == 0.75 and found["click"].std == 0
    assert found["click"].gain == pytest.approx(0.04) and found["sale"].gain == pytest.approx(0.01)
    assert found["click"].share == pytest.approx(0.9) and np.isnan(found["sale"].share)
    assert (line.seeds, line.parameters, line.score) == (2, 1234, pytest.approx((0.75 + 0.62) / 2))
    base, _ = cells(section, "single_task")
    assert base["click"].std == pytest.approx(np.std([0.7, 0.72], ddof=1)) and np.isnan(base["click"].gain)
    assert [line.label for line in section.lines] == ["mmoe", "single_task"]
    assert {column.task: best for column, best in section.oracle.items()} == {"click": pytest.approx(0.8)}


def test_an_output_that_others_lack_has_a_column_but_no_part_in_the_order():
    esmm = run("esmm", 0, {CLICK: {"auc": 0.7}, SALE: {"auc": 0.6}, BOTH: {"auc": 0.9}})
    (section,) = summarise(table(*funnel(("mmoe", 0, 0.72, 0.6)), esmm))
    assert [line.label for line in section.lines] == ["mmoe", "esmm"]
    assert [column.title for column in section.columns] == ["click AUC", "sale|click AUC", "click_and_sale AUC"]


def test_regression_gains_when_the_error_falls():
    rating = ("rating", "impressions")
    (section,) = summarise(
        table(
            run("single_task", 0, {rating: {"rmse": 1.0, "nrmse": 0.8}}),
            run("mmoe", 0, {rating: {"rmse": 0.9, "nrmse": 0.7}}),
        )
    )
    assert cells(section, "mmoe")[0]["rating"].gain == pytest.approx(0.1)
    assert cells(section, "mmoe")[1].score == pytest.approx(0.3)


def test_settings_of_one_model_are_told_apart_and_the_baseline_is_chosen_on_validation():
    small = run("single_task", 0, {CLICK: {"auc": 0.8}}, hyperparameters={"units": [8, 4], "x": 1}, validation=0.6)
    large = run("single_task", 0, {CLICK: {"auc": 0.7}}, hyperparameters={"units": [64], "x": 1}, validation=0.7)
    mmoe = run("mmoe", 0, {CLICK: {"auc": 0.75}}, epochs=9)
    (section,) = summarise(table(small, large, mmoe))
    assert {line.label for line in section.lines} == {
        "single_task (units=8x4)", "single_task (units=64)", "mmoe (epochs=9)",
    }  # fmt: skip
    assert section.baseline.label == "single_task (units=64)"
    assert cells(section, "mmoe (epochs=9)")[0]["click"].gain == pytest.approx(0.05)
    assert section.training == "epochs 5 where no other is named, batch size 8, optimizer adam, balancing equal"


def test_options_are_named_by_what_they_have_of_their_own():
    units = {"activation": "relu", "dropout": 0.0, "norm": "batch", "residual": False, "units": [8, 4]}
    runs = [
        run("home", 0, {CLICK: {"auc": 0.7}}, hyperparameters={"expert_units": value})
        for value in ({"MLP": units}, {"MLP": {**units, "norm": None}}, [8, 4], {"a": 1})
    ]
    (section,) = summarise(table(*runs))
    assert {line.label for line in section.lines} == {
        "home (expert_units=MLP(norm=batch, units=8x4))", "home (expert_units=MLP(units=8x4))",
        "home (expert_units=8x4)", "home (expert_units={'a': 1})",
    }  # fmt: skip


def against(*models):
    """The section of models with three seeds each: {model: (click AUCs, sale AUCs)}."""
    return summarise(
        table(
            *(
                run(model, seed, {CLICK: {"auc": c}, SALE: {"auc": s}})
                for model, clicks, sales in models
                for seed, (c, s) in enumerate(zip(clicks, sales, strict=True))
            )
        )
    )[0]


def test_what_is_worse_than_shared_bottom_is_named():
    section = against(
        ("shared_bottom", (0.70, 0.71, 0.72), (0.60, 0.60, 0.60)),
        ("mmoe", (0.69, 0.68, 0.67), (0.60, 0.60, 0.59)),
        ("ple", (0.73, 0.72, 0.74), (0.60, 0.61, 0.62)),
    )
    lines = {line.label: line for line in section.lines}
    assert section.reference is lines["shared_bottom"]
    worse = lines["mmoe"].worse_on(section.reference)
    assert {column.task: every for column, every in worse.items()} == {"click": True, "sale": False}
    assert lines["ple"].worse_on(section.reference) == {} and not section.reference.worse_on(section.reference)
    text = markdown([section])
    assert text.splitlines()[4].endswith("| seeds | worse than shared_bottom? |")
    rows = {row.split(" | ")[0].strip("| "): row for row in text.splitlines() if row.startswith("| ")}
    assert rows["mmoe"].endswith("| 3 | click -0.0300 (every seed), sale -0.0033 |")
    assert rows["ple"].endswith("| 3 | no |") and rows["shared_bottom"].endswith("| 3 |  |")
    (sentence,) = comparison(section, "mmoe")
    assert sentence == (
        "d (v), 3 seeds. Worse than `shared_bottom`: click AUC 0.6800 ± 0.0100 against 0.7100 ± 0.0100 (every seed), "
        "sale|click AUC 0.5967 ± 0.0058 against 0.6000 ± 0.0000."
    )
    (sentence,) = comparison(section, "ple")
    assert "Worse" not in sentence and "Not worse than `shared_bottom`: click AUC 0.7300" in sentence
    assert comparison(section, "shared_bottom") == comparison(section, "stem") == []


def test_worse_goes_by_what_is_better_for_the_metric_and_by_three_seeds():
    rating = ("rating", "impressions")

    def section(seeds):
        runs = [("shared_bottom", 0.9), ("mmoe", 1.0), ("ple", 0.8), ("cgc", 0.900001)]
        return summarise(table(*(run(m, s, {rating: {"rmse": v}}) for m, v in runs for s in range(seeds))))[0]

    found = {line.label: list(line.worse_on(section(3).reference).values()) for line in section(3).lines}
    assert found == {"shared_bottom": [], "mmoe": [True], "ple": [], "cgc": []}
    found = {line.label: list(line.worse_on(section(2).reference).values()) for line in section(2).lines}
    assert found["mmoe"] == [False], "two seeds say nothing about every seed"
    assert "1 seed. Worse than `shared_bottom`: rating rmse 1.0000 against 0.9000." in comparison(section(1), "mmoe")[0]


def test_without_shared_bottom_nothing_is_compared_with_it():
    section = against(("mmoe", (0.7, 0.7, 0.7), (0.6, 0.6, 0.6)))
    assert section.reference is None and comparison(section, "mmoe") == []
    assert "shared_bottom" not in markdown([section])


def test_sizes_that_were_matched_are_shown_and_those_that_were_not_are_named():
    def sized(model, parameters, within):
        match = {"like": "shared_bottom", "count": "dense", "target": 1000, "parameters": parameters}
        values = {CLICK: {"auc": 0.7}}
        return run(model, 0, values, parameter_match=json.dumps({**match, "within_tolerance": within}))

    text = markdown(summarise(table(sized("mmoe", 1010, True), sized("pepnet", 1500, False))))
    assert "| mmoe | 1,010 |" in text and "| pepnet | 1,500 (+50.0%) |" in text
    assert "Parameters: above the embedding, brought to shared_bottom's 1,000; what stays more than 2 % off" in text
    assert "Rows that count: click 10." in text


def test_data_sets_are_sections_and_repeated_rows_count_once():
    one = funnel(("mmoe", 0, 0.7, 0.6))
    sections = summarise(table(*one, *one, run("mmoe", 0, {CLICK: {"auc": 0.6}}, dataset="e")))
    assert [section.title for section in sections] == ["d (v)", "e (v)"]
    assert sections[0].lines[0].seeds == 1 and np.isnan(cells(sections[0], "mmoe")[0]["click"].std)


def test_failed_runs_are_named_unless_a_later_try_went_well():
    done = run("mmoe", 0, {CLICK: {"auc": 0.7}})
    mended = {**done[0], "task": "", "metric": "", "error": "MemoryError: x", "value": float("nan")}
    lost = {**mended, "key": "lost", "seed": 1}
    (section,) = summarise(table(done, [mended, lost]))
    assert section.failed == {"mmoe, seed 1": "MemoryError: x"}
    assert "- failed: mmoe, seed 1: MemoryError: x" in markdown([section])


def test_no_results():
    with pytest.raises(ValueError, match=r"`split` must have results. Received: split='test'. Found: \[\]"):
        summarise(table())


def test_markdown_and_terminal_fit():
    runs = funnel(("single_task", 0, 0.7, 0.6), ("mmoe", 0, 0.75, 0.61), ("mmoe", 1, 0.75, 0.61))
    sections = summarise(table(*runs, run("esmm", 0, {CLICK: {"auc": 0.7}, SALE: {"auc": 0.6}, BOTH: {"auc": 0.9}})))
    text = markdown(sections)
    assert "| model | parameters | click AUC | gain | share of lift | sale\\|click AUC | gain |" in text
    assert "| mmoe | 1,234 | 0.7500 ± 0.0000 | +0.0500 | 90.0% | 0.6100 ± 0.0000 | +0.0100 |" in text
    assert "| oracle |  | 0.8000 |  | 100.0% |" in text
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    print_report(sections, console)
    shown = console.export_text()
    lines = [line.split() for line in shown.splitlines()]
    assert ["mmoe", "0.7500", "±", "0.0000", "+0.0500", "90.0%"] in lines  # one line a cell
    assert ["mmoe", "1,234", "2.0", "1,000", "2"] in lines
    assert "0.9000" in shown and max(map(len, shown.splitlines())) <= 80


def test_command(tmp_path, capsys):
    store = ResultStore(tmp_path / "r.csv")
    for rows in funnel(("single_task", 0, 0.7, 0.6), ("mmoe", 0, 0.75, 0.61)):
        store.append(rows)
    assert (
        main(
            [
                "bench",
                "report",
                str(store.path),
                "--markdown",
                str(tmp_path / "a" / "r.md"),
                "--picture",
                str(tmp_path / "r.png"),
            ]
        )
        == 0
    )
    assert "mmoe" in capsys.readouterr().out
    assert (tmp_path / "a" / "r.md").read_text().startswith("## d (v)")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "report", str(tmp_path / "none.csv")]) == 2
    assert "`FILE.csv` must exist" in capsys.readouterr().err


def test_pictures_of_gates_and_stitches(tmp_path):
    gates = draw_gates({"mmoe, seed 0": {"click": [0.9, 0.1], "sale": [0.5, 0.5]}}, tmp_path / "gates.png")
    stitches = {
        "a": {"stitch_0": [[0.9, 0.1], [0.2, 1.1]], "stitch_1": [[1, 0], [0, 1]]},
        "b": {"stitch_0": [[1, 0], [0, 1]]},
    }
    stitches = draw_stitches(stitches, ("click", "sale"), tmp_path / "stitches.png")
    assert gates.stat().st_size > 1000 and stitches.stat().st_size > 1000
