"""Training under tf.distribute: the one place that knows what Keras 3 leaves to us.

Keras' own functions fail on several workers, and on mirrored devices with more than one step an execution or with
accumulated gradients. Here a function takes the batches of an execution, runs the model's step on each (unrolled: a
loop of TensorFlow would mix up the workers' collectives), and gives the logs of all replicas together.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend, _keras_private


def is_distributed(model: Any) -> bool:
    """Whether a model was made in the scope of a strategy that trains on several devices or workers."""
    if not _backend.is_tensorflow():
        return False
    import tensorflow as tf

    kinds = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return isinstance(model.distribute_strategy, kinds) or has_servers(model)


def has_servers(model: Any) -> bool:
    """Whether a model's weights lie on parameter servers."""
    if not _backend.is_tensorflow():
        return False
    import tensorflow as tf

    return isinstance(model.distribute_strategy, tf.distribute.ParameterServerStrategy)


def is_multi_worker(model: Any) -> bool:
    """Whether other processes train the same model, each with replicas of its own."""
    if not is_distributed(model):
        return False
    import tensorflow as tf

    strategy = model.distribute_strategy
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and num_workers(model) > 1


def num_workers(model: Any) -> int:
    """How many processes run the same training script on parts of its rows; one leads where there are servers."""
    if not is_distributed(model) or has_servers(model):
        return 1
    strategy = model.distribute_strategy
    return strategy.num_replicas_in_sync // len(_local_replicas(strategy))


def worker_index(model: Any) -> int:
    """Which of the processes this is, from 0; process 0 is the chief, which alone writes files."""
    if not is_distributed(model) or has_servers(model):
        return 0
    replicas = _local_replicas(model.distribute_strategy)
    return replicas[0] // len(replicas)


def _local_replicas(strategy: Any) -> list[int]:
    import tensorflow as tf

    ids = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )
    return [int(replica) for replica in strategy.experimental_local_results(ids)]


# Before training.


def check_compile(model: Any, optimizer: Any, jit_compile: Any) -> None:
    """Refuses what cannot work with several replicas, with the reason."""
    if not is_distributed(model):
        return
    if jit_compile:
        raise ValueError(
            "`jit_compile` must be False under a tf.distribute strategy: XLA cannot compile the reductions over "
            f"replicas that TensorFlow makes inside of a step. Received: jit_compile={jit_compile!r}"
        )
    if optimizer is None:
        return
    if not _keras_private.is_made_for(optimizer, model.distribute_strategy):
        raise ValueError(
            "`optimizer` must be made in the scope of the model's strategy, or be given by name: its step counter "
            "would count every replica otherwise. "
            f"Received: optimizer={optimizer!r}, made outside of `with strategy.scope():`"
        )
    if optimizer.use_ema and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "`use_ema` must be False with accumulated gradients and several replicas: the average would also count the "
            f"steps that only add up. Received: use_ema=True, "
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps!r}"
        )
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None and inner.gradient_accumulation_steps:
        raise ValueError(
            "`gradient_accumulation_steps` must be None with a scaled loss and several replicas: whether a step's "
            "gradients are finite would be asked of a part of them. Received: "
            f"gradient_accumulation_steps={inner.gradient_accumulation_steps!r}"
        )
    if has_servers(model) and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "`gradient_accumulation_steps` must be None with parameter servers: workers would add their gradients to "
            "the same sums at the same time, and lose some. Received: "
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps!r}"
        )


def build(model: Any) -> None:
    """Makes what Keras would make by a symbolic call of the model, which fails on the batches of several workers."""
    if model.optimizer is not None and not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def same_on_all_workers(model: Any, number: int) -> int:
    """The chief's number."""
    if not is_multi_worker(model):
        return number
    given = np.array([number if worker_index(model) == 0 else 0], "int64")
    return int(gather_rows(model, given).sum())


# The functions that Keras calls once an execution.


