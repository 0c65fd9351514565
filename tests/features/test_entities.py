"""What is known of an item or a user stands once, in a table of its own."""

import logging

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mtl_zoo import BinaryTask, Categorical, EntityTable, FeatureTransform, Numeric, Sequence, SharedBottom
from mtl_zoo.export import export_serving, make_scorer
from mtl_zoo.features.base import Feature
from mtl_zoo.features.cache import transform_hash
from mtl_zoo.features.requests import InputSpec, Number

pytestmark = pytest.mark.tensorflow
CLICK = BinaryTask("click")


def films(**changes):
    return pd.DataFrame(
        {
            "film": [10, 20, 30, 40],
            "genre": ["war", "drama", "crime", "only a cold film has it"],
            "year": [1990.0, 2010.0, np.nan, 2050.0],
            "tags": [["a", "b"], ["b"], [], ["z"]],
            **changes,
        }
    )


RATINGS = pd.DataFrame(
    {
        "user": ["Ann", "Bob", "Ann", "Bob", "Cid"],
        "film": [20, 20, 10, 30, 20],
        "hour": [1, 2, 3, 4, 5],
        "click": [1, 0, 1, 0, 1],
    }
)
FEATURES = (
    Categorical("user", side="user"),
    Categorical("film"),
    Categorical("genre", dim=4),
    Numeric("year"),
    Sequence("tags", length=2, dim=4),
    Numeric("hour"),
)


def fitted(features=FEATURES, table=None, **options):
    items = EntityTable(films() if table is None else table, key="film", **options)
    return FeatureTransform(features, CLICK, entities=items).fit(RATINGS)


def test_values_are_learned_from_the_entities_that_rows_name():
    transform = fitted()
    assert transform.values_of("genre") == ("crime", "drama", "war")  # once each, and not the cold film's
    assert set(transform.values_of("tags")) == {"a", "b"}
    arrays = transform.encode(RATINGS)
    np.testing.assert_allclose(arrays["year"], [1, 1, -1, 0, 1])  # the mean of 1990 and 2010, not of rows
    assert transform.describe().set_index("name")["distinct"].to_dict()["genre"] == 3
    assert arrays["genre"].tolist() == [3, 3, 4, 2, 3]


def test_an_entity_that_no_row_named_is_read_all_the_same():
    arrays = fitted().encode({"user": ["Ann"], "film": [40], "hour": [1]})
    assert arrays["genre"].tolist() == [1] and arrays["year"].tolist() == [5.0]
    assert arrays["film"].tolist() == [1] and arrays["tags"].tolist() == [[1, 0]]


def test_an_id_of_no_entity_and_a_missing_one_are_missing_and_counted(caplog):
    transform = fitted()
    table = pd.DataFrame({"user": ["Ann"] * 4, "film": pd.array([99, None, 20, 99], "Int64"), "hour": [1] * 4})
    with caplog.at_level(logging.WARNING):
        arrays = transform.encode(table)
    assert arrays["genre"].tolist() == [0, 0, 3, 0]
    assert arrays["year.missing"].tolist() == [1, 1, 0, 1] and arrays["tags"].tolist()[0] == [0, 0]
    lost = transform.unseen["film.entity"]
    assert (lost.count, lost.share, lost.values) == (3, 0.75, (99, None))
    assert "film.entity: 3 values (75.00%), for example [99, None]" in caplog.text
    assert sum(len(p["film"]) for p in transform.encode_in_pieces(table, 3)) == 4
    assert transform.unseen["film.entity"].count == 3
    graph = transform.encode_in_graph(transform.raw_arrays(table))
    for name, array in arrays.items():
        np.testing.assert_allclose(graph[name].numpy(), array, atol=1e-6)


