"""The few places where layers and models depend on the backend, each behind one small function."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _reads


def is_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def gather_rows(shards: Sequence[Any], ids: Any, spare: int | None = None, real: Any = None) -> Any:
    """Rows of a table, in the shape of `ids`.

    Args:
        shards: The table: one 2-D variable, or several that hold its rows in order and end in a spare row each.
        ids: Rows of the table.
        spare: Of one variable, a row that stands in where `ids` (n,) may be empty.
        real: Off TensorFlow, which of the rows are wanted, bool in the shape of `ids`: the caller drops the others.
            Default: all.

    On TensorFlow only those rows are read, each in the one variable that holds it, and gradients stay sparse.
    """
    if len(shards) == 1 and is_tensorflow():
        return _read(shards[0], ids, spare)
    if len(shards) == 1:
        wanted = ids if real is None else ops.where(real, ids, shards[0].shape[0])
        return _reads.changed(_reads.Read(shards[0], wanted, _take(shards[0], ids)))
    by_shard = is_tensorflow() and not getattr(_tracing, "fixed_shapes", False)
    return _gather_by_shard(shards, ids) if by_shard else _gather_and_mask(shards, ids, real)


def _read(variable: Any, ids: Any, spare: int | None = None) -> Any:
    import tensorflow as tf

    if spare is not None and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        # A gradient without rows on any replica ends the process when TensorFlow sums it over them.
        size = tf.size(ids)
        stands_in = tf.fill([tf.cast(size == 0, tf.int32)], tf.constant(spare, ids.dtype))
        return _read(variable, tf.concat([ids, stands_in], axis=0))[:size]
    if row_scales(variable) is not None:
        return _take(variable, ids)
    # `ops.take` would convert the variable to a tensor first, which copies the table (once it was updated by row).
    # So would reading a mirrored one, instead of the replica's own part of it.
    return _reads.changed(_reads.Read(variable, ids, tf.gather(local_part(variable.value), ids)))


def _take(variable: Any, ids: Any) -> Any:
    rows, scales = ops.take(variable, ids, axis=0), row_scales(variable)
    if scales is None:
        return rows
    return ops.cast(rows, scales.dtype) * ops.take(scales, ids, axis=0)[..., None]


# How a graph is traced, in this thread.
_tracing = threading.local()


@contextlib.contextmanager
def fixed_shapes() -> Iterator[None]:
    """What is traced within makes no tensor whose size depends on ids: for runtimes that know no such sizes.

    Sums of lists are then made as for XLA, of a tensor (batch, length, width).
    """
    before, _tracing.fixed_shapes = getattr(_tracing, "fixed_shapes", False), True
    try:
        yield
    finally:
        _tracing.fixed_shapes = before


def _gather_by_shard(shards: Sequence[Any], ids: Any) -> Any:
    import tensorflow as tf

    if _is_compiled_by_xla():
        raise ValueError(
            "`jit_compile` must be False on TensorFlow for tables in several shards: how many rows are read in each "
            f"is not known when the step is compiled. Received: jit_compile=True, shards={len(shards)}"
        )
    flat = tf.reshape(ids, [-1])
    starts = list(itertools.accumulate((shard.shape[0] - 1 for shard in shards), initial=0))
    owner = tf.searchsorted(tf.constant(starts[1:-1], flat.dtype), flat, side="right")
    positions = tf.dynamic_partition(tf.range(tf.size(flat)), owner, len(shards))
    rows = [
        _read(shard, tf.gather(flat, at) - start, spare=shard.shape[0] - 1)
        for shard, at, start in zip(shards, positions, starts[:-1], strict=True)
    ]
    return tf.reshape(tf.dynamic_stitch(positions, rows), [*_shape(ids), shards[0].shape[1]])


def _gather_and_mask(shards: Sequence[Any], ids: Any, real: Any) -> Any:
    # Shapes must be known when the step is compiled: every shard is read at every id, and the others' rows dropped.
    total, start = 0.0, 0
    for shard in shards:
        stop = start + shard.shape[0] - 1
        inside = ops.logical_and(ids >= start, ids < stop)
        wanted = inside if real is None else ops.logical_and(inside, real)
        rows = gather_rows([shard], ops.where(inside, ids - start, 0), real=wanted)
        total = total + ops.where(inside[..., None], rows, 0.0)
        start = stop
    return total


def sum_rows(
    shards: Sequence[Any],
    lists: Sequence[tuple[Any, Any]],
    spare: int | None,
    weights: Sequence[Any] | None = None,
) -> tuple[list, list]:
    """Sums of the rows of lists of ids: `(batch, width)` for each, and the summed vectors of them all.

    Args:
        shards: The variables of a table, as in `gather_rows`.
        lists: Pairs of ids (batch, length) and which of them count, bool (batch, length). One batch size, any lengths.
        spare: A row of the table that no list counts.
        weights: For each list its rows' weights (batch, length), or None where each counts once.

    On TensorFlow only the rows that count are read, and nothing of size (batch, length, width) is made, except for XLA,
    which must know the shapes of what it compiles, and within `fixed_shapes`.
    """
    weights = [None] * len(lists) if weights is None else weights
    if is_tensorflow() and not (getattr(_tracing, "fixed_shapes", False) or _is_compiled_by_xla()):
        return _sum_by_segment(shards, lists, spare, weights)
    vectors = [gather_rows(shards, ids, real=real) for ids, real in lists]
    vectors = [rows * ops.cast(real, rows.dtype)[..., None] for rows, (_, real) in zip(vectors, lists, strict=True)]
    weighed = [v if w is None else v * ops.cast(w, v.dtype)[..., None] for v, w in zip(vectors, weights, strict=True)]
    return [ops.sum(rows, axis=1) for rows in weighed], vectors


def _sum_by_segment(
    shards: Sequence[Any], lists: Sequence[tuple[Any, Any]], spare: int | None, weights: Sequence[Any]
) -> tuple[list, list]:
    import tensorflow as tf

    batch = tf.shape(lists[0][0], out_type=tf.int64)[0]
    is_weighed = any(weight is not None for weight in weights)
    ids, segments, factors = [], [], []
    for i, ((padded, real), weight) in enumerate(zip(lists, weights, strict=True)):
        at = tf.reshape(tf.where(tf.reshape(real, [-1])), [-1])
        ids.append(tf.gather(tf.reshape(padded, [-1]), at))
        if is_weighed:
            factors.append(tf.ones_like(at, "float32") if weight is None else tf.gather(tf.reshape(weight, [-1]), at))
        segments.append(i * batch + at // tf.shape(padded, out_type=tf.int64)[1])
    segment = tf.concat(segments, axis=0)

    @tf.custom_gradient
    def add_up(rows: Any) -> Any:
        everyone = tf.range(tf.size(segment))
        sums = tf.sparse.segment_sum(rows, everyone, segment, num_segments=batch * len(lists))
        # TensorFlow's own gradient is a general sum over segments, and half as fast.
        return sums, lambda gradient: tf.gather(gradient, segment)

    rows = gather_rows(shards, tf.concat(ids, axis=0), spare)
    weighed = rows * tf.cast(tf.concat(factors, axis=0), rows.dtype)[:, None] if is_weighed else rows
    sums = tf.reshape(add_up(weighed), [len(lists), *_shape(lists[0][0])[:1], shards[0].shape[1]])
    return tf.unstack(sums, axis=0), [rows]


def _shape(x: Any) -> list:
    """The shape with its static sizes as numbers, so that later ones stay known."""
    import tensorflow as tf

    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]


def _is_compiled_by_xla() -> bool:
    """Whether what is traced now is part of a `tf.function(jit_compile=True)`."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def can_write_rows() -> bool:
    """Whether a new variable can be filled in place, by `write_rows`."""
    if not is_tensorflow():
        return False
    import tensorflow as tf

    if not tf.executing_eagerly():
        return False
    if not tf.distribute.has_strategy():
        return True
    # Several workers start from the values of one, which they take when a variable is made.
    from_here = (tf.distribute.MirroredStrategy, tf.distribute.ParameterServerStrategy)
    return isinstance(tf.distribute.get_strategy(), from_here) and tf.distribute.in_cross_replica_context()


