"""A transform that later tables extend."""

import copy
import logging

import numpy as np
import pandas as pd
import pytest
from feature_tables import CLICK, table

from mtl_zoo import Categorical, EntityTable, FeatureTransform, Neighbours, Numeric, Sequence
from mtl_zoo.features import TableStream

pytestmark = pytest.mark.tensorflow


class Oracle:
    """Ids of one column, kept by dicts and lists, a value at a time."""

    def __init__(self, cells, min_count):
        counts = {v: cells.count(v) for v in cells}
        kept = [v for v in counts if counts[v] >= min_count]
        self.rows = sorted(kept, key=lambda v: (-counts[v], v))
        self.seen, self.waiting, self.now = dict.fromkeys(self.rows, 0), {}, 0

    def extend(self, cells, min_count, evict_after, max_ids=None):
        self.now += 1
        for value in cells:
            if value in self.seen:
                self.seen[value] = self.now
            else:
                count, _ = self.waiting.get(value, (0, 0))
                self.waiting[value] = (count + 1, self.now)
        if evict_after:
            gone = [v for v, last in self.seen.items() if self.now - last >= evict_after]
            for value in gone:
                self.rows[self.rows.index(value)] = None
                del self.seen[value]
            self.waiting = {v: w for v, w in self.waiting.items() if self.now - w[1] < evict_after}
        new = sorted((v for v, w in self.waiting.items() if w[0] >= min_count), key=lambda v: (-self.waiting[v][0], v))
        room = len(new) if max_ids is None else max(max_ids - len(self.seen), 0)
        for value in new[:room]:
            if None in self.rows:
                self.rows[self.rows.index(None)] = value
            else:
                self.rows.append(value)
            self.seen[value] = self.waiting.pop(value)[1]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("min_count", "evict_after", "max_ids"), [(1, None, None), (2, 2, None), (3, 4, 12), (1, 1, 9)]
)
def test_days_of_random_values_give_the_ids_of_a_plain_loop(min_count, evict_after, max_ids, as_text):
    rng = np.random.default_rng(0)
    days = [(rng.zipf(1.6, 40) % 23 + day).tolist() for day in range(8)]
    days = [[f"v{v:03}" for v in day] for day in days] if as_text else days
    oracle = Oracle(days[0], min_count)
    oracle.rows = oracle.rows[:max_ids]
    oracle.seen = dict.fromkeys(oracle.rows, 0)
    transform = FeatureTransform(Categorical("x", min_count=min_count, max_ids=max_ids)).fit({"x": days[0]})
    for day in days[1:]:
        before = transform
        transform = before.extend({"x": day}, evict_after=evict_after)
        oracle.extend(day, min_count, evict_after, max_ids)
        assert transform.values_of("x") == tuple(oracle.rows)
        assert transform.features[0].num_ids == 2 + len(oracle.rows)
        ids = {value: i for i, value in enumerate(oracle.rows, 2) if value is not None}
        every = sorted({v for d in days for v in d})
        assert transform.encode({"x": every})["x"].tolist() == [ids.get(v, 1) for v in every]
        transform.require_extension_of(before)
    (growth,) = transform.growth.to_dict("records")
    assert growth["waiting"] == len(oracle.waiting) and growth["rule"] == "grows"


def test_growth_tells_what_a_table_brought():
    first = FeatureTransform([Categorical("x"), Numeric("n")]).fit({"x": ["a", "b", "a"], "n": [1, 2, 3]})
    assert first.growth.empty and list(first.growth) == list(first.extend({"x": ["a"], "n": [1]}).growth)
    later = first.extend({"x": ["c", "c", "a", "d"], "n": [7, 8, 9, 9]}, min_count=2, evict_after=1)
    x, n = later.growth.to_dict("records")
    assert x == {
        **{"name": "x", "rule": "grows", "ids": 4, "new": 1, "reused": 1},
        **{"evicted": 1, "waiting": 1, "unknown": 0.75},
    }
    assert n["rule"] == "stays" and n["new"] == 0 and pd.isna(n["ids"])
    assert later.values_of("x") == ("a", "c")


def test_what_is_given_stays_and_numbers_are_refitted_only_if_asked():
    features = [
        Categorical("given", vocabulary=("a", "b")),
        Categorical("size", size=3),
        Categorical("hashed", hash_buckets=5),
        Numeric("n"),
        Numeric("bins", normalization="quantile", buckets=2),
    ]
    rows = {"given": ["a", "b"], "size": [0, 2], "hashed": ["x", "y"], "n": [0.0, 2.0], "bins": [1.0, 9.0]}
    more = {"given": ["c", "a"], "size": [7, 1], "hashed": ["z", "z"], "n": [10.0, None], "bins": [50.0, 60.0]}
    transform = FeatureTransform(features).fit(rows)
    kept, refitted = transform.extend(more), transform.extend(more, numbers="refit")
    for name, array in transform.encode(more).items():
        np.testing.assert_array_equal(kept.encode(more)[name], array)
        if name != "n":
            np.testing.assert_array_equal(refitted.encode(more)[name], array)
    assert kept.features == transform.features == refitted.features
    np.testing.assert_allclose(refitted.encode({**more, "n": [10.0, 11.0]})["n"], [0.0, 1.0])
    assert refitted.growth["rule"].tolist() == ["stays", "stays", "stays", "refitted", "stays"]
    assert kept.growth["unknown"].tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]


