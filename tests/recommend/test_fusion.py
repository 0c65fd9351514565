"""Fusions against their formulas in NumPy, in a graph, and what they refuse."""

import json

import numpy as np
import pytest
from scipy.optimize import check_grad

from mtl_zoo.recommend import (
    Borda,
    Formula,
    Fusion,
    MonotoneNetwork,
    Powers,
    ReciprocalRank,
    WeightedSum,
    fusion_from_config,
    list_fusions,
)
from mtl_zoo.recommend.fusion.monotone import _Listwise

NETWORK = MonotoneNetwork(
    ("click", "buy"), (-2, -3), (0.5, 1.5), (0.3, 0.7), ((1.0, 0.2), (0.0, 2.0)), (0.1, -0.5), (0.4, 0.9)
)
FUSIONS = [
    WeightedSum({"click": 1, "buy": -3.5}),
    Powers({"click": 1.5, "buy": 0.25}),
    ReciprocalRank({"click": 1, "buy": 2}),
    Borda({"click": 1, "buy": 2}),
    Formula("-clip(click, 0.1, 0.8) ** a + log(buy + 1e-3) / max(exp(-click), min(sqrt(buy), 2))", {"a": 0.7}),
    NETWORK,
]
KINDS = {"ids": lambda fusion: fusion.kind if isinstance(fusion, Fusion) else None}


def drawn_scores(users=5, candidates=9, seed=0):
    rng = np.random.default_rng(seed)
    scores = {"click": rng.uniform(0.01, 0.9, (users, candidates)), "buy": rng.uniform(0.001, 0.3, (users, candidates))}
    scores["buy"][:, 3:5] = scores["buy"][:, 2:3]  # ties
    return scores


def test_every_kind_is_tried_here():
    # An example in a docstring registers one of its own, maybe in this process.
    known = [kind for kind in list_fusions() if not kind.endswith("_of_ours")]
    assert sorted(fusion.kind for fusion in FUSIONS) == known


def test_formulas():
    scores = drawn_scores()
    click, buy = scores["click"], scores["buy"]
    np.testing.assert_allclose(FUSIONS[0](scores), click - 3.5 * buy)
    np.testing.assert_allclose(FUSIONS[1](scores), click**1.5 * buy**0.25)
    bounded = np.maximum(np.exp(-click), np.minimum(np.sqrt(buy), 2))
    expected = -(np.clip(click, 0.1, 0.8) ** 0.7) + np.log(buy + 1e-3) / bounded
    np.testing.assert_allclose(FUSIONS[4](scores), expected)
    x = np.stack([(np.log(click) + 2) / 0.5, (np.log(buy) + 3) / 1.5], axis=-1)
    hidden = np.tanh(x @ np.array(NETWORK.kernel).T + NETWORK.bias)
    np.testing.assert_allclose(NETWORK(scores), x @ NETWORK.linear + hidden @ NETWORK.output)


def test_ranks_are_shared_by_ties():
    scores = {"click": [0.9, 0.5, 0.5, 0.1]}
    np.testing.assert_allclose(ReciprocalRank({"click": 1}, 0)(scores), [1, 1 / 2.5, 1 / 2.5, 1 / 4])
    np.testing.assert_allclose(Borda({"click": 3})(scores), [3, 1.5, 1.5, 0])


@pytest.mark.parametrize("fusion", FUSIONS, **KINDS)
@pytest.mark.parametrize("floors", [{}, {"buy": 0.1, "click": 0.2}])
def test_lists_may_be_an_axis_or_groups(fusion, floors):
    fusion, scores = fusion_from_config({**fusion.get_config(), "floors": floors}), drawn_scores()
    order = np.random.default_rng(1).permutation(45)
    flat = {name: values.reshape(-1, 1)[order] for name, values in scores.items()}
    groups = np.repeat(["a", "b", "c", "d", "e"], 9)[order]
    np.testing.assert_allclose(fusion(flat, groups), fusion(scores).reshape(-1)[order], rtol=1e-12)


@pytest.mark.tensorflow
@pytest.mark.parametrize("fusion", FUSIONS, **KINDS)
@pytest.mark.parametrize("floors", [{}, {"buy": 0.1, "click": 0.2}])
def test_the_graph_gives_the_same(fusion, floors):
    import tensorflow as tf

    fusion, scores = fusion_from_config({**fusion.get_config(), "floors": floors}), drawn_scores()
    specs = [{name: tf.TensorSpec([None, None], "float32") for name in scores}]
    graph = tf.function(fusion.in_graph, input_signature=specs, autograph=False)
    single = {name: values.astype("float32") for name, values in scores.items()}
    np.testing.assert_allclose(graph(single).numpy(), fusion(single), rtol=2e-6, atol=1e-6)
    double = fusion.in_graph({name: tf.constant(values) for name, values in scores.items()})
    np.testing.assert_allclose(double.numpy(), fusion(scores), rtol=1e-12)
    column = {name: tf.constant(values[0][:, None]) for name, values in scores.items()}
    np.testing.assert_allclose(fusion.in_graph(column).numpy(), fusion({n: v[0] for n, v in scores.items()}))


