"""Undoes what TensorFlow does to the C library's allocator once a pipeline reads from a Python generator.

The first generator kernel of a process calls `mallopt(M_MMAP_THRESHOLD, 128 KB)` (seen in TensorFlow 2.21 on Linux; its
log then says "Memory patch applied: M_TRIM_THRESHOLD=128 kb was set", so another threshold was meant, against growing
memory: https://github.com/tensorflow/tensorflow/issues/65675). From then on every tensor above 128 KB is mapped when it
is made and unmapped when it is freed, and the operating system fills its pages with zeros each time: for a large batch
that takes as long as the step's own work.

And asks for pages of 2 MB for the memory of large tables, whose rows lie on other pages at every read: with pages of 4
KB a read waits for the page's address before it waits for the row.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from mtl_zoo import _backend

# Parameters of glibc's `mallopt`, and the most that its own adaptive rule reaches with them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


# Turns it off for a process, as `keep_freed_memory(False)` does.
VARIABLE = "MTL_ZOO_KEEP_FREED_MEMORY"
_OFF = ("0", "false", "no", "off")
_TENSORFLOWS = {_MMAP_THRESHOLD: 128 * 2**10, _TRIM_THRESHOLD: 128 * 2**10}
_is_decided = False

# Turns off pages of 2 MB for tables.
HUGE_PAGES_VARIABLE = "MTL_ZOO_HUGE_PAGES"
# From this size on the C library maps a block by itself, so that a table shares its pages with nothing else.
HUGE_PAGES_FROM = _MOST[_MMAP_THRESHOLD]
_HUGE_PAGE = 2 * 2**20
_ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
_COLLAPSE = 25  # of Linux 6.1; Python names it since 3.13


def keep_freed_memory(keep: bool = True) -> bool:
    """Whether this process keeps the memory of freed tensors for the next ones: a setting of the C library.

    With it, blocks below 32 MB come from memory that was freed before, up to 64 MB of which is kept in each of the
    library's arenas; without, TensorFlow's generators make it ask the operating system for each block above 128 KB.
    The first `fit`, or the first batches that are made, turn it on, which was measured to make steps up to 1.85 times
    as quick. It is of the whole process, so it can be turned off: by `keep_freed_memory(False)`, before or after, or by
    `MTL_ZOO_KEEP_FREED_MEMORY=0` in the environment.

    Args:
        keep: False for TensorFlow's own setting.

    Returns:
        Whether the setting was made: with glibc on Linux alone, and not where `GLIBC_TUNABLES` or
        `MALLOC_MMAP_THRESHOLD_` in the environment already says something of it.

    Example:

    >>> from mtl_zoo.training import keep_freed_memory
    >>> keep_freed_memory() in (True, False)
    True
    """
    global _is_decided
    _is_decided = True
    own = "MALLOC_MMAP_THRESHOLD_" in os.environ or "_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if own or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    _make_generator_kernel()
    return all(mallopt(parameter, value) == 1 for parameter, value in (_MOST if keep else _TENSORFLOWS).items())


def keep_by_default() -> None:
    """Keeps freed memory, unless it was decided otherwise."""
    if not _is_decided and os.environ.get(VARIABLE, "1").strip().lower() not in _OFF:
        keep_freed_memory()


@functools.cache
def _make_generator_kernel() -> None:
    """What TensorFlow does to the allocator it does now, and not again later."""
    import tensorflow as tf

    with tf.init_scope():
        signature = tf.TensorSpec((), tf.int32)
        for _ in tf.data.Dataset.from_generator(lambda: iter([0]), output_signature=signature):
            pass


def use_huge_pages(variable: Any, is_zeros: bool = False) -> int:
    """Has the memory of a variable of TensorFlow in pages of 2 MB, if it is large and the system lets programs choose.

    Linux gives such pages to who asks where `transparent_hugepage` is "madvise", as many systems have it; where it is
    "always" a large block has them already, and where it is "never" nothing is asked for.

    Args:
        variable: A `keras.Variable` or a `tf.Variable`; of a mirrored one each copy.
        is_zeros: All of its numbers are known to be 0: its pages are given back, and come as large ones when they are
            written to. Others are copied to large pages, a second or two a GB the first time.

    Returns:
        How many bytes were asked for.
    """
    asked = 0
    for part in _large_parts(variable):
        start, stop = _whole_pages(part)
        if _advise(start, stop, mmap.MADV_HUGEPAGE):
            asked += stop - start
            # Where the system cannot copy, as before Linux 6.1, it moves pages together by and by.
            _advise(start, stop, mmap.MADV_DONTNEED if is_zeros else _COLLAPSE)
    return asked


def use_huge_pages_for(variables: Iterable[Any]) -> int:
    """`use_huge_pages` for each of these; those that have large pages cost nothing."""
    return sum(use_huge_pages(variable) for variable in variables)


def are_large(variables: Iterable[Any]) -> bool:
    """Whether `use_huge_pages` would do something for one of these."""
    return any(_large_parts(variable) for variable in variables)


@functools.cache
def may_use_huge_pages() -> bool:
    """Whether this system and the environment let us choose."""
    if os.environ.get(HUGE_PAGES_VARIABLE, "1").strip().lower() in _OFF or not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    try:
        with open(_ENABLED) as file:
            return "[madvise]" in file.read()
    except OSError:
        return False


def _large_parts(variable: Any) -> list[Any]:
    """The `tf.Variable`s of this process that hold a large variable; none if it lies elsewhere."""
    is_large = _backend.bytes_of([variable]) >= HUGE_PAGES_FROM
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
    return -(-first // _HUGE_PAGE) * _HUGE_PAGE, (first + held.nbytes) // _HUGE_PAGE * _HUGE_PAGE


def _advise(start: int, stop: int, advice: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), ctypes.c_int(advice)) == 0
