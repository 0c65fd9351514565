"""Errors of the code that reads rows, as they were raised.

TensorFlow turns whatever a generator raises into an `InvalidArgumentError` whose text holds that error's text, between
those of a graph and of a traceback. Here the error is noted as it passes, and found again by its text.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

# Kinds and texts, since an error keeps the arrays of its frames in memory.
_noted: deque[tuple[type[BaseException], str]] = deque(maxlen=64)
# The classes of TensorFlow's data sets and iterators, with a method of ours.
_classes: dict[type, type] = {}
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


def _with_method(kind: type, name: str, method: Callable[[Any], Any]) -> type:
    if kind not in _classes:
        _classes[kind] = type(kind.__name__, (kind,), {name: method, "__module__": kind.__module__})
    return _classes[kind]
