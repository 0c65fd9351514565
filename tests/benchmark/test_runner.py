import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pandas as pd
import pytest

import mtl_zoo_cli
from mtl_zoo import MLP, DSelectK, Gate
from mtl_zoo.benchmark import environment, runner
from mtl_zoo.benchmark.command import configs_of
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.benchmark.identity import about_run
from mtl_zoo.benchmark.progress import Silent
from mtl_zoo.benchmark.runner import run_config
from mtl_zoo.evaluation import evaluate
from mtl_zoo.models import create_model, parameter_count

pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """(table, model as it was after its run, scores) of one run, which several tests look at."""
    from mtl_zoo.benchmark.results import ResultStore

    folder = tmp_path_factory.mktemp("runs")
    config = RunConfig(
        "synthetic_funnel",
        "single_task",
        {"bottom_units": 8},
        {"size": "small"},
        epochs=3,
        batch_size=250,
        group="user_id",
    )
    store, kept = ResultStore(folder / "runs.csv"), []
    run_config(config, store, dataset=small, save_scores=folder, on_trained=lambda *given: kept.append(given))
    return store.read(), kept[0][0], folder


def test_a_row_for_each_split_task_metric_and_space(finished):
    table, _, _ = finished
    assert set(table["split"]) == {"validation", "test"}
    assert set(zip(table["task"], table["space"], strict=True)) == {
        ("click", "impressions"), ("conversion", "click"), ("click_and_conversion", "impressions"),
    }  # fmt: skip
    assert {"auc", "logloss", "ne", "pcoc", "ece", "gauc", "oracle_auc", "lift_share"} <= set(table["metric"])
    assert not table.duplicated(["split", "task", "metric", "space"]).any()
    row = table.iloc[0]
    assert (row["dataset"], row["variant"], row["model"], row["seed"], row["epochs"]) == (
        "synthetic_funnel", "small", "single_task", 0, 3,
    )  # fmt: skip
    assert json.loads(row["hyperparameters"]) == {
        "bottom_units": 8, "embedding": None, "share_embeddings": False, "tower_units": [64],
    }  # fmt: skip
    assert json.loads(row["versions"])["keras"] == keras.__version__
    assert row["optimizer"] == "adam(learning_rate=0.001)"
    assert row["train_seconds"] > 0 and row["examples_per_second"] > 0 and "cores" in row["hardware"]
    assert (table["error"] == "").all()


def test_rows_hold_what_the_model_scores(finished, small):
    table, model, folder = finished
    expected = evaluate(model, small.test, group="user_id", products=True)
    found = table[table["split"] == "test"]
    np.testing.assert_allclose(found["value"], expected["value"], rtol=1e-6)
    np.testing.assert_array_equal(found["observed"], expected["observed"])
    (file,) = folder.glob("synthetic_funnel-single_task-seed0-*.npz")
    saved = np.load(file)
    np.testing.assert_array_equal(saved["click"], model.predict(small.test.inputs, verbose=0)["click"])
    np.testing.assert_array_equal(saved["label:click"], small.test.labels["click"])
    np.testing.assert_array_equal(saved["observed:conversion"], small.test.labels["click"])


def test_rows_say_what_went_after_the_best_epoch(finished):
    table, _, _ = finished
    for task in ("click", "conversion"):
        rows = table[(table["task"] == task) & (table["split"] == "validation")].set_index("metric")
        assert rows.loc["epochs_trained", "value"] == 3 >= rows.loc["epochs_trained", "best_epoch"]
        last, best = rows.loc["last_score", "value"], rows.loc["auc", "value"]
        assert last == best if rows.loc["auc", "best_epoch"] == 3 else last < best
    assert not set(table.loc[table["split"] == "test", "metric"]) & {"epochs_trained", "last_score"}


