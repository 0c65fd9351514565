from __future__ import annotations

from collections.abc import Sequence

import keras

from mtl_zoo.features.spec import Encoded, Feature, Numeric, as_features, require_fitted


def make_inputs(features: Sequence[Feature]) -> dict[str, keras.KerasTensor]:
    """One `keras.Input` a feature, by name: int32 ids, float32 numbers, or the shape and type of an `Encoded`.

    Example:

    >>> from mtl_zoo import Categorical, Numeric
    >>> from mtl_zoo.features.inputs import make_inputs
    >>> {name: x.dtype for name, x in make_inputs([Categorical("city", size=3), Numeric("age")]).items()}
    {'city': 'int32', 'age': 'float32'}
    """
    features = as_features(features)
    require_fitted(features)
    return {f.name: keras.Input(shape=f.shape, dtype=input_dtype(f), name=f.name) for f in features}


def input_dtype(feature: Feature) -> str:
    if isinstance(feature, Encoded):
        return feature.dtype
    return "float32" if isinstance(feature, Numeric) and not feature.is_bucketed else "int32"
