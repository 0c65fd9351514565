"""Rows that are made: like the real ones of their label, marked, and never among those that judge a model."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from toys import compile_eagerly

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, JointSources, Numeric, RegressionTask, Sequence
from mtl_zoo.datasets import Dataset, Split
from mtl_zoo.features import TableStream, open_cache, write_cache
from mtl_zoo.features.generated import GENERATED, is_generated
from mtl_zoo.search import tune
from mtl_zoo.training import SMOTENC, WGANGP, ExactValidation, distill, generate_rows

pytestmark = pytest.mark.tensorflow

TASKS = [
    BinaryTask("click"),
    BinaryTask("buy", sample_space="click"),
    RegressionTask("price", sample_space="buy"),
]
FEATURES = [Numeric("x"), Numeric("age"), Categorical("city")]
TRANSFORM = FeatureTransform(FEATURES, TASKS)
TINY = WGANGP(steps=2, batch_size=8, units=(4,), critic_steps=1)


def table(rows=1500, seed=0):
    """Clicks come with a high `x`, and from Oslo."""
    rng = np.random.default_rng(seed)
    x, city = rng.normal(size=rows), rng.choice(["Rome", "Oslo", "Bonn"], rows, p=[0.6, 0.3, 0.1])
    click = rng.random(rows) < 1 / (1 + np.exp(-(2 * x + 2 * (city == "Oslo") - 3)))
    buy = click & (rng.random(rows) < 0.4)
    frame = pd.DataFrame({"x": x, "age": rng.integers(18, 80, rows), "city": city, "other": 1})
    frame["click"], frame["buy"] = click.astype(int), buy.astype(int)
    frame["price"] = np.where(buy, rng.normal(10, 2, rows), np.nan)
    frame.loc[frame.index % 10 == 0, "x"] = np.nan
    return frame


@pytest.mark.parametrize(
    "method", ["smote-nc", WGANGP(steps=100, batch_size=64, units=(64,), critic_steps=3, learning_rate=2e-3)]
)
def test_made_rows_are_like_the_real_ones_of_their_label(method):
    if method == "smote-nc":
        pytest.importorskip("imblearn")
    frame = table()
    made = generate_rows(frame, TRANSFORM, labels={"click": 1}, rows=600, method=method)
    real, rest = frame[frame["click"] == 1], frame[frame["click"] == 0]
    assert list(made) == ["x", "age", "city", "click", "buy", "price", GENERATED] and made[GENERATED].all()
    assert len(made) == 600 and (made["click"] == 1).all()
    assert made["buy"].mean() == pytest.approx(real["buy"].mean(), abs=0.06)
    # Nearer to the clicked rows than to the others, by far.
    for of in (lambda rows: rows["x"].mean(), lambda rows: (rows["city"] == "Oslo").mean()):
        assert abs(of(made) - of(real)) < 0.35 * abs(of(real) - of(rest))
    assert 0.4 < made["x"].std() / real["x"].std() < 1.6
    assert made["age"].between(18, 79).all() and made["age"].dtype == frame["age"].dtype
    assert set(made["city"]) <= {"Rome", "Oslo", "Bonn"}
    assert (made["price"].notna() == (made["buy"] == 1)).all() and made["price"].between(3, 17)[made["buy"] == 1].all()


def test_smote_makes_rows_between_neighbours_whatever_kinds_of_columns_there_are():
    pytest.importorskip("imblearn")
    frame = table(300)
    for features in (FEATURES[:2], FEATURES[2:]):
        transform = FeatureTransform(features, TASKS[:1])
        made = generate_rows(frame, transform, labels={"click": 1}, rows=20, method=SMOTENC(neighbours=2))
        assert len(made) == 20 and set(made) == {*(f.name for f in features), "click", GENERATED}
    few = pd.DataFrame({"x": [1.0, 2.0, 3.0], "click": [1, 0, 0]})
    with pytest.raises(ValueError, match="must have two rows of a joint label"):
        generate_rows(few, FeatureTransform(Numeric("x"), TASKS[0]), labels={"click": 1}, rows=2, method="smote-nc")


def test_a_seed_makes_the_same_rows_again():
    one, again, other = (
        generate_rows(table(200), TRANSFORM, labels={"click": 1}, rows=20, method=TINY, seed=seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, again, rtol=1e-3)
    assert not one["x"].equals(other["x"])


def test_rare_values_share_a_code_and_come_from_rows_of_the_label():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": [f"u{i}" for i in range(200)], "x": rng.normal(size=200), "click": [0, 1] * 100})
    transform = FeatureTransform([Categorical("user"), Numeric("x")], TASKS[0])
    made = generate_rows(frame, transform, labels={"click": 1}, rows=50, method=TINY, most_values=4)
    seldom = set(made["user"]) - set(frame["user"][:3])
    assert seldom <= set(frame["user"][frame["click"] == 1])


def test_what_cannot_be_made_is_refused(monkeypatch):
    frame = table(100)

    def make(given=frame, transform=TRANSFORM, labels=None, **options):
        return generate_rows(given, transform, labels=labels or {"click": 1}, rows=2, **{"method": TINY, **options})

    lists = FeatureTransform([Sequence("seen", length=3)], TASKS[0])
    for call, words in (
        (lambda: make(labels={"like": 1}), r"`labels` must hold the label.*'like'"),
        (lambda: make(labels={"click": 7}), "`labels` must be those of some row"),
        (lambda: make(method="copy"), "`method` must be one of"),
        (lambda: make(frame.drop(columns="city")), "city"),
        (lambda: make(frame.assign(seen=1), lists), r"Categorical and Numeric features.*\['seen'\]"),
        (lambda: make(make()), "`table` must hold no generated rows"),
        (lambda: make(transform=FeatureTransform(FEATURES)), "`transform` must have tasks"),
        (lambda: WGANGP(temperature=0), "`temperature`"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(ImportError, match=r"mtl-zoo\[imbalance\]"):
        make(method="smote-nc")


def test_generated_rows_are_trained_on_and_judge_nothing(tmp_path):
    frame = table(300)
    made = generate_rows(frame, TRANSFORM, labels={"click": 1}, rows=40, method=TINY)
    both = pd.concat([frame, made], ignore_index=True)
    assert is_generated(both).sum() == is_generated(pa.Table.from_pandas(both)).sum() == 40
    assert not is_generated(frame).any()
    transform = FeatureTransform(FEATURES, TASKS[:1]).fit(frame)
    model = mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())
    compile_eagerly(model)
    model.fit(both, validation_data=frame, callbacks=[ExactValidation(frame)], batch_size=170, verbose=0)
    judging = {
        "`validation_data`": lambda: model.fit(frame, validation_data=both, verbose=0),
        "`sources`": lambda: model.fit(
            JointSources({"a": frame}), validation_data=JointSources({"a": both}), verbose=0
        ),
        "`x`": lambda: model.fit(both, validation_split=0.1, verbose=0),
        "`x` ": lambda: model.evaluate(both, verbose=0),
        "`split`": lambda: mtl_zoo.evaluate(model, both),
        "`split` ": lambda: model.fit(frame, callbacks=[ExactValidation(both)], verbose=0),
        "`split`  ": lambda: mtl_zoo.calibrate(model, both, "click"),
        "`train`": lambda: Dataset.from_table(both, tasks=TASKS[:1], exclude=("other",)),
        "`test`": lambda: Dataset.from_table(both, validation=frame, test=made, tasks=TASKS[:1], exclude=("other",)),
    }
    for argument, judge in judging.items():
        with pytest.raises(ValueError, match=rf"{argument.strip()} must hold no generated rows"):
            judge()
    data = Dataset.from_table(both, validation=frame, test=frame, tasks=TASKS[:1], exclude=("other",))
    with pytest.raises(ValueError, match=r"`split` must hold no generated rows"):
        mtl_zoo.evaluate(model, data.train)
    assert len(data.train) == 340 and GENERATED not in {feature.source for feature in data.features}
    both.to_parquet(tmp_path / "both.parquet")
    with pytest.raises(ValueError, match=r"must hold no generated rows.*JointSources"):
        TableStream(tmp_path / "both.parquet", transform)


@pytest.mark.extended
def test_generated_rows_bear_their_mark_as_arrays_too(tmp_path):
    frame = table(60)
    both = pd.concat([frame, frame.head(4).assign(**{GENERATED: True})], ignore_index=True)
    transform = FeatureTransform(FEATURES, TASKS[:1]).fit(frame)
    inputs, labels = transform.encode(both), transform.encode_labels(both)
    assert labels[GENERATED].sum() == 4 and GENERATED not in transform.encode_labels(frame)
    split = Split(inputs, labels)
    write_cache(split, tmp_path / "cache")
    cached, batches = open_cache(tmp_path / "cache"), transform.batches(both, 32)
    model = mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())
    compile_eagerly(model)
    for train in ((inputs, labels), (batches,), (cached.batches(32),)):
        model.fit(*train, verbose=0)
    judging = [
        lambda: model.fit(inputs, labels, validation_split=0.1, verbose=0),
        lambda: model.fit(frame, validation_data=(inputs, labels), verbose=0),
        lambda: model.fit(frame, validation_data=batches, verbose=0),
        lambda: model.fit(frame, validation_data=cached.batches(32), verbose=0),
        lambda: model.fit(frame, callbacks=[ExactValidation(split)], verbose=0),
        lambda: model.evaluate(inputs, labels, verbose=0),
        lambda: model.evaluate(batches, verbose=0),
        lambda: model.test_on_batch(inputs, labels),
        lambda: mtl_zoo.evaluate(model, split),
        lambda: mtl_zoo.evaluate(model, cached),
        lambda: mtl_zoo.evaluate(model, batches),
        lambda: mtl_zoo.calibrate(model, split, "click"),
        lambda: distill(model, model, both, validation_split=0.1, verbose=0),
        lambda: tune("shared_bottom", (transform, frame, both), trials=1),
    ]
    for judge in judging:
        with pytest.raises(ValueError, match="must hold no generated rows"):
            judge()
    assert len(mtl_zoo.evaluate(model, split.take(60)))  # the real ones
