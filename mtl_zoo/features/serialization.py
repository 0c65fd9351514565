"""Features as JSON. Specs are pure data, so the one that holds a Keras layer is taken apart here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from mtl_zoo.features.spec import Encoded, Feature, feature_from_config


def features_to_config(features: Iterable[Feature]) -> list[dict[str, Any]]:
    configs = []
    for feature in features:
        config = feature.get_config()
        if isinstance(feature, Encoded):
            config["encoder"] = keras.saving.serialize_keras_object(feature.encoder)
            config["shape"] = list(feature.shape)
        configs.append(config)
    return configs


def features_from_config(configs: Iterable[dict[str, Any]]) -> tuple[Feature, ...]:
    features = []
    for config in configs:
        config = dict(config)
        if config["kind"] == Encoded.kind:
            config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"])
        features.append(feature_from_config(config))
    return tuple(features)