def test_finished_runs_are_skipped_and_what_changes_them_is_not(config, store, small):
    assert run_config(config, store, dataset=small).finished == 1
    written = store.path.read_bytes()
    assert run_config(config, store, dataset=small).skipped == 1
    assert store.path.read_bytes() == written
    key = store.read()["key"].iloc[0]
    arguments = resolve_hyperparameters(config.model, config.hyperparameters)
    changes = (
        {"epochs": 3}, {"patience": 1}, {"batch_size": 250}, {"optimizer": "sgd"}, {"learning_rate": 0.01},
        {"parameter_matched": {"model": "mmoe"}},
    )  # fmt: skip
    keys = {about_run(dataclasses.replace(config, **c), small, arguments, 0)["key"] for c in changes}
    keys.add(about_run(config, small, arguments, 1)["key"])
    keys.add(about_run(config, dataclasses.replace(small, version="x"), arguments, 0)["key"])
    keys.add(about_run(config, dataclasses.replace(small, options={"seed": 1}), arguments, 0)["key"])
    keys.add(about_run(config, small, {**arguments, "bottom_units": (9,)}, 0)["key"])
    assert len(keys) == len(changes) + 4 and key not in keys
    assert about_run(config, small, {**arguments, "bottom_units": [8]}, 0)["key"] == key


@pytest.mark.extended
def test_a_run_without_test_rows_is_not_finished_for_those_who_ask_for_them(store, small):
    config = RunConfig("synthetic_funnel", "constant", dataset_options={"size": "small"})
    given = {"dataset": small, "store": store}
    assert run_config(config, splits=("validation",), **given).finished == 1
    assert run_config(config, splits=("validation",), **given).skipped == 1
    assert run_config(config, **given).finished == 1 and set(store.read()["split"]) == {"validation", "test"}
    assert run_config(config, splits=("validation",), **given).skipped == run_config(config, **given).skipped == 1


@pytest.mark.extended
def test_same_seed_same_result(config, store, small, tmp_path):
    run_config(config, store, dataset=small)
    again = type(store)(tmp_path / "again.csv")
    run_config(config, again, dataset=small)
    np.testing.assert_allclose(store.read()["value"], again.read()["value"], rtol=1e-4)


@pytest.mark.extended
def test_several_steps_a_call_are_the_same_run(config, store, small, tmp_path):
    class Counting(Silent):
        steps = 0

        def step(self):
            self.steps += 1

    one, several = Counting(), Counting()
    config = dataclasses.replace(config, epochs=2)
    run_config(config, store, dataset=small, progress=one)
    other = type(store)(tmp_path / "other.csv")
    # 4 steps an epoch: a call of three, and a short one.
    config = dataclasses.replace(config, steps_per_execution=3)
    run_config(config, other, dataset=small, progress=several)
    assert one.steps == several.steps == 8
    pd.testing.assert_series_equal(store.read()["value"], other.read()["value"], rtol=1e-4)
    assert run_config(config, store, dataset=small).skipped == 1


@pytest.mark.extended
def test_the_test_split_has_no_part_in_the_choice(config, store, small, tmp_path):
    """With every click of the test split turned round, the epoch that scores best there is another one."""
    config = dataclasses.replace(config, epochs=3)
    run_config(config, store, dataset=small)
    labels = {**small.test.labels, "click": 1 - small.test.labels["click"]}
    turned = dataclasses.replace(small, test=dataclasses.replace(small.test, labels=labels))
    other = type(store)(tmp_path / "other.csv")
    run_config(config, other, dataset=turned)
    first, second = store.read(), other.read()
    assert first["best_epoch"].tolist() == second["best_epoch"].tolist()
    own, others = (table[table["split"] == "validation"]["value"] for table in (first, second))
    np.testing.assert_allclose(own, others, rtol=1e-4)
    auc, of_turned = (t[(t["split"] == "test") & (t["metric"] == "auc")]["value"].iloc[0] for t in (first, second))
    assert auc == pytest.approx(1 - of_turned, rel=1e-4)


