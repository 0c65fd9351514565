"""make_scorer: `predict`'s scores for small batches, with one trace, from many threads."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pandas as pd
import pytest
from toys import assert_equal_scores, build, inputs

from mtl_zoo import BinaryTask, Categorical, Encoded, FeatureTransform, Numeric, Sequence, create_model
from mtl_zoo.export import make_scorer

pytestmark = pytest.mark.tensorflow

USER = ("user_id", "history", "age")


@pytest.fixture(scope="module")
def model():
    return build("mmoe")


@pytest.fixture(scope="module")
def scorer(model):
    return make_scorer(model, 200)


@pytest.mark.parametrize("rows", [1, 7, 200])
def test_scores_are_those_of_predict(model, scorer, rows):
    x = inputs(rows)
    assert_equal_scores(scorer(x), model.predict(x, verbose=0))


def test_one_trace_for_any_number_of_rows_and_one_for_each_kind_of_user(monkeypatch):
    model, traces = build("shared_bottom"), []
    call = type(model).call
    monkeypatch.setattr(type(model), "call", lambda self, *a, **k: traces.append(1) or call(self, *a, **k))
    scorer = make_scorer(model)
    for rows in (1, 2, 64, 33):
        scorer(inputs(rows))
    assert len(traces) == 1
    for rows in (1, 2, 64):
        x = inputs(rows)
        scorer.rank({name: x[name][:1] for name in USER}, {name: x[name] for name in x if name not in USER})
    assert len(traces) == 2


def test_scores_follow_the_weights():
    model = build("shared_bottom")
    scorer, x = make_scorer(model), inputs(4)
    before = scorer(x)["click"]
    model.get_layer("click_head").bias.assign([3.0])
    assert (scorer(x)["click"] > before).all()


def test_rank_repeats_the_user(model, scorer):
    x = inputs(20)
    candidates = {name: values for name, values in x.items() if name not in USER}
    repeated = {**candidates, **{name: np.repeat(x[name][3:4], 20, axis=0) for name in USER}}
    expected = model.predict(repeated, verbose=0)
    assert_equal_scores(scorer.rank({name: x[name][3] for name in USER}, candidates), expected)
    assert_equal_scores(scorer.rank({name: x[name][3:4] for name in USER}, candidates), expected)


# fault 4
@pytest.mark.parametrize("value", [32, 2**32 + 5, -7, 3.5, np.nan])
def test_ids_that_are_none_are_refused(scorer, value):
    x = inputs(4)
    row = {name: values[0] for name, values in x.items() if name in USER}
    others = {name: values for name, values in x.items() if name not in USER}
    with pytest.raises(ValueError, match=r"`x\['user_id'\]` must be (ids|whole).* 1 of 4 are not.*raw columns"):
        scorer({**x, "user_id": np.array([2, 3, 4, value])})
    with pytest.raises(ValueError, match=r"`user\['user_id'\]` must be"):
        scorer.rank({**row, "user_id": value}, others)
    if np.isnan(value):
        with pytest.raises(ValueError, match=r"`candidates\['title'\]` must be finite.* 1 of 12 are not"):
            scorer.rank(row, {**others, "title": np.where(np.arange(12).reshape(4, 3) == 5, value, 0)})


def test_threads_get_their_own_scores(model):
    scorer = make_scorer(model)
    calls = [inputs(rows, seed=rows) for rows in range(1, 41)]

    def rank(x):
        split = [{n: v for n, v in x.items() if (n in USER) is of_user} for of_user in (True, False)]
        return scorer.rank({n: v[:1] for n, v in split[0].items()}, split[1])

    with ThreadPoolExecutor(8) as pool:
        scores, ranked = list(pool.map(scorer, calls)), list(pool.map(rank, calls))
    for x, found, of_first in zip(calls, scores, ranked, strict=True):
        assert_equal_scores(found, scorer(x))
        np.testing.assert_allclose(of_first["click"][0], found["click"][0], atol=1e-6)


def without(name, rows=4):
    return {n: v for n, v in inputs(rows).items() if n != name}


@pytest.mark.parametrize(
    "x, message",
    [
        (without("age"), r"`x` must hold every feature of the model. Missing: \['age'\]"),
        ({**inputs(4), "age": np.zeros(3)}, r"`x` must hold arrays of one length. Received: .*'age': 3"),
        (inputs(201), "`x` must have at most max_batch=200 rows.*Received: 201 rows"),
        ({**inputs(4), "tags": np.zeros((4, 2))}, r"`x\['tags'\]` must have the shape \(rows, 3\). Received: shape"),
        ({**inputs(4), "age": np.array(["a"] * 4)}, r"`x\['age'\]` must be numbers, of a type that becomes float32"),
    ],
)  # fmt: skip
def test_what_a_call_refuses(scorer, x, message):
    with pytest.raises(ValueError, match=message):
        scorer(x)


@pytest.mark.parametrize(
    "user, candidates, message",
    [
        ({"age": 1.0}, inputs(4), r"`user` and `candidates` must not share a column. Received in both: \['age'\]"),
        ({n: v[0] for n, v in inputs().items()}, {}, "`candidates` must hold a column of the model"),
        ({"age": [1.0, 2.0]}, without("age"), r"`user\['age'\]` must be one row. Received: shape \(2,\)"),
        ({}, without("age"), r"`candidates` must hold every feature of the model. Missing: \['age'\]"),
        ({"age": 1.0}, without("age", 201), "`candidates` must have at most max_batch=200 rows"),
    ],
)
def test_what_rank_refuses(scorer, user, candidates, message):
    with pytest.raises(ValueError, match=message):
        scorer.rank(user, candidates)


def test_what_make_scorer_refuses(model, monkeypatch):
    with pytest.raises(ValueError, match="`max_batch` must be a whole number >= 1"):
        make_scorer(model, 0)
    with pytest.raises(ValueError, match="`raw` must be False unless the model was made with a fitted Feature"):
        make_scorer(model, raw=True)
    monkeypatch.setattr("mtl_zoo._backend.is_tensorflow", lambda: False)
    with pytest.raises(ValueError, match="`make_scorer` needs the TensorFlow backend"):
        make_scorer(model)


# Raw columns.


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    rows = 60
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, rows) + 2**53 + 1,
            "city": rng.choice(["Rome", "Oslo", None], rows),
            "country": rng.choice(["Italy", "Norway"], rows),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(18, 80, rows)),
            "is_new": rng.random(rows) < 0.5,
            "history": [list(rng.integers(0, 9, k)) for k in rng.integers(1, 5, rows)],
            "title": rng.choice(["long", "short"], rows),
            "vector": list(rng.normal(size=(rows, 2))),
            "click": rng.integers(0, 2, rows),
        }
    )


@pytest.fixture(scope="module")
def raw_model(frame):
    words = keras.layers.TextVectorization(max_tokens=10, output_mode="multi_hot", vocabulary=["long", "short"])
    features = [
        *(Categorical(name, dim=4) for name in ("user_id", "city", "country", "is_new")),
        Numeric("age", missing="mean"),
        Sequence("history", dim=4, length=3),
        Encoded("title", words, dtype="string"),
        Encoded("vector", keras.layers.Dense(3), shape=(2,)),
    ]
    transform = FeatureTransform(features, BinaryTask("click")).fit(frame)
    return create_model("shared_bottom", transform, transform.tasks, bottom_units=(8,), tower_units=(4,))


@pytest.fixture(scope="module")
def raw_scorer(raw_model):
    return make_scorer(raw_model, raw=True)


def test_raw_columns_give_the_scores_of_the_table(frame, raw_model, raw_scorer):
    expected = raw_model.predict(frame, verbose=0)
    raw = raw_model.transform.raw_arrays(frame)
    assert_equal_scores(raw_scorer(raw), expected)
    plain = {**raw, "age": frame["age"].to_numpy(), "is_new": frame["is_new"].tolist(), "title": list(frame["title"])}
    assert_equal_scores(raw_scorer(plain), expected)


def test_rank_of_raw_columns(frame, raw_model, raw_scorer):
    table = frame.assign(**{c: [frame[c][4]] * len(frame) for c in ("user_id", "city", "is_new", "history")})
    raw = raw_model.transform.raw_arrays(table)
    user = {c: raw[c][0] for c in ("user_id", "city", "is_new", "history")}
    candidates = {c: raw[c] for c in raw if c not in user}
    assert_equal_scores(raw_scorer.rank(user, candidates), raw_model.predict(table, verbose=0))


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("user_id", np.array(["a", "b"]), r"`x\['user_id'\]` must be int64, as in the training table.*dtype <U1"),
        ("city", np.array([1, 2]), r"`x\['city'\]` must be string, as in the training table.*dtype int64"),
        ("city", np.array(["a", None]), r"Columns \['city', 'country', 'title'\] must hold string alone"),
        ("is_new", np.array([1.0, 0.0]), r"`x\['is_new'\]` must be bool"),
    ],
)
def test_raw_columns_of_another_type(frame, raw_model, raw_scorer, column, values, message):
    raw = raw_model.transform.raw_arrays(frame[:2])
    with pytest.raises(ValueError, match=message):
        raw_scorer({**raw, column: values})
    with pytest.raises(ValueError, match=r"`x` must hold every column of the model. Missing: \['city'\]"):
        raw_scorer({c: a for c, a in raw.items() if c != "city"})
