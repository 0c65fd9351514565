"""The tasks' gradients of one batch, looked at without taking a step. TensorFlow only."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np

from mtl_zoo.balancing._sources import gradients
from mtl_zoo.balancing._step import forward_pass
from mtl_zoo.balancing._weighing import Weighing, weighing_of


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

    def _products(self, x, y, weights):
        import tensorflow as tf

        with keras.StatelessScope(collect_losses=True):
            weighing = Weighing(self.model, forward_pass(self.model, x, y, weights))
        if not weighing.shared_dense:
            raise ValueError(
                "`split` must be None for a model whose losses share no weights, tables aside: there are no gradients "
                f"to compare. Received: a split, with {type(self.model).__name__}"
            )
        rows = weighing.rows(weighing.per_task, weighing.shared_dense)
        return tf.matmul(rows, rows, transpose_b=True)

    def _plain_gradients(self, x, y, weights):
        with keras.StatelessScope(collect_losses=True):
            forward = forward_pass(self.model, x, y, weights)
            return _flat(forward, _of_sum(forward))

    def _balanced_gradients(self, x, y, weights):
        import tensorflow as tf

        method = self.model.balancing
        with keras.StatelessScope(collect_losses=True):
            forward = forward_pass(self.model, x, y, weights)
            if method.needs_task_gradients:
                found = weighing_of(self.model, forward).gradients()
            else:
                losses = tf.stack([tf.cast(loss, tf.float32) for loss in forward.losses])
                found = _of_sum(forward, method.weigh(losses, tf.cast(losses != 0, tf.float32)))
                if method.reevaluates:
                    again = self.model.weighted_losses(y, self.model(x, training=True), weights)
                    method.see_again(tf.stack(again))
            # The new state is asked for, or a graph would leave out what makes it.
            return _flat(forward, found) + [tf.convert_to_tensor(v) for v in method.weights]


def _of_sum(forward, coefficients=None):
    import tensorflow as tf

    weights = None if coefficients is None else tf.unstack(coefficients)
    return gradients(forward.tape, forward.scaled, forward.sources.tensors, weights)


def _flat(forward, found) -> list:
    import tensorflow as tf

    there = [g for g in forward.sources.of_variables(found) if g is not None]
    return tf.nest.flatten(there, expand_composites=True)
