"""What Keras' trainer calls for each step on one device, with less to do between two steps than Keras' own function.

At every call TensorFlow looks for the trace that fits the arguments, and for an iterator it asks for the types of all
columns that it gives, which for a small step is a third of the time. All batches of an iterator have the same types, so
that here the trace is looked for once an iterator, which is once an epoch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


def call_step(model: Any, step: Callable[[Any], Any], keras_own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What runs `step` on the next batch of an iterator, until TensorFlow says that there is none.

    Args:
        model: The model, compiled on TensorFlow, whose steps run one at a call.
        step: Its `train_step` or `test_step`.
        keras_own: What Keras calls, which is left all but iterators of TensorFlow whose batches hold no `None`.

    Returns:
        A function of an iterator, which gives the logs so far.
    """
    import tensorflow as tf

    traced = tf.function(step, reduce_retracing=True, autograph=False, jit_compile=model.jit_compile)
    # A function in a function, as Keras has it: nothing of a step may run before its batch is there.
    on_next = tf.function(lambda iterator: traced(iterator.get_next()), reduce_retracing=True, autograph=False)
    last: Callable[[], Any] = lambda: None  # noqa: E731
    trace: Any = None

    def call(iterator: Any) -> Any:
        nonlocal last, trace
        # Who has functions run eagerly, to look into them, finds no trace.
        if tf.config.functions_run_eagerly():
            return keras_own(iterator)
        if last() is not iterator:
            if not _gives_tensors(iterator):
                return keras_own(iterator)
            trace, last = on_next.get_concrete_function(iterator), weakref.ref(iterator)
        return trace(iterator)

    return call


def _gives_tensors(iterator: Any) -> bool:
    import tensorflow as tf

    if not isinstance(iterator, tf.data.Iterator):
        return False
    return not any(isinstance(one, tf.OptionalSpec) for one in tf.nest.flatten(iterator.element_spec))
