import sys
import types

import keras
import numpy as np
import pandas as pd
import pytest
from toys import compile_eagerly

from mtl_zoo import BinaryTask, Categorical, ReconstructionTask, RegressionTask, create_model
from mtl_zoo.datasets import Split
from mtl_zoo.training import ExactValidation, MLflowLogger, TensorBoardLogger, Tracker, WandbLogger, write_projector
from mtl_zoo.training.trackers import by_task

pytestmark = pytest.mark.tensorflow
LOGS = {
    "loss": 0.9, "click_loss": 0.5, "click_auc": 0.7, "val_loss": 1.0, "val_click_auc": 0.65, "val_score": 0.6,
    "val_click_score": 0.65, "val_time_score": 0.55, "time_rmse": float("nan"), "learning_rate": 0.01,
}  # fmt: skip
ROWS = (
    {"city": np.array([2, 3, 4, 5], "int32")},
    {"click": np.array([0, 1, 0, 1], "float32"), "time": np.array([1, 2, 3, 5], "float32")},
)
TRAINING = {"loss": 0.9, "click/loss": 0.5, "click/auc": 0.7, "learning_rate": 0.01}
VALIDATION = {"loss": 1.0, "click/auc": 0.65, "score": 0.6, "click/score": 0.65, "time/score": 0.55}


@pytest.fixture(scope="module")
def model():
    features, tasks = [Categorical("city", size=4, dim=2)], [BinaryTask("click"), RegressionTask("time")]
    made = create_model("shared_bottom", features, tasks, bottom_units=(2,), tower_units=())
    return compile_eagerly(made, "adam", metrics="auto")


def trained(tracker, model):
    """What a training of two epochs tells a tracker."""
    tracker.set_model(model)
    tracker.on_train_begin()
    for epoch in (0, 1):
        tracker.on_epoch_end(epoch, dict(LOGS))
    tracker.on_train_end()
    return tracker


def test_logs_by_task(model):
    assert by_task(model, LOGS) == {"training": TRAINING, "validation": VALIDATION}


def test_names_are_those_that_fit_logs(model):
    class Kept(Tracker):
        def log(self, step, rows, scalars):
            seen[step, rows] = set(scalars)

    seen = {}
    x = {"city": np.array([2, 3, 4, 5], "int32")}
    y = {"click": np.array([0, 1, 0, 1], "float32"), "time": np.array([1, 2, 3, 5], "float32")}
    callbacks = [ExactValidation(Split(x, y)), Kept()]
    model.fit(x, y, batch_size=4, validation_data=(x, y), epochs=1, verbose=0, callbacks=callbacks)
    common = {"loss", "click/loss", "time/loss", "click/auc", "time/rmse"}
    assert seen == {(1, "training"): common, (1, "validation"): common | {"score", "click/score", "time/score"}}


def test_measures_of_tasks_without_a_label_are_theirs():
    features, tasks = [Categorical("city", size=4, dim=2)], [BinaryTask("click"), ReconstructionTask("same")]
    logs = {"same_loss": 1.0, "same_accuracy": 0.5}
    made = create_model("shared_bottom", features, tasks, bottom_units=(2,))
    made.compile("adam")
    assert by_task(made, logs)["training"] == {"same/loss": 1.0, "same/accuracy": 0.5}


def test_names_of_the_log_are_known_by_output(model):
    assert model.log_names() == {
        "click_loss": ("click", "loss"), "time_loss": ("time", "loss"),
        "click_auc": ("click", "auc"), "time_rmse": ("time", "rmse"),
    }  # fmt: skip


def test_tensorboard(model, tmp_path, events):
    trained(TensorBoardLogger(tmp_path, {"width": 2}), model)
    found = events(tmp_path / "training")
    assert "| model | shared_bottom |" in found["parameters", 0] and "| width | 2 |" in found["parameters", 0]
    for (tag, step), value in found.items():
        if tag != "parameters":
            assert value == pytest.approx(TRAINING[tag]) and step in (1, 2)
    assert {tag for tag, _ in found} == {"parameters", *TRAINING}
    assert set(events(tmp_path / "validation")) == {(tag, step) for tag in VALIDATION for step in (1, 2)}


def test_the_projector(tmp_path):
    table = pd.DataFrame([[0.5, -1.0], [2.0, 0.25]], index=["New\tYork", "Oslo"])
    write_projector(tmp_path, {"city": table, "user": table.iloc[:1]})
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "city.vectors.tsv", delimiter="\t"), table)
    assert (tmp_path / "city.labels.tsv").read_text() == "New York\nOslo\n"
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 2 and 'metadata_path: "user.labels.tsv"' in config
    with pytest.raises(ValueError, match=r"`tables\['city'\]` must hold finite numbers"):
        write_projector(tmp_path, {"city": table * np.nan})
    with pytest.raises(ValueError, match=r"`tables\['city'\]` must hold finite numbers"):
        write_projector(tmp_path, {"city": table.astype(str) + " m"})
    with pytest.raises(ValueError, match=r"`tables\['city'\]` must be a DataFrame"):
        write_projector(tmp_path, {"city": table.to_numpy()})
    with pytest.raises(ValueError, match="`parameters` must be a dict"):
        Tracker(["units"])


