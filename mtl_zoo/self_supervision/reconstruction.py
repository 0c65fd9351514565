from __future__ import annotations

import math
from typing import Any

from keras import ops

from mtl_zoo.features.requests import FIRST_ID, Number, Rows
from mtl_zoo.self_supervision._base import Objective, Setting, dense, register_objective, rows
from mtl_zoo.self_supervision._candidates import IdSoftmax
from mtl_zoo.self_supervision._dropping import FeatureDropping


@register_objective("reconstruction")
class Reconstruction(Objective):
    """Dropped features, predicted from the others: see `ReconstructionTask`.

    Example:

    >>> from mtl_zoo.self_supervision import OBJECTIVES
    >>> OBJECTIVES["reconstruction"].__name__
    'Reconstruction'
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(task, setting)
        self.dropping = FeatureDropping(task, setting)
        features = {feature.name: feature for feature in setting.features}
        self.ids: dict[str, tuple[Any, Any]] = {}
        self.numbers: dict[str, Any] = {}
        for place in self.dropping.places:
            if isinstance(place.request, Rows) and place.request.num_ids > FIRST_ID + 1:
                softmax = IdSoftmax(setting.lookup_of(place.name), features[place.name], task.negatives)
                self.ids[place.name] = (dense(f"{task.name}_{place.name}_query", softmax.dim, setting.width), softmax)
            elif isinstance(place.request, Number):
                values = [name for name in place.inputs if name not in place.says_missing]
                self.numbers[place.name] = dense(f"{task.name}_{place.name}_value", len(values), setting.width)
        if not self.ids and not self.numbers:
            raise ValueError(
                f"`features` of the task `{task.name}` must hold ids or numbers that can be predicted. Received: "
                f"{self.dropping.names}"
            )

    def call(self, passes: Any) -> Any:
        inputs, dropped = self.dropping(passes.inputs)
        z = passes.representation(inputs)
        of_ids, of_numbers, first = [], [], []
        for i, place in enumerate(self.dropping.places):
            gone = ops.cast(dropped[:, i], "float32")
            if place.name in self.ids:
                loss, is_first, real = self._of_ids(place, z, passes.inputs)
                of_ids.append((loss, gone * real))
                first.append(is_first * gone * real)
            elif place.name in self.numbers:
                loss, real = self._of_numbers(place, z, passes.inputs)
                of_numbers.append((loss, gone * real))
        zero = ops.zeros_like(z[:, 0])
        value, weight = _mean([*of_ids, *of_numbers], zero)
        _, id_weight = _mean(of_ids, zero)
        accuracy = sum(first, zero) / ops.maximum(id_weight, 1.0)
        return rows(value, weight, (accuracy, id_weight), _mean(of_numbers, zero))

    def _of_ids(self, place: Any, z: Any, inputs: Any) -> tuple[Any, Any, Any]:
        """A row's loss, the share of its ids that score highest, and whether it has one."""
        query, softmax = self.ids[place.name]
        ids = ops.cast(inputs[place.inputs[0]], "int32")
        ids = ids if place.is_list else ids[:, None]
        counts = ops.logical_and(ids >= FIRST_ID, ids < place.request.num_ids)
        losses, above = softmax(query(z)[:, None, :], ops.where(counts, ids, FIRST_ID))
        counts = ops.cast(counts, "float32")
        total = ops.sum(counts, axis=1)
        most = ops.maximum(total, 1.0)
        loss = ops.sum(losses * counts, axis=1) / most / math.log(softmax.num_known)
        first = ops.sum(ops.cast(ops.equal(above, 0.0), "float32") * counts, axis=1) / most
        return loss, first, ops.cast(total > 0, "float32")

    def _of_numbers(self, place: Any, z: Any, inputs: Any) -> tuple[Any, Any]:
        """A row's squared error, and whether it has a value."""
        names = [name for name in place.inputs if name not in place.says_missing]
        values = ops.stack([ops.cast(inputs[name], "float32") for name in names], axis=1)
        real = ops.ones_like(z[:, 0])
        for name in place.says_missing:
            real = real * ops.cast(ops.equal(inputs[name], 0), "float32")
        return ops.mean(ops.square(self.numbers[place.name](z) - values), axis=1), real


def _mean(parts: list[tuple[Any, Any]], zero: Any) -> tuple[Any, Any]:
    """The weighted mean of values by row, and the sum of the weights."""
    weight = sum((counts for _, counts in parts), zero)
    return sum((value * counts for value, counts in parts), zero) / ops.maximum(weight, 1.0), weight
