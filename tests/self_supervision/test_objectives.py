"""What each objective makes of a batch, against its formula in plain NumPy."""

import types

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, MulticlassTask, Numeric, RegressionTask, Sequence, SharedBottom
from mtl_zoo.tasks import (
    ContrastiveTask,
    MeanTeacherTask,
    NextItemTask,
    PseudoLabelTask,
    ReconstructionTask,
)

ROWS, KNOWN, WIDTH = 6, 7, 4
RNG = np.random.default_rng(0)
X = {
    "item": np.array([2, 5, 0, 1, 8, 3], "int32"),
    "history": np.array([[2, 3, 4, 5], [6, 7, 0, 0], [0] * 4, [1, 2, 1, 8], [4, 0, 0, 0], [8, 8, 3, 0]], "int32"),
    "price": RNG.normal(size=ROWS).astype("float32"),
}
Z = RNG.normal(size=(ROWS, WIDTH)).astype("float32")


def features(**history):
    options = {"key": "item", "length": 4, **history}
    return [Categorical("item", size=KNOWN, dim=3), Sequence("history", size=KNOWN, dim=3, **options), Numeric("price")]


def objective_of(task, *tasks, **options):
    labelled = tasks or (BinaryTask("like"),)
    model = SharedBottom(features(**options), [*labelled, task], bottom_units=(WIDTH,), tower_units=())
    (objective,) = model._objectives
    return model, objective


def passes(*representations, **others):
    """What a model would offer: these representations, one after the other."""
    given = iter(representations)
    taken = {name: ops.convert_to_tensor(values) for name, values in X.items()}
    return types.SimpleNamespace(
        inputs=taken, representation=lambda inputs: ops.convert_to_tensor(next(given)), **others
    )


def call(objective, made):
    return ops.convert_to_numpy(objective(passes=made)).astype("float64")


def softmax_loss(query, table, own):
    """-log softmax of the known rows of a table at an id."""
    scores = table[2:] @ query
    return np.log(np.exp(scores).sum()) - scores[own - 2]


def table_of(model, feature="item"):
    embedding = model.get_layer("embedding")
    return ops.convert_to_numpy(embedding.rows_of(feature, ops.arange(KNOWN + 2))).astype("float64")


def dense_of(layer, x):
    kernel, bias = (ops.convert_to_numpy(w).astype("float64") for w in layer.weights)
    return x @ kernel + bias


def test_reconstruction_is_the_mean_over_what_was_dropped():
    model, objective = objective_of(ReconstructionTask("masked", rate=1.0))
    for table in model.get_layer("embedding").tables:
        table.assign(RNG.normal(size=table.shape))
    found, table = call(objective, passes(Z)), table_of(model)
    queries = {name: dense_of(layer, Z.astype("float64")) for name, (layer, _) in objective.ids.items()}
    numbers = dense_of(objective.numbers["price"], Z.astype("float64"))[:, 0]
    for i in range(ROWS):
        terms = [(numbers[i] - X["price"][i]) ** 2]
        for name in ("item", "history"):
            ids = [j for j in np.atleast_1d(X[name][i]) if j >= 2]
            if ids:
                losses = [softmax_loss(queries[name][i], table, j) for j in ids]
                terms.append(np.mean(losses) / np.log(KNOWN))
        np.testing.assert_allclose(found[i, :2], [np.mean(terms), len(terms)], rtol=1e-5)
        np.testing.assert_allclose(found[i, 4:], [terms[0], 1], rtol=1e-5)
        best = [j - 2 == np.argmax(table[2:] @ queries["item"][i]) for j in X["item"][i : i + 1] if j >= 2]
        assert found[i, 3] == len(terms) - 1 and (len(terms) > 2 or not best or found[i, 2] == best[0])


def test_what_was_not_dropped_does_not_count_and_only_named_features_are():
    _, objective = objective_of(ReconstructionTask("masked", rate=0.5, features="price"))
    assert objective.dropping.names == ["price"] and not objective.ids
    keras.utils.set_random_seed(3)
    inputs, dropped = objective.dropping(passes().inputs)
    dropped = ops.convert_to_numpy(dropped)[:, 0]
    assert 0 < dropped.sum() < ROWS
    price = ops.convert_to_numpy(inputs["price"])
    assert not price[dropped].any() and (price[~dropped] == X["price"][~dropped]).all()
    np.testing.assert_array_equal(ops.convert_to_numpy(inputs["item"]), X["item"])
    weights = np.mean([call(objective, passes(Z))[:, 1] for _ in range(30)])
    assert abs(weights - 0.5) < 0.15


