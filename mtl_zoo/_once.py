"""One row beside many: what a user's own columns give is computed once, not for each of the user's candidates.

Of a product with the vectors `x = [u, v]`, `u` the same in all rows, the part of `u` is one row as well:

    x W = u W_u + v W_v
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from keras import ops

_tracing = threading.local()
_MARK = "_mtl_zoo_split"


class Once(NamedTuple):
    """The inputs that have one row, and the number of rows that the others have."""

    inputs: Mapping[str, Any]
    count: Any

    def repeated(self, row: Any) -> Any:
        """(1, ...) as (count, ...)."""
        return ops.broadcast_to(row, (self.count, *row.shape[1:]))


@contextlib.contextmanager
def computed_once(inputs: Mapping[str, Any], count: Any) -> Iterator[None]:
    """What is traced within reads these inputs as one row, wherever a layer can; the model's own are repeated."""
    before, _tracing.once = current(), Once(inputs, count) if inputs else None
    try:
        yield
    finally:
        _tracing.once = before


def current() -> Once | None:
    """What is computed once in this trace, if anything is."""
    return getattr(_tracing, "once", None)


class Split(NamedTuple):
    """A tensor (count, width) as its columns that are the same in all rows, (1, a), and the others, (count, b).

    `runs` are (whether it is of the first kind, first column, column behind its last), from left to right.
    """

    single: Any
    rows: Any
    runs: list[tuple[bool, int, int]]


def mark(x: Any, single: Any, rows: Any, columns: list[tuple[bool, int, int]]) -> Any:
    """`x`, which products with it then know as a `Split`; neighbours among the columns become one run."""
    runs = []
    for is_single, group in itertools.groupby(columns, key=lambda column: column[0]):
        bounds = list(group)
        runs.append((is_single, bounds[0][1], bounds[-1][2]))
    setattr(x, _MARK, Split(single, rows, runs))
    return x


def is_split(x: Any) -> bool:
    """Whether `project` has less to do than a product."""
    return hasattr(x, _MARK)


def project(x: Any, kernel: Any, bias: Any = None) -> Any:
    """`x kernel + bias`, (rows, units)."""
    split = getattr(x, _MARK, None)
    if split is None:
        y = ops.matmul(x, kernel)
        return y if bias is None else y + bias
    kernel = ops.cast(kernel, x.dtype)

    def of_columns(are_single: bool) -> Any:
        parts = [kernel[start:stop] for is_single, start, stop in split.runs if is_single is are_single]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)

    once = ops.matmul(split.single, of_columns(True))[0]
    # Beside a product a vector is a bias, which TensorFlow adds in the same kernel.
    return ops.matmul(split.rows, of_columns(False)) + (once if bias is None else once + ops.cast(bias, x.dtype))