def step_function(model: Any, step: Callable, training: bool) -> Callable:
    """What Keras' trainer calls with an iterator of batches, until it raises StopIteration.

    Args:
        model: The model, compiled.
        step: `train_step` or `test_step`, from a replica's part of a batch.
        training: Whether `step` updates the weights.

    Returns:
        A function that runs `steps_per_execution` steps, fewer at the end, and gives the logs so far.
    """
    strategy = model.distribute_strategy
    if has_servers(model):
        raise ValueError(
            "`fit` and `evaluate` of a model on parameter servers are those of its ParameterServerTrainer: Keras' "
            f"would run every step on the chief. Received: a model made in the scope of {type(strategy).__name__}"
        )

    def execute(batches: tuple, updates: tuple[bool, ...]) -> Any:
        for batch, update in zip(batches, updates, strict=True):
            with _keras_private.accumulation(model.optimizer, update) if training else contextlib.nullcontext():
                strategy.run(step, args=(batch,))
        return keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], strategy.run(lambda: _global_logs(model))
        )

    if not model.run_eagerly:
        import tensorflow as tf

        # Not reduced retracing: it loses the rank of what a replica holds.
        execute = tf.function(execute, autograph=False)

    def function(iterator: Iterator) -> dict[str, Any]:
        batches = tuple(itertools.islice(iterator, model.steps_per_execution))
        if not batches:
            raise StopIteration
        updates = _updates(model.optimizer, len(batches)) if training else (True,) * len(batches)
        logs, totals = execute(batches, updates)
        known.metric_totals = totals
        return logs

    known: Any = function  # functions have no attributes that a type checker knows
    return known


def _updates(optimizer: Any, steps: int) -> tuple[bool, ...]:
    """Which of the next steps apply gradients, and not only add them up."""
    every = getattr(optimizer, "gradient_accumulation_steps", None)
    if not every:
        return (True,) * steps
    done = _keras_private.steps_taken(optimizer)
    return tuple((done + i + 1) % every == 0 for i in range(steps))


def metric_totals(model: Any) -> list[np.ndarray]:
    """The values of the metrics' variables of all replicas together, after a training step."""
    if is_distributed(model):
        return [np.asarray(value) for value in model.train_function.metric_totals]
    return [keras.ops.convert_to_numpy(v) for v in metric_variables(model)]


def _global_logs(model: Any) -> tuple[dict[str, Any], list]:
    """The metrics so far of all replicas together, and the values of their variables, from within one replica.

    All sums and counts are added up at once: a reduction for each would take most of a small step's time.
    """
    import tensorflow as tf

    # A copy, since what is read of a variable names no device, which the reduction asks for.
    own = [tf.identity(variable) for variable in metric_variables(model)]
    everywhere = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
    return logs_of(model, everywhere), everywhere


def metric_variables(model: Any) -> list:
    """Sums and counts: those of several replicas, or steps, add up to those of all."""
    return [variable for metric in model.metrics for variable in metric.variables]


def logs_of(model: Any, values: Sequence[Any]) -> dict[str, Any]:
    """The metrics' results if their variables had these values."""
    with keras.StatelessScope(state_mapping=list(zip(metric_variables(model), values, strict=True))):
        return model.get_metrics_result()


def additions_to_metrics(model: Any, update: Callable[[], Any]) -> list:
    """What `update` adds to the metrics, by variable, while the variables stay as they are.

    Workers that train at the same time would lose each other's additions to a variable.
    """
    variables = metric_variables(model)
    nothing = [(v, keras.ops.zeros(v.shape, v.dtype)) for v in variables]
    with keras.StatelessScope(state_mapping=nothing) as scope:
        update()
    return [scope.get_current_value(variable) for variable in variables]


# Rows of several workers.


def own_slice(model: Any, rows: int) -> slice:
    """The rows of this worker, when `rows` are cut into nearly equal runs, one a worker."""
    workers, index = num_workers(model), worker_index(model)
    return slice(rows * index // workers, rows * (index + 1) // workers)


def every_nth(model: Any, items: Iterator) -> Iterator:
    """Those of this worker, when items are dealt in turn."""
    return itertools.islice(items, worker_index(model), None, num_workers(model))


def gather_rows(model: Any, rows: np.ndarray) -> np.ndarray:
    """The rows that the workers hold, one worker's below the other's. Every worker must call it."""
    import tensorflow as tf

    strategy = model.distribute_strategy
    first = _local_replicas(strategy)[0]
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(rows if context.replica_id_in_sync_group == first else rows[:0])
    )
    return strategy.gather(parts, axis=0).numpy()
