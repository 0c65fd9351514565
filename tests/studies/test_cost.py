"""Costs of graphs that can be worked out by hand."""

import pytest

from benchmarks.studies._cost import ceilings, graph_cost
from benchmarks.studies._steps import Case, Timed

pytestmark = pytest.mark.tensorflow
tf = pytest.importorskip("tensorflow")


def cost_of(function, *shapes, dtype="float32"):
    traced = tf.function(function, autograph=False)
    return graph_cost(traced.get_concrete_function(*(tf.TensorSpec(shape, dtype) for shape in shapes)))


def test_one_matrix_product():
    cost = cost_of(tf.matmul, (3, 4), (4, 5))
    assert cost.flops == cost.matmul_flops == 2 * 3 * 4 * 5
    assert cost.bytes == 4 * (3 * 4 + 4 * 5 + 3 * 5)
    assert cost.by_operation == {"MatMul": (1, 120, 188)}
    transposed = cost_of(lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True), (4, 3), (5, 4))
    assert (transposed.flops, transposed.bytes) == (cost.flops, cost.bytes)


@pytest.mark.parametrize(
    "function, shapes, flops",
    [
        (tf.matmul, [(7, 3, 4), (7, 4, 5)], 7 * 120),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(7, 4, 3), (7, 4, 5)], 7 * 120),
        (lambda a, b: tf.einsum("bd,ndh->bnh", a, b), [(3, 4), (7, 4, 5)], 7 * 120),
        (lambda a, b: tf.einsum("...d,dh->...h", a, b), [(7, 3, 4), (4, 5)], 7 * 120),
        (lambda a, b: tf.einsum("a...d,d->a...", a, b), [(7, 3, 4), (4,)], 2 * 7 * 3 * 4),
        (lambda a, b: tf.einsum("bd,bd->", a, b), [(7, 3), (7, 3)], 2 * 7 * 3),
    ],
)
def test_products_of_several_matrices(function, shapes, flops):
    assert cost_of(function, *shapes).matmul_flops == flops


def test_a_dense_layer_with_its_gradients():
    kernel, bias = tf.Variable(tf.ones((4, 3))), tf.Variable(tf.ones(3))

    def forward_and_backward(x):
        with tf.GradientTape() as tape:
            y = tf.nn.relu(x @ kernel + bias)
        return tape.gradient(y, [kernel, bias])

    cost = cost_of(forward_and_backward, (8, 4))
    assert cost.matmul_flops == 2 * (2 * 8 * 4 * 3)  # forward, and the kernel's gradient; nobody asks for the input's
    assert cost.by_operation["Relu"] == (1, 8 * 3, 2 * 4 * 8 * 3)
    assert cost.by_operation["AddV2"] == (1, 8 * 3, 4 * (8 * 3 + 3 + 8 * 3))
    assert cost.by_operation["ReluGrad"] == (1, 8 * 3, 3 * 4 * 8 * 3)
    # Ones like the output, and the sum of its gradient over the rows.
    other = cost.flops - cost.matmul_flops
    assert other == 3 * 8 * 3 + 8 * 3


@pytest.mark.parametrize("rows", [100, 100_000])
def test_a_gather_costs_the_rows_it_reads(rows):
    table = tf.Variable(tf.ones((rows, 16)))
    cost = cost_of(lambda ids: tf.gather(table, ids), (5, 2), dtype="int32")
    assert (cost.flops, cost.bytes) == (0, 2 * 10 * 16 * 4 + 10 * 4)
    dense = cost_of(lambda ids: tf.gather(tf.ones((rows, 16)), ids), (5, 2), dtype="int32")
    assert dense.by_operation["GatherV2"][2] == cost.bytes


def test_a_scatter_costs_the_rows_it_writes():
    table = tf.Variable(tf.ones((100, 16)))
    rows, ids = 5 * 16 * 4, 5 * 4

    def scatter(kind, rows):
        return getattr(table, kind)(tf.IndexedSlices(rows, tf.range(5)))

    update = cost_of(lambda rows: scatter("scatter_update", rows), (5, 16)).by_operation["ResourceScatterUpdate"]
    add = cost_of(lambda rows: scatter("scatter_add", rows), (5, 16)).by_operation["ResourceScatterAdd"]
    assert update == (1, 0, 2 * rows + ids)
    assert add == (1, 5 * 16, 3 * rows + ids)
    assign = cost_of(lambda rows: table.assign_add(tf.tile(rows, [20, 1])), (5, 16)).by_operation
    assert assign["AssignAddVariableOp"] == (1, 1600, 3 * 6400)


def test_sizes_that_only_the_run_knows_have_an_upper_bound():
    table = tf.Variable(tf.ones((100, 16)))

    def distinct(ids):
        ids, position = tf.unique(ids)
        rows = 2.0 * tf.gather(table, ids)
        return tf.reshape(rows, [-1]), tf.math.unsorted_segment_sum(tf.gather(rows, position), position, tf.size(ids))

    found = cost_of(distinct, (10,), dtype="int32").by_operation
    assert found["ResourceGather"][2] == 2 * 10 * 16 * 4 + 10 * 4
    assert found["Mul"] == (1, 160, 4 + 2 * 640)
    assert found["UnsortedSegmentSum"][1] == 160
    some = cost_of(lambda x: tf.boolean_mask(x, x > 0) + 1.0, (10,)).by_operation
    assert some["AddV2"][1] == 10
    joined = cost_of(lambda x: 1.0 + tf.concat([tf.boolean_mask(x, x > 0), x], 0), (10,)).by_operation
    assert joined["AddV2"][1] == 20


def test_what_nobody_reads_is_free():
    def wasteful(x):
        tf.matmul(x, x)
        return tf.reshape(x, (2, 8))

    assert cost_of(wasteful, (4, 4)).flops == 0


def test_calls_that_are_not_looked_into_are_named():
    cost = cost_of(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x @ x, lambda: x), (4, 4))
    assert cost.matmul_flops == 0 and len(cost.uncounted) == 1 and cost.uncounted[0].endswith("If")


def test_a_step_that_updates_rows_does_not_depend_on_the_vocabulary():
    def cost(vocabulary, optimizer):
        sizes = {"batch": 8, "features": 1, "numerics": 1, "hyperparameters": {"bottom_units": (4,)}}
        return Timed(Case("shared_bottom", vocabulary, optimizer, **sizes)).cost()

    lazy = [cost(vocabulary, "auto") for vocabulary in (100, 10_000)]
    assert lazy[0].flops == lazy[1].flops and lazy[0].bytes == lazy[1].bytes
    assert cost(10_000, "adam").bytes - lazy[0].bytes > 9_900 * 16 * 4  # every row of the table


@pytest.mark.slow
def test_ceilings_are_positive():
    assert all(value > 0 for value in ceilings(seconds=0.01).values())


@pytest.mark.slow
def test_a_loop_is_named_as_uncounted():
    case = Case("mose", 10, batch=8, features=2, numerics=1)
    cost = Timed(case).cost()
    assert cost.flops > 0 and any("While" in kind for kind in cost.uncounted)
