import keras
import numpy as np
import pytest

from mtl_zoo import create_model
from mtl_zoo.datasets import Split, load_dataset
from mtl_zoo.evaluation import evaluate
from mtl_zoo.training.callbacks import EpochTimer, ExactValidation, judged_outputs


@pytest.fixture(scope="module")
def data():
    data = load_dataset("synthetic_funnel", size="small")
    data.features = data.features[2:6]
    data.train, data.validation = data.train.take(1500), data.validation.take(1500)
    for split in (data.train, data.validation):
        split.inputs = {feature.name: split.inputs[feature.name] for feature in data.features}
    return data


def fitted(data, name, epochs, validation, learning_rate=0.1, **arguments):
    keras.utils.set_random_seed(0)
    model = create_model(name, data.features, data.tasks, tower_units=(4,), **arguments)
    model.compile(keras.optimizers.Adam(learning_rate), metrics=None)
    model.fit(
        data.train.batches(300, shuffle=True, seed=0), epochs=epochs, verbose=0, shuffle=False, callbacks=[validation]
    )
    return model


def scores_of(model, split):
    table = evaluate(model, split)
    return table[table["metric"] == "auc"].set_index("task")["value"].to_dict()


def test_the_best_epoch_is_kept_whole(data):
    validation = ExactValidation(data.validation)
    model = fitted(data, "shared_bottom", 6, validation, bottom_units=(8,))
    scores = [epoch["score"] for epoch in validation.history]
    best = int(np.argmax(scores)) + 1
    assert len(scores) == 6 and best < 6, "the model must overfit for this test to mean anything"
    assert validation.best_epochs == {"click": best, "conversion": best}
    assert np.mean(list(scores_of(model, data.validation).values())) == pytest.approx(max(scores), abs=1e-6)
    assert scores[0] == pytest.approx(np.mean(list(validation.history[0]["tasks"].values())))


def test_each_task_keeps_its_own_best_epoch(data):
    validation = ExactValidation(data.validation, per_task=True)
    model = fitted(data, "single_task", 6, validation, bottom_units=(8,))
    by_task = {task: [epoch["tasks"][task] for epoch in validation.history] for task in ("click", "conversion")}
    assert validation.best_epochs == {task: int(np.argmax(values)) + 1 for task, values in by_task.items()}
    assert len(set(validation.best_epochs.values())) == 2, "the tasks must differ for this test to mean anything"
    for task, value in scores_of(model, data.validation).items():
        assert value == pytest.approx(max(by_task[task]), abs=1e-6)


def test_patience_stops_and_the_last_weights_can_be_kept(data):
    validation = ExactValidation(data.validation, patience=1, restore_best=False)
    model = fitted(data, "shared_bottom", 20, validation, bottom_units=(8,))
    epochs = len(validation.history)
    assert epochs < 20 and epochs == validation.best_epochs["click"] + 1
    assert np.mean(list(scores_of(model, data.validation).values())) == pytest.approx(validation.history[-1]["score"])


def test_a_task_without_an_output_of_its_own_is_judged_by_what_predicts_it(data):
    validation = ExactValidation(data.validation)
    model = fitted(data, "aitm", 1, validation, backbone_options={"bottom_units": (8,)})
    assert judged_outputs(model) == {"click": "click", "conversion": "click_and_conversion"}
    assert validation.history[0]["tasks"]["conversion"] == scores_of(model, data.validation)["click_and_conversion"]
    esmm = create_model("esmm", data.features, data.tasks, backbone_options={"bottom_units": (8,)})
    assert judged_outputs(esmm) == {"click": "click", "conversion": "conversion"}


def test_logs_and_time(data):
    validation, timer = ExactValidation(data.validation), EpochTimer(len(data.train))
    keras.utils.set_random_seed(0)
    model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(4,))
    model.compile("adam", metrics=None)
    batches = data.train.batches(300)
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False, callbacks=[timer, validation])
    assert history.history["val_score"] == [epoch["score"] for epoch in validation.history]
    assert history.history["val_click_score"][1] == validation.history[1]["tasks"]["click"]
    assert len(timer.seconds) == 2 and timer.total_seconds == sum(timer.seconds)
    assert timer.examples_per_second == pytest.approx(1500 / timer.seconds[1])
    timer.seconds = timer.seconds[:1]
    assert timer.examples_per_second == pytest.approx(1500 / timer.seconds[0])


def test_a_task_without_a_score_leaves_the_choice_to_the_others(data):
    split = data.validation.take(300)
    split.labels = {**split.labels, "conversion": np.zeros(300, "float32")}
    validation = ExactValidation(split)
    fitted(data, "shared_bottom", 1, validation, bottom_units=(4,))
    (epoch,) = validation.history
    assert np.isnan(epoch["tasks"]["conversion"]) and epoch["score"] == epoch["tasks"]["click"]


def test_errors(data):
    with pytest.raises(ValueError, match="`split` must have at least one row"):
        ExactValidation(Split({"x": np.zeros(0)}, {}))
    with pytest.raises(ValueError, match="`patience` must be a whole number >= 1"):
        ExactValidation(data.validation, patience=0)
    with pytest.raises(ValueError, match="`per_task` needs a model whose tasks share no weights"):
        fitted(data, "shared_bottom", 1, ExactValidation(data.validation, per_task=True), bottom_units=(4,))
    split = data.validation.take(300)
    split.labels = dict.fromkeys(split.labels, np.zeros(300, "float32"))
    with pytest.raises(
        ValueError, match=r"`split` must define the score of at least one task.*\['click', 'conversion'\]"
    ):
        fitted(data, "shared_bottom", 1, ExactValidation(split), bottom_units=(4,))
