"""Rows without some of their features, as if these were missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mtl_zoo.layers._places import Place, as_missing
from mtl_zoo.self_supervision._base import Setting, checked_of


class FeatureDropping(keras.layers.Layer):
    """Each feature of each row is missing with one probability: id 0, zeros, and 1 where an input says so.

    Args:
        task: A task with `rate` and `features`.
        setting: The model.

    Input: dict of inputs. Output: such a dict, and which features were dropped, bool (batch, names).
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(name="dropping", dtype="float32")
        known = {
            feature.name: Place.of(feature)
            for feature in setting.features
            if all(spec.dtype != "string" for spec in feature.input_specs().values())
        }
        self.rate = task.rate
        self.names = checked_of("features", task, task.features, known)
        self.places = [known[name] for name in self.names]
        self.seeds = keras.random.SeedGenerator()
        self.built = True

    def call(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        batch = ops.shape(next(iter(inputs.values())))[0]
        dropped = ops.less(keras.random.uniform((batch, len(self.names)), seed=self.seeds), self.rate)
        changed = dict(inputs)
        for i, place in enumerate(self.places):
            for name in place.inputs:
                changed[name] = as_missing(inputs[name], dropped[:, i], name in place.says_missing)
        return changed, dropped