def test_the_mean_of_sampled_partitions_is_the_softmax_s():
    _, whole = objective_of(ReconstructionTask("masked", rate=1.0, features="item"))
    _, sampled = objective_of(ReconstructionTask("masked", rate=1.0, features="item", negatives=4))
    softmax, exact = sampled.ids["item"][1], whole.ids["item"][1]
    assert softmax.drawn == 4 and exact.drawn is None
    softmax._rows_of = exact._rows_of  # of one table
    queries, ids = (
        ops.convert_to_tensor(5 * Z[:, None, :3]),
        ops.convert_to_tensor(X["item"][[0, 1, 4, 5, 0, 1]][:, None]),
    )
    truth = np.exp(ops.convert_to_numpy(exact(queries, ids)[0]))
    drawn = [np.exp(ops.convert_to_numpy(softmax(queries, ids)[0])) for _ in range(150)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), truth, rtol=0.1)
    assert np.std(drawn, axis=0).min() > 0


def test_contrast_is_that_of_the_formula_whatever_the_order_of_rows():
    _, objective = objective_of(ContrastiveTask("views", rate=0.0, temperature=0.5, projection_units=(5, 3)))
    views = Z, RNG.normal(size=Z.shape).astype("float32")
    found = call(objective, passes(*views))
    vectors = [ops.convert_to_numpy(objective._vector(ops.convert_to_tensor(v))).astype("float64") for v in views]
    z = np.concatenate(vectors)
    v = dense_of(objective.linear, ops.convert_to_numpy(objective.hidden(np.concatenate(views))).astype("float64"))
    np.testing.assert_allclose(z, v / np.sqrt((v**2).sum(axis=1, keepdims=True) + 1e-4), rtol=1e-4, atol=1e-6)
    s = z @ z.T / 0.5
    np.fill_diagonal(s, -np.inf)
    partner = np.roll(np.arange(2 * ROWS), ROWS)
    by_view = np.log(np.exp(s).sum(axis=1)) - s[np.arange(2 * ROWS), partner]
    np.testing.assert_allclose(found[:, 0], (by_view[:ROWS] + by_view[ROWS:]) / 2, rtol=1e-5)
    nearest = s.argmax(axis=1) == partner
    np.testing.assert_allclose(found[:, 2], (nearest[:ROWS].astype(float) + nearest[ROWS:]) / 2)
    assert (found[:, [1, 3]] == 1).all()
    order = np.random.default_rng(1).permutation(ROWS)
    np.testing.assert_allclose(call(objective, passes(*(v[order] for v in views))), found[order], rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_next_item_is_a_softmax_at_every_event_that_has_a_next(shared):
    encoder = {"encoder": "sasrec"} if shared else {}
    model, objective = objective_of(NextItemTask("next", sequence="history", dropout=0.0), **encoder)
    assert (objective.own is None) == shared
    if shared:  # its dropout is the feature's
        for block in objective._encoder().blocks:
            block.drop.rate = 0.0
    for table in model.get_layer("embedding").tables:
        table.assign(RNG.normal(size=table.shape))
    found, table, ids = call(objective, passes()), table_of(model), X["history"]
    has_next = ids[:, 1:] != 0
    vectors = np.where(has_next[..., None], table[ids[:, :-1]], 0).astype("float32")
    states = ops.convert_to_numpy(objective._encoder().states(ops.convert_to_tensor(vectors), has_next)).astype(
        "float64"
    )
    for i in range(ROWS):
        at = [t for t in range(3) if ids[i, t + 1] >= 2]
        losses = [softmax_loss(states[i, t], table, ids[i, t + 1]) for t in at]
        ranks = [1 + (table[2:] @ states[i, t] > table[ids[i, t + 1]] @ states[i, t] + 1e-6).sum() for t in at]
        assert found[i, 1] == found[i, 3] == len(at)
        if at:
            np.testing.assert_allclose(found[i, [0, 2]], [np.mean(losses), np.mean(1 / np.array(ranks))], rtol=1e-4)


def test_next_item_does_not_see_the_item_that_it_predicts():
    """With ids that follow each other at random, nothing that is learned from the past tells them apart."""
    _, objective = objective_of(NextItemTask("next", sequence="history", dropout=0.0))
    made = passes()
    changed = X["history"].copy()
    changed[0, 3] = 8  # the last event of a row that is full: an input of no state
    states = []
    encoder = objective._encoder()
    encoder_states = encoder.states
    encoder.states = lambda *a, **k: states.append(encoder_states(*a, **k)) or states[-1]
    call(objective, made)
    made.inputs["history"] = ops.convert_to_tensor(changed)
    call(objective, made)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(s) for s in states))


