"""Sparse gradients: only touched rows change, duplicates are summed before clipping, and what is refused."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy
from toys import row_gradient

from mtl_zoo import _backend
from mtl_zoo.optimizers import LazyAdagrad, LazyAdam, LazyFtrl, LazySGD, RowWiseAdagrad

EVERY = [LazyAdam, LazyAdagrad, LazyFtrl, LazySGD, RowWiseAdagrad]


def gradient(rows, ids, shape=(5, 2)):
    return row_gradient(np.reshape(rows, (-1, *shape[1:])), ids, shape)


def table(shape=(5, 2)):
    return keras.Variable(np.ones(shape, "float32"), name="table")


@pytest.mark.parametrize("make", EVERY)
def test_only_touched_rows_change_slots_included(make):
    optimizer, weights = make(0.1), table()
    optimizer.build([weights])
    before = [convert_to_numpy(v) for v in optimizer.variables]
    optimizer.apply([gradient([[1, 2], [3, 4], [5, 6]], [1, 3, 1])], [weights])
    changed = np.where((convert_to_numpy(weights) != 1).any(axis=1))[0]
    assert changed.tolist() == [1, 3]
    for old, new in zip(before, optimizer.variables, strict=True):
        if tuple(new.shape)[:1] == (5,):
            different = (old != convert_to_numpy(new)).reshape(5, -1).any(axis=1)
            assert set(np.where(different)[0]) <= {1, 3}


@pytest.mark.parametrize("clipping", [{"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}])
def test_duplicates_are_summed_before_clipping(clipping):
    weights = table((5, 1))
    LazySGD(1.0, **clipping).apply([gradient([1.0, 1.0, 1.0, 1.0], [2, 2, 2, 2], (5, 1))], [weights])
    np.testing.assert_allclose(convert_to_numpy(weights)[2], 0.0, atol=1e-6)  # one step of norm 1, not of 4 or 1.84


@pytest.mark.tensorflow
def test_between_workers_each_row_travels_once(monkeypatch):
    duplicates = [gradient([[1, 2], [3, 4], [5, 6]], [1, 3, 1]), keras.ops.ones(2)]
    here, dense = LazySGD(1.0).own_gradients(duplicates)
    assert here is duplicates[0] and dense is duplicates[1]
    monkeypatch.setattr(_backend, "has_workers", lambda: True)
    sent, dense = LazySGD(1.0).own_gradients(duplicates)
    assert sent.indices.numpy().tolist() == [1, 3] and sent.values.numpy().tolist() == [[6, 8], [3, 4]]
    assert dense is duplicates[1]


@pytest.mark.parametrize("make", EVERY)
def test_a_step_without_rows(make):
    optimizer, weights = make(0.1, global_clipnorm=1.0), table()
    optimizer.apply([gradient(np.zeros((0, 2)), np.zeros(0))], [weights])
    np.testing.assert_array_equal(convert_to_numpy(weights), np.ones((5, 2)))
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("make", [LazyAdagrad, LazyFtrl])
def test_slots_that_start_from_a_number_are_made_once(make, monkeypatch):
    """Keras' own initializer has two matrices in memory for one slot."""
    optimizer, weights = make(0.1, initial_accumulator_value=0.3), table()
    monkeypatch.delattr(keras.initializers.Constant, "__call__")
    optimizer.build([weights])
    starts = [convert_to_numpy(v) for v in optimizer.variables if tuple(v.shape) == (5, 2)]
    np.testing.assert_array_equal(starts[0], np.full((5, 2), 0.3, "float32"))


def test_moments_of_rows_left_out_do_not_decay_and_bias_correction_follows_the_global_step():
    lazy, weights = LazyAdam(0.1), table((2, 1))
    for _ in range(9):
        lazy.apply([gradient([1.0], [0], (2, 1))], [weights])
    lazy.apply([gradient([1.0], [1], (2, 1))], [weights])
    m, v, t = 0.1, 0.001, 10
    move = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(convert_to_numpy(weights)[1], 1 - move, rtol=1e-5)
    at_nine = convert_to_numpy(weights)[0]
    np.testing.assert_allclose(at_nine, 1 - 0.9, rtol=1e-4)  # nine full steps, none of momentum in the tenth


@pytest.mark.tensorflow
def test_tables_of_any_rank_dtype_and_native_variables():
    import tensorflow as tf

    cube = keras.Variable(np.ones((3, 2, 2), "float64"), dtype="float64")
    LazyAdagrad(0.1).apply([gradient(np.ones((2, 2, 2)), [1, 1], (3, 2, 2))], [cube])
    assert (cube.numpy()[1] < 1).all() and (cube.numpy()[[0, 2]] == 1).all()
    native = tf.Variable(np.ones((5, 2), "float32"))
    for make in EVERY:
        make(0.1).apply([gradient([[1, 1]], [4])], [native])
    assert (native.numpy()[4] < 1).all() and (native.numpy()[:4] == 1).all()


@pytest.mark.tensorflow
def test_the_graph_of_a_step_never_holds_a_whole_table():
    """No op of a compiled step has an output as large as the table: what it costs follows the batch."""
    import tensorflow as tf

    rows = 1000
    for make in EVERY:
        optimizer, weights = make(0.1, global_clipnorm=1.0), table((rows, 2))
        optimizer.build([weights])

        def apply(values, ids, optimizer=optimizer):
            optimizer.apply([tf.IndexedSlices(values, ids, tf.constant([rows, 2]))])

        step = tf.function(lambda values, ids, apply=apply: apply(values, ids), autograph=False)
        graph = step.get_concrete_function(tf.TensorSpec((4, 2)), tf.TensorSpec((4,), tf.int32)).graph
        shapes = [(op.type, out.shape) for op in graph.get_operations() for out in op.outputs]
        whole = [(kind, shape) for kind, shape in shapes if shape.rank and shape[0] == rows]
        assert not whole, f"{make.__name__} makes {whole}"
        assert not [kind for kind, _ in shapes if kind == "ReadVariableOp" and _.rank == 2]


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize(
    "options, reason",
    [
        ({"weight_decay": 0.01}, "frequent ids more than rare ones"),
        ({"use_ema": True}, "an average of every row"),
        ({"gradient_accumulation_steps": 2}, "as large as the table"),
        ({"loss_scale_factor": 8.0}, "Wrap the optimizer in SparseLossScaleOptimizer"),
    ],
)
def test_what_would_walk_the_table_is_refused(make, options, reason):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}` must not be given to {make.__name__}.*{reason}.*Received: {name}="):
        make(**options)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"not recognized: \{'learning_rat'"):
        LazyAdam(learning_rat=0.1)
    with pytest.raises(ValueError, match="`epsilon` must be a finite number and > 0"):
        RowWiseAdagrad(epsilon=0.0)
    with pytest.raises(ValueError, match="`initial_accumulator_value` must be a finite number and >= 0"):
        RowWiseAdagrad(initial_accumulator_value=-1.0)


def test_a_subclass_must_say_how_rows_are_updated():
    from mtl_zoo.optimizers._rows import RowUpdates

    class Nothing(RowUpdates, keras.optimizers.SGD):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must define `update_rows"):
        Nothing(0.1).apply([gradient([[1, 1]], [4])], [table()])
