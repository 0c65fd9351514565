"""The comparison of several devices with one process: what it trains, how it compares, what it keeps of failures."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import agreement
from benchmarks.studies.agreement import SETTINGS, Case, all_cases, difference, run_agreement
from mtl_zoo import list_balancing, list_models
from mtl_zoo.optimizers import OPTIMIZER_NAMES

# One of each kind of what is reduced: gradients and normalisers; products of gradients; gradients by task; rows.
SAMPLE = (Case("ple"), Case("mmoe", "pcgrad"), Case("mmoe", "grad_drop"), Case("shared_bottom", "", "row_wise_adagrad"))
CASES = [Case("ple"), Case("mmoe"), Case("star")]


def test_every_model_method_and_optimizer_is_a_case():
    cases = all_cases()
    assert len(set(cases)) == len(cases)
    assert {case.model for case in cases} == set(list_models())
    assert {case.balancing for case in cases} == {"", *list_balancing()}
    assert {case.optimizer for case in cases} == set(OPTIMIZER_NAMES) - {"auto"}


def test_a_difference_is_relative_to_the_weight_and_names_the_worst():
    one = {"0 kernel": np.array([1.0, -4.0]), "1 bias": np.array([0.0, 2.0])}
    assert difference(one, one) == (0.0, "1 bias")
    assert difference(one, {**one, "0 kernel": np.array([1.5, -4.0])}) == (0.125, "0 kernel")
    # A weight of nothing but rounding is measured against 1e-3.
    worst, _ = difference({"0 bias": np.array([1e-9])}, {"0 bias": np.array([-1e-9])})
    assert worst == pytest.approx(2e-6)
    assert difference(one, {**one, "1 bias": np.array([0.0, np.nan])}) == (np.inf, "1 bias")


class Cluster:
    """Stands in for the processes: cases of `fails` end those that train them, the others are equal."""

    def __init__(self, fails=(), fails_alone=()):
        self.fails, self.fails_alone, self.started = fails, fails_alone, []

    def __call__(self, function, setting, cases, weights, out, workers, **more):
        self.started.append((setting, workers, [case.model for case in cases]))
        for case in cases:
            if case.model in (self.fails_alone if setting == "one" else self.fails):
                raise RuntimeError("worker-0: exit code 3")
            if setting == "one":
                np.savez(weights / f"{'-'.join(case)}.npz", w=np.ones(1))
            else:
                agreement._note(out, setting, case, worst="1e-07")


def test_a_failed_case_keeps_its_row_and_the_others_have_their_turn(tmp_path, monkeypatch):
    cluster = Cluster(fails={"mmoe"})
    monkeypatch.setattr(agreement.frame, "run", cluster)
    table = run_agreement(["workers 4"], CASES, tmp_path / "rows.csv")
    all_three = ["ple", "mmoe", "star"]
    assert cluster.started == [("one", 1, all_three), ("workers 4", 4, all_three), ("workers 4", 4, ["star"])]
    errors = dict(zip(table["model"], table["error"], strict=True))
    assert errors == {"ple": "", "mmoe": "worker-0: exit code 3", "star": ""}


def test_a_case_that_fails_in_one_process_stops_no_other_and_is_not_tried_again(tmp_path, monkeypatch):
    cluster = Cluster(fails_alone={"mmoe"})
    monkeypatch.setattr(agreement.frame, "run", cluster)
    table = run_agreement(["mirrored 2", "workers 2"], CASES, tmp_path / "rows.csv")
    assert [call[2] for call in cluster.started] == [
        ["ple", "mmoe", "star"],
        ["star"],
        ["ple", "star"],
        ["ple", "star"],
    ]
    failed = table[table["error"] != ""]
    assert list(failed["setting"]) == ["mirrored 2", "workers 2"] and set(failed["model"]) == {"mmoe"}
    cluster.started.clear()
    run_agreement(["mirrored 2", "workers 2"], CASES, tmp_path / "rows.csv")
    assert not cluster.started


def test_the_command_fails_when_weights_are_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(agreement.frame, "run", Cluster())
    arguments = ["--settings", "workers 2", "--models", "ple", "--out", str(tmp_path / "rows.csv")]
    assert agreement.main(arguments) == 0
    assert agreement.main([*arguments, "--tolerance", "1e-8"]) == 1
    assert "1 rows, 1 apart by more than 1e-08" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_sample_of_the_matrix(tmp_path, setting):
    table = run_agreement([setting], SAMPLE, tmp_path / "rows.csv", timeout=600)
    assert list(table["error"]) == [""] * len(SAMPLE), table["error"]
    assert pd.to_numeric(table["worst"]).max() <= 1e-5, table[["model", "balancing", "optimizer", "worst", "weight"]]
