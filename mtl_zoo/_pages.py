"""Memory pages of 2 MB for large tables.

A row of a large table lies on another page at every read, and with pages of 4 KB the processor waits for the page's
address before it waits for the row.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from mtl_zoo import _backend

# Turns it off for a process.
VARIABLE = "MTL_ZOO_HUGE_PAGES"
# From this size on the C library maps a block by itself, so that a table shares its pages with nothing else.
FROM = 32 * 2**20
_PAGE = 2 * 2**20
_ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
_COLLAPSE = 25  # of Linux 6.1; Python names it since 3.13


def use_huge_pages(variable: Any, is_zeros: bool = False) -> None:
    """Has the memory of a variable of TensorFlow in pages of 2 MB, if it is large and the system lets programs choose.

    Linux gives such pages to who asks where `transparent_hugepage` is "madvise", as many systems have it; where it is
    "always" a large block has them already, and where it is "never" nothing is asked for.

    Args:
        variable: A `keras.Variable` or a `tf.Variable`; of a mirrored one each copy.
        is_zeros: All of its numbers are known to be 0: its pages are given back, and come as large ones when they are
            written to. Others are copied to large pages, a second or two a GB the first time, and then cost nothing.
    """
    for part in _large_parts(variable):
        start, stop = _whole_pages(part)
        if _advise(start, stop, mmap.MADV_HUGEPAGE):
            # Where the system cannot copy, as before Linux 6.1, it moves pages together by and by.
            _advise(start, stop, mmap.MADV_DONTNEED if is_zeros else _COLLAPSE)


def are_large(variables: Iterable[Any]) -> bool:
    """Whether `use_huge_pages` would do something for one of these."""
    return any(_large_parts(variable) for variable in variables)


@functools.cache
def may_use_huge_pages() -> bool:
    """Whether this system and the environment let us choose."""
    if os.environ.get(VARIABLE, "1").strip().lower() in ("0", "false", "no", "off") or not hasattr(
        mmap, "MADV_HUGEPAGE"
    ):
        return False
    try:
        with open(_ENABLED) as file:
            return "[madvise]" in file.read()
    except OSError:
        return False


def _large_parts(variable: Any) -> list[Any]:
    """The `tf.Variable`s of this process that hold a large variable; none if it lies elsewhere."""
    is_large = _backend.bytes_of([variable]) >= FROM
    if not is_large or not may_use_huge_pages() or not _backend.can_write_rows():
        return []
    return [part for part in _backend.parts_of(variable) if "CPU" in part.device]


def _whole_pages(part: Any) -> tuple[int, int]:
    """The first and the last address of the large pages within the memory of a `tf.Variable`."""
    import tensorflow as tf

    # A read of no rows: copies on several devices start in the same memory, and from here on each has its own. What is
    # read by row is copied when it is read as a whole, but for what stands next.
    tf.gather(part, tf.zeros((0,), "int32"))
    tf.raw_ops.DisableCopyOnRead(resource=part.handle)
    held = np.asarray(part.read_value())  # the variable's own memory, let go of before it is written to
    first = held.__array_interface__["data"][0]
    return -(-first // _PAGE) * _PAGE, (first + held.nbytes) // _PAGE * _PAGE


def _advise(start: int, stop: int, advice: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice)) == 0
