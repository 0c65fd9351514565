from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class DomainShares(keras.layers.Layer):
    """A row's shares of the domains: 1 for its own, or `1 / num_domains` for each where its domain is not known.

    Ids from `first_id` on are the domains. A smaller id (missing or unknown) or one beyond the last is not a domain:
    such a row is served by the mean of all domains, which needs no weights of its own that training might never reach.

    Args:
        num_domains: The number of domains.
        first_id: The id of the first domain.

    Input: (batch,) ids. Output: (batch, num_domains), rows sum to 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import DomainShares
    >>> DomainShares(2, first_id=2)(np.array([2, 3, 0])).numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """

    def __init__(self, num_domains: int, first_id: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_domains = check.check_count("num_domains", num_domains)
        self.first_id = check.check_int("first_id", first_id, minimum=0)

    def call(self, ids: Tensor) -> Tensor:
        domains = ops.arange(self.num_domains, dtype="int32") + self.first_id
        one_hot = ops.cast(ops.equal(ops.cast(ids, "int32")[:, None], domains), self.compute_dtype)
        known = ops.sum(one_hot, axis=-1, keepdims=True)
        return one_hot + (1 - known) / self.num_domains

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_domains)

    def get_config(self) -> Config:
        return {**super().get_config(), "num_domains": self.num_domains, "first_id": self.first_id}