@pytest.mark.parametrize(
    ("task", "logits"),
    [
        (BinaryTask("like"), RNG.normal(size=(ROWS, 1)) * 4),
        (MulticlassTask("like", classes=3), RNG.normal(size=(ROWS, 3)) * 3),
    ],
)
def test_pseudo_labels_are_what_the_model_is_sure_of(task, logits):
    own = PseudoLabelTask("sure", of="like", threshold=0.9, rate=0.3)
    _, objective = objective_of(own, task)
    other = RNG.normal(size=logits.shape)
    given = {
        "logits": {"like": ops.convert_to_tensor(logits.astype("float32"))},
        "logits_of": lambda inputs: {"like": ops.convert_to_tensor(other.astype("float32"))},
    }
    found = call(objective, passes(**given))
    p, q = (ops.convert_to_numpy(task.scores(ops.convert_to_tensor(z.astype("float32")))) for z in (logits, other))
    if task.units == 1:
        p, q = np.hstack([1 - p, p]), np.hstack([1 - q, q])
    sure = p.max(axis=1) >= 0.9
    assert 0 < sure.sum() < ROWS
    np.testing.assert_allclose(found[:, 0], np.where(sure, -np.log(q[np.arange(ROWS), p.argmax(axis=1)]), 0), rtol=1e-4)
    np.testing.assert_array_equal(found[:, 2], sure)


def test_pseudo_labels_are_of_rows_without_one_within_the_sample_space():
    tasks = [BinaryTask("like", sample_space="seen"), PseudoLabelTask("sure", of="like")]
    labels = {"like": np.array([1, np.nan, np.nan, 0], "float32"), "seen": np.array([1, 1, 0, 1], "float32")}
    assert ops.convert_to_numpy(tasks[1].counted(labels, tasks)).tolist() == [0, 1, 0, 0]
    assert tasks[0].counted(labels, tasks) is None if hasattr(tasks[0], "counted") else True


def test_a_mean_teacher_averages_what_the_student_was_and_the_loss_ramps_up():
    tasks = [BinaryTask("like"), RegressionTask("price_paid", scale=(100.0, 7.0))]
    task = MeanTeacherTask("teacher", decay=0.6, ramp_up=4, rate=0.0)
    model, objective = objective_of(task, *tasks)
    inputs = {name: ops.convert_to_tensor(values) for name, values in X.items()}
    mean = None
    for step in range(5):
        if step:
            for v in model.trainable_variables:
                v.assign(v + 0.1 * step)
        student = [ops.convert_to_numpy(v).astype("float64") for v in objective._students()]
        decay = min(0.6, 1 - 1 / (step + 1))
        mean = student if mean is None else [decay * m + (1 - decay) * s for m, s in zip(mean, student, strict=True)]
        clean = {n: ops.convert_to_numpy(z).astype("float64") for n, z in model.graph(inputs, training=False).items()}
        found = ops.convert_to_numpy(model(inputs, training=True)["teacher"]).astype("float64")
        for variable, m in zip(objective.teachers, mean, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(variable), m, rtol=1e-4, atol=1e-6)
        with keras.StatelessScope(
            state_mapping=[(v, ops.convert_to_tensor(m)) for v, m in zip(objective._students(), mean, strict=True)]
        ):
            taught = {
                n: ops.convert_to_numpy(z).astype("float64") for n, z in model.graph(inputs, training=False).items()
            }
        gap = 1 / (1 + np.exp(-clean["like"])) - 1 / (1 + np.exp(-taught["like"]))
        expected = (gap**2 + (clean["price_paid"] - taught["price_paid"]) ** 2)[:, 0] / 2
        np.testing.assert_allclose(found[:, 2], expected, rtol=1e-3, atol=1e-8)
        ramp = np.exp(-5 * (1 - min(step / 4, 1)) ** 2)
        np.testing.assert_allclose(found[:, 0], ramp * found[:, 2], rtol=1e-4, atol=1e-9)
        assert (found[:, 2] > 0).all() == (step > 0)


def test_a_teacher_without_tables_reads_those_of_the_student():
    _, objective = objective_of(MeanTeacherTask("teacher", tables=False))
    assert objective.teachers and not any("table" in v.path for v in objective._students())
