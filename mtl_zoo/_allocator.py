"""Undoes what TensorFlow does to the C library's allocator once a pipeline reads from a Python generator.

The first generator kernel of a process calls `mallopt(M_MMAP_THRESHOLD, 128 KB)` (seen in TensorFlow 2.21 on Linux; its
log then says "Memory patch applied: M_TRIM_THRESHOLD=128 kb was set", so another threshold was meant, against growing
memory: https://github.com/tensorflow/tensorflow/issues/65675). From then on every tensor above 128 KB is mapped when it
is made and unmapped when it is freed, and the operating system fills its pages with zeros each time: for a large batch
that takes as long as the step's own work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

# Parameters of glibc's `mallopt`, and the most that its own adaptive rule reaches with them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


# Turns it off for a process, as `keep_freed_memory(False)` does.
VARIABLE = "MTL_ZOO_KEEP_FREED_MEMORY"
_TENSORFLOWS = {_MMAP_THRESHOLD: 128 * 2**10, _TRIM_THRESHOLD: 128 * 2**10}
_is_decided = False


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
    if not _is_decided and os.environ.get(VARIABLE, "1").strip().lower() not in ("0", "false", "no", "off"):
        keep_freed_memory()


@functools.cache
def _make_generator_kernel() -> None:
    """What TensorFlow does to the allocator it does now, and not again later."""
    import tensorflow as tf

    with tf.init_scope():
        signature = tf.TensorSpec((), tf.int32)
        for _ in tf.data.Dataset.from_generator(lambda: iter([0]), output_signature=signature):
            pass
