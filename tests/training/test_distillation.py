"""distill: the teacher's scores beside the labels, by kind of task in plain NumPy, and as a whole."""

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_softmax, logit, softmax
from toys import FIVE_TASKS, build, inputs, labels, labels_for

from mtl_zoo import (
    BinaryTask,
    FeatureTransform,
    MulticlassTask,
    NegativeSampling,
    Numeric,
    RegressionTask,
    create_model,
)
from mtl_zoo.losses import Batch, TaskLoss
from mtl_zoo.tasks import TASKS, LogitAdjustment
from mtl_zoo.training import distill
from mtl_zoo.training.distillation import Distilled

RNG = np.random.default_rng(0)


def of_binary(p, a, t):
    p, q = expit(logit(p) / t), expit(a / t)
    return t**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))[:, 0]


def of_classes(p, a, t):
    p = softmax(np.log(p) / t, axis=-1)
    return t**2 * (p * (np.log(p) - log_softmax(a / t, axis=-1))).sum(axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_losses_are_those_of_numpy(temperature):
    logits = RNG.normal(size=(20, 1)).astype("float32")
    p = RNG.uniform(0.01, 0.99, (20, 1)).astype("float32")
    found = BinaryTask("click").soft_loss(p, logits, temperature)
    np.testing.assert_allclose(found, of_binary(p.astype("float64"), logits, temperature), rtol=2e-4, atol=1e-6)

    logits = RNG.normal(size=(20, 3)).astype("float32")
    p = RNG.dirichlet((1, 1, 1), 20).astype("float32")
    found = MulticlassTask("grade", classes=3).soft_loss(p, logits, temperature)
    np.testing.assert_allclose(found, of_classes(p.astype("float64"), logits, temperature), rtol=2e-4, atol=1e-6)

    task = RegressionTask("price", scale=(10.0, 2.0))
    taught, logits = np.array([[14.0], [10.0]], "float32"), np.array([[1.0], [0.5]], "float32")
    np.testing.assert_allclose(task.soft_loss(taught, logits, temperature), [(2 - 1) ** 2, (0 - 0.5) ** 2])


def test_a_model_that_agrees_has_no_soft_loss():
    for kind in (kind for kind in TASKS.in_order() if kind.is_labelled):
        task = kind("y", classes=3) if kind is MulticlassTask else kind("y")
        logits = keras.ops.convert_to_tensor(RNG.normal(scale=3, size=(50, task.logit_units)).astype("float32"))
        np.testing.assert_allclose(task.soft_loss(task.scores(logits), logits, 2.0), 0, atol=1e-4)


def test_scores_of_0_and_1_stay_finite():
    logits = np.array([[40.0], [-40.0]], "float32")
    assert np.isfinite(BinaryTask("y").soft_loss(np.array([[0.0], [1.0]], "float32"), logits, 1.0)).all()
    classes = MulticlassTask("y", classes=2)
    assert np.isfinite(
        classes.soft_loss(np.array([[0.0, 1.0]], "float32"), np.array([[9.0, -9.0]], "float32"), 1.0)
    ).all()


def test_a_loss_is_a_mix_and_of_labels_alone_where_there_are_no_scores():
    task = BinaryTask("click")
    hard = TaskLoss("click", task, "binary_crossentropy")
    y, a, p = (np.array(v, "float32") for v in ([[1.0], [0.0]], [[0.3], [-2.0]], [[0.8], [0.4]]))
    mixed = Distilled(hard, "taught click", 2.0, 0.25)
    found = mixed(y, a, Batch(None, {"click": y, "taught click": p}))
    plain = np.log1p(np.exp(-np.where(y == 1, a, -a)))[:, 0]
    np.testing.assert_allclose(found, 0.75 * plain + 0.25 * of_binary(p, a, 2.0), rtol=1e-4)
    np.testing.assert_allclose(mixed(y, a, Batch(None, {"click": y})), plain, rtol=1e-5)


def test_the_soft_loss_is_of_the_logits_that_scores_are_made_of():
    task = BinaryTask("click", loss=LogitAdjustment(), rate=0.1)
    raw = np.array([[0.7]], "float32")
    shifted = np.array(task.loss_logits(raw, "click"))
    assert abs(shifted - raw) > 0.1
    mixed = Distilled(TaskLoss("click", task, task.loss_name), "taught click", 1.0, 1.0)
    found = mixed(np.ones((1, 1), "float32"), shifted, Batch(None, {"click": [1.0], "taught click": expit(raw)}))
    np.testing.assert_allclose(found, 0, atol=1e-5)


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_student_of_all_kinds_of_tasks_comes_near_its_teacher():
    teacher = build("mmoe", FIVE_TASKS)
    for weight in teacher.weights:
        weight.assign(weight + 0.3 * RNG.normal(size=weight.shape))
    student = build("shared_bottom", FIVE_TASKS)
    student.compile(keras.optimizers.Adam(0.05), metrics=None, run_eagerly=True)
    x, y = inputs(128), labels(128)
    taught = teacher.predict(x, verbose=0)

    def gap():
        found = student.predict(x, verbose=0)
        return {name: float(np.mean((found[name] - scores) ** 2)) for name, scores in taught.items()}

    setup, optimizer = student.get_compile_config(), student.optimizer
    student.fit_tasks(y)
    before = gap()
    history = distill(teacher, student, x, y, weight=1.0, temperature=2.0, epochs=12, batch_size=64, verbose=0)
    after = gap()
    assert len(history.epoch) == 12 and before.keys() == after.keys()
    assert all(after[name] < 0.6 * before[name] for name in before), (before, after)
    assert student.optimizer is optimizer and student.get_compile_config() == setup
    student.fit(x, {name: y[name] for name in labels_for(student)}, verbose=0)  # by labels alone, as compiled


@pytest.mark.tensorflow
def test_weight_0_is_plain_training():
    x, teacher = inputs(), build("mmoe")
    found = []
    for weight in (None, 0.0):
        keras.utils.set_random_seed(1)
        student = build("shared_bottom")
        student.compile("sgd", metrics=None, run_eagerly=True)
        arguments = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
        if weight is None:
            student.fit(x, labels_for(student), **arguments)
        else:
            distill(teacher, student, x, labels_for(student), weight=weight, **arguments)
        found.append([np.array(w) for w in student.weights])
    for plain, distilled in zip(*found, strict=True):
        np.testing.assert_allclose(distilled, plain, atol=1e-6)


@pytest.mark.tensorflow
def test_tables_funnels_and_files_meanwhile(tmp_path):
    table = pd.DataFrame({"age": RNG.normal(size=60), "click": RNG.integers(0, 2, 60)})
    table["conversion"] = table["click"] * RNG.integers(0, 2, 60)
    tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    transform = FeatureTransform(Numeric("age"), tasks).fit(table)
    teacher = create_model("esmm", transform, backbone_options={"bottom_units": (8,)})
    student = create_model("shared_bottom", transform, bottom_units=(2,), tower_units=())
    student.compile("adam", metrics=None, run_eagerly=True)
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    distill(teacher, student, table, validation_data=table, callbacks=[saving], batch_size=30, verbose=0)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(table, verbose=0)["conversion"], student.predict(table, verbose=0)["conversion"]
    )
    assert loaded.get_compile_config()["loss"] == student.get_compile_config()["loss"]
    other = create_model("esmm", transform, backbone_options={"bottom_units": (2,)})
    other.compile("adam", metrics=None, run_eagerly=True)
    distill(teacher, other, table, verbose=0)  # the product has a loss of its own


@pytest.mark.tensorflow
def test_what_is_refused():
    teacher, student = build("mmoe"), build("shared_bottom")
    x, y = inputs(), labels()
    with pytest.raises(ValueError, match="`compile\\(\\)` must be called"):
        distill(teacher, student, x, y)
    student.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="`temperature` must"):
        distill(teacher, student, x, y, temperature=0)
    with pytest.raises(ValueError, match="`weight` must"):
        distill(teacher, student, x, y, weight=1.5)
    with pytest.raises(ValueError, match="`sampling` must be None in distillation"):
        distill(teacher, student, x, y, sampling=NegativeSampling("click", rate=0.5))
    with pytest.raises(ValueError, match="`x` must be a table or a dict of arrays. Received: ndarray"):
        distill(teacher, student, np.ones(3), y)
    other = build("mmoe", (BinaryTask("other"),))
    with pytest.raises(ValueError, match="`teacher` must have outputs of the student's names and widths"):
        distill(other, student, x, y)
