"""Training on JAX: a step reads and writes the rows of its batch only, and is the step of whole gradients else."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import CLICK, build, inputs, labels_for, sample_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, Embedding, FeatureTransform, Numeric, Sequence, SharedBottom
from mtl_zoo.export import quantize
from mtl_zoo.optimizers import LazyAdam, LazySGD, RowWiseAdagrad, SplitOptimizer
from mtl_zoo.steps import _by_row

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="TensorFlow's gradients are by row as they are"
)


def trained(make, optimizer, x, y, seed=0, epochs=2, **options):
    keras.utils.set_random_seed(seed)
    model = make()
    model.compile(optimizer, metrics=None)
    history = model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **options).history
    return model, history.get("loss")


def assert_same_training(make, x, y, **options):
    """SGD moves by the gradient alone: by row or whole, the weights are the same."""
    (rows, by_row), (whole, expected) = (
        trained(make, make_sgd(0.1), x, y, **options) for make_sgd in (LazySGD, keras.optimizers.SGD)
    )
    assert by_row == pytest.approx(expected, rel=1e-5)
    for a, b in zip(rows.weights, whole.weights, strict=True):
        np.testing.assert_allclose(convert(a), convert(b), rtol=1e-5, atol=1e-6, err_msg=a.path)


convert = ops.convert_to_numpy


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models()))
def test_every_model_trains_as_by_whole_gradients(name):
    model = build(name)
    assert_same_training(lambda: build(name), inputs(32), labels_for(model, 32))


@pytest.mark.parametrize(
    "options", [{"l2": 0.1}, {"shards": 3}, {"initializer": "normal"}], ids=lambda options: next(iter(options))
)
def test_options_of_tables(options):
    model = build("shared_bottom", [CLICK])
    embedding = Embedding(**options)
    assert_same_training(
        lambda: build("shared_bottom", [CLICK], embedding=embedding), inputs(32), labels_for(model, 32)
    )


def lists(**options):
    """A table that single ids, sums of padded lists and an unpooled list share, and one whose ids never occur."""
    made = [
        Categorical("item", size=30, dim=4, key="item"),
        Sequence("history", size=30, dim=4, length=5, key="item"),
        Categorical("tags", size=12, dim=3, multi_hot=True, length=3),
        Numeric("age"),
    ]
    return SharedBottom(made, [BinaryTask("click")], bottom_units=(6,), tower_units=(), embedding=Embedding(**options))


def rows_of_lists(n=32):
    rng = np.random.default_rng(3)
    x = {"item": rng.integers(2, 9, n), "history": rng.integers(0, 9, (n, 5)), "tags": rng.integers(0, 4, (n, 3))}
    x = {name: ids.astype("int32") for name, ids in x.items()}
    return {**x, "age": rng.normal(size=n).astype("float32")}, {"click": rng.integers(0, 2, n).astype("float32")}


def test_lists():
    assert_same_training(lists, *rows_of_lists())


def test_weights_of_rows():
    x, y = rows_of_lists()
    assert_same_training(lists, x, y, sample_weight={"click": np.where(y["click"] == 1, 3.0, 0.5).astype("float32")})


@pytest.mark.parametrize("trainable", [True, False])
def test_tables_that_start_from_given_vectors(trainable):
    vectors = np.random.default_rng(4).normal(size=(30, 4)).astype("float32")

    def make():
        item = Categorical("item", size=30, dim=4, pretrained=vectors, trainable=trainable)
        tags = Categorical("tags", size=12, dim=3, multi_hot=True, length=3)
        return SharedBottom([item, tags], [BinaryTask("click")], bottom_units=(6,), tower_units=())

    x, y = rows_of_lists()
    assert_same_training(make, {name: x[name] for name in ("item", "tags")}, y)


def test_a_saved_model_is_trained_on(tmp_path):
    """What an optimizer keeps by row is saved with the model."""
    (whole, _), (half, _) = (trained(lists, LazyAdam(0.1), *rows_of_lists(), epochs=epochs) for epochs in (2, 1))
    half.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras")
    again.fit(*rows_of_lists(), batch_size=16, shuffle=False, verbose=0)
    for a, b in zip(again.weights, whole.weights, strict=True):
        np.testing.assert_allclose(convert(a), convert(b), rtol=1e-5, atol=1e-6, err_msg=a.path)


@pytest.mark.parametrize("make", [LazyAdam, lambda rate: SplitOptimizer(RowWiseAdagrad(rate), LazyAdam(rate))])
def test_rows_that_no_batch_reads_do_not_move(make):
    before, _ = trained(lists, make(0.0001), *rows_of_lists(), epochs=0)
    after, _ = trained(lists, make(0.1), *rows_of_lists())
    x = rows_of_lists()[0]
    read = {"item": np.union1d(x["item"], x["history"]), "tags": np.unique(x["tags"])}
    embedding = next(layer for layer in after.layers if hasattr(layer, "tables"))
    old = next(layer for layer in before.layers if hasattr(layer, "tables"))
    for (group, (new,)), (_, (start,)) in zip(embedding.tables_by_group(), old.tables_by_group(), strict=True):
        moved = np.flatnonzero((convert(new) != convert(start)).any(axis=1))
        (offset, _), (key,) = next(iter(group.tables.values())), group.tables
        ids = next(ids for name, ids in read.items() if name in (key, *group.offsets))
        assert len(moved) and set(moved) <= set(ids + offset) - {offset}, "padding is in no sum"


def test_a_table_in_several_shards_trains_as_in_one():
    """Rows that a batch leaves out stay, where a step of whole gradients would move them by their momentum."""
    rows, others = [], []
    x, y = rows_of_lists()
    x["item"][16:] += 10
    for shards in (1, 3):
        model, _ = trained(lambda shards=shards: lists(shards=shards), LazyAdam(0.1), x, y)
        embedding = next(layer for layer in model.layers if hasattr(layer, "tables"))
        parts = [[convert(part) for part in parts] for _, parts in embedding.tables_by_group()]
        rows.append([np.concatenate([p if shards == 1 else p[:-1] for p in part]) for part in parts])
        others.append([convert(w) for layer in model.layers if layer is not embedding for w in layer.weights])
    for one, several in zip(rows[0] + others[0], rows[1] + others[1], strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-5, atol=1e-6)


def test_a_table_that_is_used_whole_has_its_whole_gradient(monkeypatch):
    """A loss of the user's own that looks at a whole table: no part of its gradient is lost."""

    class Whole(SharedBottom):
        def compute_loss(self, *arguments, **options):
            return super().compute_loss(*arguments, **options) + ops.sum(ops.square(self.trainable_variables[0]))

    def make():
        made = [Categorical("item", size=30, dim=4), Categorical("tag", size=9, dim=3)]
        return Whole(made, [BinaryTask("click")], bottom_units=(4,), tower_units=())

    x = {name: np.arange(32, dtype="int32") % 7 for name in ("item", "tag")}
    y = {"click": (np.arange(32) % 2).astype("float32")}
    assert_same_training(make, x, y)
    found = []
    reads_of = _by_row._reads_of
    monkeypatch.setattr(_by_row, "_reads_of", lambda *given: found.append(reads_of(*given)) or found[-1])
    trained(make, LazySGD(0.1), x, y)
    assert [read.shape for read in found[0]] == [(16, 1, 3)], "the other table goes by row as before"


