import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform
from mtl_zoo.benchmark.config import RunConfig, load_configs
from mtl_zoo.search import FloatRange, IntRange, tune
from mtl_zoo.search.objectives import objectives_of
from mtl_zoo.search.storage import Workers

pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs Optuna")
SPACE = {"bottom_units": [(4,), (8,)], "learning_rate": FloatRange(1e-3, 1e-1, log=True)}


def search(data, space=SPACE, **given):
    return tune("shared_bottom", data, space, **{"trials": 6, "epochs": 1, "verbose": 0, **given})


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_search_trains_models_and_reads_no_test_row(data, tmp_path):
    found = search(data, trials=2, batch_size=1000, storage=tmp_path / "trials.db")
    table = found.table
    assert table["state"].tolist() == ["complete"] * 2 and table["start"].tolist() == [True, False]
    # The start is the defaults, which the space is widened for.
    assert found.settings_of(0) == {"bottom_units": (256, 128), "learning_rate": 1e-3}
    mean = table[["click/auc", "conversion/auc"]].mean(axis=1)
    np.testing.assert_allclose(table["objective score"], mean, rtol=1e-6)
    assert (table["parameters"] > 0).all() and (table["epochs"] == 1).all()
    assert found.best_trial == int(table.loc[mean.idxmax(), "trial"])
    path = found.save(tmp_path / "best.yaml")
    (config,) = load_configs(path)
    assert config == found.config and config.learning_rate == found.settings["learning_rate"]
    assert path.read_text().startswith("# trial ")
    assert len(found.plot(tmp_path / "found.png").axes) == 1 and (tmp_path / "found.png").exists()


def test_the_best_of_a_known_formula_is_found(data, formula):
    formula(lambda drawn: -((np.log10(drawn["learning_rate"]) + 2) ** 2) - (drawn["bottom_units"] == (4,)))
    found = search(data, trials=25)
    assert found.settings["bottom_units"] != (4,) and found.settings["learning_rate"] == pytest.approx(0.01, rel=0.5)
    table = found.table
    assert len(table) == 25 and table["objective score"].max() >= table["objective score"].iloc[0]
    shares = found.importances.set_index("name")["importance"]
    assert shares.sum() == pytest.approx(1, abs=1e-3) and len(shares) == 2
    assert "25 trials: 25 complete" in str(found) and len(found.plot().axes) == 2


