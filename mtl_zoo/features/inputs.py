from __future__ import annotations

from collections.abc import Sequence

import keras

from mtl_zoo.features.spec import Feature, as_features, require_fitted


def make_inputs(features: Feature | Sequence[Feature]) -> dict[str, keras.KerasTensor]:
    """The `keras.Input`s of the features, by name: int32 ids, float32 numbers, or what an `Encoded` says.

    Args:
        features: Feature specs with known sizes.

    Example:

    >>> from mtl_zoo import Categorical, Numeric
    >>> from mtl_zoo.features.inputs import make_inputs
    >>> {name: x.dtype for name, x in make_inputs([Categorical("city", size=3), Numeric("age")]).items()}
    {'city': 'int32', 'age': 'float32'}
    """
    features = as_features(features)
    require_fitted(features)
    specs = {name: spec for feature in features for name, spec in feature.input_specs().items()}
    return {name: keras.Input(shape=spec.shape, dtype=spec.dtype, name=name) for name, spec in specs.items()}