def write_rows(variable: Any, start: int, rows: Any) -> None:
    """Writes rows into a variable from row `start` on, in place and on every replica."""
    import tensorflow as tf

    slices = tf.IndexedSlices(rows, tf.range(start, start + rows.shape[0]))
    for part in parts_of(variable):
        part.scatter_update(slices)


def parts_of(variable: Any) -> list[Any]:
    """The `tf.Variable`s of a `keras.Variable` or a `tf.Variable`: on several devices of a process a copy on each."""
    import tensorflow as tf

    held = variable.value if isinstance(variable, keras.Variable) else variable
    return list(tf.distribute.get_strategy().experimental_local_results(held))


def join_rows(shape: tuple[int, ...], dtype: str, chunks: Iterable[tuple[int, Any]]) -> Any:
    """The matrix of this shape whose rows are given in chunks, `(first row, rows)`."""
    if keras.backend.backend() == "jax":
        import jax

        write = jax.jit(jax.lax.dynamic_update_slice, donate_argnums=0)
        matrix = None
        for start, rows in chunks:
            if len(rows) == shape[0]:
                return rows
            matrix = write(ops.zeros(shape, dtype=dtype) if matrix is None else matrix, rows, (start, 0))
        return matrix
    rows = [rows for _, rows in chunks]
    return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=0)


