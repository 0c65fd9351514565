"""Lists of entities, by every kind of feature that an entity table may have: tables, graphs, files, exports."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import (
    BinaryTask,
    Categorical,
    EntitySequence,
    EntityTable,
    FeatureTransform,
    Numeric,
    Sequence,
    SharedBottom,
    Text,
    Vector,
)
from mtl_zoo.features import TableStream
from mtl_zoo.serving import export

pytestmark = pytest.mark.tensorflow
CLICK, LENGTH = BinaryTask("click"), 3
NEWS = pd.DataFrame(
    {
        "news": [10, 20, 30, 40, 50],
        "topic": ["sport", "art", "sport", None, "new"],
        "title": ["a good film", "bad film", "film", None, "dog"],
        "tags": [["a", "b"], ["b"], [], ["a"], ["z"]],
        "vector": [[1.0, 2.0], [0.0, 1.0], [3.0, 1.0], None, [2.0, 2.0]],
        "year": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)
ROWS = pd.DataFrame(
    {
        "news": [10, 20, 30, 10, 20, 40],
        "history": [[20, 30], [], [10, 20, 30, 40], [50], None, [99, 10]],
        "click": [1, 0, 1, 0, 1, 0],
    }
)
# The last LENGTH ids of each list as places in NEWS; -1 where the table lacks the id.
PLACES = [[1, 2], [], [1, 2, 3], [4], [], [-1, 0]]
LENDERS = {
    "topic": Categorical("topic", dim=4),
    "mean of pieces": Text("title", dim=4, max_length=4, vocabulary_size=60),
    "attention over pieces": Text("title", "attention", dim=4, max_length=4, vocabulary_size=60),
    "tags": Sequence("tags", dim=4, length=2),
    "vector": Vector("vector"),
    "projected vector": Vector("vector", encoder=4),
}
every_lender = pytest.mark.parametrize("lender", LENDERS.values(), ids=LENDERS)


def fitted(lender, rows=ROWS, news=NEWS, **options):
    features = [lender, EntitySequence("history", of=lender.name, **{"length": LENGTH, **options})]
    return FeatureTransform(features, CLICK, entities=EntityTable(news, key="news", side="item")).fit(rows)


@every_lender
def test_lists_hold_what_each_entity_has(lender, tmp_path):
    transform = fitted(lender)
    arrays, (_, feature) = transform.encode(ROWS), transform.features
    assert transform.unseen["history"].values == (99,) and transform.columns == ("history", "news")
    one = transform.encode(pd.DataFrame({"news": [*NEWS["news"], 99], "history": [None] * 6}))
    for name, spec in feature.input_specs().items():
        given = one[lender.name + name.removeprefix("history")]
        wanted = np.zeros((len(ROWS), LENGTH, *given.shape[1:]), given.dtype)
        if name.endswith(".missing"):
            wanted += 1
        for row, places in zip(wanted, PLACES, strict=True):
            row[: len(places)] = given[places]
        assert arrays[name].shape == (len(ROWS), *spec.shape) and arrays[name].dtype == spec.dtype
        np.testing.assert_array_equal(arrays[name].reshape(wanted.shape), wanted)
    raw = transform.raw_arrays(ROWS)
    in_graph = transform.encode_in_graph(raw)
    ROWS.to_parquet(tmp_path / "rows.parquet")
    ((streamed, _),) = TableStream(tmp_path / "rows.parquet", transform).batches(batch_size=len(ROWS))
    for name, array in arrays.items():
        np.testing.assert_allclose(in_graph[name].numpy(), array, atol=1e-6)
        np.testing.assert_array_equal(streamed[name].numpy(), array)


@every_lender
def test_a_model_is_trained_saved_and_goes_on(lender, tmp_path):
    transform = fitted(lender)
    transform.save(tmp_path / "transform")
    again = FeatureTransform.load(tmp_path / "transform")
    assert again.features == transform.features and again.specs == transform.specs
    for name, array in transform.encode(ROWS).items():
        np.testing.assert_array_equal(again.encode(ROWS)[name], array)
    model = SharedBottom(again, bottom_units=(3,), tower_units=())
    model.compile("sgd", run_eagerly=True, metrics=None)
    model.fit(ROWS, batch_size=6, verbose=0)
    scores = model.predict(ROWS, verbose=0)["click"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(ROWS, verbose=0)["click"], scores, atol=1e-6)
    loaded.fit(ROWS, batch_size=6, verbose=0)
    assert np.isfinite(scores).all()
    # An empty list and one of ids that nobody knows say the same.
    odd = loaded.predict(pd.DataFrame({"news": [10, 10], "history": [[], [98, 99]]}), verbose=0)["click"]
    np.testing.assert_allclose(odd[0], odd[1], atol=1e-6)


@pytest.mark.parametrize("encoder", ["din", "gru", "sasrec"])
def test_a_history_is_read_for_the_candidate_and_exported(encoder, tmp_path):
    import tensorflow as tf

    query = None if encoder == "gru" else "title"
    transform = fitted(LENDERS["mean of pieces"], encoder=encoder, query=query)
    model = SharedBottom(transform, bottom_units=(3,), tower_units=())
    scores = model.predict(ROWS, verbose=0)["click"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(ROWS, verbose=0)["click"], scores, atol=1e-6)
    if encoder == "din":
        export(loaded, tmp_path / "exported")
        served = tf.saved_model.load(tmp_path / "exported").signatures["serving_default"]
        raw = transform.raw_arrays(ROWS)
        found = served(**{name: tf.constant(array) for name, array in raw.items()})["click"].numpy()
        np.testing.assert_allclose(found, scores, atol=1e-6)


def test_new_entities_are_known_without_training():
    transform = fitted(LENDERS["topic"])
    more = pd.concat([NEWS, pd.DataFrame({"news": [60], "topic": ["art"]})])
    changed = transform.with_entities(EntityTable(more, key="news", side="item"))
    rows = {"news": [10], "history": [[60, 20]]}
    assert transform.encode(rows)["history"].tolist() == [[0, 3, 0]]
    assert changed.encode(rows)["history"].tolist() == [[3, 3, 0]]


def test_text_lists_are_split():
    news = NEWS.assign(news=NEWS["news"].astype(str))
    rows = ROWS.assign(
        news=ROWS["news"].astype(str),
        history=[None if x is None else ",".join(map(str, x)) for x in ROWS["history"]],
    )
    transform = fitted(LENDERS["topic"], rows, news, separator=",")
    np.testing.assert_array_equal(transform.encode(rows)["history"], fitted(LENDERS["topic"]).encode(ROWS)["history"])


@pytest.mark.parametrize(
    ("lender", "message"),
    [
        (Numeric("year"), "which is a number, which has no vector"),
        (Categorical("news", dim=4), "`of` must name a feature that is read from an entity table"),
        (Sequence("tags", dim=4, length=2, weights=True), "which is a list with weights"),
    ],
)
def test_what_cannot_be_listed_is_refused(lender, message):
    with pytest.raises(ValueError, match=message):
        fitted(lender)


def test_wrong_lists_are_refused():
    topic = LENDERS["topic"]
    with pytest.raises(ValueError, match="`history` must hold whole numbers, as the key 'news'"):
        fitted(topic, ROWS.assign(history=[["x"]] * 6))
    with pytest.raises(ValueError, match="`history` must hold lists, or strings"):
        fitted(topic, ROWS.assign(history=range(6)))
    with pytest.raises(ValueError, match="`query` must name"):
        EntitySequence("history", of="topic", encoder="din")
    with pytest.raises(ValueError, match="`pooling` must be"):
        EntitySequence("history", of="topic", pooling="median")
    with pytest.raises(ValueError, match=r"`of` must name .* which is a list itself"):
        lists = [topic, EntitySequence("a", of="topic"), EntitySequence("b", of="a")]
        FeatureTransform(lists, CLICK, entities=EntityTable(NEWS, key="news"))
    with pytest.raises(ValueError, match=r"Received without: \['history'\]"):
        SharedBottom([EntitySequence("history", of="topic")], CLICK)
    assert (
        dataclasses.replace(EntitySequence("history", of="topic"), length=2).rule
        == "mean of 'topic' of up to 2 entities"
    )
