"""The body of a trained model under other tasks: what comes over, what trains, and what files keep of it."""

import keras
import numpy as np
import pandas as pd
import pytest

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, RegressionTask, transfer
from mtl_zoo.layers import DenseStack, ExpertBank
from mtl_zoo.models._calibration import Affine
from mtl_zoo.models._corrections import Corrections
from mtl_zoo.serving import Scoring

pytestmark = pytest.mark.tensorflow
OLD, NEW = [BinaryTask("like"), BinaryTask("buy")], [BinaryTask("like"), RegressionTask("stars")]
SMALL = {"num_experts": 2, "expert_units": (5,), "tower_units": (4,)}


def rows(count=48):
    rng = np.random.default_rng(0)
    table = {"user": rng.integers(0, 9, count), "age": rng.normal(size=count), "stars": rng.normal(size=count)}
    return pd.DataFrame({**table, "like": rng.integers(0, 2, count), "buy": rng.integers(0, 2, count)})


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    transform = FeatureTransform([Categorical("user", dim=3), Numeric("age")], OLD).fit(rows())
    model = mtl_zoo.create_model("mmoe", transform, **SMALL)
    model.compile("adam", run_eagerly=True)
    model.fit(rows(), verbose=0)
    return model


def values(model):
    return {v.path: v.numpy() for layer in model.layers for v in layer.weights}


def fit(model, **arguments):
    """The paths of the weights that a step of training moved."""
    before = values(model)
    model.compile("adam", run_eagerly=True, **arguments)
    model.fit(rows(), verbose=0)
    return {path for path, value in values(model).items() if not np.array_equal(value, before[path])}


def test_the_body_and_the_towers_of_kept_tasks_come_over(trained):
    new, before = transfer(trained, NEW), values(trained)
    report = new.transferred.set_index("weight")
    for path, value in values(new).items():
        assert report.loc[path, "came_over"] == (path in before), path
        if path in before:
            np.testing.assert_array_equal(value, before[path])
    assert all("stars" in path for path in report.index[~report["came_over"]]) and report["trains"].all()
    np.testing.assert_array_equal(new.predict(rows(), verbose=0)["like"], trained.predict(rows(), verbose=0)["like"])
    fit(new)
    for path, value in values(trained).items():
        np.testing.assert_array_equal(value, before[path])  # the old model is left as it is


@pytest.mark.parametrize("freeze", ["tables", "below"])
def test_what_is_frozen_does_not_move(trained, freeze):
    new = transfer(trained, NEW, freeze=freeze)
    moved = fit(new, balancing="pcgrad")
    assert not any(path.startswith("embedding") for path in moved)
    assert any(path.startswith("experts") for path in moved) == (freeze == "tables")
    assert moved == set(new.transferred["weight"][new.transferred["trains"]])


def test_low_rank_updates_start_as_nothing_and_train_in_place_of_kernels(trained, tmp_path):
    new = transfer(trained, NEW, freeze="below", adapters=2, alpha=4.0)
    before = trained.predict(rows(), verbose=0)["like"]
    np.testing.assert_allclose(new.predict(rows(), verbose=0)["like"], before, atol=1e-6)
    moved = fit(new)
    assert "experts/kernel_0" not in moved and any(path.endswith("up") for path in moved)
    scores = new.predict(rows(), verbose=0)
    new.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for name, found in again.predict(rows(), verbose=0).items():
        np.testing.assert_array_equal(found, scores[name])
    names = [v.path for v in new.trainable_variables]
    assert [v.path for v in again.trainable_variables] == names == [v.path for v in new.clone().trainable_variables]
    raw = new.transform.raw_arrays(rows())
    np.testing.assert_allclose(Scoring(new, raw=True)(raw)["stars"], scores["stars"], atol=1e-6)
    # Updates are added to their kernels where the model is taken over once more.
    third = transfer(new, NEW)
    np.testing.assert_allclose(third.predict(rows(), verbose=0)["stars"], scores["stars"], atol=1e-5)
    assert len(third.transferred) == len(trained.weights)


@pytest.mark.parametrize("layer", [DenseStack((3, 2)), ExpertBank(2, (3, 2))])
def test_an_update_adds_a_product_of_two_matrices_to_a_kernel(layer):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    layer(x)
    kernels = list(layer.kernels) if isinstance(layer, ExpertBank) else [dense.kernel for dense in layer.dense]
    layer.adapt(rank=2, alpha=3.0)
    for update in layer.updates:
        update.up.assign(np.random.default_rng(1).normal(size=update.up.shape))
    found = keras.ops.convert_to_numpy(layer(x))
    merged = [k.numpy() + 3.0 / 2 * u.down.numpy() @ u.up.numpy() for k, u in zip(kernels, layer.updates, strict=True)]
    experts = [[m[e] for m in merged] for e in range(2)] if isinstance(layer, ExpertBank) else [merged]
    for e, own in enumerate(experts):
        h = x
        for kernel in own:
            h = np.maximum(h @ kernel, 0)
        np.testing.assert_allclose(found[:, e] if len(experts) > 1 else found, h, atol=1e-5)


def test_one_task_alone_has_a_body_too():
    model = mtl_zoo.SharedBottom([Numeric("age")], BinaryTask("like"), bottom_units=(4,), tower_units=(3,))
    new = transfer(model, RegressionTask("like"), freeze="below")
    report = new.transferred.set_index("weight")
    assert set(report.index[report["came_over"]]) == {"bottom/dense_0/kernel", "bottom/dense_0/bias"}
    assert set(report.index[~report["trains"]]) == {"bottom/dense_0/kernel", "bottom/dense_0/bias"}


def test_what_is_refused(trained):
    with pytest.raises(ValueError, match="`freeze` must be one of the known values"):
        transfer(trained, NEW, freeze="all")
    with pytest.raises(ValueError, match="`adapters` must be None unless freeze='below'"):
        transfer(trained, NEW, adapters=2)
    with pytest.raises(ValueError, match="`adapters` must be a whole number >= 1"):
        transfer(trained, NEW, freeze="below", adapters=0)
    with pytest.raises(ValueError, match="`alpha` must be None without `adapters`"):
        transfer(trained, NEW, alpha=1.0)
    with pytest.raises(ValueError, match="`features` must not read 'age'"):
        transfer(trained, RegressionTask("years", label="age"))


def test_a_body_that_a_task_reads_beside_a_retrieval_task_comes_over():
    table = rows().assign(film=np.arange(48) % 7)
    features = [Categorical("user", dim=3, side="user"), Categorical("film", dim=3, side="item")]
    watch = mtl_zoo.RetrievalTask("buy", tower_units=(4,))
    model = mtl_zoo.SharedBottom(FeatureTransform(features, [OLD[0], watch]).fit(table), bottom_units=(5,))
    new = transfer(model, [mtl_zoo.RegressionTask("stars"), watch], freeze="below", adapters=2)
    report = new.transferred.set_index("weight")
    assert report.loc["bottom/dense_0/kernel"].to_dict() == {
        "shape": (6, 5), "numbers": 30, "came_over": True, "trains": False
    }  # fmt: skip
    assert all("update" in path or "stars" in path for path in report.index[~report["came_over"]])


def test_corrections_that_do_not_come_over_are_told_of(trained):
    model = trained.clone()
    model.set_corrections(Corrections(calibrations={"like": Affine(2.0)}))
    with pytest.warns(UserWarning, match="not corrected"):
        assert not transfer(model, NEW).corrections
