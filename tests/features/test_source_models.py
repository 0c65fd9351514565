"""Models that are trained and judged on several sources of rows."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from cut_runs import Interrupt, Interrupted
from several_sources import DOMAIN, FEATURES, fitted, make_model, tables
from toys import sample_of

import mtl_zoo
from mtl_zoo import (
    BinaryTask,
    ExactValidation,
    JointSources,
    NegativeSampling,
    Sequence,
    Source,
)
from mtl_zoo._types import SOURCE_INPUT
from mtl_zoo.balancing import create_balancing
from mtl_zoo.training import Checkpoints

pytestmark = pytest.mark.tensorflow


# Models.


@pytest.mark.extended
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
    tasks = [BinaryTask("like"), BinaryTask("buy", sample_space="like")]
    if "middle_action" in mtl_zoo.model_info(name).requires:
        tasks.insert(1, BinaryTask("cart", sample_space="like"))
    both = tables()
    seen = [[f"film {i}", "film 1"] for i in range(len(both["ratings"]))]
    both["ratings"] = both["ratings"].assign(cart=both["ratings"]["buy"], seen=seen)
    both["reviews"] = both["reviews"].assign(like=1)
    sources = JointSources(both)
    model = make_model(fitted(sources, [*FEATURES, DOMAIN, Sequence("seen", dim=2, length=3)], tasks), name)
    before = [v.numpy() for v in model.trainable_variables]
    history = model.fit(sources, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all() and any("reviews" in log for log in history)
    assert any(np.abs(a - b.numpy()).max() > 0 for a, b in zip(before, model.trainable_variables, strict=True))


@pytest.mark.parametrize("method", sample_of(mtl_zoo.list_balancing(), ("pcgrad",)))
def test_every_balancing_method(transform, method):
    needed = {"data_based": {"frequencies": dict.fromkeys(["like", "stars", "buy"], 0.2)}}
    model = make_model(transform, balancing=create_balancing(method, **needed.get(method, {})))
    history = model.fit(JointSources(tables(), alternating=True), batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


# Training that was interrupted.


@pytest.mark.extended
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
    sys.path[:0] = ["tests"]
    import keras, numpy as np, tensorflow as tf
    from several_sources import fitted, make_model, tables

    from mtl_zoo import JointSources

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
