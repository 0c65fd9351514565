"""What every task without a label must do, walked over the registry: a new kind is tested once it is registered."""

import inspect
import json

import keras
import numpy as np
import pytest
import toys
from toys import FAMILIES, compile_eagerly, gradients_of_each, inputs, labels, sample_of, small_arguments, tasks_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, create_model, list_balancing
from mtl_zoo.losses import Batch
from mtl_zoo.options import MLP
from mtl_zoo.self_supervision._base import OBJECTIVES
from mtl_zoo.tasks import TASKS, task_from_config
from mtl_zoo.training import Checkpoints

KINDS = [kind for kind in TASKS.names() if not TASKS[kind].is_labelled]
# What a kind cannot be made without, and what makes it do something in a handful of steps.
ARGUMENTS = {
    "next_item": {"sequence": "history", "num_blocks": 1},
    "pseudo_label": {"of": "like", "threshold": 0.5},
    "mean_teacher": {"ramp_up": 0},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
LABELLED = (BinaryTask("click"), BinaryTask("like"))
ROWS = 32


def make(kind, **arguments):
    return TASKS[kind](kind, **{**ARGUMENTS.get(kind, {}), **arguments})


def features():
    return [
        Categorical("item", size=6, dim=4),
        Sequence("history", size=6, dim=4, key="item", length=4),
        Numeric("age"),
    ]


def data(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, rows)
    history = 2 + (2 * kind[:, None] + rng.integers(0, 2, (rows, 4)))
    x = {
        "item": (2 + 2 * kind + rng.integers(0, 2, rows)).astype("int32"),
        "history": np.where(np.arange(4) < rng.integers(1, 5, (rows, 1)), history, 0).astype("int32"),
        "age": (kind + 0.1 * rng.normal(size=rows)).astype("float32"),
    }
    y = {name: rng.integers(0, 2, rows).astype("float32") for name in ("click", "like")}
    y["like"][: rows // 2] = np.nan
    return x, y


def build(*tasks, name="shared_bottom", **arguments):
    given = {"bottom_units": (8,), "tower_units": ()} if name == "shared_bottom" else small_arguments(name)
    return create_model(name, features(), [*LABELLED, *tasks], **{**given, **arguments})


def of_graph(model):
    """The weights that a model would have without tasks that have no label."""
    return [v for layer in model.layers for v in layer.weights]


def logs_of(model, epochs=1, **arguments):
    return model.fit(*data(), batch_size=ROWS // 2, epochs=epochs, verbose=0, **arguments).history


def test_every_kind_has_an_objective():
    assert sorted(OBJECTIVES.names()) == sorted(KINDS)


@every_kind
def test_it_is_made_again_from_its_config_and_has_no_label(kind):
    task = make(kind, loss_weight=0.5)
    assert task_from_config(json.loads(json.dumps(task.get_config()))) == task
    for argument in ("label", "sample_space", "sample_weight"):
        with pytest.raises(ValueError, match=f"`{argument}` must be None for a task without a label"):
            make(kind, **{argument: "column"})
    with pytest.raises(ValueError, match="`metrics` must be 'auto'"):
        make(kind, metrics=("auc",))
    assert mtl_zoo.tasks.label_names([*LABELLED, task]) == ("click", "like")
    with pytest.raises(ValueError, match="`tasks` of a transform must have labels"):
        FeatureTransform(features(), [*LABELLED, task])
    with pytest.raises(ValueError, match="`tasks` must hold one with a label and a tower"):
        create_model("shared_bottom", features(), [task])


@every_kind
def test_it_shows_in_training_alone(kind):
    keras.utils.set_random_seed(0)
    model = build(make(kind))
    compile_eagerly(model)
    logs = logs_of(model, validation_data=data(seed=1))
    expected = {f"{kind}_loss", *(f"{kind}_{measure}" for measure in model.tasks[-1].measures)}
    assert {name for name in logs if kind in name} == expected
    assert np.isfinite([values[-1] for values in logs.values()]).all() and logs[f"{kind}_loss"][-1] > 0
    assert sorted(model.output) == sorted(model.predict(data()[0], verbose=0)) == ["click", "like"]
    assert set(model(data()[0], training=False)) == {"click", "like"}
    assert {output.name for output in model.outputs_info} == {"click", "like"}
    table = mtl_zoo.evaluate(model, mtl_zoo.datasets.Split(*data()))
    assert set(table["task"]) == {"click", "like"}


@pytest.mark.tensorflow
@every_kind
def test_at_weight_zero_nothing_else_changes(kind):
    """Labelled tasks learn as they would alone: penalties count once, moving statistics are those of complete rows."""
    beside, alone = (
        build(*tasks, bottom_units=MLP((8,), norm="batch"), embedding=mtl_zoo.Embedding(l2=0.1))
        for tasks in ([make(kind, loss_weight=0.0)], [])
    )
    losses = []
    for one, other in zip(of_graph(beside), of_graph(alone), strict=True):
        other.assign(one)
    for model in (beside, alone):
        compile_eagerly(model)
        losses.append(logs_of(model, shuffle=False)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(of_graph(beside), of_graph(alone), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-5, atol=1e-6, err_msg=one.path)


@pytest.mark.tensorflow
@every_kind
def test_it_learns_and_teaches_what_it_shares(kind):
    keras.utils.set_random_seed(0)
    model = build(make(kind))
    compile_eagerly(model)
    x, y = data()

    def losses(m):
        return {kind: m.row_losses(Batch(x, y), m(x, training=True)).means()[kind]}

    keras.utils.set_random_seed(1)
    if kind == "mean_teacher":  # which agrees with its student at first
        losses(model)
        for v in model.trainable_variables:
            v.assign(v + 0.1)
    gradients = gradients_of_each(model, losses)[kind]
    moved = {path for path, gradient in gradients.items() if np.abs(gradient).max() > 0}
    assert any("embedding" in path for path in moved), moved
    kernels = {v.path for o in model._objectives for v in o.trainable_variables if "bias" not in v.path}
    assert kernels <= moved, kernels - moved
    if kind in ("pseudo_label", "mean_teacher"):
        return
    compile_eagerly(model, keras.optimizers.Adam(0.05), loss_weights={"click": 0, "like": 0})
    logs = logs_of(model, epochs=6)[f"{kind}_loss"]
    assert logs[-1] < 0.97 * logs[0], logs


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of((*FAMILIES, "pepnet", "single_task", "serial", "aitm"), ("esmm",)))
def test_any_model_has_them_beside_its_tasks(name):
    model = create_model(name, toys.features(), [*tasks_of(name), *map(make, KINDS)], **small_arguments(name))
    compile_eagerly(model)
    y = {label: labels(16)[label] for label in mtl_zoo.tasks.label_names(model.tasks)}
    logs = model.fit(inputs(16), y, batch_size=16, verbose=0).history
    assert np.isfinite([logs[f"{kind}_loss"] for kind in KINDS]).all()
    assert not set(KINDS) & set(model.predict(inputs(16), verbose=0))


@every_kind
def test_it_is_saved_with_the_model(kind, tmp_path):
    model = build(make(kind))
    compile_eagerly(model, "adam")
    logs_of(model)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.loss_names == model.loss_names and again.tasks == model.tasks
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other), err_msg=one.path)
    x = data()[0]
    np.testing.assert_array_equal(again.predict(x, verbose=0)["like"], model.predict(x, verbose=0)["like"])


class _Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 3:
            raise KeyboardInterrupt


@pytest.mark.extended
@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", sample_of(KINDS, ("contrastive", "mean_teacher")))
def test_resumed_training_ends_with_the_same_numbers(kind, tmp_path):
    found = []
    for folder, stop in (("whole", []), ("cut", [_Stop()]), ("cut", [])):
        keras.utils.set_random_seed(len(found))
        if folder == "whole" or stop:
            keras.utils.set_random_seed(0)
        model = build(make(kind))
        compile_eagerly(model, "adam")
        saves = Checkpoints(tmp_path / folder, every_steps=1)
        try:
            logs_of(model, epochs=3, callbacks=[saves, *stop])
        except KeyboardInterrupt:
            continue
        found.append(model)
    assert saves.resumed_from is not None
    for one, other in zip(found[0].variables, found[1].variables, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other), err_msg=one.path)