class Recorded:
    """A module of which every call is kept."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            if name == "MlflowClient":
                return self
            info = types.SimpleNamespace(run_id="7")
            return types.SimpleNamespace(info=info, experiment_id="3", log=self.log, finish=self.finish)

        return call


def test_what_mlflow_is_told(model, monkeypatch):
    fake = Recorded()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    tracker = trained(MLflowLogger("mine", "file:here", parameters={"width": 2}), model)
    assert tracker.run_id == "7"
    assert ("log_param", ("7", "width", 2), {}) in fake.calls
    metrics = {(args[1], kwargs["step"]): args[2] for name, args, kwargs in fake.calls if name == "log_metric"}
    assert metrics["training/click/auc", 1] == 0.7 and metrics["validation/time/score", 2] == 0.55
    assert fake.calls[-1] == ("set_terminated", ("7",), {})


def test_what_weights_and_biases_is_told(model, monkeypatch, tmp_path):
    fake = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trained(WandbLogger("mine", folder=tmp_path, parameters={"width": 2}), model)
    name, _, given = fake.calls[0]
    assert (name, given["project"], given["mode"], given["config"]["width"]) == ("init", "mine", "offline", 2)
    logged = [(args[0], kwargs["step"]) for name, args, kwargs in fake.calls if name == "log"]
    assert logged[0] == ({f"training/{n}": v for n, v in TRAINING.items()}, 1) and logged[-1][1] == 2
    assert fake.calls[-1][0] == "finish"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_a_training_that_was_cut_short_ends_the_run(model, monkeypatch, tmp_path, error, status):
    class Cut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                raise error

    mlflow, wandb = Recorded(), Recorded()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trackers = [MLflowLogger("mine", "file:here"), WandbLogger("mine", folder=tmp_path), TensorBoardLogger(tmp_path)]
    with pytest.raises(error):
        model.fit(*ROWS, batch_size=4, epochs=2, verbose=0, callbacks=[*trackers, Cut()])
    assert mlflow.calls[-1] == ("set_terminated", ("7",), {"status": status})
    assert wandb.calls[-1] == ("finish", (), {"exit_code": 1})


def test_a_tracker_that_cannot_end_its_run_hides_no_error(model):
    class Broken(Tracker):
        def failed(self, error):
            raise ConnectionError("no network")

    class Told(Tracker):
        def failed(self, error):
            told.append(error)

    def stop(epoch, logs):
        raise OSError("disk full")

    told = []
    callbacks = [Broken(), Told(), keras.callbacks.LambdaCallback(on_epoch_begin=stop)]
    with pytest.warns(UserWarning, match="Broken failed to end its run: ConnectionError: no network"):
        with pytest.raises(OSError, match="disk full") as caught:
            model.fit(*ROWS, verbose=0, callbacks=callbacks)
    assert told == [caught.value]


def test_a_run_whose_parameters_are_refused_does_not_stay_open(model, monkeypatch):
    fake = Recorded()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    tracker = MLflowLogger("mine", parameters={"width": 2})

    def refuse(*_):
        raise ValueError("too long")

    monkeypatch.setattr(tracker._client, "log_param", refuse, raising=False)
    with pytest.raises(ValueError, match="too long"):
        model.fit(*ROWS, verbose=0, callbacks=[tracker])
    assert fake.calls[-1] == ("set_terminated", ("7",), {"status": "FAILED"})


def test_a_tracker_of_ones_own_that_raises_while_it_begins_is_told(model):
    class Opened(Tracker):
        def begin(self, parameters):
            told.append("opened")
            raise ValueError("refused")

        def failed(self, error):
            told.append(error)

    class Later(Tracker):
        def failed(self, error):
            raise AssertionError("it did not begin")

    told, tracker = [], Opened()
    with pytest.raises(ValueError, match="refused") as caught:
        model.fit(*ROWS, verbose=0, callbacks=[tracker, Later()])
    assert told == ["opened", caught.value]
    tracker.on_train_failed(OSError())  # once
    assert len(told) == 2


@pytest.mark.parametrize(("name", "first"), [("mlflow", "get_experiment_by_name"), ("wandb", "init")])
def test_a_run_that_was_not_opened_is_not_ended(model, monkeypatch, name, first):
    fake = Recorded()
    monkeypatch.setitem(sys.modules, name, fake)
    tracker = trained(MLflowLogger() if name == "mlflow" else WandbLogger(), model)
    calls = len(fake.calls)

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(fake, first, refuse, raising=False)
    with pytest.raises(ConnectionError, match="no network"):
        model.fit(*ROWS, verbose=0, callbacks=[tracker])
    assert len(fake.calls) == calls, "the run of the training before is left alone"


def test_mlflow_keeps_a_run(model, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")  # what MLflow keeps runs with on one machine
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    tracker = trained(MLflowLogger("mine", uri, parameters={"width": 2}), model)
    client = mlflow.MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.params["width"] == "2"
    assert run.data.metrics["validation/click/auc"] == pytest.approx(0.65)
    assert [m.step for m in client.get_metric_history(tracker.run_id, "training/click/loss")] == [1, 2]


def test_weights_and_biases_keep_a_run_offline(model, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    trained(WandbLogger("mine", folder=tmp_path, parameters={"width": 2}), model)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert any(path.suffix == ".wandb" and path.stat().st_size for path in run.iterdir())


@pytest.mark.parametrize(("tracker", "name"), [(MLflowLogger, "mlflow"), (WandbLogger, "wandb")])
def test_what_is_not_installed_is_told(tracker, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"`{tracker.__name__}` needs {name}.*mtl-zoo\[{name}\]"):
        tracker()


def test_a_mode_that_is_none(monkeypatch):
    with pytest.raises(ValueError, match="`mode` must be"):
        WandbLogger(mode="later")


def test_a_tracker_that_logs_nothing():
    with pytest.raises(NotImplementedError):
        Tracker().log(1, "training", {})
    assert isinstance(Tracker(), keras.callbacks.Callback)
