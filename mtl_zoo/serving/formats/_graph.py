"""Which operations encode a feature: what a format asks that has only some of TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtl_zoo.serving.scoring import Scoring


def beyond(scoring: Scoring, is_unknown: Callable[[Any], bool]) -> dict[str, list[str]]:
    """The features that cannot be encoded without operations that are unknown, with the types of these.

    Args:
        scoring: Of raw columns.
        is_unknown: Whether a format lacks an operation of a graph.

    Returns:
        Sorted types of operations by `"city (Categorical)"`.
    """
    import tensorflow as tf

    traced = tf.function(scoring.encode, autograph=False).get_concrete_function(scoring.signature())
    encoded = dict(zip(sorted(traced.structured_outputs), traced.outputs, strict=True))
    found = {}
    for feature in scoring.model.transform.features:
        operations = _before([encoded[name] for name in feature.input_specs()])
        unknown = sorted({one.type for one in operations if is_unknown(one)})
        if unknown:
            found[f"{feature.name} ({type(feature).__name__})"] = unknown
    return found


def _before(tensors: list[Any]) -> list[Any]:
    """The operations that tensors of a graph are computed by; of those that call a function, the function's, too."""
    waiting, seen = [tensor.op for tensor in tensors], {}
    while waiting:
        operation = waiting.pop()
        if id(operation) in seen:
            continue
        seen[id(operation)] = operation
        waiting += [tensor.op for tensor in operation.inputs]
    return [one for one in seen.values() if one.type not in ("Placeholder", "NoOp")]
