"""Several sources of rows: their tables as one, how rows are mixed, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from several_sources import FEATURES, fitted, make_model, tables

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, JointSources, RegressionTask, Source
from mtl_zoo._types import SOURCE_INPUT
from mtl_zoo.features.streaming import TableStream

pytestmark = pytest.mark.tensorflow


# One transform over all.


def test_what_a_source_lacks_is_missing_in_it(transform):
    both = tables()
    arrays = transform.encode(both["reviews"])
    assert set(arrays["film"]) == set(arrays["domain"]) == {0}
    assert set(arrays["age"]) == {0.0} and set(arrays["age.missing"]) == {1.0}
    assert set(transform.encode(both["ratings"])["word"]) == {0}
    labels = transform.encode_labels(both["reviews"])
    assert np.isnan(labels["like"]).all()
    np.testing.assert_allclose(labels["stars"], both["reviews"]["stars"], rtol=1e-6)
    assert "buy" in transform.encode_labels(both["ratings"])


def test_ids_of_all_sources_are_one_vocabulary(transform):
    both = tables()
    users = set(both["ratings"]["user"]) | set(both["reviews"]["user"])
    assert set(transform.values_of("user")) == users
    assert set(transform.values_of("domain")) == {"ratings", "reviews"}


def test_whole_numbers_beyond_what_floats_hold_stay_apart():
    big = 2**60
    sources = JointSources({"a": {"user": [big, big + 1], "y": [0, 1]}, "b": {"item": [1], "z": [1]}})
    found = FeatureTransform(Categorical("user"), [BinaryTask("y"), BinaryTask("z")]).fit(sources)
    assert set(found.values_of("user")) == {big, big + 1}


def test_columns_that_no_source_lacked_are_still_asked_for(transform):
    with pytest.raises(ValueError, match=r"`table` lacks 1 columns. Received without: \['user'\]"):
        transform.encode(tables()["reviews"].drop(columns="user"))
    with pytest.raises(ValueError, match=r"lacks 1 columns. Received without: \['word'\]"):
        transform.encode(tables()["reviews"].drop(columns="word"))  # of which each source has some


def test_a_saved_transform_knows_what_sources_lack(transform, tmp_path):
    transform.save(tmp_path / "t")
    again = FeatureTransform.load(tmp_path / "t")
    assert again.absent == transform.absent
    for name, array in transform.encode(tables()["reviews"]).items():
        np.testing.assert_array_equal(again.encode(tables()["reviews"])[name], array)


def test_an_export_takes_the_missing_columns(transform):
    table = tables()["reviews"]
    raw = transform.raw_arrays(table)
    assert raw["film"].tolist() == [-(2**63)] * len(table) and set(raw["source"]) == {""}
    for name, array in transform.encode(table).items():
        np.testing.assert_allclose(transform.encode_in_graph(raw)[name], array, rtol=1e-6)


def test_a_sample_space_that_a_source_lacks_is_left_and_a_weight_is_one():
    tasks = [BinaryTask("click"), BinaryTask("buy", sample_space="shown")]
    sources = JointSources({"a": {"user": [1, 2], "click": [0, 1], "w": [2.0, 3.0]}, "b": {"user": [1], "buy": [1]}})
    with pytest.raises(ValueError, match=r"`sources` must hold every column .* Received without: \['shown'\]"):
        FeatureTransform(Categorical("user"), tasks).fit(sources)
    sources.sources["b"].data["shown"] = 1
    found = FeatureTransform(Categorical("user"), tasks, sample_weight="w").fit(sources)
    assert found.encode_labels(sources.sources["a"].data)["shown"].tolist() == [0, 0]
    assert found.encode_weights(sources.sources["b"].data).tolist() == [1]


# How rows are mixed.

SIZES = {"a": range(80), "b": range(20), "c": range(5)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [80, 20, 5]),
        ({"epoch": "smallest"}, [80, 20, 5]),
        ({"temperature": 2.0}, [80, 40, 20]),
        ({"temperature": 2.0, "epoch": "smallest"}, [20, 10, 5]),
        ({"mixing": {"a": 1, "b": 1, "c": 2}}, [80, 80, 160]),
        ({"mixing": {"a": 1, "b": 1, "c": 2}, "epoch": "smallest"}, [2, 2, 5]),
        ({"epoch": 21}, [128, 32, 8]),
        ({"alternating": True}, [80, 16, 8]),
        ({"alternating": True, "epoch": 4}, [16, 8, 8]),
        ({"mixing": {"a": 1, "b": 10_000, "c": 1}, "epoch": 1}, [1, 6, 1]),
    ],
)
def test_rows_of_an_epoch(options, expected):
    sources = JointSources({name: {"user": values} for name, values in SIZES.items()}, **options)
    assert list(sources.rows_of_epoch(batch_size=8).values()) == expected


def drawn(sources, transform, epochs=1, batch_size=8, first=0, start=0):
    """Of each batch, the number of each row's source and its user."""
    data = sources.bound(transform).batches(batch_size, shuffle=True, seed=3, epoch=first, start=start)
    found = []
    for _ in range(epochs):
        found.append([(x[SOURCE_INPUT].numpy(), x["user"].numpy(), y) for x, y in data])
    return found