def test_the_same_seed_proposes_the_same(data, formula):
    formula(lambda drawn: drawn["learning_rate"])
    drawn = [search(data, seed=seed).table["learning_rate"].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_several_objectives_have_a_front(data, formula, tmp_path):
    formula(lambda drawn: (drawn["learning_rate"], drawn["learning_rate"] ** 2 + (drawn["bottom_units"] == (4,))))
    found = search(data, objectives=("click", "parameters"), trials=12)
    front, table = found.front, found.table
    assert [objective.larger for objective in found.objectives] == [True, False]
    for row in front.itertuples():
        others = table[(table["objective click"] >= row._4) & (table["objective parameters"] < row._5)]
        assert others.empty, "a row of the front is beaten"
    assert found.best_trial in front["trial"].tolist()
    configs = load_configs(found.save(tmp_path / "front.yaml"))
    assert configs == [found.config_of(number) for number in front["trial"]]
    assert [axis.get_xlabel() for axis in found.plot().axes][2] == "click"


@pytest.mark.parametrize("name", ["trials.db", "trials.log"])
def test_a_search_goes_on_where_it_stopped(data, formula, tmp_path, name):
    calls = formula(lambda drawn: drawn["learning_rate"])
    first = search(data, trials=3, storage=tmp_path / name).table
    both = search(data, trials=5, storage=tmp_path / name).table
    pd.testing.assert_frame_equal(both.head(3), first)
    assert len(calls) == 5 and both["learning_rate"].nunique() == 5, "what follows a stop is not proposed again"
    search(data, trials=5, storage=tmp_path / name)
    assert len(calls) == 5
    with pytest.raises(ValueError, match="`storage` must hold the same search"):
        search(data, trials=9, storage=tmp_path / name, seed=3)
    flipped = dataclasses.replace(data.train, labels={n: 1 - y for n, y in data.train.labels.items()})
    with pytest.raises(ValueError, match="`storage` must hold the same search"):
        search(dataclasses.replace(data, train=flipped), trials=9, storage=tmp_path / name)


def test_half_a_line_of_a_journal_is_cut_off(data, formula, tmp_path):
    calls = formula(lambda drawn: drawn["learning_rate"])
    search(data, trials=2, storage=tmp_path / "trials.log")
    with open(tmp_path / "trials.log", "ab") as file:
        file.write(b'{"op_code":6,"wor')
    found = search(data, trials=3, storage=tmp_path / "trials.log")
    assert len(calls) == 3 and found.table["state"].tolist() == ["complete"] * 3


def test_what_a_dead_process_was_at_is_begun_anew(data, formula, tmp_path):
    calls = formula(lambda drawn: drawn["learning_rate"])
    study = search(data, trials=2, storage=tmp_path / "trials.db").study
    left = study.ask()
    left.suggest_categorical("bottom_units", study.trials[0].distributions["bottom_units"].choices)
    left.suggest_float("learning_rate", 1e-3, 1e-1, log=True)
    left.set_user_attr("worker", "gone")
    found = search(data, trials=3, storage=tmp_path / "trials.db").table
    assert found["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert calls[-1]["learning_rate"] == left.params["learning_rate"] == found["learning_rate"].iloc[3]


def test_a_process_that_lives_keeps_its_trial(data, formula, tmp_path):
    formula(lambda drawn: drawn["learning_rate"])
    study = search(data, trials=1, storage=tmp_path / "trials.db").study
    with Workers(tmp_path / "trials.db") as other:
        study.ask().set_user_attr("worker", other.name)
        found = search(data, trials=3, storage=tmp_path / "trials.db").table
        assert found["state"].tolist() == ["complete"] * 2, "the other process is at the third"
        assert other.lives(other.name)
    assert not other.lives(other.name) and not (tmp_path / "trials.db.workers").exists()


def test_failed_trials_are_told_and_the_search_goes_on(data, formula):
    def sometimes(drawn):
        if drawn["bottom_units"] == (4,):
            raise ValueError("four is not enough")
        return drawn["learning_rate"]

    formula(sometimes)
    found = search(data, trials=6).table
    assert (found["state"] == "complete").sum() == 6
    assert set(found.loc[found["state"] == "failed", "error"]) <= {"ValueError: four is not enough"}

    def never(drawn):
        raise ValueError("not at all")

    formula(never)
    with pytest.raises(ValueError, match="`space` must hold settings that can be trained.*not at all"):
        search(data, trials=6)


def test_an_interrupt_goes_up_and_the_rest_stays(data, formula, tmp_path):
    def interrupted(drawn):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return drawn["learning_rate"]

    calls = formula(interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(data, trials=6, storage=tmp_path / "trials.db")
    found = search(data, trials=6, storage=tmp_path / "trials.db").table
    assert (found["state"] == "complete").sum() == 6 and len(calls) == 7


def test_the_pruner_hears_of_every_epoch(data):
    import optuna

    from mtl_zoo.search.tune import _Reporter

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(2, 1))
    for offset in (0.0, 0.1):
        trial = study.ask()
        reporter = _Reporter(trial, "val_score", optuna.TrialPruned)
        for epoch, score in enumerate((0.6, 0.8, 0.7)):
            reporter.on_epoch_end(epoch, {"val_score": score + offset})
        assert trial.storage.get_trial(trial._trial_id).intermediate_values == {
            1: 0.6 + offset, 2: 0.8 + offset, 3: 0.8 + offset,
        }  # fmt: skip
        study.tell(trial, 0.8 + offset)
    reporter = _Reporter(study.ask(), "val_score", optuna.TrialPruned)
    reporter.on_epoch_end(0, {"val_score": 0.7})
    with pytest.raises(optuna.TrialPruned):
        reporter.on_epoch_end(1, {"val_score": 0.75})
    assert reporter.epochs == 2
    reporter = _Reporter(study.ask(), "val_score", optuna.TrialPruned)
    reporter.set_params({"epochs": 2})
    reporter.on_epoch_end(1, {"val_score": 0.1})  # the last epoch: nothing would be saved


def test_minutes_end_a_search(data, formula):
    formula(lambda drawn: time.sleep(0.02) or drawn["learning_rate"])
    started = time.monotonic()
    found = search(data, trials=None, minutes=0.01)
    assert 0.5 < time.monotonic() - started < 20 and len(found.table) > 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"trials": None}, ValueError, "`trials` or `minutes` must be given"),
        ({"fixed": "width"}, ValueError, "`fixed` must be .*'width'"),
        ({"sampler": "grid"}, ValueError, "`sampler` must be"),
        ({"storage": "trials.txt"}, ValueError, "`storage` must be a file that ends with"),
        ({"objectives": "buy"}, ValueError, "`objectives` must be .*buy"),
        ({"objectives": ()}, ValueError, "`objectives` must be different names"),
        ({"objectives": "click/pcoc"}, ValueError, "`objectives` must name a metric .*pcoc.*logloss"),
    ],
)
def test_what_cannot_be_searched_is_refused(data, given, error, message):
    with pytest.raises(error, match=message):
        search(data, **given)


def test_without_optuna(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install \"mtl-zoo\[tune\]\""):
        search(data)