def test_shared_tables_take_values_of_all_their_columns():
    features = [Categorical("item"), Sequence("history", key="item", length=3)]
    transform = FeatureTransform(features).fit({"item": [1, 2], "history": [[1], [2, 1]]})
    later = transform.extend({"item": [3, 1], "history": [[4, 4, 4], []]})
    assert later.values_of("item") == later.values_of("history") == (1, 2, 4, 3)
    assert later.features[1].num_ids == 6
    fixed = transform.extend({"item": [3, 1], "history": [[4], []]}, fixed=["history"])
    assert fixed.features == transform.features and fixed.growth["rule"].tolist() == ["fixed", "fixed"]


def test_an_all_missing_column_brings_nothing():
    transform = FeatureTransform([Categorical("x"), Numeric("n")]).fit({"x": ["a"], "n": [1.0]})
    later = transform.extend({"x": [None, None], "n": [None, None]}, evict_after=2)
    assert later.features == transform.features and later.values_of("x") == ("a",)


def test_entities_and_neighbours_bring_new_keys():
    films = pd.DataFrame({"film": [7, 8], "genre": ["crime", "war"]})
    friends = pd.DataFrame({"source": ["Ann"], "target": ["Bob"]})
    features = [Categorical("user"), Neighbours("friends", of="user", edges=friends, length=2), Categorical("genre")]
    rows = {"user": ["Ann", "Bob"], "film": [7, 8]}
    transform = FeatureTransform(features, entities=EntityTable(films, key="film")).fit(rows)
    more = pd.DataFrame({"film": [7, 8, 9], "genre": ["crime", "war", "comic"]})
    edges = pd.DataFrame({"source": ["Ann", "Ann"], "target": ["Bob", "Cid"]})
    day = {"user": ["Cid", "Ann"], "film": [9, 8]}
    later = transform.extend(
        day, entities=EntityTable(more, key="film"), features=Neighbours("friends", of="user", edges=edges, length=2)
    )
    found = later.encode({"user": ["Ann", "Cid"], "film": [7, 9]})
    assert found["friends"].tolist() == [[3, 4], [0, 0]] and found["genre"].tolist() == [2, 4]
    assert transform.encode(rows)["friends"].tolist() == [[3, 0], [0, 0]]
    later.require_extension_of(transform)


def test_it_is_copied_pickled_and_logged(caplog):
    transform = FeatureTransform(Categorical("x")).fit({"x": ["a", "b"]})
    with caplog.at_level(logging.INFO, "mtl_zoo.features._extending"):
        later = transform.extend({"x": ["c"]}, evict_after=1)
    assert "extended by new values of {'x': 1}" in caplog.text
    copied = copy.deepcopy(later)
    assert copied.extend({"x": ["d"]}).values_of("x") == later.extend({"x": ["d"]}).values_of("x") == ("c", "d")
    raw = later.raw_arrays({"x": ["a", "c", "", "d"]})
    assert later.encode_in_graph(raw)["x"].numpy().tolist() == [1, 2, 0, 1]
    assert later.fit({"x": ["z"]}).growth.empty


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_count": 0}, "`min_count` must be a whole number >= 1"),
        ({"evict_after": 1.5}, "`evict_after` must be a whole number >= 1"),
        ({"numbers": "new"}, "`numbers` must be one of"),
        ({"fixed": ["y"]}, r"`fixed` must list features. Received: fixed=\['y'\]"),
        ({"fixed": "x"}, "`fixed` must list features"),
        ({"features": [Categorical("y")]}, "`features` must take the place of features of the transform"),
        ({"features": [Categorical("x", dim=3)]}, "`features` must be those of the transform, save for what"),
        ({"entities": EntityTable({"k": [1]}, key="k")}, "`entities` must be new tables for some of"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, message):
    transform = FeatureTransform(Categorical("x")).fit({"x": ["a", "b"]})
    with pytest.raises(ValueError, match=message):
        transform.extend({"x": ["c"]}, **arguments)


def test_a_wrong_table_is_refused():
    transform = FeatureTransform(Categorical("x"))
    with pytest.raises(ValueError, match="`fit` must be called first"):
        transform.extend({"x": ["c"]})
    transform.fit({"x": ["a"]})
    with pytest.raises(ValueError, match="`x` must hold strings"):
        transform.extend({"x": [3]})
    with pytest.raises(ValueError, match="`table` lacks 1 columns"):
        transform.extend({"z": ["a"]})


def test_a_refitted_transform_is_refused_by_name_and_value(tmp_path):
    rows = table(city=["a", "a", "b"], n=[1.0, 2.0, 3.0])
    features = [Categorical("city"), Numeric("n")]
    first = FeatureTransform(features, CLICK).fit(rows)
    again = FeatureTransform(features, CLICK).fit(table(city=["b", "b", "a"], n=[1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"feature 'city': 2 of its 2 values have other ids: 'a' has id 3 and had 2"):
        again.require_extension_of(first)
    gone = FeatureTransform(features, CLICK).fit(table(city=["z", "y", "z"], n=[1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="2 of its 2 values have no id any more, and no extension evicted them"):
        gone.require_extension_of(first)
    wider = FeatureTransform([Categorical("city", dim=3), Numeric("n")], CLICK).fit(rows)
    with pytest.raises(ValueError, match="`transform` must have the features of the model's transform"):
        wider.require_extension_of(first)
    numbers = FeatureTransform(features, CLICK).fit(table(city=[1, 2, 3], n=[1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="its values are of another type"):
        numbers.require_extension_of(first)
    # One that knows all values by the same ids is no other, whoever made it.
    FeatureTransform(features, CLICK).fit(rows).extend(rows).require_extension_of(first)
    rows.to_parquet(tmp_path / "rows.parquet")
    assert TableStream(tmp_path / "rows.parquet", again).rows == 3
