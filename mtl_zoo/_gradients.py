"""Gradients in what a function is given, on every backend, and gradients that pass where training stops them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras import ops

from mtl_zoo import _backend

# Not an argument: gradients are stopped several layers down. The thread's own, as graphs are traced by several.
_tracing = threading.local()


@contextlib.contextmanager
def passing() -> Iterator[None]:
    """What runs (or is traced) within stops no gradient: what a model learns from is not all that its scores follow."""
    before, _tracing.passing = getattr(_tracing, "passing", False), True
    try:
        yield
    finally:
        _tracing.passing = before


def stop_gradient(x: Any) -> Any:
    """`x`, through which no gradient passes in training."""
    return x if getattr(_tracing, "passing", False) else ops.stop_gradient(x)


def with_gradients(function: Callable[..., Any]) -> Callable[..., tuple[Any, list[Any]]]:
    """A function that gives the values of another, and their gradients in its first argument.

    Args:
        function: From a list of float tensors (rows, ...), and any other arguments, to (rows,) numbers, each of which
            follows from its own row alone.

    Returns:
        A function of the same arguments. It gives the values and, for each tensor of the list, the gradient of each
        row's value in that row: zeros where it does not matter.
    """
    if _backend.is_tensorflow():
        return lambda points, *others: _by_tape(function, points, others)
    import jax

    @jax.jit
    def run(points: Any, others: Any) -> Any:
        values, pull = jax.vjp(lambda given: function(given, *others), points)
        return values, pull(ops.ones_like(values))[0]

    return lambda points, *others: run([ops.convert_to_tensor(x) for x in points], others)


def _by_tape(function: Callable[..., Any], points: Any, others: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    points = [ops.convert_to_tensor(x) for x in points]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        values = function(points, *others)
    return values, tape.gradient(values, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
