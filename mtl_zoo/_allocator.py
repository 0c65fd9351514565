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


@functools.cache
def keep_freed_memory() -> bool:
    """Lets blocks below 32 MB come from memory that was freed before, up to 64 MB of it in each arena.

    Done once a process, and only with glibc. Who sets such a threshold in the environment, by `GLIBC_TUNABLES` or
    `MALLOC_MMAP_THRESHOLD_`, is left alone.
    """
    own = "MALLOC_MMAP_THRESHOLD_" in os.environ or "_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if own or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    _make_generator_kernel()
    return all(mallopt(parameter, value) == 1 for parameter, value in _MOST.items())


def _make_generator_kernel():
    """What TensorFlow does to the allocator it does now, and not again later."""
    import tensorflow as tf

    with tf.init_scope():
        signature = tf.TensorSpec((), tf.int32)
        for _ in tf.data.Dataset.from_generator(lambda: iter([0]), output_signature=signature):
            pass
