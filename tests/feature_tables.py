"""Small tables for the tests of FeatureTransform, and one feature put through it."""

import pandas as pd

from mtl_zoo import BinaryTask, FeatureTransform

CLICK = BinaryTask("click")


def table(**columns):
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({**columns, "click": [i % 2 for i in range(rows)]})


def encoded(feature, train, new=None):
    """`new` (or the training values) through a transform of one feature."""
    transform = FeatureTransform([feature]).fit(pd.DataFrame({feature.source: train}))
    return transform.encode(pd.DataFrame({feature.source: train if new is None else new}))[feature.name]