REFUSED = ("mgda_ub", "grad_drop")


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of([n for n in list_balancing() if n not in REFUSED], ("dwa", "pcgrad")))
def test_balancing_methods_see_its_loss(name):
    from mtl_zoo.balancing import create_balancing

    model = build(make("reconstruction"), make("contrastive", projection_units=(4,)))
    needed = {"data_based": {"frequencies": dict.fromkeys(model.loss_names, 0.2)}}
    compile_eagerly(model, "adam", balancing=create_balancing(name, **needed.get(name, {})))
    logs = logs_of(model)
    assert model.balancing.loss_names == ("click", "like", "reconstruction", "contrastive")
    assert np.isfinite([values[-1] for values in logs.values()]).all()
    assert not np.array(model.balancing.skipped).any()


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", REFUSED)
def test_methods_of_the_representation_refuse_it(name):
    with pytest.raises(ValueError, match="`balancing` must not look at the shared representation"):
        build(make("contrastive")).compile(balancing=name)


@pytest.mark.tensorflow
def test_steps_on_episodes_refuse_it():
    with pytest.raises(ValueError, match="`tasks` must have labels with step='maml'"):
        build(make("contrastive")).compile(step="maml")


@pytest.mark.tensorflow
@pytest.mark.slow
@every_kind
def test_an_export_holds_nothing_of_it(kind, tmp_path):
    import tensorflow as tf

    model = build(make(kind))
    model.export(tmp_path / "saved", raw=False)
    module = tf.saved_model.load(str(tmp_path / "saved"))
    assert len(module.signatures["serving_default"].variables) <= len(of_graph(model))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (make("reconstruction", features="color"), "`features` of the task `reconstruction` must be one of"),
        (make("next_item", sequence="item"), "`sequence` of the task `next_item` must name a sequence of ids"),
        (make("mean_teacher", of=("view",)), "`of` of the task `mean_teacher` must be one of"),
        (make("pseudo_label", of="view"), "`of` must name a task with classes"),
    ],
)
def test_what_there_is_not_is_refused(task, message):
    with pytest.raises(ValueError, match=message):
        build(task)


