"""Errors of the code that reads rows, as they were raised.

TensorFlow turns whatever a generator raises into an `InvalidArgumentError` whose text holds that error's text, between
those of a graph and of a traceback. Here the error is noted as it passes, and found again by its text.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any

# Kinds and texts, since an error keeps the arrays of its frames in memory.
_noted: deque[tuple[type[BaseException], str]] = deque(maxlen=64)
# TensorFlow cuts long texts short.
_COMPARED = 400


def noted(epoch: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    """A generator function whose errors `plain_errors` can find again."""

    @functools.wraps(epoch)
    def watched() -> Iterator[Any]:
        try:
            yield from epoch()
        except Exception as error:
            _noted.append((type(error), str(error)))
            raise

    return watched


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Within it, an error of a generator comes out of TensorFlow as the generator has raised it."""
    try:
        yield
    except Exception as error:
        plain = _plain(error)
        if plain is None:
            raise
        raise plain from None


def _plain(error: Exception) -> Exception | None:
    import tensorflow as tf

    if not isinstance(error, tf.errors.OpError):
        return None
    for kind, text in reversed(_noted):
        if text and text[:_COMPARED] in str(error.message):
            with contextlib.suppress(Exception):
                made = kind(text)
                return made if isinstance(made, Exception) and str(made) == text else ValueError(text)
            return ValueError(text)
    return None


def with_plain_errors(data: Any) -> Any:
    """A dataset that also gives plain errors when it is iterated outside of a graph."""
    import tensorflow as tf

    if not tf.executing_eagerly():
        return data
    kind: Any = type(data)
    data.__class__ = _with_method(kind, "__iter__", _iterate)
    return data


def _iterate(data: Any) -> Any:
    iterator = super(type(data), data).__iter__()
    kind: Any = type(iterator)
    iterator.__class__ = _with_method(kind, "__next__", _next)
    return iterator


def _next(iterator: Any) -> Any:
    with plain_errors():
        return super(type(iterator), iterator).__next__()


@functools.cache
def _with_method(kind: Hashable, name: str, method: Callable[[Any], Any]) -> type:
    base: Any = kind
    return type(base.__name__, (base,), {name: method, "__module__": base.__module__})
