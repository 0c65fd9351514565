"""prune: the smallest weights become 0 and stay 0, whatever trains the others."""

import itertools

import keras
import numpy as np
import pytest
from toys import build, inputs, labels_for

from mtl_zoo import BinaryTask, Categorical, create_model
from mtl_zoo.training import hold_zeros, prune, save_compressed
from mtl_zoo.training.pruning import prunable

pytestmark = pytest.mark.tensorflow


def values_of(model):
    return {kernel.path: np.array(kernel) for kernel in prunable(model)}


def compiled(name="mmoe", optimizer="adam", **arguments):
    model = build(name)
    model.compile(optimizer, metrics=None, **arguments)
    return model


def trained(name="mmoe"):
    """As if it were: gates start as zeros."""
    model, rng = build(name), np.random.default_rng(0)
    for kernel in prunable(model):
        kernel.assign(rng.normal(scale=rng.uniform(0.1, 2), size=kernel.shape))
    return model


def test_the_smallest_of_each_kernel_are_gone():
    model = trained()
    before = values_of(model)
    others = {v.path: np.array(v) for v in model.weights if v.path not in before}
    assert any("table" in path for path in others) and any("bias" in path for path in others)
    found = prune(model, 0.6)
    for path, values in values_of(model).items():
        sizes, gone = np.abs(before[path]), values == 0
        assert gone.sum() == int(0.6 * values.size) and found.sparsity[path] == pytest.approx(gone.mean())
        assert not gone.any() or sizes[gone].max() <= sizes[~gone].min()
        np.testing.assert_array_equal(values[~gone], before[path][~gone])
    for variable in model.weights:
        if variable.path in others:
            np.testing.assert_array_equal(variable, others[variable.path])
    assert found.weights == sum(values.size for values in before.values())
    assert found.zeros == sum(int((values == 0).sum()) for values in values_of(model).values())


def test_the_smallest_of_all_kernels_are_gone_by_scope_model():
    model = trained()
    before = values_of(model)
    found = prune(model, 0.5, scope="model")
    scaled = {path: np.abs(values) / np.sqrt(np.mean(values**2)) for path, values in before.items()}
    gone = np.concatenate([scaled[path][values == 0] for path, values in values_of(model).items()])
    stay = np.concatenate([scaled[path][values != 0] for path, values in values_of(model).items()])
    assert gone.max() <= stay.min() * (1 + 1e-5)
    assert len(set(found.sparsity.values())) > 1 and found.zeros == int(0.5 * found.weights)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        ("auto", {"steps_per_execution": 3}),
        pytest.param({"embeddings": 1e-2, "dense": 1e-2}, {"balancing": "pcgrad"}, marks=pytest.mark.slow),
    ],
    ids=["lazy_adam", "split_and_pcgrad"],
)
def test_zeros_stay_zeros_in_training_and_the_rest_learns(optimizer, arguments):
    model = compiled("shared_bottom", optimizer, **arguments)
    prune(model, 0.5)
    before = values_of(model)
    with hold_zeros(model):
        model.fit(inputs(), labels_for(model), batch_size=8, epochs=2, verbose=0)
    for path, values in values_of(model).items():
        np.testing.assert_array_equal(values == 0, before[path] == 0)
        assert (values != before[path]).any()
    model.fit(inputs(), labels_for(model), batch_size=8, verbose=0)  # afterwards all weights are trained again
    assert all((values[before[path] == 0] != 0).any() for path, values in values_of(model).items())


def test_rounds_follow_the_cubic_schedule_and_zeros_only_grow(tmp_path):
    model = compiled("shared_bottom", run_eagerly=True)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append({path: values == 0 for path, values in values_of(self.model).items()})

    found = prune(
        model, 0.8, inputs(), labels_for(model), rounds=3, batch_size=32, epochs=1, verbose=0, callbacks=[Look()]
    )
    assert len(found.histories) == 3 and len(seen) == 6
    for path in seen[0]:
        size = seen[0][path].size
        wanted = [int(0.8 * (1 - (1 - r / 3) ** 3) * size + 1e-9) for r in (1, 1, 2, 2, 3, 3)]
        assert [int(step[path].sum()) for step in seen] == wanted
        assert all((after[path] | ~before[path]).all() for before, after in itertools.pairwise(seen))

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with hold_zeros(loaded):
        loaded.fit(inputs(), labels_for(loaded), verbose=0)
    for path, values in values_of(loaded).items():
        np.testing.assert_array_equal(values == 0, seen[-1][path])


def test_a_kernel_that_starts_as_zeros_is_still_trained():
    model = compiled("mmoe", run_eagerly=True)
    gates = [path for path, values in values_of(model).items() if not values.any()]
    found = prune(model, 0.5, inputs(), labels_for(model), batch_size=32, epochs=2, verbose=0)
    assert gates and all(0.5 <= found.sparsity[path] < 1 for path in gates)


def test_a_compressed_file_is_small_and_is_a_file_of_keras(tmp_path):
    model = create_model("shared_bottom", [Categorical("item", size=50)], [BinaryTask("click")])
    dense = save_compressed(model, tmp_path / "dense.keras")
    found = prune(model, 0.9)
    small = save_compressed(model, tmp_path / "small.keras")
    assert small == (tmp_path / "small.keras").stat().st_size < dense - 2.5 * found.zeros
    loaded, x = keras.saving.load_model(tmp_path / "small.keras"), {"item": np.arange(50, dtype="int32")}
    np.testing.assert_array_equal(loaded.predict(x, verbose=0)["click"], model.predict(x, verbose=0)["click"])
    with pytest.raises(ValueError, match="`path` must end in '.keras'"):
        save_compressed(model, tmp_path / "small.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"dense.keras", "small.keras"}


def test_what_is_refused():
    model = build("shared_bottom")
    for wrong in (-0.1, 1.0, "half", None):
        with pytest.raises(ValueError, match="`sparsity` must"):
            prune(model, wrong)
    with pytest.raises(ValueError, match="`scope` must be one of"):
        prune(model, 0.5, scope="global")
    with pytest.raises(ValueError, match="`x` must be rows to train on.*rounds=2"):
        prune(model, 0.5, rounds=2)
    with pytest.raises(ValueError, match="`compile\\(\\)` must be called"):
        prune(model, 0.5, inputs(), labels_for(model))