def test_data_and_models_of_other_kinds_are_refused(data):
    with pytest.raises(TypeError, match="`data` must be a Dataset"):
        tune("mmoe", [1, 2], trials=1)
    with pytest.raises(ValueError, match="`model` must be"):
        tune("mmo", data, trials=1)
    with pytest.raises(ValueError, match="`space` must be given for a model of your own"):
        tune(lambda features, tasks: None, data, trials=1)
    with pytest.raises(ValueError, match="`settings` must be in the RunConfig"):
        tune(RunConfig("d", "mmoe"), data, trials=1, epochs=3)


def test_directions_and_logs_of_objectives():
    tasks = (BinaryTask("click"), BinaryTask("buy", sample_space="click"))
    found = objectives_of(("score", "buy", "click/logloss", "parameters", "click_and_buy/auc"), tasks)
    assert [objective.direction for objective in found] == ["maximize", "maximize", "minimize", "minimize", "maximize"]
    assert [objective.log for objective in found] == [
        "val_score", "val_buy_score", "val_score", "val_score", "val_score",
    ]  # fmt: skip


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_model_and_tables_of_ones_own():
    table = pd.DataFrame({"city": ["Rome", "Oslo"] * 20, "click": [0, 1, 1, 0] * 10})
    transform = FeatureTransform([Categorical("city", dim=4)], tasks=[BinaryTask("click")]).fit(table)
    units = []

    def own(features, tasks, width):
        units.append(width)
        return mtl_zoo.SharedBottom(features, tasks, bottom_units=(width,), tower_units=())

    found = tune(own, (transform, table, table), {"width": IntRange(2, 3)}, trials=1, epochs=1, verbose=0)
    assert found.hyperparameters == {"width": units[0]} and found.table["click/auc"].notna().all()
    with pytest.raises(ValueError, match="`model` must be of the catalogue"):
        found.save("own.yaml")


def test_the_command(data, formula, tmp_path, monkeypatch, capsys):
    import mtl_zoo_cli

    formula(lambda drawn: drawn["learning_rate"])
    whole = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    monkeypatch.setattr("mtl_zoo.search.command.load", lambda config, folder: dataclasses.replace(whole))
    (tmp_path / "space.yaml").write_text(
        "bottom_units: [[4], [8]]\nlearning_rate: {low: 0.001, high: 0.1, log: true}\n"
    )
    command = ["bench", "tune", "--dataset", "synthetic_funnel", "--dataset-set", "size=1000", "--epochs", "1"]
    command += ["--space", str(tmp_path / "space.yaml"), "--trials", "5", "--out", str(tmp_path / "out"), "--quiet"]
    # As of a table of one's own, which is given baselines where none are named.
    assert mtl_zoo_cli.main([*command, "--model", "shared_bottom", "--baselines", "all"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "trials.db",
        "trials.csv",
        "trials.png",
        "best.yaml",
    }
    (config,) = load_configs(tmp_path / "out" / "best.yaml")
    assert config.model == "shared_bottom" and config.dataset_options["size"] == 1000
    assert "5 trials: 5 complete" in capsys.readouterr().out
    assert mtl_zoo_cli.main(command) == 2, "which of the usual models"
    assert mtl_zoo_cli.main([*command, "--model", "linear"]) == 2, "nothing to tune"
    capsys.readouterr()
    assert mtl_zoo_cli.main([*command, "--model", "mmoe", "--folds", "3"]) == 2
    assert "`--folds` has no meaning" in capsys.readouterr().err


PROGRAM = """
import sys, dataclasses
import mtl_zoo
data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
space = {{"bottom_units": [(4,), (8,)], "learning_rate": {{"low": 0.001, "high": 0.1, "log": True}}}}
mtl_zoo.tune("shared_bottom", data, space, trials={trials}, epochs=1, batch_size=1000, storage="{path}", verbose=0)
"""


@pytest.mark.slow  # three processes that train
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["trials.db", "trials.log"])
def test_a_killed_search_goes_on_with_no_trial_lost(tmp_path, name):
    import optuna

    path = tmp_path / name

    def begun(trials):
        return subprocess.Popen([sys.executable, "-c", PROGRAM.format(trials=trials, path=path)], env={**os.environ})

    def trials():
        if not path.exists():
            return []
        if name.endswith(".db"):
            storage = f"sqlite:///{path}"
        else:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        try:
            return optuna.load_study(study_name="synthetic_funnel shared_bottom", storage=storage).get_trials()
        except Exception:  # it is being made
            return []

    process = begun(1000)
    try:
        until = time.monotonic() + 400
        while sum(trial.state.name == "COMPLETE" for trial in trials()) < 3:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = {t.number: (t.params, t.values) for t in trials() if t.state.name == "COMPLETE"}
    wanted = len(before) + 3
    both = [begun(wanted), begun(wanted)]  # two processes share what is left
    assert [process.wait(timeout=500) for process in both] == [0, 0]
    after = {t.number: (t.params, t.values) for t in trials() if t.state.name == "COMPLETE"}
    assert {number: after[number] for number in before} == before and wanted <= len(after) <= wanted + 1
    assert not [trial for trial in trials() if trial.state.name == "RUNNING"]
