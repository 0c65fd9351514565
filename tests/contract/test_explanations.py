"""What every registered model must do when it is explained: the parts of its features add up."""

import keras
import numpy as np
import pandas as pd
import pytest
from toys import FIVE_TASKS, build, inputs, sample_of, small_arguments

import mtl_zoo
from mtl_zoo import MLP, BinaryTask, Embedding, FeatureTransform, SharedBottom
from mtl_zoo.features.spec import FEATURES
from mtl_zoo.tasks import TASKS

# PEPNet and STEM score by what no gradient passes in training. On JAX each gradient is compiled.
ON_TENSORFLOW = ("shared_bottom", "mmoe", "esmm", "star", "pepnet", "stem")
SAMPLE = ON_TENSORFLOW if keras.backend.backend() == "tensorflow" else ("shared_bottom",)


def built(name, *tasks):
    """A small model with tables whose vectors are far enough from 0 to matter."""
    wide = {"embedding": Embedding(initializer="he_normal")}
    inner = small_arguments(name).get("backbone_options")
    return build(name, *tasks, **(wide if inner is None else {"backbone_options": {**inner, **wide}}))


def log_odds(scores):
    return np.log(scores) - np.log1p(-scores)


def assert_adds_up(found):
    rows = found.rows
    assert rows["complete"].all(), rows
    sizes = found.table.abs().sum(axis=1)
    # Parts that cancel out are held to what they are themselves.
    assert ((rows["relative_gap"] < 0.01) | (np.abs(rows["gap"]) < np.maximum(1e-6, 1e-3 * sizes))).all()
    assert (np.abs(rows["gap"]) < np.maximum(1e-6, 1e-2 * sizes)).all()
    np.testing.assert_allclose(found.table.sum(axis=1), rows["change"], atol=1e-6 + 0.01 * rows["change"].abs().max())


@pytest.mark.extended
@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), SAMPLE))
def test_parts_add_up_to_the_change_of_the_logit(name):
    model, x = built(name), inputs(6)
    blank = {key: np.zeros_like(array) for key, array in x.items()}
    output = model.outputs_info[-1].name  # the product of a funnel, where there is one
    found = mtl_zoo.explain(model, x, output)
    assert_adds_up(found)
    scores, nothing = (model.predict(given, verbose=0)[output][:, 0].astype("float64") for given in (x, blank))
    np.testing.assert_allclose(found.rows["change"], log_odds(scores) - log_odds(nothing), atol=1e-4)
    assert list(found.table) == list(x) and (found.table != 0).any().all(), "each feature of the toys matters"


@pytest.mark.slow
@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_every_output_from_the_mean(name):
    model = built(name, FIVE_TASKS)
    for output in model.outputs_info:
        assert_adds_up(mtl_zoo.explain(model, inputs(6), output.name, baseline="mean", steps=8192))


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_every_kind_of_task_has_margins(kind):
    """What parts add up to: monotone in the score of each unit, so that more of it is more of the score."""
    task = next((t for t in (*FIVE_TASKS, mtl_zoo.RetrievalTask("watch", tower_units=(4,))) if t.kind == kind), None)
    if task is None:
        pytest.skip("a kind of a test")
    logits = np.random.default_rng(0).normal(size=(50, task.logit_units)).astype("float32")
    margins, scores = (keras.ops.convert_to_numpy(f(logits)) for f in (task.margins, task.scores))
    assert margins.shape == scores.shape == (50, task.units)
    for unit in range(task.units):
        order = np.argsort(scores[:, unit])
        assert (np.diff(margins[order, unit]) >= -1e-5).all()


FIRSTS = [examples[0] for kind in FEATURES if (examples := FEATURES[kind].examples())]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("feature", "cells"), FIRSTS, ids=[feature.kind for feature, _ in FIRSTS])
def test_every_kind_of_feature_has_parts(feature, cells):
    click = BinaryTask("click")
    table = pd.DataFrame({feature.source: pd.Series(cells), "click": np.arange(len(cells)) % 2})
    bottom = MLP((3,), activation="tanh")
    transform = FeatureTransform(feature, click).fit(table)
    model = SharedBottom(transform, bottom_units=bottom, tower_units=(), embedding=Embedding(initializer="he_normal"))
    found = mtl_zoo.explain(model, table)
    assert_adds_up(found)
    assert (found.table[feature.name] != 0).any()