def test_missing_entities_in_training_count_as_missing_values():
    whole = films(year=[1990.0, 2010.0, 2020.0, 2050.0])
    assert not fitted(table=whole).features[3].indicator
    rows = RATINGS.assign(film=[20, 20, 10, 30, 77])
    transform = FeatureTransform(FEATURES, CLICK, entities=EntityTable(whole, key="film")).fit(rows)
    assert transform.features[3].indicator
    assert transform.encode(rows)["year.missing"].tolist() == [0, 0, 0, 0, 1]


def test_a_feature_that_cannot_be_missing_refuses_rows_without_an_entity():
    features = (Categorical("film"), Numeric("length", missing=None))
    transform = fitted(features, films(length=[1, 2, 3, 4]))
    assert transform.encode({"film": [20, 30]})["length"].tolist() == [0.0, pytest.approx(1.2247449)]
    with pytest.raises(ValueError, match="`film` must name an entity of 'film' in every row.*1 of 2 rows"):
        transform.encode({"film": [20, 99]})
    raw = {"film": np.array([20, 99])}
    assert transform.encode_in_graph(raw)["length"].numpy().tolist() == [0.0, 0.0]


def test_wholes_stay_whole_beside_a_missing_entity():
    big = 2**60 + 1
    table = pd.DataFrame({"film": [10, 20], "maker": [big, big + 1], "old": [True, False]})
    rows = pd.DataFrame({"film": [10, 20, 5]})
    features = [Categorical("maker"), Categorical("old")]
    transform = FeatureTransform(features, entities=EntityTable(table, key="film")).fit(rows)
    assert set(transform.values_of("maker")) == {big, big + 1}
    assert transform.encode(rows)["maker"].tolist() == [2, 3, 0]


@pytest.mark.parametrize("as_column", [str, np.float64, lambda x: x])
def test_ids_are_found_however_they_are_stored(as_column):
    keyed = films(film=[as_column(x) for x in films()["film"]])
    rows = RATINGS.assign(film=[as_column(x) for x in RATINGS["film"]])
    transform = FeatureTransform(Categorical("genre"), entities=EntityTable(keyed, key="film")).fit(rows)
    assert transform.encode(pa.Table.from_pandas(rows))["genre"].tolist() == [3, 3, 4, 2, 3]


def test_several_tables_and_ids_of_another_name():
    people = pd.DataFrame({"id": ["Ann", "Bob", "Cid"], "genre": ["x", "y", "x"], "age": [20, 30, 40]})
    tables = [
        EntityTable(films(), key="film", side="item"),
        EntityTable(people, key="id", column="user", side="user", name="people"),
        EntityTable(people, key="id", column="friend", name="friends"),
    ]
    features = [
        Categorical("genre", column="film.genre"),
        Categorical("likes", column="people.genre"),
        Categorical("friend_likes", column="friends.genre", key="likes"),
        Numeric("age", column="people.age", side="item"),
    ]
    rows = RATINGS.assign(friend=["Bob", "Cid", None, "Ann", "Dan"], age=1)
    transform = FeatureTransform(features, CLICK, entities=tables).fit(rows)
    arrays = transform.encode(rows)
    assert [f.side for f in transform.features] == ["item", "user", None, "item"]
    assert arrays["likes"].tolist() == [2, 3, 2, 3, 2] and arrays["friend_likes"].tolist() == [3, 2, 0, 2, 0]
    assert transform.columns == ("film", "user", "friend")
    assert transform.unseen["friends.entity"].count == 2


def test_what_is_ambiguous_is_refused_by_name():
    both = [EntityTable(films(), key="film"), EntityTable(films(), key="film", name="again")]
    with pytest.raises(ValueError, match="which entity table feature 'genre'.*'film.genre', 'again.genre'"):
        FeatureTransform(Categorical("genre"), entities=both)
    with pytest.raises(ValueError, match="`entities` must have different names"):
        FeatureTransform(Categorical("genre"), entities=both[:1] * 2)
    transform = FeatureTransform(Categorical("genre"), entities=both[0])
    with pytest.raises(ValueError, match="`column` must say where feature 'genre' is read from.*'film.genre'"):
        transform.fit(RATINGS.assign(genre="x"))
    named = FeatureTransform(Categorical("genre", column="film.genre"), entities=both[0])
    assert named.fit(RATINGS.assign(genre="x")).values_of("genre") == ("crime", "drama", "war")