@pytest.mark.parametrize("fusion", FUSIONS, **KINDS)
def test_config_is_json(fusion):
    again = fusion_from_config(json.loads(json.dumps(fusion.get_config())))
    assert again.get_config() == fusion.get_config()
    np.testing.assert_array_equal(again(drawn_scores()), fusion(drawn_scores()))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_what_is_under_a_floor_comes_behind_in_its_own_order(scale):
    scores = drawn_scores()
    free = WeightedSum({"click": scale})
    fused = WeightedSum({"click": scale}, floors={"buy": 0.15})(scores)
    for row in range(len(fused)):
        good = scores["buy"][row] >= 0.15
        order = np.argsort(-free(scores)[row])
        expected = [*(i for i in order if good[i]), *(i for i in order if not good[i])]
        assert np.argsort(-fused[row]).tolist() == expected
    equal = WeightedSum({"click": 0}, floors={"buy": 0.5})({"click": [1, 1], "buy": [0.4, 0.6]})
    assert equal[1] > equal[0]


def test_a_network_is_monotone_and_its_gradient_right():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), (rng.random(60) < 0.3).astype(float)
    problem = _Listwise(x, y, np.arange(60) // 6, 2, 0.01)
    theta = np.abs(rng.normal(size=len(problem.start(0))))
    assert check_grad(lambda t: problem.loss(t)[0], lambda t: problem.loss(t)[1], theta) < 1e-5
    scores = drawn_scores()
    for name in scores:
        higher = {**scores, name: scores[name] * 1.1}
        assert (NETWORK(higher) > NETWORK(scores)).all()


def test_a_network_learns_what_counts():
    rng = np.random.default_rng(0)
    click, buy = rng.uniform(0.02, 0.5, (2, 6000))
    noise = rng.uniform(0.02, 0.5, 6000)
    labels, groups = (rng.random(6000) < click * buy).astype(float), np.arange(6000) // 20
    scores = {"click": click, "buy": buy, "noise": noise}
    learned = MonotoneNetwork.fit(scores, labels, groups, units=2)
    again = MonotoneNetwork.fit(scores, labels, groups, units=2)
    assert learned == again
    truth = np.corrcoef(np.argsort(np.argsort(learned(scores))), np.argsort(np.argsort(click * buy)))[0, 1]
    assert truth > 0.97
    alone = MonotoneNetwork.fit({"noise": -noise + 0.6}, (noise > 0.3).astype(float), groups, units=1)
    assert max(alone.linear) < 1e-3  # a task that points the wrong way gets no weight, since weights cannot be negative


HOSTILE = {
    "().__class__.__bases__[0].__subclasses__()": "must be arithmetic|must call",
    "__import__('os').system('true')": "`text` must call",
    "click.__class__": "must be arithmetic of tasks' scores. Received: 'click.__class__'",
    "__builtins__ + click": "must name tasks and constants. Received: '__builtins__'",
    "open('x')": "`text` must call log, exp",
    "log.real(click)": "`text` must call",
    "(lambda: click)()": "`text` must call",
    "[click for click in click]": "must be arithmetic",
    "click if click else buy": "must be arithmetic",
    "click < buy": "must be arithmetic",
    "click and buy": "must be arithmetic",
    "click // buy": "must be arithmetic",
    "click % 3": "must be arithmetic",
    "click @ buy": "must be arithmetic",
    "click << 3": "must be arithmetic",
    "~click": "must be arithmetic",
    "not click": "must be arithmetic",
    "click[0]": "must be arithmetic",
    "f'{click}'": "must be arithmetic",
    "(x := click)": "must be arithmetic",
    "click; buy": "must be a formula",
    "click = 3": "must be a formula",
    "import os": "must be a formula",
    "click +": "must be a formula",
    "": "must be a formula",
    "True + click": "must hold numbers and no other constants",
    "'a' * click": "must hold numbers and no other constants",
    "None": "must hold numbers and no other constants",
    "... + click": "must hold numbers and no other constants",
    "2j * click": "must hold numbers and no other constants",
    "9 ** 9 ** 9 ** 9 * click": "must have powers that are numbers or constants",
    "click ** 1e3": "must have powers",
    "click ** -101": "must have powers",
    "click ** buy": "must have powers",
    "click ** (2 ** 3)": "must have powers",
    "1e999 * click": "must hold numbers of at most",
    "9" * 500 + " * click": "must hold numbers of at most",
    "(" * 90 + "click" + ")" * 90 + " + 1" * 230: "`text` must have at most 1,000 characters",
    "-" * 200 + "click": "at most 200 parts and 30 levels",
    "-" * 990 + "click": "at most 200 parts and 30 levels|must be a formula",
    "(" * 400 + "click" + ")" * 400: "must be a formula",
    "click" + " + 1" * 240: "at most 200 parts and 30 levels",
    "click ** " + "-" * 900 + "buy": "must have powers|must be a formula",
    "\uff43lick + 1": "must hold printable ASCII characters",
    "\u043a\u043b\u0438\u043a": "must hold printable ASCII characters",
    "click\n+ 1": "must hold printable ASCII characters",
    "click\x00": "must hold printable ASCII characters",
    "log(click, 2)": "must give log 1 arguments",
    "max(*click)": "must give max 2 arguments",
    "max(*click, buy)": "must be arithmetic",
    "log(x=click)": "`text` must call",
    "log + click": "must name tasks and constants. Received: 'log'",
    "1 + 2": "`text` must name a task",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:30]))
