"""Penalties on how far weights move from those of the days before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.losses import Batch
from mtl_zoo.models import _data


class L2ToPrevious:
    """Holds weights to those with which a `fit` begins: `model.fit(day, anchor=L2ToPrevious(0.01))`.

    The gradient g of every step gets that of a penalty, with w0 the weights at the beginning:

        penalty = strength / 2 * sum_i (w_i - w0_i)^2;   g_i <- g_i + strength * (w_i - w0_i)

    Of an embedding table, the rows that the batch reads are held, and no others, so that a step stays as quick as it
    is; an optimizer that touches these rows alone (`LazyAdam`) does not move the others. With a balancing method the
    penalty is added to what the method makes of the tasks' gradients. The loss of the logs does not hold it. TensorFlow
    only.

    Args:
        strength: Factor of the penalty.
        tables: Whether embedding tables are held as well.

    Raises:
        ValueError: `strength` < 0; at `fit`, another backend than TensorFlow.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
    >>> from mtl_zoo.continual import L2ToPrevious
    >>> day = pd.DataFrame({"item": [1, 2, 1, 2], "click": [0, 1, 0, 1]})
    >>> model = SharedBottom(FeatureTransform(Categorical("item"), BinaryTask("click")).fit(day), bottom_units=(4,))
    >>> model.compile("adam")
    >>> _ = model.fit(day, verbose=0)
    >>> _ = model.fit(day, anchor=L2ToPrevious(0.1), verbose=0)
    """

    def __init__(self, strength: float, tables: bool = True) -> None:
        self.strength = check.check_number("strength", strength, minimum=0)
        self.tables = bool(tables)

    def importances(self, model: Any) -> list[Any]:
        """The factor of each trainable weight's penalty: a number, or an array of its shape."""
        return [1.0 for _ in model.trainable_variables]

    def at(self, model: Any) -> Pull:
        """What is added to gradients while the model's weights are held to what they are now."""
        if not _backend.is_tensorflow():
            raise ValueError(
                f"`anchor` must be None on the {keras.backend.backend()!r} backend. Received: anchor={self!r}"
            )
        return Pull(model, self.importances(model), self.strength, self.tables)


class EWC(L2ToPrevious):
    """Elastic weight consolidation: holds each weight as firmly as rows of the past need it where it is.

        penalty = strength / 2 * sum_i F_i (w_i - w0_i)^2
        F_i = (1 / n) sum_{rows r} (d loss_r / d w_i)^2

    F is the diagonal of the empirical Fisher information, of `rows` rows drawn from `past`, each row's gradient by
    itself, of the weighted sum of the tasks' losses by the labels of the row (without dropout). What is said of
    `L2ToPrevious` holds here, too.

    Args:
        strength: Factor of the penalty; since F is small where a model fits well, 10 to 10,000 is usual.
        past: Rows of the past: a table that the model's transform reads, such as `ReplayBuffer.rows`.
        rows: How many of them are used.
        seed: Of their draw.
        tables: Whether embedding tables are held as well.

    Raises:
        ValueError: As for `L2ToPrevious`; `rows` < 1; at `fit`, `past` has no row.

    Reference: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 114(13), 2017,
    arXiv:1612.00796.

    Example:

    >>> from mtl_zoo.continual import EWC
    >>> EWC(100.0, past={"item": [1, 2], "click": [0, 1]}).strength
    100.0
    """

    def __init__(self, strength: float, past: Any, rows: int = 256, seed: int = 0, tables: bool = True) -> None:
        super().__init__(strength, tables)
        self.past = past
        self.rows = check.check_int("rows", rows)
        self.seed = check.check_int("seed", seed, minimum=0)

    def importances(self, model: Any) -> list[Any]:
        import tensorflow as tf

        inputs, labels, weights = _data.encode_table(model, self.past)
        total = len(next(iter(inputs.values())))
        at = np.random.default_rng(self.seed).permutation(total)[: self.rows]
        variables = model.trainable_variables
        sums = [np.zeros(tuple(v.shape), np.float64) for v in variables]

        @tf.function(autograph=False)
        def gradients(*one: Any) -> list[Any]:
            batch = Batch(*one)
            with tf.GradientTape() as tape:
                rows = model.row_losses(batch, model(batch.inputs, training=False))
                loss = sum(model.weigh_losses(rows))
            found = tape.gradient(loss, [_backend.local_part(v.value) for v in variables])
            return [tf.zeros((0,)) if g is None else g for g in found]

        for row in at:
            one = keras.tree.map_structure(
                lambda array, row=row: None if array is None else tf.convert_to_tensor(array[row : row + 1]),
                (inputs, labels, weights),
            )
            for total_of, gradient in zip(sums, gradients(*one), strict=True):
                if isinstance(gradient, tf.IndexedSlices):
                    ids, place = np.unique(gradient.indices.numpy(), return_inverse=True)
                    values = np.zeros((len(ids), *total_of.shape[1:]))
                    np.add.at(values, place, gradient.values.numpy())
                    total_of[ids] += values**2
                elif len(gradient.shape) == total_of.ndim and tuple(gradient.shape) == total_of.shape:
                    total_of += gradient.numpy().astype(np.float64) ** 2
        return [(total_of / len(at)).astype("float32") for total_of in sums]


class Pull:
    """The gradients of a penalty on the distance to where a model's weights were.

    Args:
        model: The model; its weights now are what it is held to.
        importances: By trainable weight, a number or an array.
        strength: Factor of all.
        tables: Whether embedding tables are held.
    """

    def __init__(self, model: Any, importances: Sequence[Any], strength: float, tables: bool) -> None:
        import tensorflow as tf

        self._model, self._strength = model, strength
        self._held: dict[int, tuple[Any, Any]] = {}
        for variable, importance in zip(model.trainable_variables, importances, strict=True):
            if tables or not _backend.is_table(variable):
                start = tf.constant(keras.ops.convert_to_numpy(variable))
                self._held[id(variable)] = (start, tf.constant(importance, start.dtype))

    def added_to(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The gradients, of this replica's rows, with those of the penalty."""
        import tensorflow as tf

        # Gradients are added up over replicas, and scaled with the loss.
        share = tf.cast(self._model.optimizer.scale_loss(tf.constant(1.0)), "float32") / _backend.num_replicas()
        return [
            gradient if gradient is None or id(v) not in self._held else self._added(gradient, v, share)
            for gradient, v in zip(gradients, variables, strict=True)
        ]

    def _added(self, gradient: Any, variable: Any, share: Any) -> Any:
        import tensorflow as tf

        (start, importance), now = self._held[id(variable)], _backend.local_part(variable.value)
        factor = tf.cast(share * self._strength, start.dtype)
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient + factor * importance * (tf.convert_to_tensor(now) - start)
        # Each row once, whichever replicas read it.
        ids, _ = tf.unique(_backend.gather_replicas(gradient.indices))
        by_row = importance if importance.shape.rank == 0 else tf.gather(importance, ids)
        rows = factor * by_row * (tf.gather(now, ids) - tf.gather(start, ids))
        values = tf.concat([gradient.values, tf.cast(rows, gradient.values.dtype)], axis=0)
        indices = tf.concat([gradient.indices, tf.cast(ids, gradient.indices.dtype)], axis=0)
        return tf.IndexedSlices(values, indices, gradient.dense_shape)
