"""Gradients along straight lines: what each part of a function's argument adds to its change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from mtl_zoo import _gradients

Arrays = dict[str, np.ndarray]

# Of Gauss and Legendre on [0, 1], both of weight 1/2: exact for polynomials of degree 3.
_AT = ((np.polynomial.legendre.leggauss(2)[0] + 1) / 2).astype("float32")
# Pieces that every line begins with, so that errors of one sign on both sides of a bend do not cancel.
_PIECES = 4
# What float32 makes of a value of size 1.
ROUNDING = 1e-6


class Line(NamedTuple):
    """Straight lines, one a row.

    Args:
        start, end: Arrays (rows, ...); one row of `start` may stand for all.
        others, units: What the function is given beside them, by row.
    """

    start: Sequence[np.ndarray]
    end: Sequence[np.ndarray]
    others: Mapping[str, np.ndarray]
    units: np.ndarray

    def points(self, rows: np.ndarray, at: np.ndarray) -> tuple[list[np.ndarray], Arrays, np.ndarray]:
        """The function's arguments at these parts of the way, for these rows."""
        found = []
        for start, end in zip(self.start, self.end, strict=True):
            part = at.reshape(-1, *[1] * (end.ndim - 1))
            first = start if len(start) == 1 else start[rows]
            found.append((first + part * (end[rows] - first)).astype("float32"))
        return found, {name: array[rows] for name, array in self.others.items()}, self.units[rows]


class Integrals(NamedTuple):
    """What `integrate` found.

    Args:
        parts: (rows, arrays of the line): each one's part of the change.
        change: (rows,), the function's difference between the ends.
        gradients: (rows,), how many were taken.
    """

    parts: np.ndarray
    change: np.ndarray
    gradients: np.ndarray


def batches(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def values_of(function: Callable[..., Any], line: Line, rows: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """float64 values of the function at these points of the lines."""
    found = [np.zeros(0)]
    for part in batches(len(rows), size):
        found.append(ops.convert_to_numpy(function(*line.points(rows[part], at[part]))).astype("float64"))
    return np.concatenate(found)


def integrate(
    function: Callable[..., Any], line: Line, *, most: int, tolerance: float, scale: np.ndarray, size: int
) -> Integrals:
    """Integrals of gradients along lines, by Gauss-Legendre quadrature of pieces that are split where it is not exact.

    Along a piece from a to b a part's integral is `int_a^b grad f(x(t)) . x'(t) dt`, and all parts together make
    `f(x(b)) - f(x(a))`, which is known: what they lack says which pieces to split.
    Of a network of ReLUs f is straight up to a bend, and straight after it: a piece with one bend is split there.

    Args:
        function: From points, others and units to (rows,) numbers.
        line: The lines.
        most: Gradients of a row.
        tolerance: A row is done when the errors of its pieces add up to less than this part of its `scale`.
        scale: (rows,), what errors are compared with.
        size: Points at once.
    """
    count, with_gradients = len(line.units), _gradients.with_gradients(function)
    parts, taken = np.zeros((count, len(line.end))), np.zeros(count, int)
    ends = np.linspace(0, 1, _PIECES + 1, dtype="float32")
    rows, low, high = np.repeat(np.arange(count), _PIECES), np.tile(ends[:-1], count), np.tile(ends[1:], count)
    edges = values_of(function, line, np.repeat(np.arange(count), _PIECES + 1), np.tile(ends, count), size)
    edges = edges.reshape(count, -1)
    first, last = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    change, allowed = edges[:, -1] - edges[:, 0], np.maximum(tolerance * np.abs(scale), ROUNDING * np.abs(edges).max())
    errors = np.zeros(count)  # of the pieces that are done
    while len(rows):
        found, slopes = _of_pieces(with_gradients, line, rows, low, high, size)
        np.add.at(taken, rows, len(_AT))
        missed = np.abs(found.sum(axis=1) - (last - first))
        open_errors = np.bincount(rows, missed, count)
        pieces = np.bincount(rows, minlength=count)
        is_open = (errors + open_errors > allowed) & (taken + 2 * len(_AT) * pieces <= most)
        # A piece that is exact for its share of what is still allowed is done, though its row is not.
        share = (allowed - errors).clip(0) / (2 * pieces.clip(1))
        split = is_open[rows] & (missed > share[rows])
        np.add.at(parts, rows[~split], found[~split])
        np.add.at(errors, rows[~split], missed[~split])
        rows, low, high, first, last, slopes = (x[split] for x in (rows, low, high, first, last, slopes))
        middle = low + _bend(slopes, (last - first) / (high - low)) * (high - low)
        between = values_of(function, line, rows, middle, size)
        rows, low, high = np.tile(rows, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
        first, last = np.concatenate([first, between]), np.concatenate([between, last])
    return Integrals(parts, change, taken)


def _bend(slopes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Where on a piece its slope goes from the first of `slopes`, (pieces, 2), to the second, which gives the mean."""
    first, last = slopes.T
    differ = np.abs(first - last) > 1e-6 * (np.abs(first) + np.abs(last))
    at = np.where(differ, (mean - last) / np.where(differ, first - last, 1.0), 0.5)
    return np.where((at > 0.02) & (at < 0.98), at, 0.5).astype("float32")


def _of_pieces(
    with_gradients: Callable[..., Any], line: Line, rows: np.ndarray, low: np.ndarray, high: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The integral of every part along each piece, (pieces, parts), and the slopes at its two points."""
    found, slopes = [np.zeros((0, len(line.end)))], [np.zeros((0, len(_AT)))]
    for part in batches(len(rows), max(1, size // len(_AT))):
        own, width = rows[part], high[part] - low[part]
        at = low[part][:, None] + width[:, None] * _AT
        _, gradients = with_gradients(*line.points(np.repeat(own, len(_AT)), at.ravel()))
        sums = []
        for start, end, gradient in zip(line.start, line.end, gradients, strict=True):
            steep = ops.convert_to_numpy(gradient).astype("float64").reshape(len(own), len(_AT), -1)
            way = (end[own] - (start if len(start) == 1 else start[own])).astype("float64").reshape(len(own), -1)
            sums.append(np.einsum("rkd,rd->rk", steep, way))
        by_point = np.stack(sums, axis=1)  # (pieces, parts, points)
        found.append(by_point.mean(axis=2) * width[:, None])
        slopes.append(by_point.sum(axis=1))
    return np.concatenate(found), np.concatenate(slopes)
