"""Several sources of rows: their tables as one, how rows are mixed, and models that are trained on them."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest
from toys import sample_of

import mtl_zoo
from mtl_zoo import (
    BinaryTask,
    Categorical,
    ExactValidation,
    FeatureTransform,
    JointSources,
    NegativeSampling,
    Numeric,
    RegressionTask,
    Source,
)
from mtl_zoo._types import SOURCE_INPUT
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.options import MLP
from mtl_zoo.training import Checkpoints

pytestmark = pytest.mark.tensorflow
TASKS = [BinaryTask("like"), RegressionTask("stars"), BinaryTask("buy")]
FEATURES = [Categorical("user", dim=3), Categorical("film", dim=3), Numeric("age"), Categorical("word", dim=2)]
DOMAIN = Categorical("domain", column="source", dim=2)


def tables(ratings=40, reviews=15, seed=0):
    """Both have users and what they buy; the first alone has films, ages and likes, the second words and stars."""
    rng = np.random.default_rng(seed)
    first = {"user": rng.integers(0, 9, ratings), "film": rng.integers(0, 6, ratings), "age": rng.normal(size=ratings)}
    first |= {"like": rng.integers(0, 2, ratings), "buy": rng.integers(0, 2, ratings)}
    second = {"user": rng.integers(5, 14, reviews), "word": rng.choice(["good", "bad"], reviews)}
    second |= {"stars": rng.normal(size=reviews), "buy": rng.integers(0, 2, reviews)}
    return {"ratings": pd.DataFrame(first), "reviews": pd.DataFrame(second)}


def fitted(sources=None, features=(*FEATURES, DOMAIN), tasks=TASKS):
    return FeatureTransform(list(features), tasks).fit(JointSources(tables()) if sources is None else sources)


@pytest.fixture(scope="module")
def transform():
    return fitted()


def make_model(transform, name="shared_bottom", eager=True, seed=0, **options):
    keras.utils.set_random_seed(seed)
    small = {"bottom_units": MLP((6,), dropout=0.3), "tower_units": (4,)} if name == "shared_bottom" else {}
    model = mtl_zoo.create_model(name, transform, **small)
    model.compile("adam", run_eagerly=eager, **options)
    return model


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


@pytest.fixture
def stream(transform, tmp_path):
    tables()["reviews"].to_parquet(tmp_path / "reviews.parquet", row_group_size=4)
    return TableStream(tmp_path / "reviews.parquet", transform, shuffle_rows=8)


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


# Models.


def test_tables_below_each_other_give_the_same_weights(transform):
    def train(x):
        model = make_model(transform, eager=False)
        return model, model.fit(x, batch_size=16, epochs=2, verbose=0).history

    sources = JointSources(tables())
    (joint, history), (whole, other) = train(sources), train(sources.table())
    for a, b in zip(joint.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(history["loss"], other["loss"], rtol=1e-6)
    by_source = {"ratings_like_loss", "ratings_buy_loss", "reviews_buy_loss", "reviews_stars_loss"}
    by_source |= {"ratings_like_auc", "ratings_buy_auc", "reviews_buy_auc", "reviews_stars_rmse"}
    assert set(history) - set(other) == by_source


def test_logs_by_source_are_those_of_a_source_alone(transform):
    model, both = make_model(transform), tables()
    model.fit(JointSources(both), batch_size=32, verbose=0)
    logs = model.evaluate(JointSources(both), verbose=0, return_dict=True)
    for name, tasks in {"ratings": ("like", "buy"), "reviews": ("stars", "buy")}.items():
        alone = model.evaluate(both[name].assign(source=name), verbose=0, return_dict=True)
        assert not any(log.startswith(name) for log in alone)
        for task in tasks:
            np.testing.assert_allclose(logs[f"{name}_{task}_loss"], alone[f"{task}_loss"], rtol=1e-5)
    rows = {name: len(table) for name, table in both.items()}
    mean = sum(rows[name] * logs[f"{name}_buy_loss"] for name in rows) / sum(rows.values())
    np.testing.assert_allclose(logs["buy_loss"], mean, rtol=1e-5)
    history = model.fit(JointSources(both).table(), verbose=0).history
    assert not any(name.startswith("reviews") for name in history)


def test_validation_of_some_sources_has_their_numbers(transform):
    model, both = make_model(transform), tables(seed=1)
    history = model.fit(
        JointSources(tables()), batch_size=32, verbose=0, validation_data=JointSources({"reviews": both["reviews"]})
    ).history
    alone = model.evaluate(both["reviews"].assign(source="reviews"), verbose=0, return_dict=True)
    np.testing.assert_allclose(history["val_reviews_stars_loss"], [alone["stars_loss"]], rtol=1e-5)
    with pytest.raises(ValueError, match=r"`validation_data` must hold sources .* Received unknown: \['others'\]"):
        model.fit(JointSources(tables()), validation_data=JointSources({"others": both["reviews"]}))


def test_exact_metrics_by_source(transform):
    model, both = make_model(transform), tables()
    found = mtl_zoo.evaluate(model, JointSources(both)).set_index(["source", "task", "metric"])["value"]
    alone = mtl_zoo.evaluate(model, both["reviews"].assign(source="reviews")).set_index(["task", "metric"])["value"]
    assert found["reviews", "buy", "auc"] == pytest.approx(alone["buy", "auc"])
    assert ("reviews", "like", "auc") not in found and ("all", "like", "auc") in found
    only = JointSources({"ratings": Source(both["ratings"], tasks=["like"]), "reviews": both["reviews"]})
    assert ("ratings", "buy", "auc") not in mtl_zoo.evaluate(model, only).set_index(["source", "task", "metric"]).index


def test_exact_validation_by_source(transform):
    validation = ExactValidation(JointSources(tables(seed=1)))
    history = make_model(transform).fit(JointSources(tables()), epochs=2, verbose=0, callbacks=[validation]).history
    assert set(validation.history[0]["sources"]) == {"ratings", "reviews"}
    assert set(validation.history[0]["sources"]["reviews"]) == {"stars", "buy"}
    assert history["val_reviews_buy_score"][1] == validation.history[1]["sources"]["reviews"]["buy"]


def test_labels_that_a_source_is_not_asked_for_do_not_train(transform):
    both = tables()
    sources = JointSources({"ratings": Source(both["ratings"], tasks=["like"]), "reviews": both["reviews"]})
    found = [(x[SOURCE_INPUT].numpy(), y["buy"].numpy()) for x, y in sources.bound(transform).batches(64)]
    np.testing.assert_array_equal(np.isnan(found[0][1]), found[0][0] == 0)


def test_negative_rows_are_dropped_of_the_sources_that_have_the_task():
    tasks = [BinaryTask("like"), BinaryTask("cart", sample_space="like")]
    both = {"ratings": tables()["ratings"].assign(cart=0), "visits": pd.DataFrame({"user": [1, 2, 3], "film": 1})}
    both["ratings"].loc[both["ratings"]["like"] == 1, "cart"] = 1
    sources = JointSources(both)
    model = make_model(fitted(sources, FEATURES[:2], tasks))
    sampling = NegativeSampling("like", rate=0.5)
    kept = sources.bound(model.transform).sampled(sampling).joint.sizes
    assert kept == {"ratings": len(sampling.sample(both["ratings"], tasks)), "visits": 3}
    model.fit(sources, batch_size=16, verbose=0, sampling=sampling)
    assert model.corrections.sampling == sampling


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), ("star",)))
def test_every_model(name):
    tasks = [BinaryTask("like"), BinaryTask("cart", sample_space="like"), BinaryTask("buy", sample_space="like")]
    both = tables()
    both["ratings"] = both["ratings"].assign(cart=both["ratings"]["buy"])
    both["reviews"] = both["reviews"].assign(like=1)
    sources = JointSources(both)
    model = make_model(fitted(sources, tasks=tasks), name)
    before = [v.numpy() for v in model.trainable_variables]
    history = model.fit(sources, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all() and any("reviews" in log for log in history)
    assert any(np.abs(a - b.numpy()).max() > 0 for a, b in zip(before, model.trainable_variables, strict=True))


@pytest.mark.parametrize("method", sample_of(mtl_zoo.list_balancing(), ("pcgrad",)))
def test_every_balancing_method(transform, method):
    model = make_model(transform, balancing=method)
    history = model.fit(JointSources(tables(), alternating=True), batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


# Training that was interrupted.


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Interrupted


@pytest.mark.parametrize("streams", [False, True])
def test_interrupted_training_ends_with_the_same_numbers(transform, stream, tmp_path, streams):
    def train(folder, seed, stop=None):
        model = make_model(transform, seed=seed)
        parts = {**tables(), "reviews": stream} if streams else tables()
        sources = JointSources(parts, mixing={"ratings": 2, "reviews": 1})  # 40 and 20 rows: 4 batches an epoch
        calls = [Checkpoints(tmp_path / folder, every_steps=3), *([Interrupt(stop)] if stop else [])]
        history = model.fit(sources, batch_size=16, epochs=3, verbose=0, callbacks=calls).history
        return model, history, calls[0]

    whole, history, _ = train("whole", 0)
    with pytest.raises(Interrupted):
        train("cut", 0, stop=7)
    model, rest, saves = train("cut", 5)
    assert saves.resumed_from.total == 6 and saves.resumed_from.step == 2
    for a, b in zip(whole.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    for name, values in history.items():
        np.testing.assert_array_equal(values[1:], rest[name], err_msg=name)
    other = JointSources(tables(), temperature=2.0)
    with pytest.raises(ValueError, match="on the same data in the same batches"):
        make_model(transform).fit(other, batch_size=16, verbose=0, callbacks=[Checkpoints(tmp_path / "cut")])


SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path[:0] = ["tests", "tests/features"]
    import keras, numpy as np, tensorflow as tf
    from test_sources import JointSources, fitted, make_model, tables

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    transform, found, start = fitted(), [], None
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        with strategy.scope():
            model = make_model(transform, eager=False)
            model.get_layer("bottom").dropouts[0].rate = 0.0
        start = model.get_weights() if start is None else start
        model.set_weights(start)
        np.random.seed(0)
        history = model.fit(JointSources(tables()), batch_size=16, epochs=2, verbose=0).history
        found.append((model.get_weights(), history))
    (one, logs), (two, others) = found
    apart = max(float(np.abs(a - b).max()) for a, b in zip(one, two))
    print(json.dumps({"weights": apart, "logs": max(float(np.abs(np.subtract(logs[n], others[n])).max()) for n in logs),
                      "names": sorted(set(logs) ^ set(others))}))
    """
)


@pytest.mark.slow
def test_two_mirrored_devices_end_with_the_weights_of_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weights"] < 1e-5 and found["logs"] < 1e-4 and not found["names"]


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
