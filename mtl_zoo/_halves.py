"""A model as two functional models: what several losses depend on, and what one loss alone does."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """A model in two, which share its layers and weights.

        representation, beside = below(inputs)
        logits = above([representation, beside])

    The representation is a list of tensors: what layers that several losses depend on hand to layers that one loss
    alone depends on. In MMoE these are the embedded features, which the gates read, and the experts' outputs; in a
    shared-bottom model the bottom's output. Where the losses share nothing it is empty. `beside` is a list of whatever
    else the upper half reads, such as inputs of the model.

    Args:
        below: From the model's inputs to `[representation, beside]`.
        above: From `[representation, beside]` to the model's dict of logits.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.models import halves
    >>> model = create_model("shared_bottom", [Categorical("user_id", size=9)], [BinaryTask("a"), BinaryTask("b")])
    >>> parts = halves(model)
    >>> [tensor.shape for tensor in parts.below.output[0]]
    [(None, 128)]
    """

    below: keras.Model
    above: keras.Model

    def __post_init__(self) -> None:
        object.__setattr__(self, "_forward", _Forward(self.below, self.above))

    def record(self, inputs: Any, tape: Any, training: bool = True) -> tuple[dict[str, Any], list]:
        """A forward pass of which `tape` records the upper half alone: the logits, and the representation.

        Args:
            inputs: The inputs of the lower half.
            tape: A `tf.GradientTape` whose context is open. It watches the representation.
            training: As in a call of the model.
        """
        return self._forward(inputs, tape=tape, training=training)  # type: ignore[attr-defined]


class _Forward(keras.layers.Layer):
    """Both halves in one call: Keras drops what layers added to the loss when another call of a model begins."""

    def __init__(self, below: keras.Model, above: keras.Model):
        super().__init__(name="halves", dtype="float32", autocast=False)
        self.below, self.above = below, above
        self.built = True

    def call(self, inputs: Any, tape: Any, training: bool | None = None) -> tuple[dict[str, Any], list]:
        with tape.stop_recording():
            representation, beside = self.below(inputs, training=training)
            # Copies: a layer may hand on what it was given, and each tensor needs a value of its own.
            representation = [keras.ops.copy(value) for value in representation]
        tape.watch(representation)
        return self.above([representation, beside], training=training), representation


class Call(NamedTuple):
    """One call of a layer in a graph."""

    layer: Any
    args: Any
    kwargs: Any
    outputs: list

    @property
    def inputs(self) -> list:
        return [x for x in keras.tree.flatten((self.args, self.kwargs)) if keras.backend.is_keras_tensor(x)]


def halves(model: keras.Model, losses: Sequence[Collection[str]] | None = None) -> Halves:
    """A functional model cut in two, where what several losses depend on ends and what each alone does begins.

    Args:
        model: A functional model with a dict of logits, such as any model of the zoo.
        losses: For each loss the names of the logits that it depends on. Default: a loss for each output.

    Returns:
        `Halves`, with `below` and `above`.

    Raises:
        ValueError: `losses` names something else than outputs.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, SharedBottom
    >>> from mtl_zoo.models import halves
    >>> model = SharedBottom([Numeric("age")], [BinaryTask("click"), BinaryTask("like")], bottom_units=(8,))
    >>> parts = halves(model)
    >>> [bottom], _ = parts.below({"age": np.ones(2)})
    >>> tuple(bottom.shape), sorted(parts.above.output)
    ((2, 8), ['click', 'like'])
    """
    losses = [{name} for name in model.output] if losses is None else [set(names) for names in losses]
    unknown = sorted(set().union(*losses) - set(model.output))
    if unknown:
        raise ValueError(
            f"`losses` must name outputs of the model. Received unknown: {unknown}. Expected: names among "
            f"{sorted(model.output)}"
        )
    inputs, outputs, calls = traced(model)
    shared = _shared(calls, outputs, losses)
    private = [call for call in calls if not any(call is other for other in shared)]
    read = {id(tensor): tensor for call in private for tensor in call.inputs}
    read |= {id(tensor): tensor for tensor in outputs.values()}
    made_by = {id(tensor): call.layer for call in shared for tensor in call.outputs}
    crossing = [tensor for call in shared for tensor in call.outputs if id(tensor) in read]
    representation = [tensor for tensor in crossing if keras.backend.is_float_dtype(tensor.dtype)]
    others = [tensor for tensor in crossing if not keras.backend.is_float_dtype(tensor.dtype)]
    beside = [*others, *(tensor for tensor in keras.tree.flatten(inputs) if id(tensor) in read)]
    below = keras.Model(inputs, [representation, beside], name=f"{model.name}_below")

    names = [f"{made_by[id(tensor)].name}_output_{i}" for i, tensor in enumerate([*representation, *others])]
    names += [tensor.name for tensor in beside[len(others) :]]
    starts = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip([*representation, *beside], names, strict=True)
    ]
    values = {id(tensor): start for tensor, start in zip([*representation, *beside], starts, strict=True)}
    for call in private:
        args, kwargs = keras.tree.map_structure(lambda x: values.get(id(x), x), (call.args, call.kwargs))
        made = keras.tree.flatten(call.layer(*args, **kwargs))
        values.update((id(tensor), value) for tensor, value in zip(call.outputs, made, strict=True))
    logits = {name: values[id(tensor)] for name, tensor in outputs.items()}
    count = len(representation)
    above = keras.Model([starts[:count], starts[count:]], logits, name=f"{model.name}_above")
    return Halves(below, above)


def traced(model: keras.Model) -> tuple[Any, dict[str, Any], list[Call]]:
    """The model's graph on inputs of its own, and the calls of its layers, each after those that it reads from."""
    calls: list[Call] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        calls.append(Call(layer, args, kwargs, keras.tree.flatten(outputs)))
        return outputs

    # Keras' own way to walk a graph; the layers stay the same.
    graph = keras.models.clone_model(
        keras.Model(model.input, model.output), clone_function=lambda layer: layer, call_function=call
    )
    return graph.input, graph.output, calls


def _shared(calls: Sequence[Call], outputs: dict[str, Any], losses: Sequence[Collection[str]]) -> list[Call]:
    """The calls of which the logits of more than one loss depend on an output."""
    readers: dict[int, set[int]] = {}
    for loss, names in enumerate(losses):
        for name in names:
            readers.setdefault(id(outputs[name]), set()).add(loss)
    for call in reversed(calls):
        found = set().union(*(readers.get(id(tensor), ()) for tensor in call.outputs))
        for tensor in call.inputs:
            readers.setdefault(id(tensor), set()).update(found)
    return [call for call in calls if any(len(readers.get(id(tensor), ())) > 1 for tensor in call.outputs)]