def test_formulas_that_are_none(text):
    with pytest.raises(ValueError, match=HOSTILE[text]):
        Formula(text)


def test_text_is_asked_for():
    with pytest.raises(ValueError, match="`text` must be a formula. Received: text=3"):
        Formula(3)


def test_names_that_a_formula_cannot_spell():
    scores = {"add-to.cart": [0.1, 0.2], "7day": [1.0, 2.0]}
    np.testing.assert_allclose(Formula("add_to_cart * _7day")(scores), [0.1, 0.4])
    with pytest.raises(ValueError, match="must have one task that a formula spells 'a_b'"):
        Formula("a_b")({"a-b": [1.0], "a_b": [1.0]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WeightedSum({}), "`weights` must map names of tasks to numbers"),
        (lambda: WeightedSum({"a": np.nan}), r"`weights\['a'\]` must be a finite number"),
        (lambda: WeightedSum({1: 2}), "`weights` must have names of tasks as keys. Received: 1"),
        (lambda: WeightedSum({"a": 1}, floors={"a": "x"}), r"`floors\['a'\]` must be a finite number"),
        (lambda: ReciprocalRank({"a": 1}, -1), "`constant` must be a finite number and >= 0"),
        (lambda: WeightedSum({"a": 1})({"b": [1]}), r"`scores` must hold those of \['a'\]. Received: \['b'\]"),
        (lambda: WeightedSum({"a": 1}).in_graph({"b": [1]}), r"`scores` must hold those of \['a'\]"),
        (lambda: WeightedSum({"a": 1}, floors={"c": 1})({"a": [1]}), r"must hold those of \['c'\]"),
        (lambda: WeightedSum({"a": 1})({"a": [np.inf]}), "must be finite. Received: 1 NaN or infinite for 'a'"),
        (lambda: WeightedSum({"a": 1, "b": 1})({"a": [1], "b": [1, 2]}), "`scores` must have one shape"),
        (lambda: WeightedSum({"a": 1})({"a": [1, 2]}, groups=[1]), "`groups` must have one value a row"),
        (lambda: Powers({"a": 2})({"a": [-0.5, 1]}), r"`scores` must be >= 0 for powers. Received: \[-0.5\] for 'a'"),
        (lambda: Powers({"a": -1})({"a": [0, 1]}), "finite fused scores. Received: 1 NaN or infinite ones of 2"),
        (lambda: Formula("log(a)")({"a": [0.0]}), "finite fused scores"),
        (lambda: fusion_from_config({"kind": "magic"}), "`fusion` must be one of the known values"),
        (lambda: fusion_from_config({"kind": "powers", "weights": {}}), "`config` must have arguments of Powers"),
        (lambda: MonotoneNetwork(["a"], [0], [1], [-1]), "`weights` must be a finite number and >= 0"),
        (lambda: MonotoneNetwork(["a"], [0], [0], [1]), "`scale` must be a finite number and > 0"),
        (lambda: MonotoneNetwork(["a"], [0], [1], [1], [[1]]), "`kernel` must have a row a unit"),
        (lambda: MonotoneNetwork.fit({"a": [1, 2]}, [0, 0], [1, 1]), "`labels` must be finite, >= 0, and positive"),
        (lambda: MonotoneNetwork.fit({"a": [1, 2]}, [0], [1, 1]), "one for each label and group"),
        (lambda: Formula.suggested(None, {}), "`fusion` must be a kind that can be searched. Received: 'formula'"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
