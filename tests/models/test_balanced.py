"""Balanced batches: each holds its shares of labels, every row of a kind comes equally often, and scores stay right."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import compile_eagerly

import mtl_zoo
from mtl_zoo import BalancedBatches, BinaryTask, FeatureTransform, NegativeSampling, Numeric
from mtl_zoo.features import TableStream
from mtl_zoo.features._balanced import BalancedStream
from mtl_zoo.heads import EntireSpace, Towers
from mtl_zoo.models._corrections import Corrections

CLICK, CONVERSION = BinaryTask("click"), BinaryTask("conversion", sample_space="click")
REFUND = BinaryTask("refund", sample_space="conversion")
LIKE = BinaryTask("like")
BOTH = BalancedBatches({"click": 0.5, "conversion": 0.25})


def logit(p):
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize(
    ("head", "tasks", "rates"),
    [
        (Towers(), (CLICK,), (0.02,)),
        (Towers(), (CLICK, CONVERSION), (0.3,)),
        (Towers(), (CLICK, CONVERSION, REFUND), (0.02, 0.3)),
        (EntireSpace(), (CLICK, CONVERSION), (0.02, 0.3)),
        (EntireSpace(), (CLICK, CONVERSION), (0.4, 1e-4)),
        (Towers(), (CLICK, CONVERSION, REFUND), (0.02, 0.3, 0.7)),
    ],
)
def test_scores_are_those_of_all_rows(head, tasks, rates):
    """From the probabilities of a funnel to what they are where rows come so often, and back."""
    rng = np.random.default_rng(0)
    steps = tasks[: len(rates)]
    q = dict(zip([task.name for task in tasks], 10 ** rng.uniform(-3, -0.05, (len(tasks), 100)), strict=True))
    # How likely it is to stop at each step, or to pass them all; then the same among rows that come so often.
    reached = np.cumprod([np.ones(100), *(q[task.name] for task in steps)], axis=0)
    stops = [reached[i] * (1 - q[task.name]) for i, task in enumerate(steps)] + [reached[-1]]
    often = np.array(stops) * np.array([*rates, 1.0])[:, None]
    often /= often.sum(axis=0)
    sampled = {name: logit(p) for name, p in q.items()}
    for i, task in enumerate(steps):
        sampled[task.name] = logit(often[i + 1 :].sum(axis=0) / often[i:].sum(axis=0))
    truth = {name: logit(p) for name, p in q.items()}
    if isinstance(head, EntireSpace):
        sampled["click_and_conversion"] = logit(often[2])
        truth["click_and_conversion"] = logit(q["click"] * q["conversion"])
    given = {name: a[:, None].astype("float32") for name, a in sampled.items()}
    sampling = BalancedBatches({task.name: 0.5 for task in steps}, rates=rates)
    found = Corrections(sampling).apply(head.outputs(tasks), tasks, given)
    for name, expected in truth.items():
        np.testing.assert_allclose(ops.convert_to_numpy(found[name])[:, 0], expected, atol=5e-4)
    assert Corrections.from_config(Corrections(sampling).get_config()) == Corrections(sampling)


def test_one_step_is_negative_sampling_of_that_rate():
    a = {name: np.linspace(-5, 5, 20, dtype="float32")[:, None] for name in ("click", "conversion")}
    a["click_and_conversion"] = a["click"] - 1
    outputs, tasks = EntireSpace().outputs((CLICK, CONVERSION)), (CLICK, CONVERSION)
    one = Corrections(BalancedBatches({"click": 0.5}, rates=(0.1,))).apply(outputs, tasks, a)
    other = Corrections(NegativeSampling("click", rate=0.1)).apply(outputs, tasks, a)
    for name in a:
        np.testing.assert_array_equal(ops.convert_to_numpy(one[name]), ops.convert_to_numpy(other[name]))


def rows(count=1000, seed=0):
    rng = np.random.default_rng(seed)
    click = (rng.random(count) < 0.06).astype("float32")
    conversion = click * (rng.random(count) < 0.2)
    click[::40] = np.nan
    conversion[::40] = np.nan
    return pd.DataFrame({"row": np.arange(count, dtype="float32"), "click": click, "conversion": conversion})


def streams(table, tmp_path):
    """The rows in memory and of a file, for batches of 16 rows."""
    tasks = (CLICK, CONVERSION)
    transform = FeatureTransform(Numeric("row", normalization=None), tasks).fit(table)
    inputs, labels = transform.encode(table), transform.encode_labels(table)
    yield BalancedStream.of_arrays((inputs, labels, None), tasks, BOTH, 16, transform, {})
    table.to_parquet(tmp_path / "t.parquet")
    stream = TableStream(tmp_path / "t.parquet", transform, shuffle_rows=100)
    yield BalancedStream.of_stream(stream, tasks, BOTH, 16)


@pytest.mark.tensorflow
def test_each_batch_holds_its_shares_and_rows_come_equally_often(tmp_path):
    table = rows()
    known = table.dropna()
    for stream in streams(table, tmp_path):
        assert stream.rows == len(known)
        epochs, seen = [], []
        for epoch in range(2):
            found = [(x["row"].numpy(), y) for x, y in stream.batches(16, seed=3, epoch=epoch)]
            assert len(found) == -(-len(known) // 16)
            for at, y in found:
                assert (
                    len(at) == 16 and (y["click"].numpy() == 1).sum() == 8 and (y["conversion"].numpy() == 1).sum() == 2
                )
            epochs.append([at.tolist() for at, _ in found])
            seen += itertools.chain.from_iterable(epochs[-1])
        for click, conversion in ((0, 0), (1, 0), (1, 1)):
            of_kind = known[(known["click"] == click) & (known["conversion"] == conversion)]["row"]
            times = pd.Series(seen).value_counts().reindex(of_kind, fill_value=0)
            assert times.max() - times.min() <= 1
        assert epochs[0] != epochs[1]
        again = [x["row"].numpy().tolist() for x, _ in stream.batches(16, seed=3, epoch=1, start=5)]
        assert again == epochs[1][5:]
        # The rates are those of rows that come: 8 of 16 rows without a click, 6 clicks alone, 2 conversions.
        sizes = np.array(stream.sizes)
        np.testing.assert_allclose(stream.sampling.rates, np.array([8, 6]) / sizes[:2] / (2 / sizes[2]))


@pytest.mark.tensorflow
def test_the_level_is_that_of_the_rows_wherever_scores_leave(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = {"x": rng.integers(0, 2, 4000).astype("float32")}
    y = {"click": (rng.random(4000) < np.where(x["x"] == 1, 0.1, 0.02)).astype("float32")}
    model = mtl_zoo.SharedBottom([Numeric("x")], CLICK, bottom_units=(4,), tower_units=())
    compile_eagerly(model, keras.optimizers.Adam(0.1))
    model.fit(x, y, batch_size=200, epochs=2, sampling=BalancedBatches({"click": 0.5}), verbose=0)
    both = {"x": np.array([0.0, 1.0], "float32")}
    scores = model.predict(both, verbose=0)["click"][:, 0]
    rates = [y["click"][x["x"] == value].mean() for value in (0, 1)]
    np.testing.assert_allclose(scores, rates, rtol=0.25)
    assert (1 / (1 + np.exp(-ops.convert_to_numpy(model(both)["click"])[:, 0])) > 3 * np.array(rates)).all()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.corrections.sampling.rates == model.corrections.sampling.rates
    np.testing.assert_allclose(loaded.predict(both, verbose=0)["click"][:, 0], scores, rtol=1e-6)
    np.testing.assert_allclose(mtl_zoo.make_scorer(model)(both)["click"][:, 0], scores, rtol=1e-5)
    with pytest.raises(ValueError, match="`sampling` must have the same share as before"):
        model.fit(x, y, sampling=BalancedBatches({"click": 0.4}), verbose=0)


@pytest.mark.tensorflow
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 5:
                raise KeyboardInterrupt

    x, y = {"x": np.arange(60, dtype="float32") / 60}, {"click": (np.arange(60) % 10 == 0).astype("float32")}

    def train(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model = compile_eagerly(mtl_zoo.SharedBottom([Numeric("x")], CLICK, bottom_units=(2,), tower_units=()))
        saving = mtl_zoo.training.Checkpoints(tmp_path / folder, every_steps=1)
        callbacks = [saving, *callbacks]
        balanced = BalancedBatches({"click": 0.5})
        model.fit(x, y, batch_size=20, epochs=3, sampling=balanced, callbacks=callbacks, verbose=0)
        return model

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", Kill())
    for a, b in zip(whole.get_weights(), train("killed").get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.tensorflow
def test_tables_and_streams_are_trained_on(tmp_path):
    table = rows(400)
    transform = FeatureTransform(Numeric("row"), (CLICK, CONVERSION)).fit(table)
    table.to_parquet(tmp_path / "t.parquet")
    found = []
    for data in (table, TableStream(tmp_path / "t.parquet", transform)):
        model = mtl_zoo.create_model("esmm", transform, tower_units=(), backbone_options={"bottom_units": (4,)})
        compile_eagerly(model)
        model.fit(data, batch_size=100, sampling=BOTH, verbose=0)
        found.append(model.corrections.sampling)
        assert found[-1].shares == BOTH.shares and len(found[-1].rates) == 2
        assert np.isfinite(model.predict(table, verbose=0)["click_and_conversion"]).all()
    assert found[0].rates == found[1].rates


def test_what_cannot_be_balanced_is_refused():
    x, y = {"x": np.zeros(40, "float32")}, {"click": (np.arange(40) % 4 == 0).astype("float32")}
    model = compile_eagerly(mtl_zoo.SharedBottom([Numeric("x")], CLICK, bottom_units=(2,)))

    def fit(shares, labels=y, **arguments):
        return model.fit(x, labels, sampling=BalancedBatches(shares), verbose=0, **arguments)

    for make, words in (
        (lambda: BalancedBatches({}), "`shares` must be a dict of shares by task"),
        (lambda: BalancedBatches({"click": 1.0}), "must be a finite number and > 0 and < 1"),
        (lambda: fit({"buy": 0.5}), r"`shares` must name tasks with labels 0 and 1.*\['buy'\]"),
        (lambda: fit({"click": 0.1}), "`shares` must not make label 1 rarer than it is"),
        (lambda: fit({"click": 0.5}, {"click": np.zeros(40)}), "`shares` need rows of each kind of labels"),
        (lambda: fit({"click": 0.5}, batch_size=1), "`batch_size` must be at least 2"),
        (lambda: fit({"click": 0.5}, shuffle=False), "`shuffle` must be True with"),
        (lambda: fit({"click": 0.5}, class_weight={1: 2.0}), "`class_weight` must be None with balanced batches"),
        (lambda: model.fit([(x, y)], sampling=BalancedBatches({"click": 0.5})), "needs rows: arrays, a table or"),
        (lambda: BalancedBatches({"click": 0.5, "like": 0.5}).steps((CLICK, LIKE)), "must name steps of a funnel"),
        (lambda: BOTH.kinds((CLICK, CONVERSION), {"click": [1.0], "conversion": [np.nan]}), "must be observed where"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    assert not model.corrections
    two = compile_eagerly(mtl_zoo.SharedBottom([Numeric("x")], (CLICK, LIKE), bottom_units=(2,)))
    with pytest.raises(ValueError, match=r"outputs \['like'\], whose labels may go"):
        two.fit(x, {**y, "like": y["click"]}, sampling=BalancedBatches({"click": 0.5}), verbose=0)
