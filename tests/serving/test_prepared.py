"""Candidates that are prepared: the scores of `rank`, without what was computed before the user came."""

import numpy as np
import pandas as pd
import pytest
from toys import assert_equal_scores, build, inputs, sample_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, SharedBottom, create_model
from mtl_zoo.export import make_scorer

pytestmark = pytest.mark.tensorflow

USER = ("user_id", "history", "age")


def split(x, user=USER):
    return {n: v[:1] for n, v in x.items() if n in user}, {n: v for n, v in x.items() if n not in user}


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models()))
def test_scores_are_those_of_rank(name, monkeypatch):
    monkeypatch.setattr("mtl_zoo.serving.prepared._AT_ONCE", 7)
    scorer = make_scorer(build(name))
    _, items = split(inputs(20))
    prepared = scorer.prepare(items)
    for seed in (1, 2):
        user, _ = split(inputs(20, seed))
        expected = scorer.rank(user, items)
        assert_equal_scores(prepared.rank(user), expected)
        some = [4, 19, 4, 0]
        assert_equal_scores(prepared.rank(user, some), {n: values[some] for n, values in expected.items()})
    assert len(prepared) == 20


def model_of_columns(**options):
    made = [
        *(Categorical(f"user_{i}", size=9, dim=4) for i in range(4)),
        *(Categorical(f"item_{i}", size=9, dim=4) for i in range(3)),
        Numeric("age", normalization=None, **options),
        Numeric("price", normalization=None, **options),
    ]
    return create_model("mmoe", made, [BinaryTask("click")], num_experts=3, expert_units=(6, 4), tower_units=(3,))


def columns(rows=12, seed=0):
    rng = np.random.default_rng(seed)
    names = [*(f"user_{i}" for i in range(4)), *(f"item_{i}" for i in range(3))]
    ids = {name: rng.integers(0, 9, rows).astype("int32") for name in names}
    return {**ids, **{name: rng.normal(size=rows).astype("float32") for name in ("age", "price")}}


def test_the_candidates_part_is_not_computed_again():
    """No product of a request's graph is with the items' columns of a kernel."""
    scorer = make_scorer(model_of_columns())
    user, items = split(columns(), [name for name in columns() if name.startswith("user") or name == "age"])
    prepared = scorer.prepare(items)
    assert_equal_scores(prepared.rank(user), scorer.rank(user, items))
    vectors, *products = [tensor.shape[1] for tensor in prepared._kept.state.found]
    assert vectors == 3 * 4 + 1 and sorted(products) == [3, 6, 6, 6], "a gate and three experts"
    assert prepared.bytes == 4 * 12 * (len(items) + vectors + sum(products))
    kernels = [op.inputs[1].shape[0] for op in prepared._function(False).graph.get_operations() if op.type == "MatMul"]
    user = 4 * 4 + 1
    assert kernels.count(user) == 4 and vectors not in kernels and user + vectors not in kernels


@pytest.mark.parametrize("options", [{}, {"encoding": "periodic"}], ids=["plain", "encoded"])
def test_numbers_of_both_sides(options):
    scorer = make_scorer(model_of_columns(**options))
    user, items = split(columns(), [name for name in columns() if name.startswith("user") or name == "age"])
    assert_equal_scores(scorer.prepare(items).rank(user), scorer.rank(user, items))


def test_a_recurrent_history():
    """Its layers make variables when they are built, which they cannot while a graph is traced."""
    made = [
        Categorical("user_id", size=9, dim=4),
        Categorical("item_id", size=9, dim=4, key="item"),
        Sequence("history", size=9, dim=4, length=3, key="item", encoder="gru"),
    ]
    model = SharedBottom(made, BinaryTask("click"), bottom_units=(6,))
    scorer = make_scorer(model)
    rng = np.random.default_rng(0)
    items = {"item_id": rng.integers(0, 9, 5).astype("int32")}
    user = {"user_id": np.int32([3]), "history": np.int32([[1, 4, 0]])}
    prepared = scorer.prepare(items)
    assert_equal_scores(prepared.rank(user), scorer.rank(user, items))
    plain = {**items, **{name: np.repeat(value, 5, axis=0) for name, value in user.items()}}
    assert_equal_scores(prepared.rank(user), model.predict(plain, verbose=0))


def test_what_needs_the_user_is_computed_for_each(monkeypatch):
    """A history that looks at the candidate belongs to both: nothing of it may be kept."""
    made = [
        Categorical("user_id", size=9, dim=4),
        Categorical("item_id", size=9, dim=4, key="item"),
        Sequence("history", size=9, dim=4, length=3, key="item", encoder="din", query="item_id"),
    ]
    scorer = make_scorer(SharedBottom(made, [BinaryTask("click")], bottom_units=(5,)))
    rng = np.random.default_rng(0)
    items = {"item_id": rng.integers(0, 9, 15).astype("int32")}
    prepared = scorer.prepare(items)
    for seed in range(3):
        draw = np.random.default_rng(seed).integers(0, 9, 4).astype("int32")
        user = {"user_id": draw[0], "history": draw[1:]}
        assert_equal_scores(prepared.rank(user), scorer.rank(user, items))


def test_raw_columns():
    table = pd.DataFrame(columns(40)).assign(click=np.arange(40) % 2, city=["Rome", "Oslo"] * 20)
    specs = [Categorical(name, dim=4) for name in ("user_0", "item_0", "city")] + [Numeric("age"), Numeric("price")]
    transform = FeatureTransform(specs, [BinaryTask("click")]).fit(table)
    scorer = make_scorer(SharedBottom(transform, bottom_units=(5,)), raw=True)
    arrays = transform.raw_arrays(table)
    items = {name: arrays[name] for name in ("item_0", "city", "price")}
    user = {name: arrays[name][0] for name in ("user_0", "age")}
    assert_equal_scores(scorer.prepare(items).rank(user), scorer.rank(user, items))


