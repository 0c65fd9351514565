import keras
import numpy as np
import pandas as pd
import pytest
from toys import compile_eagerly, sample_of

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model
from mtl_zoo.datasets import Split, load_dataset
from mtl_zoo.evaluation import evaluate
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.training import ParetoImprovement, PrimaryTask, WeightedScore
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
    compile_eagerly(model, keras.optimizers.Adam(learning_rate), metrics=None)
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


@pytest.mark.extended
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


def test_a_table_is_a_split_too():
    rng = np.random.default_rng(0)
    city, click = rng.choice(["Rome", "Oslo"], 200), rng.integers(0, 2, 200)
    table = pd.DataFrame({"city": city, "click": click})
    transform = FeatureTransform([Categorical("city")], BinaryTask("click")).fit(table)
    model = create_model("shared_bottom", transform, transform.tasks, bottom_units=(4,))
    model.compile("adam")
    of_table = ExactValidation(table)
    model.fit(table, batch_size=50, epochs=1, verbose=0, callbacks=[of_table])
    found = evaluate(model, table).query("metric == 'auc'")["value"].item()
    assert of_table.history[0]["tasks"] == {"click": found}
    plain = create_model("shared_bottom", [Categorical("city", size=2)], BinaryTask("click"), bottom_units=(4,))
    plain.compile("adam")
    with pytest.raises(ValueError, match="FeatureTransform"):
        plain.fit({"city": np.ones(2, int)}, {"click": np.ones(2)}, verbose=0, callbacks=[ExactValidation(table)])


def test_errors(data):
    with pytest.raises(ValueError, match="`split` must have at least one row"):
        ExactValidation(Split({"x": np.zeros(0)}, {}))
    for given in (None, 3, ({}, {})):
        with pytest.raises(ValueError, match="`split` must be a split, or a table"):
            ExactValidation(given)
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


# Rules.

EPOCHS = [
    {"click": 0.60, "conversion": 0.60},
    {"click": 0.66, "conversion": 0.59},
    {"click": 0.63, "conversion": 0.62},
    {"click": 0.62, "conversion": 0.66},
    {"click": 0.70, "conversion": 0.61},
]


@pytest.mark.parametrize(
    ("rule", "best"),
    [
        (WeightedScore(), 4),
        (WeightedScore({"click": 1.0, "conversion": 2.0}), 3),
        (WeightedScore({"click": 1.0}), 4),
        (PrimaryTask("conversion"), 3),
        (PrimaryTask("conversion", floors={"click": 0.63}), 2),
        (PrimaryTask("click", floors={"conversion": 0.615}), 2),
        (PrimaryTask("conversion", floors={"click": 0.75}), 4),  # none: the nearest
        (ParetoImprovement(), 2),  # 1, 3 and 4 cost a task something
        (ParetoImprovement(tolerance=0.015), 4),
        (ParetoImprovement("click"), 4),
    ],
)
def test_rules_by_hand(rule, best):
    names = [name for given in rule.compared(["click", "conversion"]).values() for name in given]
    epochs = [{name: epoch[name] for name in names} for epoch in EPOCHS]
    kept = 0
    for i, epoch in enumerate(epochs):
        if i and rule.is_better(epoch, epochs[kept]):
            kept = i
    assert kept == best


def test_equal_scores_are_no_improvement():
    for rule in (WeightedScore(), PrimaryTask("click", {"conversion": 0.5}), ParetoImprovement()):
        assert not rule.is_better(EPOCHS[1], EPOCHS[1])


def test_a_rule_leaves_out_what_is_not_defined():
    epoch = {"click": 0.7, "conversion": np.nan}
    assert WeightedScore({"click": 3.0, "conversion": 1.0}).score(epoch) == pytest.approx(0.7)
    assert ParetoImprovement().is_better(epoch, {"click": 0.6, "conversion": np.nan})
    with pytest.raises(
        ValueError, match=r"`split` must define the scores that `PrimaryTask`.* none for \['conversion'\]"
    ):
        PrimaryTask("click", floors={"conversion": 0.5}).check_defined(epoch)


RULES = {
    "weighted": WeightedScore({"conversion": 1.0, "click": 0.01}, metrics={"conversion": "logloss"}),
    "primary": PrimaryTask("conversion", floors={"click": -0.5}, metrics={"click": "logloss"}),
    "pareto": ParetoImprovement(),
    "another output": WeightedScore({"click_and_conversion": 1.0}),
}


@pytest.mark.parametrize("which", sample_of(RULES, ("primary", "another output")))
def test_the_best_epoch_by_a_rule_is_restored(data, which):
    rule = RULES[which]
    validation = ExactValidation(data.validation, select=rule)
    name = "esmm" if "click_and_conversion" in (getattr(rule, "weights", None) or {}) else "shared_bottom"
    options = {"backbone": "shared_bottom"} if name == "esmm" else {"bottom_units": (8,)}
    model = fitted(data, name, 6, validation, **options)
    epochs = [epoch["tasks"] for epoch in validation.history]
    best = 0
    for i in range(1, 6):
        best = i if rule.is_better(epochs[i], epochs[best]) else best
    assert set(validation.best_epochs.values()) == {best + 1} and set(validation.best_epochs) == {"click", "conversion"}
    table = evaluate(model, data.validation).set_index(["task", "metric"])["value"]
    for task, metric in rule.metrics_of(model).items():
        value = table[task, metric] * (-1 if metric == "logloss" else 1)
        assert value == pytest.approx(epochs[best][task], abs=1e-6)
    assert any(epochs[5][task] != pytest.approx(epochs[best][task]) for task in epochs[0]) or best == 5