def test_tables_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="`film` must hold each id once.*2 of 3 rows with \\[1\\]"):
        EntityTable({"film": [1, 2, 1]}, key="film")
    with pytest.raises(ValueError, match="`film` must hold an id in every row.*1 of 2 rows with \\[(None|nan)\\]"):
        EntityTable({"film": ["a", None]}, key="film")
    with pytest.raises(ValueError, match="`table` lacks 1 columns.*'movie'"):
        EntityTable({"film": [1]}, key="movie")
    with pytest.raises(ValueError, match="`key` must name a column. Received: key=''"):
        EntityTable({"film": [1]}, key="")
    with pytest.raises(ValueError, match="`column` must name a column. Received: column=3"):
        EntityTable({"film": [1]}, key="film", column=3)
    with pytest.raises(ValueError, match="`side`"):
        EntityTable({"film": [1]}, key="film", side="films")
    with pytest.raises(TypeError, match="`entities` must be an EntityTable"):
        FeatureTransform(Categorical("genre"), entities=[films()])
    with pytest.raises(ValueError, match="`film` must hold strings, as the key 'film'.*Received: whole numbers"):
        fitted(table=films(film=list("abcd")))
    with pytest.raises(ValueError, match="`film` must hold an id of the entity table 'film' in some row"):
        FeatureTransform(FEATURES, entities=EntityTable(films(), key="film")).fit(RATINGS.assign(film=None))
    with pytest.raises(ValueError, match="lacks 1 columns. Received without: \\['film'\\]"):
        fitted().encode({"user": ["Ann"], "hour": [1]})
    with pytest.raises(ValueError, match="must not read 'click'"):
        FeatureTransform(Categorical("click"), CLICK, entities=EntityTable(films(click=1), key="film"))


def test_a_leak_in_an_entity_table_is_seen():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"film": rng.integers(0, 50, 400)})
    rows["click"] = rows["film"] % 2
    table = pd.DataFrame({"film": range(49), "odd": np.arange(49) % 2, "plain": rng.normal(size=49)})
    features = [Numeric("odd"), Numeric("plain")]
    with pytest.warns(UserWarning, match="`odd` alone predicts 'click'"):
        FeatureTransform(features, CLICK, entities=EntityTable(table, key="film")).fit(rows[rows["film"] < 49])


def test_new_entities_need_no_training(tmp_path):
    import tensorflow as tf

    transform = fitted()
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.save(tmp_path / "model.keras")
    new = films(film=[10, 20, 50, 60], genre=["crime", "drama", "crime", "new"])
    changed = transform.with_entities(EntityTable(new, key="film"))
    asked = {"user": ["Ann"] * 3, "film": [10, 50, 30], "hour": [1] * 3}
    assert transform.encode(asked)["genre"].tolist() == [4, 0, 2]
    assert changed.encode(asked)["genre"].tolist() == [2, 2, 0]
    assert changed.features == transform.features and transform_hash(changed) != transform_hash(transform)

    served = keras.saving.load_model(tmp_path / "model.keras")
    old = make_scorer(served, raw=True)
    raw = transform.raw_arrays(asked)
    before = served.predict(asked, verbose=0)["click"]
    served.update_entities(EntityTable(new, key="film"))
    scores = served.predict(asked, verbose=0)["click"]
    assert not np.allclose(scores, before)
    np.testing.assert_allclose(scores, model.predict(changed.encode(asked), verbose=0)["click"], atol=1e-6)
    np.testing.assert_allclose(make_scorer(served, raw=True)(raw)["click"], scores, atol=1e-6)
    np.testing.assert_allclose(old(raw)["click"], before, atol=1e-6)
    export_serving(served, tmp_path / "exported")
    loaded = tf.saved_model.load(tmp_path / "exported")
    tensors = {name: tf.constant(array) for name, array in raw.items()}
    np.testing.assert_allclose(loaded.score(tensors)["click"], scores, atol=1e-6)
    with pytest.raises(ValueError, match="`fit` must not be called"):
        served.transform.fit(RATINGS)
    served.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.predict(asked, verbose=0)["click"], scores, atol=1e-6)


