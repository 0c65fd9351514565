"""Tasks without a label: their objectives, and the passes that these ask of a model in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.self_supervision import Setting, make_objective


def objectives_of(model: Any, inputs: Mapping[str, Any], towers: Mapping[str, Any] | None) -> list[Any]:
    """The objectives of the model's tasks without a label, made once: a model on a backbone has the backbone's."""
    plan = model._plan
    tasks = [task for task in plan.tasks if not task.is_labelled]
    if not tasks or plan.objectives:
        return plan.objectives
    read = list({id(tensor): tensor for tensor in (towers or {}).values()}.values())
    # What the towers read, for rows with other inputs. The layers are the model's.
    plan.body = keras.Model(dict(inputs), read, name=f"{model.name}_body")
    lookups = [lookup for lookup in plan.lookups if isinstance(lookup, FeatureEmbedding)]
    outputs = [output for output in plan.outputs if not output.task.compares_sides]
    weights = [v for v in model.weights if keras.backend.is_float_dtype(v.dtype)]
    setting = Setting(plan.read_features, lookups, sum(int(tensor.shape[-1]) for tensor in read), outputs, weights)
    plan.objectives = [make_objective(task, setting) for task in tasks]
    return plan.objectives


def with_objectives(model: Any, inputs: Any, logits: Mapping[str, Any]) -> dict[str, Any]:
    """The logits, and by the name of each task without a label what its objective makes of the batch."""
    passes = Passes(model, inputs, logits)
    return {**logits, **{objective.task.name: objective(passes=passes) for objective in model._objectives}}


class Passes:
    """What a model offers its objectives; see `Objective`.

    Args:
        model: A model in training.
        inputs: The batch's inputs.
        logits: Those of the complete rows.
    """

    def __init__(self, model: Any, inputs: Mapping[str, Any], logits: Mapping[str, Any]):
        self._model, self.inputs, self.logits = model, inputs, logits

    def representation(self, inputs: Mapping[str, Any]) -> Any:
        with _beside(self._model):
            read = keras.tree.flatten(self._model._plan.body(inputs, training=True))
        return ops.concatenate([ops.cast(tensor, "float32") for tensor in read], axis=-1)

    def logits_of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with _beside(self._model):
            return self._model.graph(inputs, training=True)

    def taught(self, inputs: Mapping[str, Any], weights: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
        with _beside(self._model, weights):
            logits = self._model.graph(inputs, training=False)
        return {name: ops.stop_gradient(values) for name, values in logits.items()}


@contextlib.contextmanager
def _beside(model: Any, weights: Sequence[tuple[Any, Any]] = ()) -> Iterator[None]:
    """Within it the model's weights are not written, statistics among them, and penalties do not count once more.

    Random numbers go on. On other backends than TensorFlow what is read is named too: the values of the training step
    that this is a part of.
    """
    kept = {id(v) for v in model.weights}
    seeds = [v for v in model.variables if id(v) not in kept]
    replaced = {id(v) for v, _ in weights}
    named = seeds if _backend.is_tensorflow() else [v for v in model.variables if id(v) not in replaced]
    with keras.StatelessScope(state_mapping=[*((v, v.value) for v in named), *weights]) as scope:
        before = [scope.get_current_value(v) for v in seeds]
        yield
        after = [scope.get_current_value(v) for v in seeds]
    for variable, old, new in zip(seeds, before, after, strict=True):
        if new is not old:
            variable.assign(new)
