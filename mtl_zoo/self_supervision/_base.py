"""What an objective is: the layer that makes the rows of a task without a label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo.features.base import Feature
from mtl_zoo.layers import FeatureEmbedding


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a model is to its objectives when they are made.

    Args:
        features: Its features.
        lookups: Its embeddings, in the order in which it made them.
        width: Of the representation, what its towers read.
        outputs: Its outputs that towers make.
        weights: Those of its graph.

    Example:

    >>> from mtl_zoo.self_supervision import Setting
    >>> Setting([], [], width=8, outputs=[], weights=[]).width
    8
    """

    features: Sequence[Feature]
    lookups: Sequence[FeatureEmbedding]
    width: int
    outputs: Sequence[Any]
    weights: Sequence[Any]

    def lookup_of(self, feature: str) -> FeatureEmbedding:
        """The first embedding that reads a feature."""
        return next(lookup for lookup in self.lookups if any(f.name == feature for f in lookup.features))


class Objective(keras.layers.Layer):
    """Base of objectives: what a task without a label makes of a batch, in training. Not part of a model's graph.

    A subclass is entered under the kind of its task by `register_objective`, makes its weights in `__init__`, and gives
    `call(passes)`: one tensor in the layout of `SelfSupervisedTask`, which `rows` makes. `passes` has what a model
    offers:

        passes.inputs                     the batch's inputs, by name
        passes.logits                     those of the complete rows
        passes.representation(inputs)     (batch, width) float32, of a pass of training over other inputs
        passes.logits_of(inputs)          the logits of such a pass
        passes.taught(inputs, weights)    those of a pass of prediction with other weights, without a gradient

    Args:
        task: The task, whose options it reads.
        setting: The model.

    Example:

    >>> from mtl_zoo.self_supervision import Contrast, Objective
    >>> issubclass(Contrast, Objective)
    True
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(name=f"{task.name}_objective", dtype="float32")
        self.task = task
        self.built = True

    def compute_output_spec(self, passes: Any) -> Any:
        batch = next(iter(passes.inputs.values())).shape[0]
        return keras.KerasTensor((batch, self.task.logit_units), "float32")


OBJECTIVES: Registry[type[Objective]] = Registry("kind")


def register_objective(kind: str) -> Callable[[type[Objective]], type[Objective]]:
    """Decorator that enters an objective under the kind of its task.

    Example:

    >>> from mtl_zoo.self_supervision import Objective, register_objective
    >>> @register_objective("contrastive")
    ... class Mine(Objective):
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'contrastive', the name of Contrast
    """
    return OBJECTIVES.register(kind)


def make_objective(task: Any, setting: Setting) -> Objective:
    """The objective of a task without a label, with weights of its own.

    Example:

    >>> from mtl_zoo import ContrastiveTask, Numeric
    >>> from mtl_zoo.self_supervision import Setting, make_objective
    >>> make_objective(ContrastiveTask("views"), Setting([Numeric("age")], [], 8, [], [])).name
    'views_objective'
    """
    return OBJECTIVES[task.kind](task, setting)


def rows(value: Any, weight: Any, *measures: tuple[Any, Any]) -> Any:
    """The tensor of an objective: (batch,) tensors, of the loss and then of each measure, with their weights."""
    columns = [value, weight, *(part for measure in measures for part in measure)]
    return ops.stack([ops.cast(column, "float32") for column in columns], axis=1)


def dense(name: str, units: int, width: int) -> keras.layers.Dense:
    """A dense layer with its weights."""
    made = keras.layers.Dense(units, name=name, dtype="float32")
    made.build((None, width))
    return made


def checked_of(argument: str, task: Any, given: Sequence[str] | None, known: Mapping[str, Any]) -> list[str]:
    """The names given, of those known; all of them where none is given."""
    names = list(known) if given is None else list(given)
    for name in names:
        check.check_choice(f"{argument}` of the task `{task.name}", name, tuple(known))
    return names