def test_arguments_are_checked():
    for kind, wrong in (
        ("reconstruction", {"rate": 0}),
        ("reconstruction", {"negatives": 0}),
        ("contrastive", {"temperature": 0}),
        ("contrastive", {"features": ()}),
        ("next_item", {"dropout": 1}),
        ("pseudo_label", {"threshold": 1.5}),
        ("mean_teacher", {"decay": 1}),
        ("mean_teacher", {"ramp_up": -1}),
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            make(kind, **wrong)
        assert next(iter(wrong)) in inspect.signature(TASKS[kind]).parameters


@pytest.mark.extended
def test_a_model_that_grows_keeps_them_and_refuses_a_teacher_of_tables():
    table = {"item": [1, 2, 1, 2], "click": [0, 1, 0, 1]}
    monday = FeatureTransform(Categorical("item", dim=4), BinaryTask("click")).fit(table)
    tuesday = monday.extend({"item": [2, 3]})

    def grown(*tasks):
        return create_model("shared_bottom", monday, [*monday.tasks, *tasks], bottom_units=(4,)).extended(tuesday)

    assert grown(make("reconstruction"), make("mean_teacher", tables=False)).loss_names[1:] == (
        "reconstruction",
        "mean_teacher",
    )
    with pytest.raises(ValueError, match="`extended` cannot grow the tables"):
        grown(make("mean_teacher"))
