"""One optimizer for tables, one for the rest; and what `compile` takes."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import CLICK, build, compile_eagerly, inputs, labels, sample_of

from mtl_zoo.optimizers import (
    LazyAdagrad,
    LazyAdam,
    LazyFtrl,
    LazySGD,
    RowWiseAdagrad,
    SparseLossScaleOptimizer,
    SplitOptimizer,
    as_optimizer,
)


def rate(optimizer):
    return pytest.approx(float(ops.convert_to_numpy(optimizer.learning_rate)))


def test_tables_of_a_model_go_to_the_embeddings_part():
    model = build("shared_bottom")
    model.compile({"embeddings": RowWiseAdagrad(0.05), "dense": "adam"})
    split = model.optimizer
    split.build(model.trainable_variables)
    tables = model.get_layer("embedding").tables
    assert len(tables) == 3
    assert [a.shape[0] for a in split.embeddings.accumulators] == [t.shape[0] for t in tables]
    slots = len(model.trainable_variables) - len(tables)
    assert len(split.dense.variables) == 2 + 2 * slots


def test_a_model_without_tables_and_a_part_without_gradients():
    split, kernel, table = SplitOptimizer(), keras.Variable([1.0]), keras.Variable([[1.0]])
    split.apply([ops.ones(1)], [kernel])
    assert float(ops.convert_to_numpy(kernel)[0]) < 1
    table.is_embedding_table = True
    split = SplitOptimizer(LazySGD(0.5), LazySGD(0.5))
    split.apply([None, ops.ones(1)], [table, kernel])
    assert float(ops.convert_to_numpy(table)[0, 0]) == 1 and int(split.embeddings.iterations) == 0


def test_averages_of_the_dense_part_end_in_its_weights():
    kernel = keras.Variable([1.0])
    split = SplitOptimizer(LazySGD(0.5), keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    for _ in range(2):
        split.apply([ops.ones(1)], [kernel])
    assert float(ops.convert_to_numpy(kernel)[0]) == 0.0
    split.finalize_variable_values([kernel])
    assert float(ops.convert_to_numpy(kernel)[0]) == pytest.approx(0.25)


def test_learning_rate_reads_the_dense_part_and_is_not_set_for_both():
    split = SplitOptimizer(LazyAdam(0.5), LazyAdam(0.25))
    assert rate(split) == 0.25
    with pytest.raises(ValueError, match="`learning_rate` of a SplitOptimizer has two values.*Received: learning_rate"):
        split.learning_rate = 0.1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gradient_accumulation_steps": 2}, "`dense` must have no `gradient_accumulation_steps`.*different times"),
        ({"loss_scale_factor": 2.0}, "`dense` must have no `loss_scale_factor`: one loss has one scale"),
    ],
)
def test_parts_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitOptimizer(dense=keras.optimizers.Adam(**options))


def test_parts_are_two_optimizers():
    for part in ("adam", SplitOptimizer(), SparseLossScaleOptimizer(LazyAdam())):
        with pytest.raises(TypeError, match="`embeddings` must be a Keras optimizer that is no SplitOptimizer"):
            SplitOptimizer(embeddings=part)
    both = LazyAdam()
    with pytest.raises(ValueError, match="must be different optimizers"):
        SplitOptimizer(both, both)


def test_what_compile_takes():
    assert type(as_optimizer("auto")) is LazyAdam and rate(as_optimizer("auto")) == 0.001
    for name, kind in {
        "lazy_adam": LazyAdam,
        "lazy_adagrad": LazyAdagrad,
        "lazy_ftrl": LazyFtrl,
        "lazy_sgd": LazySGD,
        "row_wise_adagrad": RowWiseAdagrad,
        "adam": keras.optimizers.Adam,
    }.items():
        assert isinstance(as_optimizer(name), kind)
    assert not isinstance(as_optimizer("adam"), LazyAdam)
    given = keras.optimizers.SGD(0.5)
    assert as_optimizer(given) is given and as_optimizer(None) is None
    assert rate(as_optimizer(keras.optimizers.serialize(given))) == 0.5
    split = as_optimizer({"embeddings": 0.01, "dense": keras.optimizers.schedules.CosineDecay(0.5, 10)})
    assert rate(split.embeddings) == 0.01 and rate(split.dense) == 0.5 and type(split.dense) is LazyAdam
    assert isinstance(as_optimizer(given, scale_loss=True), SparseLossScaleOptimizer)
    scaled = keras.optimizers.LossScaleOptimizer(given)
    assert as_optimizer(scaled, scale_loss=True) is scaled


@pytest.mark.parametrize(
    "optimizer, message",
    [
        ({"tables": 0.1, "dense": 0.1}, r"must have the keys \['embeddings', 'dense'\].*keys \['dense', 'tables'\]"),
        ({"embeddings": 0.1}, "`optimizer` as a dict must have the keys"),
        ({"embeddings": 0, "dense": 0.1}, r"`optimizer\['embeddings'\]` must be a finite number and > 0"),
        ({"embeddings": None, "dense": 0.1}, r"`optimizer\['embeddings'\]` must be a name, an optimizer or"),
        (
            {"embeddings": "lazyadam", "dense": 0.1},
            r"`optimizer\['embeddings'\]` must be a Keras optimizer or",
        ),
        ("adamm", "Received: optimizer='adamm'. Expected: one of 'auto', 'lazy_adam'"),
    ],
)
def test_what_compile_refuses(optimizer, message):
    with pytest.raises(ValueError, match=message):
        build("shared_bottom").compile(optimizer)


OPTIMIZERS = {
    "auto": "auto",
    "split": {"embeddings": "row_wise_adagrad", "dense": keras.optimizers.AdamW(1e-3)},
}


@pytest.mark.parametrize("name", sample_of(OPTIMIZERS, ("split",)))
def test_a_saved_model_goes_on_training_as_if_it_had_not_been_saved(name, tmp_path):
    model = build("shared_bottom", [CLICK])
    compile_eagerly(model, OPTIMIZERS[name])
    x, y = inputs(), {"click": labels()["click"]}
    options = {"batch_size": 32, "shuffle": False, "verbose": 0}
    model.fit(x, y, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    for each in (model, loaded):
        each.fit(x, y, **options)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-6)


def test_slots_are_written_once(tmp_path):
    """Keras saves the parts of an optimizer, and the optimizer's `variables`: a table's slots must not stand twice."""
    import h5py

    model = build("shared_bottom")
    model.compile({"embeddings": 0.1, "dense": 0.1})
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5") as file:
        found = []
        file["optimizer"].visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    assert len(found) == len(model.optimizer.variables)


@pytest.mark.tensorflow
def test_mixed_float16(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build("shared_bottom", [CLICK])
        compile_eagerly(model, {"embeddings": "row_wise_adagrad", "dense": 1e-3})
        assert type(model.optimizer) is SparseLossScaleOptimizer
        losses = model.fit(inputs(), {"click": labels()["click"]}, epochs=3, batch_size=32, verbose=0).history["loss"]
        assert np.isfinite(losses).all() and losses[-1] < losses[0]
        assert model.get_layer("embedding").tables[0].dtype == "float32"
        model.save(tmp_path / "m.keras")
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        assert type(loaded.optimizer) is SparseLossScaleOptimizer
        assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.tensorflow
def test_an_infinite_gradient_skips_the_step_and_halves_the_scale():
    import tensorflow as tf

    table = keras.Variable(np.ones((3, 1), "float32"))
    optimizer = SparseLossScaleOptimizer(LazySGD(1.0), initial_scale=8.0)
    for value in (np.inf, 2.0):
        slices = tf.IndexedSlices(tf.constant([[value]], tf.float32), tf.constant([1]), tf.constant([3, 1]))
        optimizer.apply([slices], [table])
    assert float(optimizer.dynamic_scale) == 4.0
    np.testing.assert_allclose(table.numpy().ravel(), [1.0, 0.5, 1.0])


def test_a_rate_for_pretrained_weights_needs_some():
    optimizer = as_optimizer({"encoders": 1e-5, "embeddings": 1e-2, "dense": 1e-3})
    with pytest.raises(ValueError, match="`encoders` must have weights of a pretrained model to train"):
        optimizer.build([keras.Variable(np.zeros((2, 3), "float32"))])