def test_new_tables_that_do_not_fit_are_refused():
    transform = fitted()
    with pytest.raises(ValueError, match="`entities` must be new tables for some of \\['film'\\].*\\['user'\\]"):
        transform.with_entities(EntityTable({"user": [1]}, key="user"))
    with pytest.raises(ValueError, match="whole numbers in column 'film'. Received: strings"):
        transform.with_entities(EntityTable(films(film=list("abcd")), key="film"))
    with pytest.raises(ValueError, match="lacks 1 columns. Received without: \\['genre'\\]"):
        transform.with_entities(EntityTable(films().drop(columns="genre"), key="film"))
    with pytest.raises(ValueError, match="`genre` must hold strings"):
        transform.with_entities(EntityTable(films(genre=[1, 2, 3, 4]), key="film"))
    with pytest.raises(ValueError, match="`fit` must be called first"):
        FeatureTransform(FEATURES, entities=EntityTable(films(), key="film")).with_entities(())
    plain = SharedBottom([Categorical("user", size=3)], CLICK, bottom_units=(2,), tower_units=())
    with pytest.raises(ValueError, match="`entities` need a transform"):
        plain.update_entities(EntityTable(films(), key="film"))


def test_a_scorer_ranks_entities_by_their_ids():
    model = SharedBottom(fitted(), bottom_units=(4,), tower_units=())
    candidates = np.array([30, 10, 99])
    table = pd.DataFrame({"user": "Ann", "hour": 3, "film": candidates})
    scores = model.predict(table, verbose=0)["click"]
    scorer = make_scorer(model, raw=True)
    ranked = scorer.rank({"user": "Ann", "hour": 3.0}, {"film": candidates})["click"]
    np.testing.assert_allclose(ranked, scores, atol=1e-6)
    of_item = scorer.rank({"film": 10, "hour": 3.0}, {"user": np.array(["Ann", "Bob"], object)})["click"]
    np.testing.assert_allclose(of_item[0], scores[1], atol=1e-6)
    np.testing.assert_allclose(model.predict(dict(table.items()), verbose=0)["click"], scores, atol=1e-6)


class Counted(Feature):
    """A feature that says how many cells it was asked to encode."""

    kind = "counted"
    cells = 0

    def input_specs(self):
        return {self.name: InputSpec((), "float32")}

    def embed(self):
        return Number()

    def encode(self, state, column, fitted):
        Counted.cells += len(column.series)
        return {self.name: column.series.astype("string").str.len().to_numpy(np.float32, na_value=0)}, None


def test_each_entity_is_encoded_once():
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"film": np.arange(1700), "story": ["word " * int(n) for n in rng.integers(1, 300, 1700)]})
    rows = pd.DataFrame({"film": rng.integers(0, 1700, 1_000_000)})
    transform = FeatureTransform(Counted("story"), entities=EntityTable(items, key="film")).fit(rows)
    Counted.cells = 0
    for _ in range(2):
        encoded = transform.encode(rows)["story"]
    assert Counted.cells == 1701  # and the missing one
    np.testing.assert_array_equal(encoded, items["story"].str.len().to_numpy()[rows["film"]])


def test_transforms_without_entities_are_as_before():
    transform = FeatureTransform(FEATURES[:2], CLICK).fit(RATINGS)
    # Computed by the version before entity tables.
    assert transform_hash(transform) == "f000ce7d70a36c89f803044320e025079b2b2a720768f2f28389e6e643c72846"
    assert transform.entities == ()
