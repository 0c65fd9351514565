"""The few places where layers and models depend on the backend, each behind one small function."""

from __future__ import annotations

import keras
from keras import ops


def is_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


def gather_rows(table, ids):
    """Rows of a 2-D variable. On TensorFlow only those rows are read, and its gradient stays sparse."""
    if is_tensorflow():
        import tensorflow as tf

        # `ops.take` would convert the variable to a tensor first, which copies the table (once it was updated by row).
        # So would reading a mirrored one, instead of the replica's own part of it.
        return tf.gather(local_part(table.value), ids)
    return ops.take(table, ids, axis=0)


def local_part(variable):
    """What this replica, or the device being updated, holds of a mirrored `tf.Variable`; any other variable itself."""
    import tensorflow as tf

    if isinstance(variable, tf.distribute.DistributedValues):
        try:
            handle = variable.handle
        except ValueError:  # outside of any replica
            return variable
        parts = tf.distribute.get_strategy().experimental_local_results(variable)
        return next((part for part in parts if part.handle is handle), variable)
    return variable


def mark_table(variable):
    """Says of a variable that it is an embedding table: `SplitOptimizer` routes it by this."""
    variable.is_embedding_table = True
    return variable


def is_table(variable) -> bool:
    return getattr(variable, "is_embedding_table", False)


def sum_over_replicas(x):
    """The sum of a scalar over the replicas of a tf.distribute strategy; `x` itself where there is one."""
    if is_tensorflow():
        import tensorflow as tf

        if tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context():
            context = tf.distribute.get_replica_context()
            if context.num_replicas_in_sync > 1:
                return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
    return x
