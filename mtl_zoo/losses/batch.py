"""What a training step has in hand: the rows of one batch, as Keras gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from mtl_zoo._types import SOURCE_INPUT


@dataclasses.dataclass(frozen=True)
class Batch:
    """The rows of one step. Steps, heads and losses that need more than one row's logit read it.

    Args:
        inputs: The model's inputs, by feature name.
        labels: Labels by task name, and sample-space columns, as the user gave them: NaN where not observed.
        weights: Sample weights: None, one tensor for all tasks, or a dict by task name.
        groups: The group of each row (a user, a query), for losses that compare rows of one group; or None.
        source: The number of the source that each row is from, of several; or None.
        observed: For the loss at hand, which rows count: (batch,) of 0 and 1. None outside of a loss.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.losses import Batch
    >>> x, y = {"age": np.ones(2)}, {"click": np.array([0.0, 1.0])}
    >>> batch = Batch.of((x, y))
    >>> sorted(batch.labels), batch.weights
    (['click'], None)
    """

    inputs: Any
    labels: Any
    weights: Any = None
    groups: Any = None
    source: Any = None
    observed: Any = None

    @classmethod
    def of(cls, data: Any) -> Batch:
        """From what Keras hands to a step: inputs alone, or a tuple with labels and sample weights."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(inputs, Mapping) or SOURCE_INPUT not in inputs:
            return cls(inputs, labels, weights)
        others = {name: values for name, values in inputs.items() if name != SOURCE_INPUT}
        return cls(others, labels, weights, source=inputs[SOURCE_INPUT])
