"""Numbers become scaled numbers, or the ids of buckets with equal shares of the training rows."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtl_zoo.features._columns import Column, refuse_values
from mtl_zoo.features.spec import FIRST_ID, MISSING_ID, Numeric


@dataclasses.dataclass(frozen=True)
class Moments:
    """What `fit` learned of a number: what replaces missing ones, and its scale or bucket boundaries."""

    fill: float | None = None
    mean: float = 0.0
    std: float = 1.0
    boundaries: tuple[float, ...] = ()


def fit_moments(feature: Numeric, column: Column) -> Moments:
    """Moments of the finite values of the column, in float64."""
    numbers = _checked(feature, column)
    observed = numbers[np.isfinite(numbers)]
    if not len(observed):
        raise ValueError(
            f"`{column.name}` must hold a finite number to fit feature {feature.name!r}. "
            f"Received: {len(numbers)} rows, none finite"
        )
    fill = _fill(feature, observed)
    if feature.is_bucketed:
        shares = np.linspace(0, 1, feature.buckets + 1)[1:-1]
        return Moments(fill, boundaries=tuple(np.unique(np.quantile(observed, shares)).tolist()))
    if feature.normalization is None:
        return Moments(fill)
    scaled = _log(observed) if feature.normalization == "log" else observed
    if scaled.min() == scaled.max():
        # Its mean may be rounded, and its std is then no 0.
        return Moments(fill, float(scaled[0]), 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(scaled.mean()), float(scaled.std())
    if not np.isfinite(mean) or not np.isfinite(std):
        largest = np.abs(observed) == np.abs(observed).max()
        refuse_values(column.name, "must hold numbers whose variance is finite", largest, observed)
    return Moments(fill, mean, std or 1.0)


def encode(feature: Numeric, moments: Moments, column: Column) -> np.ndarray:
    """float32 (n,), or int32 ids of buckets."""
    numbers = _checked(feature, column)
    finite = np.isfinite(numbers)
    filled = numbers if moments.fill is None else np.where(finite, numbers, moments.fill)
    if feature.is_bucketed:
        ids = np.searchsorted(np.array(moments.boundaries), filled, side="right") + FIRST_ID
        return np.where(finite | (moments.fill is not None), ids, MISSING_ID).astype(np.int32)
    scaled = _log(filled) if feature.normalization == "log" else filled
    with np.errstate(over="ignore"):
        result = ((scaled - moments.mean) / moments.std).astype(np.float32)
    refuse_values(column.name, "must hold numbers that fit in 32 bits once scaled", ~np.isfinite(result), numbers)
    return result


def _fill(feature: Numeric, observed: np.ndarray) -> float | None:
    """What replaces missing numbers; None where they are refused or have a bucket of their own."""
    if feature.missing == "mean":
        return float(observed.mean())
    if feature.missing == "median":
        return float(np.median(observed))
    return None if isinstance(feature.missing, str) or feature.missing is None else float(feature.missing)


def _checked(feature: Numeric, column: Column) -> np.ndarray:
    numbers = column.numbers()
    if feature.missing is None:
        advice = f"Give {feature.name!r} a policy, for example Numeric(..., missing='mean')"
        refuse_values(
            column.name, "must hold finite numbers, since `missing` is None", ~np.isfinite(numbers), numbers, advice
        )
    return numbers


def _log(numbers: np.ndarray) -> np.ndarray:
    return np.sign(numbers) * np.log1p(np.abs(numbers))
