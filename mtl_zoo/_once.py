"""Few rows beside many: what a user's own columns give is computed once, not for each of the user's candidates.

Of a product with the vectors `x = [u, v]`, `u` a user's and the same for all candidates, so is the part of `u`:

    x W = u W_u + v W_v
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from keras import ops

_tracing = threading.local()
_MARK = "_mtl_zoo_split"


class Once(NamedTuple):
    """The inputs that are computed once, and where their rows go.

    Args:
        inputs: Tensors by name, a row a user.
        count: How many rows the model's other inputs have, of which all belong to one user; or
        users: the user's row for each of them.
        kept: Keeps or has what the others' columns give. Default: it is computed.
    """

    inputs: Mapping[str, Any]
    count: Any = None
    users: Any = None
    kept: Kept | None = None

    def repeated(self, rows: Any) -> Any:
        """A row a user as a row for each row of the other inputs."""
        if self.users is not None:
            return ops.take(rows, self.users, axis=0)
        return ops.broadcast_to(rows, (self.count, *ops.shape(rows)[1:]))

    def of_rows(self, compute: Callable[[], Any]) -> Any:
        """What `compute` makes of the others' columns alone, or what was kept of it."""
        return compute() if self.kept is None else self.kept.of_rows(compute)


class Kept:
    """What layers make of many rows before these meet a user: kept in one trace of a model, read in another.

    Args:
        found: What the first trace kept, in its order, for the trace that reads. Default: this trace keeps.
    """

    def __init__(self, found: Sequence[Any] | None = None) -> None:
        self.found = list(found or ())
        self._left = None if found is None else iter(found)

    def of_rows(self, compute: Callable[[], Any]) -> Any:
        """See `Once.of_rows`."""
        if self._left is not None:
            return next(self._left)
        self.found.append(compute())
        return self.found[-1]


@contextlib.contextmanager
def computed_once(
    inputs: Mapping[str, Any], count: Any = None, users: Any = None, kept: Kept | None = None
) -> Iterator[Once]:
    """What is traced within reads these inputs by user, wherever a layer can; the model's own are repeated."""
    before, once = current(), Once(inputs, count, users, kept)
    _tracing.once = once if inputs else None
    try:
        yield once
    finally:
        _tracing.once = before


def current() -> Once | None:
    """What is computed once in this trace, if anything is."""
    return getattr(_tracing, "once", None)


class Split(NamedTuple):
    """A tensor (rows, width) as its columns that users have, (users, a), and the others, (rows, b).

    `runs` are (whether it is of the first kind, first column, column behind its last), from left to right.
    """

    once: Once
    single: Any
    rows: Any
    runs: list[tuple[bool, int, int]]


def mark(once: Once, single: Any, rows: Any, columns: list[tuple[bool, int, int]]) -> Any:
    """The tensor (rows, width) of both kinds of columns, which products with it then know as a `Split`.

    Args:
        once: What is computed once.
        single, rows: The columns of each kind, side by side.
        columns: As the runs of `Split`; neighbours of one kind become one run.
    """
    runs, parts, taken = [], [], {True: 0, False: 0}
    for is_single, group in itertools.groupby(columns, key=lambda column: column[0]):
        bounds = list(group)
        start, stop = bounds[0][1], bounds[-1][2]
        runs.append((is_single, start, stop))
        first = taken[is_single]
        taken[is_single] += stop - start
        part = (single if is_single else rows)[:, first : taken[is_single]]
        parts.append(once.repeated(part) if is_single else part)
    x = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
    setattr(x, _MARK, Split(once, single, rows, runs))
    return x


def is_split(x: Any) -> bool:
    """Whether `project` has less to do than a product."""
    return hasattr(x, _MARK)


def project(x: Any, kernel: Any, bias: Any = None) -> Any:
    """`x kernel + bias`, (rows, units)."""
    split = getattr(x, _MARK, None)
    if split is None:
        y = ops.matmul(x, kernel)
        # `ops.add` knows a bias, which TensorFlow adds in the same kernel.
        return y if bias is None else ops.add(y, bias)
    kernel = ops.cast(kernel, x.dtype)

    def of_columns(are_single: bool) -> Any:
        parts = [kernel[start:stop] for is_single, start, stop in split.runs if is_single is are_single]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)

    y = split.once.of_rows(lambda: ops.matmul(split.rows, of_columns(False)))
    once = ops.matmul(split.single, of_columns(True))
    once = once if bias is None else once + ops.cast(bias, x.dtype)
    # Beside a product a vector is a bias, which TensorFlow adds in the same kernel.
    return y + (once[0] if split.once.users is None else split.once.repeated(once))