def test_floors_that_no_epoch_keeps_are_told(data):
    validation = ExactValidation(data.validation, select=PrimaryTask("conversion", floors={"click": 0.99}))
    with pytest.warns(UserWarning, match=r"No epoch kept all floors. Below in the best one: click 0.99"):
        fitted(data, "shared_bottom", 2, validation, bottom_units=(4,))


def test_a_task_without_an_output_of_its_own_is_judged_by_what_predicts_it(data):
    validation = ExactValidation(data.validation)
    model = fitted(data, "aitm", 1, validation, backbone_options={"bottom_units": (8,)})
    assert judged_outputs(model) == {"click": "click", "conversion": "click_and_conversion"}
    assert validation.history[0]["tasks"]["conversion"] == scores_of(model, data.validation)["click_and_conversion"]
    esmm = create_model("esmm", data.features, data.tasks, backbone_options={"bottom_units": (8,)})
    assert judged_outputs(esmm) == {"click": "click", "conversion": "conversion"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedScore({"click": 0.0}), r"`weights\['click'\]` must be a finite number and > 0"),
        (lambda: WeightedScore({}), "`weights` must name at least one task"),
        (lambda: WeightedScore(["click"]), r"`weights` must be a dict by task. Received: weights=\['click'\]"),
        (lambda: PrimaryTask("a", {"b": "x"}), r"`floors\['b'\]` must be a finite number"),
        (lambda: PrimaryTask("a", {"a": 0.5}), "`floors` must name other tasks than the primary one. Received: 'a'"),
        (lambda: ParetoImprovement(tolerance=-1), "`tolerance` must be a finite number and >= 0"),
        (lambda: ParetoImprovement(()), "`tasks` must name at least one task. Received: none"),
        (lambda: ParetoImprovement(("a", "a")), "`tasks` must have different names"),
    ],
)
def test_rules_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            WeightedScore({"clicks": 1.0}),
            r"`weights` must name tasks, or other outputs.* unknown: \['clicks'\].*'click'",
        ),
        (PrimaryTask("buy"), r"`primary` must name tasks.*unknown: \['buy'\].*Expected: names among \['click'"),
        (PrimaryTask("click", {"buy": 0.5}), r"`floors` must name tasks.*unknown: \['buy'\]"),
        (ParetoImprovement(("click", "buy")), r"`tasks` must name tasks.*unknown: \['buy'\]"),
        (
            WeightedScore({"click": 1.0}, {"conversion": "auc"}),
            r"`metrics` must name tasks that are compared.*'conversion'",
        ),
        (WeightedScore(metrics={"click": "rmse"}), r"`metrics\['click'\]` must be one of the known values.*'auc'"),
        (WeightedScore(metrics={"click": "pcoc"}), r"`metrics\['click'\]` must be one of the known values.*'pcoc'"),
    ],
)
def test_names_that_a_model_does_not_have(data, rule, message):
    with pytest.raises(ValueError, match=message):
        fitted(data, "shared_bottom", 1, ExactValidation(data.validation, select=rule), bottom_units=(4,))


def test_select_must_be_a_rule_for_the_whole_model(data):
    with pytest.raises(
        TypeError, match="`select` must be a WeightedScore, a PrimaryTask or a ParetoImprovement.*'auc'"
    ):
        ExactValidation(data.validation, select="auc")
    with pytest.raises(ValueError, match="`select` must be None with `per_task`"):
        ExactValidation(data.validation, per_task=True, select=WeightedScore())


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["stream", "dataset"])
def test_rows_that_memory_does_not_hold_are_measured_as_exactly(kind, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"city": rng.choice(list("abcd"), 300), "weight": rng.uniform(0.5, 2, 300)})
    table["click"] = (rng.random(300) < 0.3 + 0.1 * (table["city"] == "a")) * 1.0
    table["buy"] = np.where(table["click"] == 1, rng.integers(0, 2, 300), np.nan)
    tasks = [BinaryTask("click"), BinaryTask("buy", sample_space="click")]
    transform = FeatureTransform([Categorical("city", dim=2)], tasks, sample_weight="weight").fit(table)
    table.to_parquet(tmp_path / "rows.parquet", row_group_size=70)
    stream = TableStream(tmp_path / "rows.parquet", transform)
    batched = ExactValidation(stream if kind == "stream" else stream.batches(64), batch_size=64)
    whole = ExactValidation(table)
    keras.utils.set_random_seed(0)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=())
    compile_eagerly(model, keras.optimizers.Adam(0.1), metrics=None)
    history = model.fit(table, epochs=2, verbose=0, callbacks=[whole, batched])
    assert [epoch["tasks"] for epoch in batched.history] == [epoch["tasks"] for epoch in whole.history]
    assert batched.best_epochs == whole.best_epochs and len(history.history["val_score"]) == 2
    assert batched._rows is None, "no row stays in memory between two evaluations"
    with pytest.raises(ValueError, match="`split` must end. Received: a dataset that repeats"):
        evaluate(model, stream.batches(64).repeat())