@pytest.mark.extended
@pytest.mark.parametrize("name", ["mmoe", "star"])
def test_candidates_of_other_weights_are_refused(name):
    model = build(name)
    scorer, (user, items) = make_scorer(model), split(inputs(8))
    prepared = scorer.prepare(items)
    prepared.rank(user)
    model.set_weights([w + 0.01 for w in model.get_weights()])
    with pytest.raises(ValueError, match="`prepare` must be called again"):
        prepared.rank(user)
    assert_equal_scores(scorer.prepare(items).rank(user), scorer.rank(user, items))


def test_a_step_that_moves_one_row_of_a_large_table_is_seen():
    model = SharedBottom([Categorical("user", size=9), Categorical("item", size=100_000)], [BinaryTask("click")])
    for layer in model.layers:
        layer.trainable = hasattr(layer, "tables")
    model.compile("auto", metrics=None, run_eagerly=True)
    scorer, user, items = make_scorer(model), {"user": 3}, {"item": np.arange(2, 9)}
    prepared = scorer.prepare(items)
    prepared.rank(user)
    model.fit({"user": np.int32([3]), "item": np.int32([5])}, {"click": np.ones(1)}, verbose=0)
    with pytest.raises(ValueError, match="`prepare` must be called again"):
        prepared.rank(user)
    prepared = scorer.prepare(items)
    model.compile("auto", metrics=None, run_eagerly=True)
    assert_equal_scores(prepared.rank(user), scorer.rank(user, items))


def test_steps_count_on_over_compile():
    """Tables alone are trained, in rows of which none is sampled, by another optimizer and as many steps as before."""
    model = SharedBottom([Categorical("user", size=9), Categorical("item", size=100_000)], [BinaryTask("click")])
    for layer in model.layers:
        layer.trainable = hasattr(layer, "tables")
    batch = {"user": np.int32([3]), "item": np.int32([5])}, {"click": np.ones(1)}
    model.compile("auto", metrics=None, run_eagerly=True)
    assert model.steps_taken == 0
    model.fit(*batch, verbose=0)
    scorer, user, items = make_scorer(model), {"user": 3}, {"item": np.arange(2, 9)}
    prepared = scorer.prepare(items)
    model.compile("auto", metrics=None, run_eagerly=True)
    assert model.steps_taken == 1
    prepared.rank(user)
    model.fit(*batch, verbose=0)
    assert model.steps_taken == 2
    with pytest.raises(ValueError, match="`prepare` must be called again"):
        prepared.rank(user)
    # Nor does an optimizer that was used before, or another `compile` after the steps, hide them.
    model.compile(model.optimizer, metrics=None, run_eagerly=True)
    assert model.steps_taken == 2
    model.compile("auto", metrics=None, run_eagerly=True)
    with pytest.raises(ValueError, match="`prepare` must be called again"):
        prepared.rank(user)


def test_a_model_that_is_not_finite_has_not_changed():
    model = build("shared_bottom")
    model.set_weights([w * np.float32("nan") if w.dtype.kind == "f" else w for w in model.get_weights()])
    scorer, (user, items) = make_scorer(model), split(inputs(8))
    assert np.isnan(scorer.prepare(items).rank(user)["click"]).all()


def test_weights_of_a_balancing_method_make_no_score():
    model = build("shared_bottom")
    scorer, (user, items) = make_scorer(model), split(inputs(8))
    prepared = scorer.prepare(items)
    model.compile("auto", balancing="uncertainty")
    assert_equal_scores(prepared.rank(user), scorer.rank(user, items))


def test_what_is_refused():
    scorer, x = make_scorer(build("shared_bottom"), 10), inputs(30)
    user, items = split(x)
    prepared = scorer.prepare(items)
    assert len(prepared.rank(user)["click"]) == 30, "more than a call may have: they are there already"
    ranks = (lambda given: scorer.rank(given, items), lambda given: scorer.rank(user, given))
    for call in (scorer, scorer.prepare, *ranks):
        for given in (None, 3, [user]):
            with pytest.raises(ValueError, match="`(x|user|candidates)` must be a dict of arrays by column, or a tab"):
                call(given)
    with pytest.raises(ValueError, match="`user` must be a dict of arrays by column, or a table. Received: None"):
        prepared.rank(None)
    for rows, words in (([30], "0 to 29"), ([-1], "0 to 29"), ([0.5], "whole numbers"), ([[1]], "whole numbers")):
        with pytest.raises(ValueError, match=words):
            prepared.rank(user, rows)
    assert len(prepared.rank(user, [])["click"]) == 0
    with pytest.raises(ValueError, match="user_id"):
        prepared.rank({name: value for name, value in user.items() if name != "user_id"})
    with pytest.raises(ValueError, match="one row"):
        prepared.rank({**user, "age": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"Received in both: \['price'\]"):
        prepared.rank({**user, "price": 1})
    with pytest.raises(ValueError, match="Received: all of"):
        scorer.prepare(x)
    with pytest.raises(ValueError, match="Received: none of"):
        scorer.prepare({"other": np.zeros(3)})
    with pytest.raises(ValueError, match="at least one row"):
        scorer.prepare({name: values[:0] for name, values in items.items()})
    name = next(name for name, values in items.items() if values.dtype == np.int32 and values.ndim == 1)
    with pytest.raises(ValueError, match=name):
        scorer.prepare({**items, name: np.full(30, 10**6, "int32")})