def local_part(variable: Any) -> Any:
    """What this replica, or the device being updated, holds of a mirrored `tf.Variable`; any other variable itself."""
    import tensorflow as tf

    if isinstance(variable, tf.distribute.DistributedValues):
        try:
            handle = variable.handle
        except ValueError:  # outside of any replica
            if tf.distribute.has_strategy():
                return variable
            return variable.distribute_strategy.experimental_local_results(variable)[0]
        parts = tf.distribute.get_strategy().experimental_local_results(variable)
        return next((part for part in parts if part.handle is handle), variable)
    return variable


def mark_table(variable: Any) -> Any:
    """Says of a variable that it is an embedding table: `SplitOptimizer` routes it by this."""
    variable.is_embedding_table = True
    return variable


def is_table(variable: Any) -> bool:
    return getattr(variable, "is_embedding_table", False)


def scale_rows(variable: Any, scales: Any) -> Any:
    """Says of an int8 table which weight, (rows,), its rows are multiplied by when they are read."""
    variable.row_scales = scales
    return variable


def row_scales(variable: Any) -> Any:
    """What `scale_rows` said, or None."""
    return getattr(variable, "row_scales", None)


def bytes_of(variables: Iterable[Any]) -> int:
    """What variables take."""
    return sum(math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype)).itemsize for v in variables)


def mark_pretrained(variable: Any) -> Any:
    """Marks a weight of a pretrained model, which optimizers may give a learning rate of its own."""
    variable.is_pretrained = True
    return variable


def is_pretrained(variable: Any) -> bool:
    return getattr(variable, "is_pretrained", False)


def mean_over_replicas(x: Any) -> Any:
    """The mean of a scalar over the replicas of a tf.distribute strategy; `x` itself where there is one."""
    if is_tensorflow():
        import tensorflow as tf

        x = ops.cast(x, "float32")
        return sum_over_replicas(x) / tf.distribute.get_strategy().num_replicas_in_sync
    return ops.cast(x, "float32")


def sum_over_replicas(x: Any) -> Any:
    """The sum of a scalar over the replicas of a tf.distribute strategy; `x` itself where there is one."""
    if is_tensorflow():
        import tensorflow as tf

        if tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context():
            context = tf.distribute.get_replica_context()
            if context.num_replicas_in_sync > 1:
                return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
    return x


def gather_replicas(x: Any) -> Any:
    """`x` of all replicas, one below the other; `x` itself where there is one. TensorFlow only."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_gather(x, axis=0)


def gather_replicas_with_gradient(x: Any) -> tuple[Any, Any]:
    """`x` of all replicas, one below the other, and the row at which this replica's begins.

    The gradient of a row is the sum of what all replicas' losses send to it.
    """
    if not is_tensorflow():
        return x, 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x, 0
    replica, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    own = tf.shape(x)[0]
    sizes = tf.cast(sum_over_replicas(tf.one_hot(replica, count) * tf.cast(own, "float32")), "int32")
    first, total = tf.reduce_sum(sizes[:replica]), tf.reduce_sum(sizes)

    @tf.custom_gradient
    def gathered(rows: Any) -> Any:
        # A sum of rows in their places: `all_gather` of sizes that differ takes several collectives of its own.
        in_place = tf.pad(rows, [[first, total - first - own], [0, 0]])
        return sum_over_replicas(in_place), lambda gradient: sum_over_replicas(gradient)[first : first + own]

    everyone = gathered(x)
    everyone.set_shape([None, *x.shape[1:]])
    return everyone, first


def empty_rows(rows: Any, shape: Sequence[int], dtype: str) -> Any:
    """Zeros, or empty strings, (batch, *shape), as many as there are `rows`; an array if these are one."""
    if isinstance(rows, np.ndarray):
        return np.full((len(rows), *shape), "", object) if dtype == "string" else np.zeros((len(rows), *shape), dtype)
    batch = ops.shape(rows)[0]
    if dtype != "string":
        return ops.zeros((batch, *shape), dtype=dtype)
    import tensorflow as tf

    return tf.fill([batch, *shape], "")


def has_workers() -> bool:
    """Whether the current tf.distribute strategy is one of several processes; False on other backends."""
    if not is_tensorflow():
        return False
    import tensorflow as tf

    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def num_replicas() -> int:
    """How many replicas of the current tf.distribute strategy train together; 1 on other backends."""
    if not is_tensorflow():
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def scope_of(model: Any) -> contextlib.AbstractContextManager:
    """Where a model's variables are made: the scope of the tf.distribute strategy that it was made in, if any."""
    if not is_tensorflow():
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()
