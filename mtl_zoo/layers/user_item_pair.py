from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend, _pairs
from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor

# Rows that are counted before older ones weigh half: counts stay far below 2^24, up to which float32 adds 1.
_MOST_ROWS = float(1 << 23)


@keras.saving.register_keras_serializable(package="mtl_zoo")
class UserItemPair(keras.layers.Layer):
    """A row's two vectors beside what a loss over the batch needs: the item's id, and how often it is in batches.

    In training it counts the ids of the global batch first; the probability of an item is then

        Q(i) = n_i / sum_j n_j

    and not below that of one row. Once the sum is 2^23, all counts are halved.

    Args:
        num_ids: How many ids there are; an id outside of them counts as unknown (id 1).

    Raises:
        ValueError: `num_ids` is below 2.

    Input: users' vectors and items' vectors (batch, width), ids (batch,). Output: (batch, 2 width + 3): both vectors,
    `Q`, and the id in two parts.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import UserItemPair
    >>> pair = UserItemPair(num_ids=9)
    >>> rows = pair(np.ones((4, 2)), np.ones((4, 2)), np.array([5, 5, 5, 7]), training=True)
    >>> rows.numpy()[:, 4].tolist()
    [0.75, 0.75, 0.75, 0.25]
    """

    def __init__(self, num_ids: int, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.num_ids = check.check_int("num_ids", num_ids, minimum=2)

    def build(self, users_shape: Any, items_shape: Any, ids_shape: Any) -> None:
        self.counts = self.add_weight((self.num_ids,), "zeros", trainable=False, name="counts")

    def call(self, users: Tensor, items: Tensor, ids: Tensor, training: bool | None = None) -> Tensor:
        ids = ops.cast(ids, "int32")
        ids = ops.where(ops.logical_and(ids >= 0, ids < self.num_ids), ids, 1)
        counts = ops.convert_to_tensor(self.counts)
        if training:
            ones = ops.ones_like(ids, dtype="float32")
            of_batch = _backend.sum_over_replicas(ops.segment_sum(ones, ids, num_segments=self.num_ids))
            counts = ops.where(ops.sum(counts) >= _MOST_ROWS, counts / 2, counts) + of_batch
            self.counts.assign(counts)
        share = ops.maximum(ops.take(counts, ids), 1.0) / ops.maximum(ops.sum(counts), 1.0)
        return _pairs.pack(ops.cast(users, "float32"), ops.cast(items, "float32"), ops.stop_gradient(share), ids)

    def compute_output_spec(self, users: Any, items: Any, ids: Any, training: bool | None = None) -> Any:
        return keras.KerasTensor((users.shape[0], _pairs.packed_width(users.shape[-1])), "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "num_ids": self.num_ids}