@pytest.fixture(scope="module")
def numbered():
    """Users that say which row of which source they are."""
    parts = {"a": {"user": range(30), "y": [0.0] * 30}, "b": {"user": range(100, 107), "z": [1.0] * 7}}
    sources = JointSources(parts)
    return parts, FeatureTransform(Categorical("user"), [RegressionTask("y"), RegressionTask("z")]).fit(sources)


@pytest.mark.parametrize("options", [{}, {"mixing": {"a": 1, "b": 1}}, {"epoch": 3}, {"alternating": True}])
def test_each_source_is_drawn_from_without_replacement(numbered, options):
    parts, transform = numbered
    sources = JointSources(parts, **options)
    epochs = drawn(sources, transform, epochs=4)
    counts = list(sources.rows_of_epoch(8).values())
    for number, (name, part) in enumerate(parts.items()):
        users = [np.concatenate([user[source == number] for source, user, _ in batches]) for batches in epochs]
        assert {len(u) for u in users} == {counts[number]}, name
        seen = np.unique(np.concatenate(users), return_counts=True)[1]
        # Whole passes, and a part of one more.
        assert seen.max() - seen.min() <= 1 or len(seen) < len(part["user"])
        assert seen.max() == -(-4 * counts[number] // len(part["user"]))
    if options.get("alternating"):
        assert all(len(set(source)) == 1 and len(source) == 8 for source, _, _ in epochs[0])


def test_an_order_depends_on_the_seed_and_the_epoch_alone(numbered):
    parts, transform = numbered
    sources = JointSources(parts, temperature=3.0)
    first, second = drawn(sources, transform, epochs=2)
    assert not np.array_equal(first[0][1], second[0][1])
    (rest,) = drawn(sources, transform, first=1, start=2)
    assert len(rest) == len(second) - 2
    for (_, expected, labels), (_, users, same) in zip(second[2:], rest, strict=True):
        np.testing.assert_array_equal(users, expected)
        np.testing.assert_array_equal(same["z"], labels["z"])


def test_labels_go_with_their_rows(numbered):
    parts, transform = numbered
    for source, _, labels in drawn(JointSources(parts), transform)[0]:
        np.testing.assert_array_equal(np.isnan(labels["y"]), source == 1)
        np.testing.assert_array_equal(np.isnan(labels["z"]), source == 0)


def test_rows_that_are_not_mixed_come_once_and_spread(numbered):
    parts, transform = numbered
    data = JointSources(parts, mixing={"a": 1, "b": 9}).bound(transform).batches(8)
    sources = np.concatenate([x[SOURCE_INPUT].numpy() for x, _ in data])
    assert np.bincount(sources).tolist() == [30, 7]
    assert np.abs(np.diff(np.flatnonzero(sources == 1)) - 30 / 7).max() <= 2


# Streams.


def test_a_stream_beside_a_table_gives_the_rows_of_its_files(transform, stream):
    sources = JointSources({"ratings": tables()["ratings"], "reviews": stream}, mixing={"ratings": 4, "reviews": 3})
    data = sources.bound(transform).batches(8, shuffle=True, seed=1)
    expected = transform.encode_labels(tables()["reviews"])["stars"]
    position, domains = 0, set()
    for epoch in range(3):
        of_stream = [
            (x["domain"].numpy()[x[SOURCE_INPUT] == 1], y["stars"].numpy()[x[SOURCE_INPUT] == 1]) for x, y in data
        ]
        stars = np.concatenate([labels for _, labels in of_stream])
        domains |= {int(d) for found, _ in of_stream for d in found}
        assert len(stars) == 30 == 2 * len(expected)  # two passes
        np.testing.assert_allclose(np.sort(stars[:15]), np.sort(expected), err_msg=f"epoch {epoch}")
        position += 1
    assert domains == {transform.values_of("domain").index("reviews") + 2}
    again = JointSources({"ratings": tables()["ratings"], "reviews": stream}, mixing={"ratings": 4, "reviews": 3})
    first = list(again.bound(transform).batches(8, shuffle=True, seed=1, epoch=1))
    rest = list(again.bound(transform).batches(8, shuffle=True, seed=1, epoch=1, start=5))
    for (_, a), (_, b) in zip(first[5:], rest, strict=True):
        np.testing.assert_array_equal(a["stars"], b["stars"])


def test_files_lack_what_a_source_lacks_and_nothing_else(transform, tmp_path):
    tables()["reviews"].drop(columns="stars").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match=r"lacks 1 columns. Received without: \['stars'\]"):
        TableStream(tmp_path / "x.csv", transform)
    tables()["reviews"].to_csv(tmp_path / "y.csv", index=False)
    assert "film" not in TableStream(tmp_path / "y.csv", transform).columns


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JointSources({}), "`sources` must be a dict of sources by name"),
        (lambda: JointSources({"all": {"user": [1]}}), "`sources` must not hold one named 'all'"),
        (lambda: JointSources({"a": 3}), r"`table` must be a pandas DataFrame.*\(source 'a'\)"),
        (lambda: JointSources({"a": pd.DataFrame({"user": []})}), r"at least one row.*\(source 'a'\)"),
        (lambda: JointSources({"a": {"source": [1]}}), "`column` must be a name that no table has a column of"),
        (lambda: JointSources({"a": {"x": [1]}}, mixing="even"), "`mixing` must be 'proportional' or a dict"),
        (lambda: JointSources({"a": {"x": [1]}}, mixing={"b": 1}), "`mixing` must hold a ratio for each source"),
        (lambda: JointSources({"a": {"x": [1]}}, mixing={"a": 0}), r"`mixing\['a'\]` must be a finite number"),
        (lambda: JointSources({"a": {"x": [1]}}, temperature=0), "`temperature` must be"),
        (lambda: JointSources({"a": {"x": [1]}}, mixing={"a": 1}, temperature=2), "`temperature` must be 1 with given"),
        (lambda: JointSources({"a": {"x": [1]}}, alternating=1), "`alternating` must be True or False"),
        (lambda: JointSources({"a": {"x": [1]}}, epoch="all"), "`epoch` must be one of the known values"),
        (lambda: JointSources({"a": {"x": [1]}}, epoch=0), "`epoch` must be a whole number >= 1"),
        (lambda: JointSources({"a": {"x": [1]}}, column=""), "`column` must name a column"),
        (lambda: Source({"x": [1]}, tasks=[]), "`tasks` must name at least one task"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_contradicting_columns_are_named():
    sources = JointSources({"a": {"user": [1, 2], "y": [0, 1]}, "b": {"user": ["x", "y"], "y": [0, 1]}})
    with pytest.raises(ValueError, match=r"`user` must hold the same kind of values in all sources. Received: \{'a'"):
        FeatureTransform(Categorical("user"), BinaryTask("y")).fit(sources)


def test_tasks_without_labels_are_named(transform):
    both, model = tables(), make_model(transform)
    with pytest.raises(ValueError, match="Received: task 'like', whose label 'like' is in none"):
        model.fit(JointSources({"reviews": both["reviews"]}))
    empty = both["ratings"].assign(like=np.nan)
    with pytest.raises(ValueError, match=r"`like`, the label of task 'like', must be observed .* in \['ratings'\]"):
        model.fit(JointSources({"ratings": empty, "reviews": both["reviews"]}))
    wrong = {"ratings": Source(both["ratings"], tasks=["stars"]), "reviews": both["reviews"]}
    with pytest.raises(ValueError, match=r"`tasks` of source 'ratings' must name .* Received: \['stars'\]"):
        model.fit(JointSources(wrong))
    bad = both["ratings"].assign(like=7)
    with pytest.raises(ValueError, match=r"`like` .*\(source 'ratings'\)"):
        model.fit(JointSources({"ratings": bad, "reviews": both["reviews"]}))


def test_arguments_that_sources_leave_no_room_for(transform):
    model, sources = make_model(transform), JointSources(tables())
    with pytest.raises(ValueError, match="`shuffle` must be True with JointSources"):
        model.fit(sources, shuffle=False)
    with pytest.raises(ValueError, match="`y` and `sample_weight` must be None with streams and sources"):
        model.fit(sources, {"like": [0]})
    with pytest.raises(ValueError, match="`epoch` must have room for each of the 2 sources"):
        model.fit(JointSources(tables(), epoch=1, alternating=True))
    with pytest.raises(ValueError, match="`start` must be below the 2 batches"):
        sources.bound(transform).batches(32, start=2)
    plain = mtl_zoo.create_model("shared_bottom", [Categorical("user", size=3)], [BinaryTask("like")])
    plain.compile("sgd")
    with pytest.raises(ValueError, match="only if the model was made with a fitted FeatureTransform"):
        plain.fit(sources)


def test_streams_are_refused_where_all_rows_are_needed(transform, stream):
    sources = JointSources({"ratings": tables()["ratings"], "reviews": stream})
    with pytest.raises(ValueError, match=r"`sources` must be tables where all rows are needed .* \['reviews'\]"):
        sources.table()
    other = fitted(features=FEATURES[:1])
    with pytest.raises(ValueError, match=r"`data` must be a stream .*\(source 'reviews'\)"):
        sources.bound(other)


def test_a_stream_whose_transform_gives_other_ids_is_refused(transform, tmp_path):
    swapped = {name: frame.assign(user=20 - frame["user"]) for name, frame in tables().items()}
    other = fitted(JointSources(swapped))
    assert len(other.values_of("user")) == len(transform.values_of("user"))
    tables()["ratings"].to_csv(tmp_path / "ratings.csv", index=False)
    sources = JointSources({"ratings": TableStream(tmp_path / "ratings.csv", other), "reviews": tables()["reviews"]})
    with pytest.raises(ValueError, match="other ids.*source 'ratings'"):
        make_model(transform).fit(sources, verbose=0)


@pytest.mark.parametrize("of_sources", [False, True])
def test_later_rows_of_one_source_extend_what_all_have_learned(transform, of_sources):
    reviews = tables(seed=3)["reviews"].assign(user=30, word="fine")
    later = transform.extend(JointSources({"reviews": reviews}) if of_sources else reviews)
    new = later.growth.set_index("name")["new"]
    assert new.to_dict() == {"user": 1, "film": 0, "age": 0, "word": 1, "domain": 0}
    assert later.encode(reviews)["user"][0] == len(transform.values_of("user")) + 2
    for table in tables().values():
        assert all((a == b).all() for a, b in zip(*(t.encode(table).values() for t in (transform, later)), strict=True))
    sources = JointSources({"ratings": tables()["ratings"], "reviews": reviews})
    make_model(transform).extended(later).fit(sources, verbose=0)
    with pytest.raises(ValueError, match="user"):
        transform.extend(reviews.drop(columns="user"))


def test_sources_without_a_sample_space_or_weight_are_evaluated_as_they_are_trained():
    rng = np.random.default_rng(0)
    first = {"user": rng.integers(0, 5, 20), "like": rng.integers(0, 2, 20), "seen": np.ones(20), "w": rng.random(20)}
    second = {"user": rng.integers(0, 5, 10), "buy": rng.integers(0, 2, 10)}
    sources = JointSources({"a": first, "b": second})
    tasks = [BinaryTask("like", sample_space="seen"), BinaryTask("buy")]
    model = make_model(FeatureTransform(Categorical("user", dim=2), tasks, sample_weight="w").fit(sources))
    found = mtl_zoo.evaluate(model, sources).set_index(["source", "task", "metric"])["observed"]
    assert found["all", "like", "auc"] == found["a", "like", "auc"] == 20
    assert found["all", "buy", "auc"] == found["b", "buy", "auc"] == 10
