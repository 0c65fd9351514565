"""What `compile` takes as an optimizer: a name, an optimizer, or a dict of these for the parts of a model."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo.optimizers._rows import RowUpdates
from mtl_zoo.optimizers.lazy_adagrad import LazyAdagrad
from mtl_zoo.optimizers.lazy_adam import LazyAdam
from mtl_zoo.optimizers.lazy_ftrl import LazyFtrl
from mtl_zoo.optimizers.lazy_sgd import LazySGD
from mtl_zoo.optimizers.row_wise_adagrad import RowWiseAdagrad
from mtl_zoo.optimizers.sparse_loss_scale_optimizer import SparseLossScaleOptimizer
from mtl_zoo.optimizers.split_optimizer import SplitOptimizer

_BY_NAME = {
    "auto": LazyAdam,
    "lazy_adam": LazyAdam,
    "lazy_adagrad": LazyAdagrad,
    "lazy_ftrl": LazyFtrl,
    "lazy_sgd": LazySGD,
    "row_wise_adagrad": RowWiseAdagrad,
}
OPTIMIZER_NAMES = tuple(_BY_NAME)
_PARTS, _MORE_PARTS = ("embeddings", "dense"), ("encoders",)


def as_optimizer(given: Any, *, scale_loss: bool = False) -> Any:
    """The optimizer that `given` stands for.

    Args:
        given: `"auto"`, which is `LazyAdam()` (by row for tables, Adam for the rest); another name of this package
            (such as `"row_wise_adagrad"`) or of Keras; an optimizer; a dict `{"embeddings": ..., "dense": ...}` of
            names, optimizers or learning rates (numbers or schedules for a `LazyAdam`), with `"encoders"` as well for
            the weights of pretrained models; or None.
        scale_loss: Whether the optimizer is wrapped for mixed float16, unless it already is.

    Raises:
        ValueError: If a name is unknown, a dict has other keys, or a learning rate is not above 0.

    Example:

    >>> from mtl_zoo.optimizers import as_optimizer
    >>> split = as_optimizer({"embeddings": "row_wise_adagrad", "dense": 0.001})
    >>> type(split.embeddings).__name__, type(split.dense).__name__
    ('RowWiseAdagrad', 'LazyAdam')
    """
    optimizer = _split(given) if _is_split(given) else _single("optimizer", given)
    if scale_loss and optimizer is not None and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return SparseLossScaleOptimizer(optimizer, name="loss_scale_optimizer")
    return optimizer


def updates_rows(optimizer: Any) -> bool:
    """Whether an optimizer takes gradients of embedding tables by row.

    Args:
        optimizer: One of this package or of Keras. Of a `SplitOptimizer` the part for the tables counts. One that
            scales the loss (mixed float16) does so on TensorFlow alone, and is answered with False.

    Example:

    >>> import keras
    >>> from mtl_zoo.optimizers import LazyAdam, SplitOptimizer, updates_rows
    >>> updates_rows(LazyAdam()), updates_rows(SplitOptimizer()), updates_rows(keras.optimizers.Adam())
    (True, True, False)
    """
    return isinstance(getattr(optimizer, "embeddings", optimizer), RowUpdates)


def _is_split(given: Any) -> bool:
    # The form in which Keras serialises an optimizer is a dict, too.
    return isinstance(given, Mapping) and "class_name" not in given


def _split(given: Mapping[str, Any]) -> SplitOptimizer:
    if set(given) - set(_MORE_PARTS) != set(_PARTS):
        raise ValueError(
            f"`optimizer` as a dict must have the keys {list(_PARTS)}, and may have {list(_MORE_PARTS)}. "
            f"Received: keys {sorted(map(str, given))}"
        )
    return SplitOptimizer(**{part: _part(part, given[part]) for part in (*_PARTS, *_MORE_PARTS) if part in given})


def _part(part: str, given: Any) -> Any:
    argument = f"optimizer[{part!r}]"
    if isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
        return LazyAdam(given)
    if isinstance(given, numbers.Real) and not isinstance(given, bool):
        return LazyAdam(check.check_number(argument, given, above=0))
    if given is None or _is_split(given):
        raise ValueError(
            f"`{argument}` must be a name, an optimizer or a learning rate. Received: {argument}={given!r}"
        )
    return _single(argument, given)


def _single(argument: str, given: Any) -> Any:
    if isinstance(given, str) and given in _BY_NAME:
        return _BY_NAME[given]()
    try:
        return keras.optimizers.get(given)
    except ValueError as error:
        raise ValueError(
            f"`{argument}` must be a Keras optimizer or the name of one. Received: {argument}={given!r}. "
            f"Expected: one of {', '.join(map(repr, _BY_NAME))}, or a name that Keras knows ('adam', 'sgd', ...)"
        ) from error
