"""The arithmetic of fusions, on NumPy arrays and in a TensorFlow graph: a fusion is written once, over one of these."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy.stats import rankdata


class Math(Protocol):
    """What a fusion is written in. A list is the last axis, or the rows of one group."""

    log: Any
    exp: Any
    sqrt: Any
    tanh: Any
    minimum: Any
    maximum: Any
    power: Any
    where: Any

    def constant(self, value: Any, like: Any) -> Any:
        """A number or matrix in the type of a score."""

    def least(self, x: Any) -> Any:
        """The smallest score of each candidate's list."""

    def most(self, x: Any) -> Any:
        """The largest score of each candidate's list."""

    def size(self, x: Any) -> Any:
        """How many candidates each candidate's list has."""

    def ranks(self, x: Any) -> Any:
        """1 for the largest score of a list; equal scores share the mean of their ranks."""


class NumpyMath:
    """On arrays. With `groups`, one value a row, the rows of a group are a list."""

    log, exp, sqrt, tanh = np.log, np.exp, np.sqrt, np.tanh
    minimum, maximum, power, where = np.minimum, np.maximum, np.power, staticmethod(np.where)

    def __init__(self, groups: np.ndarray | None = None):
        self.groups = None if groups is None else pd.factorize(groups)[0]

    def constant(self, value: Any, like: np.ndarray) -> np.ndarray:
        return np.asarray(value, "float64")

    def _of_list(self, x: np.ndarray, name: str) -> np.ndarray:
        if self.groups is None:
            return np.broadcast_to(getattr(np, name)(x, axis=-1, keepdims=True), x.shape)
        return pd.Series(x).groupby(self.groups).transform(name).to_numpy()  # type: ignore[call-overload]

    def least(self, x: np.ndarray) -> np.ndarray:
        return self._of_list(x, "min")

    def most(self, x: np.ndarray) -> np.ndarray:
        return self._of_list(x, "max")

    def size(self, x: np.ndarray) -> np.ndarray:
        return self._of_list(np.ones(x.shape), "sum")

    def ranks(self, x: np.ndarray) -> np.ndarray:
        if self.groups is None:
            return rankdata(-x, axis=-1)
        return pd.Series(-x).groupby(self.groups).rank().to_numpy()


class TensorflowMath:
    """On tensors, of which the last axis is a list; it can be traced, and exported."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.log, self.exp, self.sqrt, self.tanh = tf.math.log, tf.exp, tf.sqrt, tf.tanh
        self.minimum, self.maximum, self.power, self.where = tf.minimum, tf.maximum, tf.pow, tf.where

    def constant(self, value: Any, like: Any) -> Any:
        import tensorflow as tf

        return tf.constant(value, like.dtype)

    def least(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.broadcast_to(tf.reduce_min(x, axis=-1, keepdims=True), tf.shape(x))

    def most(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.broadcast_to(tf.reduce_max(x, axis=-1, keepdims=True), tf.shape(x))

    def size(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.fill(tf.shape(x), tf.cast(tf.shape(x)[-1], x.dtype))

    def ranks(self, x: Any) -> Any:
        import tensorflow as tf

        ordered = tf.sort(x, axis=-1)
        smaller, not_larger = (tf.searchsorted(ordered, x, side=side) for side in ("left", "right"))
        return self.size(x) - tf.cast(smaller + not_larger - 1, x.dtype) / 2
