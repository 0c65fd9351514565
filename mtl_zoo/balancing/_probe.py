"""The tasks' gradients of one batch, looked at without taking a step. TensorFlow only."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np

from mtl_zoo.balancing._forward import Forward, forward_pass
from mtl_zoo.balancing._task_gradients import TaskGradients
from mtl_zoo.losses.batch import Batch


class GradientProbe:
    """Gradients as a training step sees them. What the pass assigns, statistics, seeds and state, is dropped.

    Args:
        model: A compiled model, which trains on one replica.
    """

    def __init__(self, model: Any):
        import tensorflow as tf

        self.model = model
        self._gram = tf.function(self._products, autograph=False, reduce_retracing=True)
        self._plain = tf.function(self._plain_gradients, autograph=False, reduce_retracing=True)
        self._balanced = tf.function(self._balanced_gradients, autograph=False, reduce_retracing=True)

    def gram(self, x: Any, y: Any, weights: Any = None) -> np.ndarray:
        """Products of the losses' gradients over the dense weights that several depend on, (losses, losses).

        A forward pass, and a backward pass for each loss. The losses are those that methods see, times their
        `loss_weights`.

        Raises:
            ValueError: The losses share no such weights.
        """
        return np.asarray(self._gram(x, y, weights))

    def seconds(self, x: Any, y: Any, weights: Any = None, rounds: int = 5) -> tuple[float, float]:
        """Medians of what the gradients of a batch take: as the plain sum's, and as the model's method finds them."""
        taken: tuple[list[float], list[float]] = ([], [])
        for run in (self._plain, self._balanced):
            run(x, y, weights)
        for _ in range(rounds):
            for run, found in zip((self._plain, self._balanced), taken, strict=True):
                started = time.perf_counter()
                run(x, y, weights)[-1].numpy()
                found.append(time.perf_counter() - started)
        return statistics.median(taken[0]), statistics.median(taken[1])

    def _products(self, x: Any, y: Any, weights: Any) -> Any:
        import tensorflow as tf

        with keras.StatelessScope(collect_losses=True):
            forward = forward_pass(self.model, Batch(x, y, weights))
            tasks = TaskGradients(self.model, forward)
        if not tasks.shared_dense:
            raise ValueError(
                "`split` must be None for a model whose losses share no weights, tables aside: there are no gradients "
                f"to compare. Received: a split, with {type(self.model).__name__}"
            )
        rows = tasks.rows(tasks.per_task, tasks.shared_dense)
        return tf.matmul(rows, rows, transpose_b=True)

    def _plain_gradients(self, x: Any, y: Any, weights: Any) -> list:
        with keras.StatelessScope(collect_losses=True):
            forward = forward_pass(self.model, Batch(x, y, weights))
            return _flat(forward, forward.sources.gradients(forward.tape, forward.scaled))

    def _balanced_gradients(self, x: Any, y: Any, weights: Any) -> list:
        import tensorflow as tf

        method = self.model.balancing
        with keras.StatelessScope(collect_losses=True):
            forward = forward_pass(self.model, Batch(x, y, weights))
            gradients = method.gradients(TaskGradients(self.model, forward))
            if method.reevaluates:
                again = self.model.row_losses(Batch(x, y, weights), self.model(x, training=True))
                method.see_again(tf.stack(self.model.weigh_losses(again)))
            # The new state is asked for, or a graph would leave out what makes it.
            return _flat(forward, gradients) + [tf.convert_to_tensor(v) for v in method.weights]


def _flat(forward: Forward, gradients: list) -> list:
    import tensorflow as tf

    there = [g for g in forward.sources.of_variables(gradients) if g is not None]
    return tf.nest.flatten(there, expand_composites=True)