def test_an_eager_step_is_the_compiled_one():
    models = []
    for eager in (False, True):
        keras.utils.set_random_seed(0)
        model = lists()
        model.compile(LazyAdam(0.01), metrics=None, run_eagerly=eager)
        model.fit(*rows_of_lists(), batch_size=16, shuffle=False, verbose=0)
        models.append(model)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(convert(a), convert(b), rtol=1e-5, atol=1e-6)


def test_the_compiled_step_holds_no_gradient_of_a_table():
    """What XLA allocates beside the state that it is given back is of the batch's size."""
    import jax

    def temporaries(size):
        model = SharedBottom([Categorical("item", size=size, dim=16)], [BinaryTask("click")], bottom_units=(4,))
        model.compile(LazyAdam(0.01), metrics=None)
        x, y = {"item": np.arange(16, dtype="int32")}, {"click": np.zeros(16, "float32")}
        model.fit(x, y, batch_size=16, verbose=0)
        state = tuple(
            [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
        )
        step = jax.jit(model.train_step, donate_argnums=0).lower(state, (x, y)).compile()
        return step.memory_analysis().temp_size_in_bytes

    assert temporaries(200_000) < temporaries(20_000) + 200_000, "the table is 12.8 MB"


def test_a_model_and_what_was_made_of_it_go_on_apart():
    """Training gives buffers away; a copy that holds the same ones would be lost with them."""
    table = pd.DataFrame({"item": np.arange(16) % 5, "age": np.linspace(0, 1, 16), "click": np.arange(16) % 2})
    transform = FeatureTransform([Categorical("item", dim=3), Numeric("age")], [BinaryTask("click")]).fit(table)
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.compile("auto", metrics=None)
    model.fit(table, batch_size=8, verbose=0)
    scores = model.predict(table, verbose=0)["click"]
    small = quantize(model)
    grown = model.extended(transform.extend(table.assign(item=np.arange(16))))
    grown.fit(table, batch_size=8, verbose=0)
    np.testing.assert_array_equal(model.predict(table, verbose=0)["click"], scores)
    model.fit(table, batch_size=8, verbose=0)
    assert small.largest_difference["click"] < 0.01
    np.testing.assert_allclose(small.model.predict(table, verbose=0)["click"], scores, atol=0.01)
    assert np.isfinite(grown.predict(table, verbose=0)["click"]).all()