def test_a_failed_run_keeps_its_row_and_is_tried_again(config, store, small, monkeypatch):
    def broken(*arguments, **more):
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "create_model", broken)
        assert run_config(config, store, dataset=small).failed == 1
    (row,) = store.read().to_dict("records")
    assert row["error"] == "MemoryError: out of memory" and row["model"] == "shared_bottom"
    assert run_config(config, store, dataset=small).finished == 1
    table = store.read()
    assert (table["error"] != "").sum() == 1 and len(table) > 10


def test_a_value_that_a_model_refuses_is_a_failed_run(config, store, small):
    config = dataclasses.replace(config, hyperparameters={"bottom_units": (0,)})
    assert run_config(config, store, dataset=small).failed == 1
    assert "must be a whole number >= 1" in store.read()["error"].iloc[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mmeo"}, "`model` must be one of the known values.*'mmoe'"),
        (
            {"hyperparameters": {"units": 3}},
            "`hyperparameters` must be arguments of 'shared_bottom'. Received: 'units'",
        ),
        ({"hyperparameters": {"bottom_units": {"unit": 3}}}, r"`bottom_units` must be MLP\(units, activation"),
        ({"group": "item"}, "`group` must be one of the known values"),
    ],
)
def test_what_no_later_try_can_mend_is_an_error(config, store, small, changes, message):
    with pytest.raises(ValueError, match=message):
        run_config(dataclasses.replace(config, **changes), store, dataset=small)
    assert not store.path.exists()


@pytest.mark.extended
def test_a_share_of_the_training_rows_is_the_same_for_all_and_the_rest_stays(config, store, small):
    kept = []
    config = dataclasses.replace(config, train_fraction=0.25, seeds=(0, 1))
    run_config(config, store, dataset=small, on_trained=lambda model, data, *rest: kept.append(data))
    first, second = kept
    assert len(first.train) == 500 and first.validation is small.validation and first.test is small.test
    np.testing.assert_array_equal(first.train.inputs["user_field_3"], second.train.inputs["user_field_3"])
    rule = f"{small.split_rule}; of the 2,000 training rows 500 drawn at random"
    assert set(store.read()["split_rule"]) == {rule}
    assert run_config(config, store, dataset=small).skipped == 2
    whole = dataclasses.replace(config, train_fraction=1.0, seeds=1)
    assert run_config(whole, store, dataset=small).finished == 1


@pytest.mark.extended
def test_a_model_is_brought_to_the_size_of_a_reference(config, store, small):
    reference = {"model": "shared_bottom", "hyperparameters": {"bottom_units": (40, 20), "tower_units": 4}}
    config = dataclasses.replace(
        config, model="mmoe", hyperparameters={"num_experts": 2, "tower_units": 4}, parameter_matched=reference, seeds=2
    )
    kept = []
    assert run_config(config, store, dataset=small, on_trained=lambda model, *rest: kept.append(model)).finished == 2
    like = create_model("shared_bottom", small.features, small.tasks, bottom_units=(40, 20), tower_units=4)
    (text,) = set(store.read()["parameter_match"])
    match = json.loads(text)
    assert (match["like"], match["count"], match["target"]) == ("shared_bottom", "dense", parameter_count(like))
    assert match["within_tolerance"] and abs(match["parameters"] / match["target"] - 1) <= 0.02
    (text,) = set(store.read()["hyperparameters"])
    wide, narrow = json.loads(text)["expert_units"]
    assert wide == pytest.approx(2 * narrow, abs=1) and wide < 40
    for model in kept:
        assert parameter_count(model) == match["parameters"] and model.expert_units == (wide, narrow)
    assert run_config(config, store, dataset=small).skipped == 2


@pytest.mark.extended
def test_a_model_that_comes_no_nearer_runs_and_says_so(config, store, small):
    config = dataclasses.replace(
        config, model="mmoe", parameter_matched={"model": "shared_bottom", "hyperparameters": {"bottom_units": 1}},
        hyperparameters={"num_experts": 8, "expert_units": 8, "tower_units": 64},
    )  # fmt: skip
    assert run_config(config, store, dataset=small).finished == 1
    row = store.read().iloc[0]
    match = json.loads(row["parameter_match"])
    assert not match["within_tolerance"] and match["parameters"] > 1.02 * match["target"]
    assert json.loads(row["hyperparameters"])["expert_units"] == 1, "the nearest, however far"


