"""The comparison of several devices with one process: what it trains, how it compares, what it keeps of failures."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import list_balancing, list_models
from mtl_zoo.benchmark import agreement
from mtl_zoo.benchmark.agreement import SETTINGS, Case, agreement_main, all_cases, difference, make_model, run_agreement
from mtl_zoo.benchmark.results import append_row
from mtl_zoo.optimizers import OPTIMIZER_NAMES

# One of each kind of what is reduced: gradients and normalisers; products of gradients; gradients by task; rows.
SAMPLE = (Case("ple"), Case("mmoe", "pcgrad"), Case("mmoe", "grad_drop"), Case("shared_bottom", "", "row_wise_adagrad"))


def test_every_model_method_and_optimizer_is_a_case():
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases)
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
    with pytest.raises(ValueError, match="shorter"):
        difference(one, {"0 kernel": one["0 kernel"]})


class Cluster:
    """Stands in for `launch`: cases of `fails` end the processes that train them, the others are equal."""

    def __init__(self, fails=(), fails_alone=()):
        self.fails, self.fails_alone, self.started = fails, fails_alone, []

    def __call__(self, command, workers, logs, timeout):
        arguments = dict(zip(command[3:7:2], command[4:8:2], strict=True))
        setting, out = arguments["--inside"], logs.parent.with_suffix(".csv")
        cases = [Case(*text.split("/")) for text in command[command.index("--cases") + 1 :]]
        self.started.append((setting, workers, [case.model for case in cases]))
        for case in cases:
            if setting == "one" and case.model in self.fails_alone:
                return SimpleNamespace(failures=("worker-0: exit code 3",))
            if setting == "one":
                np.savez(logs.parent / f"{case.key}.npz", w=np.ones(1))
            elif case.model in self.fails:
                return SimpleNamespace(failures=("worker-0: exit code 1",))
            else:
                append_row(out, agreement.COLUMNS, {"setting": setting, **case._asdict(), "worst": "1e-07"})
        return SimpleNamespace(failures=())


def test_a_failed_case_keeps_its_row_and_the_others_have_their_turn(tmp_path, monkeypatch):
    cluster = Cluster(fails={"mmoe"})
    monkeypatch.setattr(agreement, "launch", cluster)
    cases = [Case("ple"), Case("mmoe"), Case("star")]
    table = run_agreement(["workers 4"], cases, tmp_path / "rows.csv")
    assert cluster.started == [
        ("one", 1, ["ple", "mmoe", "star"]),
        ("workers 4", 4, ["ple", "mmoe", "star"]),
        ("workers 4", 4, ["star"]),
    ]
    assert dict(zip(table["model"], table["error"], strict=True)) == {
        "ple": "",
        "mmoe": "worker-0: exit code 1",
        "star": "",
    }


def test_a_case_that_fails_in_one_process_stops_no_other(tmp_path, monkeypatch):
    cluster = Cluster(fails_alone={"mmoe"})
    monkeypatch.setattr(agreement, "launch", cluster)
    cases = [Case("ple"), Case("mmoe"), Case("star")]
    table = run_agreement(["mirrored 2", "workers 2"], cases, tmp_path / "rows.csv")
    assert cluster.started == [
        ("one", 1, ["ple", "mmoe", "star"]),
        ("one", 1, ["star"]),
        ("mirrored 2", 1, ["ple", "star"]),
        ("workers 2", 2, ["ple", "star"]),
    ]
    failed = table[table["error"] != ""]
    assert list(failed["setting"]) == ["mirrored 2", "workers 2"]
    assert set(failed["model"]) == {"mmoe"}
    assert set(failed["error"]) == {"in one process: worker-0: exit code 3"}
    cluster.started.clear()
    run_agreement(["mirrored 2", "workers 2"], cases, tmp_path / "rows.csv")
    assert not cluster.started


@pytest.mark.tensorflow
def test_weights_of_rare_labels_come_from_the_rows():
    import tensorflow as tf

    model, _, y = agreement.compiled(Case("mmoe", "data_based"), tf.distribute.get_strategy())
    assert model.balancing.frequencies["click"] == pytest.approx(y["click"].mean())


def test_only_what_has_no_row_is_trained(tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    monkeypatch.setattr(agreement, "launch", Cluster())
    run_agreement(["mirrored 2"], [Case("ple")], out)
    again = Cluster()
    monkeypatch.setattr(agreement, "launch", again)
    assert len(run_agreement(["mirrored 2", "workers 2"], [Case("ple"), Case("star")], out)) == 4
    assert again.started == [
        ("one", 1, ["star"]),
        ("mirrored 2", 1, ["star"]),
        ("workers 2", 2, ["ple", "star"]),
    ]


def test_the_command_fails_when_weights_are_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "launch", Cluster())
    arguments = ["--settings", "workers 2", "--models", "ple", "--out", str(tmp_path / "rows.csv")]
    assert agreement_main(arguments) == 0
    assert "1 rows, 0 apart by more than 1e-05" in capsys.readouterr().out
    assert agreement_main([*arguments, "--tolerance", "1e-8"]) == 1
    assert "workers 2 ple" in capsys.readouterr().out


def assert_agree(out, setting, cases):
    table = run_agreement([setting], cases, out, timeout=600)
    assert list(table["error"]) == [""] * len(cases), table["error"]
    assert pd.to_numeric(table["worst"]).max() <= 1e-5, table[["model", "balancing", "optimizer", "worst", "weight"]]


@pytest.mark.tensorflow
def test_one_case_of_the_matrix(tmp_path):
    assert_agree(tmp_path / "rows.csv", "mirrored 2", SAMPLE[:1])


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_sample_of_the_matrix(tmp_path, setting):
    assert_agree(tmp_path / "rows.csv", setting, SAMPLE)


def test_another_seed_is_apart():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return {weight.path: keras.ops.convert_to_numpy(weight) for weight in make_model(Case("shared_bottom")).weights}

    assert difference(weights(1), weights(1))[0] == 0
    assert difference(weights(1), weights(2))[0] > 0.1
