"""Histories for a candidate: against NumPy, blind to padding, and in the order that each claims."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, Sequence, SharedBottom
from mtl_zoo.layers.history import HISTORY_ENCODERS, HistorySelfAttention, TargetAttention, make_history_encoder
from mtl_zoo.options import MLP

RNG = np.random.default_rng(0)
LENGTH, DIM = 6, 4
ROWS = RNG.normal(size=(5, LENGTH, DIM)).astype("float32")
QUERY = RNG.normal(size=(5, DIM)).astype("float32")
LENGTHS = (6, 4, 2, 1, 0)
REAL = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
ROWS[~REAL] = 0.0
TASKS = [BinaryTask("click"), BinaryTask("like")]
every_encoder = pytest.mark.parametrize("name", sorted(HISTORY_ENCODERS))


def array(x):
    return ops.convert_to_numpy(x)


def made(layer, seed=1, query=True):
    shapes = ((None, LENGTH, DIM), (None, DIM)) if query else ((None, LENGTH, DIM),)
    layer.build(*shapes)
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape, scale=0.5) for w in layer.get_weights()])
    return layer


def named(name):
    layer = make_history_encoder(name, DIM, LENGTH)
    return made(layer, query=takes_query(layer))


def takes_query(layer):
    return isinstance(layer, (TargetAttention, HistorySelfAttention))


def call(layer, rows, query, mask):
    return array(layer(rows, query=query, mask=mask) if takes_query(layer) else layer(rows, mask=mask))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(x, gamma, beta):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * gamma + beta


def gelu(x):
    from scipy.special import erf

    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def test_target_attention_against_numpy():
    layer = made(TargetAttention(MLP((5, 3), activation="sigmoid")))
    weights = [array(w).astype("float64") for w in layer.weights]
    expected = np.zeros((5, DIM))
    for i, n in enumerate(LENGTHS):
        for e in ROWS[i, :n].astype("float64"):
            v = QUERY[i]
            x = np.concatenate([e, v, e - v, e * v])
            for kernel, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
                x = sigmoid(x @ kernel + bias)
            expected[i] += (x @ weights[4] + weights[5]) * e
    np.testing.assert_allclose(call(layer, ROWS, QUERY, REAL), expected, atol=1e-5)


def test_target_attention_of_weight_one_is_the_sum_and_has_no_order():
    layer = TargetAttention(MLP(()))
    layer.build((None, LENGTH, DIM), (None, DIM))
    layer.set_weights([np.zeros((4 * DIM, 1)), np.ones(1)])
    np.testing.assert_allclose(call(layer, ROWS, QUERY, REAL), ROWS.sum(1), atol=1e-6)
    layer, order = made(TargetAttention()), [3, 1, 0, 2, 4, 5]
    mixed = call(layer, ROWS[:2, order], QUERY[:2], REAL[:2, order])
    np.testing.assert_allclose(mixed, call(layer, ROWS[:2], QUERY[:2], REAL[:2]), atol=1e-5)


def test_self_attention_against_numpy():
    layer = made(HistorySelfAttention(num_blocks=2, num_heads=2, hidden_units=3, max_positions=9, dropout=0.5))
    w = {v.path.split("/", 1)[1]: array(v).astype("float64") for v in layer.weights}

    def attended(x, block):
        q, k, v = (
            np.einsum("td,dhe->hte", x, w[f"{block}/attention/{part}/kernel"])
            + w[f"{block}/attention/{part}/bias"][:, None]
            for part in ("query", "key", "value")
        )
        scores = np.einsum("hte,hse->hts", q, k) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        found = np.einsum("hts,hse->hte", weights, v)
        return (
            np.einsum("hte,hed->td", found, w[f"{block}/attention/attention_output/kernel"])
            + w[f"{block}/attention/attention_output/bias"]
        )

    expected = np.zeros((5, 2 * DIM))
    for i, n in enumerate(LENGTHS):
        if not n:
            continue
        x = ROWS[i, :n] * np.sqrt(DIM) + w["ages"][np.arange(n)[::-1]]
        for block in ("block_0", "block_1"):
            x = x + attended(layer_norm(x, w[f"{block}/first_norm/gamma"], w[f"{block}/first_norm/beta"]), block)
            hidden = layer_norm(x, w[f"{block}/second_norm/gamma"], w[f"{block}/second_norm/beta"])
            hidden = gelu(hidden @ w[f"{block}/hidden/kernel"] + w[f"{block}/hidden/bias"])
            x = x + hidden @ w[f"{block}/out/kernel"] + w[f"{block}/out/bias"]
        h = layer_norm(x, w["norm/gamma"], w["norm/beta"])[-1]
        expected[i] = np.concatenate([h, h * QUERY[i]])
    found = call(layer, ROWS, QUERY, REAL)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(array(layer(ROWS, mask=REAL)), expected[:, :DIM], atol=2e-5)


def test_self_attention_looks_at_no_later_event_and_at_the_order():
    layer = made(HistorySelfAttention(num_blocks=1))
    shorter = REAL[:1] & (np.arange(LENGTH) < 4)
    changed = ROWS[:1].copy()
    changed[:, 4:] = 7.0
    np.testing.assert_allclose(
        call(layer, changed, QUERY[:1], shorter), call(layer, ROWS[:1], QUERY[:1], shorter), atol=1e-5
    )
    swapped = ROWS[:1, [1, 0, 2, 3, 4, 5]]
    gap = np.abs(call(layer, swapped, QUERY[:1], REAL[:1]) - call(layer, ROWS[:1], QUERY[:1], REAL[:1])).max()
    assert gap > 1e-3


@every_encoder
def test_padding_changes_nothing_and_no_history_is_zeros(name):
    layer = named(name)
    expected = call(layer, ROWS, QUERY, REAL)
    assert (expected[-1] == 0).all() and np.isfinite(expected).all()
    noisy = np.where(REAL[..., None], ROWS, 3.0).astype("float32")
    np.testing.assert_allclose(call(layer, noisy, QUERY, REAL), expected, atol=1e-6)
    np.testing.assert_allclose(call(layer, ROWS[1:, :4], QUERY[1:], REAL[1:, :4]), expected[1:], atol=1e-5)


@every_encoder
def test_encoders_come_back_from_their_config_with_known_shapes(name):
    layer = named(name)
    again = type(layer).from_config(layer.get_config())
    shapes = ((None, LENGTH, DIM), (None, DIM)) if takes_query(layer) else ((None, LENGTH, DIM),)
    again.build(*shapes)
    again.set_weights(layer.get_weights())
    expected = call(layer, ROWS, QUERY, REAL)
    np.testing.assert_array_equal(call(again, ROWS, QUERY, REAL), expected)
    assert tuple(layer.compute_output_shape(*shapes)) == (None, expected.shape[1])


@pytest.mark.parametrize("layer", [TargetAttention, HistorySelfAttention])
def test_a_candidate_of_another_width_is_refused(layer):
    with pytest.raises(ValueError, match=r"`query` must be a feature whose vector is as wide.*width 4.*\(None, 3\)"):
        layer().build((None, LENGTH, DIM), (None, 3))


def test_sizes_of_self_attention_are_checked():
    with pytest.raises(ValueError, match="`num_heads` must divide"):
        HistorySelfAttention(num_heads=3).build((None, LENGTH, DIM))
    with pytest.raises(ValueError, match=r"`max_positions` must be at least.*max_positions=5, length 6"):
        HistorySelfAttention(max_positions=5).build((None, LENGTH, DIM))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"encoder": "din"}, "`query` must name the candidate"),
        ({"encoder": "best"}, "encoder"),
        ({"encoder": 3}, "`encoder` must be one of"),
        ({"query": "item_id"}, "`query` must name a feature, for an encoder"),
    ],
)
def test_arguments_of_a_sequence_are_checked(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Sequence("history", size=9, **arguments)


@pytest.mark.tensorflow
@pytest.mark.parametrize("encoder", [*sorted(HISTORY_ENCODERS), "layer"])
def test_a_model_reads_a_history_for_a_candidate(encoder, tmp_path):
    keras.utils.set_random_seed(0)
    given = keras.layers.GRU(3) if encoder == "layer" else encoder
    query = "item_id" if encoder in ("din", "sasrec") else None
    item = Categorical("item_id", size=20, dim=4)
    history = Sequence("history", size=20, dim=4, key="item_id", length=5, encoder=given, query=query)
    model = SharedBottom([history, item], TASKS, bottom_units=4, tower_units=4)
    model.compile("adam", metrics=None, run_eagerly=encoder != "din")  # a trace takes ten times as long
    rng = np.random.default_rng(0)
    x = {"item_id": rng.integers(0, 22, 64).astype("int32"), "history": rng.integers(0, 22, (64, 5)).astype("int32")}
    x["history"] = -np.sort(-x["history"], axis=1)
    y = {task.name: rng.integers(0, 2, 64).astype("float32") for task in TASKS}
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    before, after = model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)