def test_a_cut_run_says_so_and_is_tried_again(config, store, small, monkeypatch):
    def cut(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "create_model", cut)
        with pytest.raises(KeyboardInterrupt):
            run_config(config, store, dataset=small)
    assert store.read()["error"].tolist() == ["KeyboardInterrupt: cut short"]
    assert run_config(config, store, dataset=small).finished == 1


@pytest.mark.extended
def test_a_terminated_command_leaves_a_row_and_goes_on_when_asked_again(small, tmp_path, monkeypatch, capsys):
    def terminated(*arguments, **more):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("mtl_zoo.benchmark.command.load", lambda config, data_dir=None: small)
    before = signal.getsignal(signal.SIGTERM)
    path = tmp_path / "r.csv"
    words = ["--dataset", "synthetic_funnel", "--model", "shared_bottom", "--set", "bottom_units=4", "--epochs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "create_model", terminated)
        assert mtl_zoo_cli.main(["bench", "run", *words, "--out", str(path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    assert runner.ResultStore(path).read()["error"].tolist() == ["KeyboardInterrupt: cut short"]
    assert mtl_zoo_cli.main(["bench", "run", *words, "--out", str(path)]) == 0
    assert "1 finished, 0 skipped" in capsys.readouterr().err


@pytest.mark.extended
def test_models_of_every_kind_of_head_are_judged(config, store, small):
    """AITM has no output for a later step's own space; its task is judged by the end-to-end one."""
    options = {"backbone_options": {"bottom_units": (4,)}}
    assert (
        run_config(dataclasses.replace(config, model="aitm", hyperparameters=options), store, dataset=small).failed == 0
    )
    table = store.read()
    assert set(table["task"]) == {"click", "click_and_conversion"}
    last = table[table["metric"] == "last_score"].set_index("task")["value"]
    assert last["click_and_conversion"] == pytest.approx(
        table[(table["task"] == "click_and_conversion") & (table["metric"] == "auc")]["value"].iloc[0], abs=1e-6
    )


def test_dicts_become_value_objects():
    assert resolve_hyperparameters("mmoe", {"gate": {"DSelectK": {"num_selected": 3}}})["gate"] == DSelectK(3)
    assert resolve_hyperparameters("mmoe", {"gate": {"Gate": {"dropout": 0.1}}})["gate"] == Gate(dropout=0.1)
    nested = {"backbone": "mmoe", "backbone_options": {"gate": {"DSelectK": {"gamma": 0.5}}}}
    assert resolve_hyperparameters("esmm", nested)["backbone_options"]["gate"] == DSelectK(gamma=0.5)
    with pytest.raises(ValueError, match=r"`gate` must be DSelectK\(num_selected, gamma, entropy, per_example\)"):
        resolve_hyperparameters("mmoe", {"gate": {"DSelectK": {"temperature": 2.0}}})
    found = resolve_hyperparameters("esmm", {"backbone_options": {"expert_units": {"units": (8,)}, "num_experts": 2}})
    assert found["backbone_options"] == {"expert_units": MLP((8,)), "num_experts": 2}
    assert found["backbone"] == "single_task"


def test_command_says_what_is_wrong(tmp_path, capsys):
    out = ["--out", str(tmp_path / "r.csv")]
    assert (
        mtl_zoo_cli.main(
            ["bench", "run", "--dataset", "synthetic_funnel", "--model", "mmoe", "--set", "experts=8", *out]
        )
        == 2
    )
    assert "Received: 'experts'" in capsys.readouterr().err
    assert mtl_zoo_cli.main(["bench", "run", "--dataset", "synthetic", "--model", "mmoe", *out]) == 2
    assert "synthetic_funnel" in capsys.readouterr().err
    assert mtl_zoo_cli.main(["bench", "run", "--config", str(tmp_path / "none.yaml"), *out]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_environment():
    assert environment.versions()["keras"] == keras.__version__
    assert "cores" in environment.hardware()
    assert any("CPU" in device.upper() for device in environment.devices())
    commit, dirty = environment.commit()
    assert (len(commit), dirty) in ((40, True), (40, False), (0, None))


@pytest.mark.extended
def test_schedule_and_loss_weights_reach_the_training(small, tmp_path):
    from mtl_zoo.benchmark.results import ResultStore

    config = RunConfig(
        "synthetic_funnel", "shared_bottom", {"bottom_units": 4}, {"size": "small"}, epochs=1, batch_size=500,
        learning_rate=0.01, schedule="cosine", loss_weights={"conversion": 0.2}, leave_out="user_field_1",
    )  # fmt: skip
    kept, store = [], ResultStore(tmp_path / "runs.csv")
    run_config(config, store, dataset=small, on_trained=lambda *given: kept.append(given))
    model = kept[0][0]
    assert model.get_compile_config()["loss_weights"] == {"click": 1.0, "conversion": 0.2}
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-6)  # at the end of half a cosine
    row = store.read().iloc[0]
    assert row["optimizer"] == "adam(learning_rate=0.01, schedule=cosine)"
    assert row["balancing"] == "static(conversion=0.2)"
    assert json.loads(row["dataset_options"])["leave_out"] == ["user_field_1"]
    assert {f.name for f in small.features} - {f.name for f in model.features} == {"user_field_1"}

    wrong = dataclasses.replace(config, loss_weights={"konversion": 0.2})
    with pytest.raises(
        ValueError, match=r"`loss_weights` must name losses. Received: \['konversion'\]. Expected: .*'conversion'"
    ):
        run_config(wrong, store, dataset=small)
    wrong = dataclasses.replace(config, leave_out="user")
    with pytest.raises(ValueError, match="`leave_out` must be one of the known values. Received: .*'user'"):
        run_config(wrong, store, dataset=small)


# Balancing.


def balanced(config, **options):
    return dataclasses.replace(config, **options)


@pytest.mark.extended
def test_a_method_reaches_the_training_and_the_row_names_it(config, store, small):
    kept = []
    own = balanced(config, balancing="dwa", balancing_options={"steps": 7}, loss_weights={"conversion": 0.5})
    run_config(own, store, dataset=small, on_trained=lambda *given: kept.append(given))
    method = kept[0][0].balancing
    assert (method.method_name, method.steps, float(method.step)) == ("dwa", 7, 4)
    assert set(store.read()["balancing"]) == {"dwa(steps=7), loss_weights(conversion=0.5)"}
    arguments = resolve_hyperparameters(config.model, config.hyperparameters)
    variants = [
        config,
        own,
        balanced(own, balancing_options={"steps": 8}),
        balanced(own, balancing="rlw", balancing_options={}),
    ]
    assert len({about_run(variant, small, arguments, 0)["key"] for variant in variants}) == 4


@pytest.mark.extended
def test_data_based_weights_come_from_the_training_labels(config, store, small):
    kept = []
    run_config(balanced(config, balancing="data_based"), store, dataset=small, on_trained=lambda *g: kept.append(g))
    labels = small.train.labels
    expected = {"click": labels["click"].mean(), "conversion": labels["conversion"][labels["click"] == 1].mean()}
    assert kept[0][0].balancing.frequencies == pytest.approx(expected, rel=1e-5)
    assert set(store.read()["balancing"]) == {"data_based"}


@pytest.mark.extended
def test_a_sweep_takes_the_weights_that_validate_best(config, store, small):
    own = balanced(config, balancing="static_sweep", balancing_options={"steps": 1, "ratio": 50.0}, epochs=2)
    assert run_config(own, store, dataset=small).finished == 1
    table = store.read()
    points = [
        "static(click=0.0392157, conversion=1.96078)",
        "static(click=1.96078, conversion=0.0392157)",
        "static(click=1, conversion=1)",
    ]
    sweep = table[table["balancing"] == "static_sweep(ratio=50, steps=1)"]
    assert set(table["balancing"]) == {*points, *sweep["balancing"]}
    auc = table[(table["metric"] == "auc") & (table["split"] == "validation")]
    scores = {name: auc.loc[auc["balancing"] == name, "value"].mean() for name in points}
    best = max(scores, key=scores.get)
    chosen = sweep[sweep["metric"] == "static_weight"].set_index("task")["value"]
    assert best == f"static(click={chosen['click']:g}, conversion={chosen['conversion']:g})"
    of_best = table[table["balancing"] == best]
    mine = sweep[sweep["metric"] != "static_weight"]
    assert mine["value"].tolist() == pytest.approx(of_best["value"].tolist(), nan_ok=True)
    assert mine["best_epoch"].tolist() == of_best["best_epoch"].tolist()
    # What the search took, not what its best point did.
    seconds = table.drop_duplicates("key").set_index("balancing")["train_seconds"]
    assert seconds[sweep["balancing"].iloc[0]] == pytest.approx(sum(seconds[name] for name in points), abs=0.01)
    assert run_config(own, store, dataset=small).skipped == 1
    # A point is the run that one would ask for by itself.
    alone = balanced(own, balancing="static", balancing_options={"weights": {"click": 1.0, "conversion": 1.0}})
    assert run_config(alone, store, dataset=small).skipped == 1


@pytest.mark.extended
def test_a_sweep_that_was_cut_goes_on(config, store, small, monkeypatch):
    own = balanced(config, balancing="static_sweep", balancing_options={"steps": 1})
    trained, real = [], runner._train

    def broken(point, *arguments, **more):
        if len(trained) == 1:
            raise MemoryError("out of memory")
        trained.append(point.balancing_options["weights"])
        return real(point, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_train", broken)
        assert run_config(own, store, dataset=small).failed == 1
    assert len(trained) == 1 and "MemoryError: out of memory" in set(store.read()["error"])
    with monkeypatch.context() as patch:
        patch.setattr(
            runner,
            "_train",
            lambda point, *a, **m: trained.append(point.balancing_options["weights"]) or real(point, *a, **m),
        )
        assert run_config(own, store, dataset=small).finished == 1
    assert len(trained) == 3 and len({str(weights) for weights in trained}) == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"balancing": "dwa", "balancing_options": {"stpes": 3}}, TypeError, "`stpes` is not an argument of 'dwa'"),
        ({"balancing": "dwa", "balancing_options": {"steps": 0}}, ValueError, "`steps` must be a whole number >= 1"),
        (
            {"balancing": "static_sweep", "balancing_options": {"points": 3}},
            ValueError,
            "`balancing_options` of a static_sweep must be steps or ratio. Received: 'points'",
        ),
        (
            {"balancing": "static_sweep", "balancing_options": {"ratio": 1}},
            ValueError,
            "`ratio` must be a finite number and > 1",
        ),
    ],
)
def test_options_of_balancing_that_are_refused(config, store, small, changes, error, message):
    with pytest.raises(error, match=message):
        run_config(balanced(config, **changes), store, dataset=small)
    assert not store.path.exists()


@pytest.mark.extended
def test_balancing_from_the_command_line(tmp_path, capsys):
    words = "--dataset d --model m --out f --balancing nash_mtl --balancing-set update_every=5 include_tables=true"
    (config,) = configs_of(mtl_zoo_cli.parser().parse_args(["bench", "run", *words.split()]))
    assert (config.balancing, config.balancing_options) == ("nash_mtl", {"update_every": 5, "include_tables": True})
    words = f"--dataset synthetic_funnel --model mmoe --out {tmp_path / 'r.csv'} --balancing mgda --balancing-set a=1"
    assert mtl_zoo_cli.main(["bench", "run", *words.split()]) == 2
    assert "`a` is not an argument of 'mgda'" in capsys.readouterr().err
