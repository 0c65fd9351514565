"""A model that goes on with an extended transform: tables and slots by row, and what is refused."""

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
    RetrievalTask,
    SharedBottom,
    create_model,
)
from mtl_zoo.export import export, make_scorer, quantize
from mtl_zoo.features import TableStream
from mtl_zoo.options import MLP, Embedding
from mtl_zoo.training import Checkpoints

pytestmark = pytest.mark.tensorflow
CLICK, LIKE = BinaryTask("click"), BinaryTask("like")


def rows(low, high, seed=0, count=40):
    rng = np.random.default_rng(seed)
    ids = {name: rng.integers(low, high, count) for name in ("user", "item")}
    labels = {name: rng.integers(0, 2, count) for name in ("click", "like")}
    return pd.DataFrame({**ids, "age": rng.normal(size=count), **labels})


MONDAY, TUESDAY = rows(0, 8), rows(4, 13, seed=1)
FEATURES = [Categorical("user", dim=3), Categorical("item", dim=3), Numeric("age")]


def trained(optimizer="adam", shards=1, **arguments):
    keras.utils.set_random_seed(0)
    transform = FeatureTransform(FEATURES, [CLICK, LIKE]).fit(MONDAY)
    options = {"bottom_units": MLP(units=(4,), dropout=0.5), "tower_units": ()}
    model = SharedBottom(transform, embedding=Embedding(shards=shards), **options)
    model.compile(optimizer, run_eagerly=True, metrics=None, **arguments)
    model.fit(MONDAY, batch_size=20, verbose=0)
    return model


def whole(variables):
    arrays = [keras.ops.convert_to_numpy(v) for v in variables]
    return arrays[0] if len(arrays) == 1 else np.concatenate([a[:-1] for a in arrays])


