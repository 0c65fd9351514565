"""Texts through a frozen language model: each distinct one once, the longest beside the longest, and into the cache."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_zoo._progress import QUIET_SECONDS, Bar
from mtl_zoo.language._tokenizers import Tokenizer, padded
from mtl_zoo.language._vectors import VectorStore, text_keys

_log = logging.getLogger(__name__)

# Seconds of work that a kill may cost.
FLUSH_SECONDS = 15.0


class TextEncoder:
    """A frozen model with its tokenizer and cache: distinct texts -> vectors.

    Args:
        layer: A `LanguageEncoder` with its weights.
        tokenizer: Its tokenizer.
        store: Where vectors are kept.
        max_length: Tokens of a text that count.
        batch_size: Texts at a time.
    """

    def __init__(self, layer: Any, tokenizer: Tokenizer, store: VectorStore, max_length: int, batch_size: int) -> None:
        self.layer, self.tokenizer, self.store = layer, tokenizer, store
        self.max_length, self.batch_size = max_length, batch_size
        self._lock = threading.Lock()
        self._run: Any = None

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (texts, width) of distinct texts, none empty."""
        keys = text_keys(texts)
        found, there = self.store.find(keys)
        if there.all():
            return found
        with self._lock:  # another thread may be at the same texts
            self.store.refresh()
            found, there = self.store.find(keys)
            self._encode(texts, keys, found, there)
        return found

    def _encode(self, texts: Sequence[str], keys: np.ndarray, found: np.ndarray, there: np.ndarray) -> None:
        """Fills in what is not there, in place."""
        missing = np.flatnonzero(~there).tolist()
        lists = dict(zip(missing, self.tokenizer.lists([texts[i] for i in missing], self.max_length), strict=True))
        pending: list[int] = []
        written = time.monotonic()
        progress = Bar("Encoding texts", len(missing))
        try:
            with progress:
                for batch in self._batches(lists):
                    rows = [i for i in batch if not there[i]]  # another process may have written some of them
                    if rows:
                        found[rows] = self.run([lists[i] for i in rows])
                        there[rows] = True
                        pending += rows
                    progress.advance(len(batch))
                    if time.monotonic() - written > FLUSH_SECONDS:
                        self._flush(keys, found, pending)
                        others = np.flatnonzero(~there)
                        vectors, new = self.store.find(keys[others])
                        found[others[new]], there[others[new]] = vectors[new], True
                        written = time.monotonic()
        finally:
            if time.monotonic() - progress.started > QUIET_SECONDS:
                _log.info("%d texts encoded in %.1f s", progress.done, time.monotonic() - progress.started)
            self._flush(keys, found, pending)

    def _flush(self, keys: np.ndarray, found: np.ndarray, pending: list[int]) -> None:
        if pending:
            self.store.add(keys[pending], found[pending])
            pending.clear()

    def _batches(self, lists: dict[int, np.ndarray]) -> Iterator[list[int]]:
        """Texts of like lengths together; from a random one on, so that two processes meet late."""
        order = sorted(lists, key=lambda i: len(lists[i]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        first = random.Random().randrange(len(batches))
        yield from (*batches[first:], *batches[:first])

    def run(self, lists: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (texts, width) of lists of token ids, as one batch."""
        import keras

        from mtl_zoo import _backend

        if self._run is None:
            self._run = self.layer
            if _backend.is_tensorflow():
                import tensorflow as tf

                # Traced once for all lengths.
                ids = tf.TensorSpec((None, None), tf.int32)
                self._run = tf.function(lambda x: self.layer(x, training=False), [ids], autograph=False)
        longest = max(max((len(one) for one in lists), default=1), 1)
        if not _backend.is_tensorflow():
            longest = -(-longest // 16) * 16  # few shapes to compile for
        output = self._run(padded(lists, longest))
        return keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
