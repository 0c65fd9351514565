"""Scores after an adaptation to a few rows: what they are, and that an export gives the same."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, NegativeSampling, Numeric, RegressionTask, create_model
from mtl_zoo.export import FewShotScorer
from mtl_zoo.models._corrections import Corrections
from mtl_zoo.steps import MAML

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = {"city": rng.choice(["Rome", "Oslo"], 40), "price": rng.normal(size=40)}
    return pd.DataFrame({**rows, "click": rng.integers(0, 2, 40), "stars": rng.normal(3, 2, size=40)})


@pytest.fixture(scope="module")
def model(table):
    keras.utils.set_random_seed(0)
    transform = FeatureTransform(
        [Categorical("city", dim=2), Numeric("price")], [BinaryTask("click"), RegressionTask("stars")]
    ).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(3,))
    model.compile("sgd", step=MAML(inner_rate=0.3, inner_steps=2))
    return model


def test_no_rows_are_the_models_own_scores(model, table):
    found, wanted = FewShotScorer(model)(table), model.predict(table, verbose=0)
    for name, scores in wanted.items():
        np.testing.assert_allclose(found[name], scores, atol=1e-6)


def test_it_scores_as_a_model_that_took_those_steps(model, table):
    """All weights but the table are those of plain gradient descent on the support rows."""
    support = table.head(7)
    found = FewShotScorer(model)(table, support)
    tuned = model.clone()
    tuned.set_weights(model.get_weights())
    tables = [v for v in tuned.trainable_variables if getattr(v, "is_embedding_table", False)]
    assert len(tables) == 1
    rows = tables[0].numpy()
    tuned.compile(keras.optimizers.SGD(0.3), run_eagerly=True)
    for _ in range(2):
        tuned.train_on_batch(support)
        tables[0].assign(rows)
    for name, scores in tuned.predict(table, verbose=0).items():
        np.testing.assert_allclose(found[name], scores, atol=1e-5)
        assert not np.allclose(scores, model.predict(table, verbose=0)[name], atol=1e-3)


def test_the_model_keeps_its_weights(model, table):
    before = model.get_weights()
    FewShotScorer(model)(table, table.head(3))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_are_scored_as_their_table(model, table):
    scorer, transform = FewShotScorer(model), model.transform
    found = scorer(transform.encode(table), transform.encode(table.head(4)), transform.encode_labels(table.head(4)))
    for name, scores in scorer(table, table.head(4)).items():
        np.testing.assert_allclose(found[name], scores, atol=1e-6)


def test_what_is_missing_counts_for_nothing(model, table):
    support = table.head(4).assign(click=[1.0, np.nan, np.nan, np.nan])
    scorer = FewShotScorer(model)
    both, none = scorer(table, support), scorer(table, support.assign(click=np.nan))
    assert not np.allclose(both["click"], none["click"])


def test_an_export_gives_the_same(model, table, tmp_path):
    import tensorflow as tf

    scorer = FewShotScorer(model)
    names = scorer.export(tmp_path / "adapting")
    loaded = tf.saved_model.load(str(tmp_path / "adapting"))
    for count in (0, 5):
        support = table.head(count)
        given = {f"support.{n}": a for n, a in model.transform.raw_arrays(table.head(5)).items()}
        given = {name: array[:count] for name, array in given.items()}
        given |= {f"candidates.{n}": a for n, a in model.transform.raw_arrays(table).items()}
        given |= {f"label.{n}": support[n].to_numpy("float32") for n in ("click", "stars")}
        assert set(names) == set(given)
        scores = loaded.signatures["serving_default"](**{names[n]: tf.constant(a) for n, a in given.items()})
        for name, wanted in scorer(table, support if count else None).items():
            np.testing.assert_allclose(scores[name], wanted, atol=1e-5)
    with pytest.raises(ValueError, match="`path` holds a SavedModel; overwrite=True replaces it"):
        scorer.export(tmp_path / "adapting")


def test_what_is_refused(model, table):
    plain = model.clone()
    plain.compile("sgd")
    with pytest.raises(ValueError, match="`inner_rate` must be given for a model whose training step does not adapt"):
        FewShotScorer(plain)
    FewShotScorer(plain, inner_rate=0.1, inner_steps=1, adapts="towers")(table, table.head(2))
    with pytest.raises(ValueError, match="`labels` must be given with arrays, and not with a table"):
        FewShotScorer(model)(table, table.head(2), {"click": np.zeros(2)})
    with pytest.raises(ValueError, match="`labels` must be given with arrays"):
        FewShotScorer(model)(table, model.transform.encode(table.head(2)))
    with pytest.raises(ValueError, match="must have the same number of rows. Received: .*'click': 3"):
        labels = {"click": np.zeros(3), "stars": np.zeros(2)}
        FewShotScorer(model)(table, model.transform.encode(table.head(2)), labels)
    with pytest.raises(TypeError, match="`model` must be a model of the zoo. Received: str"):
        FewShotScorer("model")


def test_support_rows_are_not_sampled():
    """What a model of sampled rows gives as a share of 1 in 11 is right for 1 of 11 support rows: nothing adapts."""
    model = create_model("shared_bottom", [Numeric("price")], [BinaryTask("click")], bottom_units=(), tower_units=())
    model.compile("sgd")
    for variable in model.weights:
        variable.assign(variable * 0)
    model.set_corrections(Corrections(sampling=NegativeSampling("click", rate=0.1)))
    scorer = FewShotScorer(model, inner_rate=1.0, inner_steps=3, adapts="dense")
    x, clicks = {"price": np.ones(11, "float32")}, {"click": np.eye(11, dtype="float32")[0]}
    np.testing.assert_allclose(scorer(x)["click"], 1 / 11, atol=1e-6)
    np.testing.assert_allclose(scorer(x, x, clicks)["click"], 1 / 11, atol=1e-6)