def table_and_slots(model):
    """The fused table, and every slot that has a number for each of its rows, by kind."""
    from mtl_zoo._keras_private import slot_lists

    tables = model.get_layer("embedding").tables
    found = {"weights": whole(tables)}
    for kind, variables, slots in slot_lists(model.optimizer):
        by_variable = {id(v): slot for v, slot in zip(variables, slots, strict=True)}
        own = [by_variable[id(t)] for t in tables if id(t) in by_variable]
        if own and len(own[0].shape) and own[0].shape[0] == tables[0].shape[0]:
            found[kind] = whole(own)
    return found


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "optimizer", ["lazy_adam", "adafactor", {"embeddings": "row_wise_adagrad", "dense": "adam"}], ids=str
)
def test_rows_and_slots_are_carried_by_value(optimizer, shards):
    model = trained(optimizer, shards, balancing="uncertainty")
    transform = model.transform.extend(TUESDAY, evict_after=1)
    made = model.extended(transform)
    old, new = table_and_slots(model), table_and_slots(made)
    assert list(old) == list(new) and len(old) >= 2
    offset_old = offset_new = 0
    for feature in ("user", "item"):
        before, after = model.transform.values_of(feature), transform.values_of(feature)
        assert set(before) - set(after)  # some are evicted, and others have their rows
        for kind, matrix in old.items():
            for special in (0, 1):
                np.testing.assert_array_equal(new[kind][offset_new + special], matrix[offset_old + special])
            for place, value in enumerate(after, 2):
                row = new[kind][offset_new + place]
                if value in before:
                    np.testing.assert_array_equal(row, matrix[offset_old + 2 + before.index(value)])
                elif kind != "weights":
                    assert not np.any(row)  # as in a new optimizer
        offset_old, offset_new = offset_old + 2 + len(before), offset_new + 2 + len(after)
    assert offset_new == len(new["weights"])
    for a, b in zip(model.optimizer.variables, made.optimizer.variables, strict=True):
        if "embedding" not in b.path and "table" not in b.path:
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    for a, b in zip(model.balancing.weights, made.balancing.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_new_rows_start_from_the_mean_or_the_unknown_row():
    model = trained()
    transform = model.transform.extend(TUESDAY)
    table = whole(model.get_layer("embedding").tables)
    size, grown = model.features[0].num_ids, transform.features[0].num_ids
    for rows_from, expected in (("mean", table[2:size].mean(axis=0)), ("unknown", table[1])):
        made = whole(model.extended(transform, rows=rows_from).get_layer("embedding").tables)
        np.testing.assert_allclose(made[size:grown], np.tile(expected, (grown - size, 1)), atol=1e-7)
    drawn = whole(model.extended(transform).get_layer("embedding").tables)[size:grown]
    assert np.abs(drawn).max() <= 0.05 and len(np.unique(drawn)) == drawn.size


def test_training_goes_on_as_that_of_the_same_model():
    model = trained("lazy_adam")
    same = model.extended(model.transform.extend(MONDAY))
    for one in (model, same):
        keras.utils.set_random_seed(1)
        one.fit(MONDAY, batch_size=20, verbose=0)
    for a, b in zip(model.weights, same.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_frozen_layers_stay_frozen_and_what_is_not_compiled_is_not():
    model = trained()
    model.get_layer("bottom").trainable = False
    model.compile("adam", run_eagerly=True, metrics=None)
    made = model.extended(model.transform.extend(TUESDAY))
    assert not made.get_layer("bottom").trainable
    assert [v.path for v in made.trainable_variables] == [v.path for v in model.trainable_variables]
    plain = SharedBottom(FeatureTransform(FEATURES, CLICK).fit(MONDAY), bottom_units=(3,))
    assert not plain.extended(plain.transform.extend(TUESDAY)).compiled


def test_a_scorer_and_an_export_take_over(tmp_path):
    model = trained()
    made = model.extended(model.transform.extend(TUESDAY), rows="unknown")
    made.get_layer("embedding").tables[0].assign(whole(made.get_layer("embedding").tables) + 0.1)
    scorer = make_scorer(model, raw=True)
    raw = made.transform.raw_arrays(TUESDAY)
    before = scorer(raw)["click"]
    scorer.take_over(made)
    expected = made.predict(TUESDAY, verbose=0)["click"]
    np.testing.assert_allclose(scorer(raw)["click"], expected, atol=1e-6)
    assert np.abs(before - expected).max() > 1e-6
    export(made, tmp_path / "made", raw=True)  # which compares what it wrote with the model
    other = SharedBottom(FeatureTransform(FEATURES[:1], CLICK).fit(MONDAY), bottom_units=(3,))
    with pytest.raises(ValueError, match="`model` must have the columns of the scorer's model"):
        scorer.take_over(other)


def test_what_cannot_go_on_is_refused():
    model = trained()
    with pytest.raises(ValueError, match="`rows` must be one of"):
        model.extended(model.transform, rows="zeros")
    with pytest.raises(ValueError, match="`transform` must be a fitted FeatureTransform"):
        model.extended(FeatureTransform(FEATURES))
    again = FeatureTransform(FEATURES, [CLICK, LIKE]).fit(TUESDAY)
    with pytest.raises(ValueError, match="`transform` must give the ids that the model was trained with"):
        model.extended(again)
    specs = SharedBottom([Categorical("item", size=3)], CLICK, bottom_units=(3,))
    with pytest.raises(ValueError, match="made from feature specs"):
        specs.extended(again)
    domains = [Categorical("user", dim=3), Categorical("domain", dim=2)]
    transform = FeatureTransform(domains, CLICK).fit(MONDAY.assign(domain=np.arange(40) % 2))
    star = create_model("star", transform, bottom_units=(3,), tower_units=())
    later = TUESDAY.assign(domain=np.arange(40) % 3)
    with pytest.raises(ValueError, match="would have .* Name the feature in `fixed`"):
        star.extended(star.transform.extend(later))
    star.extended(star.transform.extend(later, fixed=["domain"]))


def test_streams_and_checkpoints_of_a_refitted_transform_are_refused(tmp_path):
    model = trained()
    again = FeatureTransform(FEATURES, [CLICK, LIKE]).fit(MONDAY.iloc[::-1].head(30))
    TUESDAY.to_parquet(tmp_path / "rows.parquet")
    own, other = (TableStream(tmp_path / "rows.parquet", t) for t in (model.transform, again))
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match="`x` must give the ids that the model was trained with"):
            call(other, verbose=0)
    with pytest.raises(ValueError, match="`validation_data` must give the ids"):
        model.fit(own, validation_data=other, verbose=0)
    made = model.extended(model.transform.extend(TUESDAY))
    made.fit(own, verbose=0, batch_size=20)  # an older transform's ids are its own, too


def test_a_checkpoint_knows_the_transform(tmp_path):
    model = trained()
    model.fit(MONDAY, verbose=0, batch_size=20, callbacks=[Checkpoints(tmp_path / "run")])
    swapped = FeatureTransform(FEATURES, [CLICK, LIKE]).fit(MONDAY.assign(user=(MONDAY["user"] + 1) % 8))
    other = SharedBottom(swapped, bottom_units=MLP(units=(4,), dropout=0.5), tower_units=())
    other.compile("adam", run_eagerly=True, metrics=None)
    with pytest.raises(ValueError, match="transform="):
        other.fit(MONDAY, verbose=0, batch_size=20, epochs=2, callbacks=[Checkpoints(tmp_path / "run")])


def test_lists_of_entities_are_read_by_the_ids_that_came():
    news = pd.DataFrame({"news": [7, 8, 9, 10], "topic": ["sport", "art", "sport", "food"]})
    monday = pd.DataFrame({"news": [7, 8], "history": [[9, 8], []], "click": [0, 1]})
    tuesday = pd.DataFrame({"news": [10, 10], "history": [[10, 9], [7]], "click": [1, 0]})
    features = [Categorical("topic", dim=3), EntitySequence("history", of="topic", length=3)]
    model = SharedBottom(FeatureTransform(features, CLICK, entities=EntityTable(news, key="news")).fit(monday))
    model.compile("adam", run_eagerly=True)
    model.fit(monday, verbose=0)
    later = model.extended(model.transform.extend(tuesday))
    assert [spec.lender.num_ids for spec in later.features if spec.name == "history"] == [5]
    assert later.transform.encode(tuesday)["history"].tolist() == [[4, 3, 0], [3, 0, 0]]
    np.testing.assert_array_equal(later.predict(monday, verbose=0)["click"], model.predict(monday, verbose=0)["click"])
    later.fit(tuesday, verbose=0)


def test_a_quantized_model_is_not_extended():
    small = quantize(trained()).model
    with pytest.raises(ValueError, match="int8 tables"):
        small.extended(small.transform.extend(TUESDAY))


def test_a_retrieval_task_goes_on_counting_its_items():
    watch = RetrievalTask("like", tower_units=(3,))
    features = [Categorical("user", dim=3, side="user"), Categorical("item", dim=3, side="item")]
    model = SharedBottom(FeatureTransform(features, [CLICK, watch]).fit(MONDAY), bottom_units=(4,))
    model.compile("adam", run_eagerly=True)
    model.fit(MONDAY, verbose=0)
    later = model.extended(model.transform.extend(TUESDAY, evict_after=1), rows="mean")
    ids = model.transform.encode({"user": range(8), "item": range(8)})["item"]
    before, after = (m.get_layer("like_pair").counts.numpy() for m in (model, later))
    kept = [i for i, item in zip(ids, range(8), strict=True) if item in set(TUESDAY["item"])]
    np.testing.assert_array_equal(after[kept], before[kept])
    assert len(kept) and after.sum() == before[kept].sum()  # those that came, or took an id, were not met
    later.fit(TUESDAY, verbose=0)
    assert later.get_layer("like_pair").counts.numpy().sum() == after.sum() + len(TUESDAY)
