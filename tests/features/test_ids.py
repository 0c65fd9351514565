"""Integers that a vocabulary knows are looked up in a table; all else goes by distinct values, to the same ids."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform
from mtl_zoo.features._columns import Column
from mtl_zoo.features.vocabularies import Listed

KNOWN = [7, -3, 40_000, 12, 7, 0]
TABLES = {
    "int8": pd.Series([7, -3, 12, 7, 0], dtype="int8"),
    "int64": pd.Series(KNOWN),
    "uint16": pd.Series([7, 12, 40_000], dtype="uint16"),
    "nullable": pd.Series([7, None, 12], dtype="Int64"),
    "arrow": pd.Series(pa.array(KNOWN), dtype=pd.ArrowDtype(pa.int64())),
    "arrow with a missing value": pd.Series(pa.array([7, None]), dtype=pd.ArrowDtype(pa.int32())),
    "objects": pd.Series(KNOWN, dtype=object),
    "floats": pd.Series([7.0, np.nan, 12.0]),
    "an unknown value within": pd.Series([7, 8]),
    "one below": pd.Series([7, -4]),
    "one above": pd.Series([7, 40_001]),
    "far out": pd.Series([7, 2**62, -(2**62)]),
    "the smallest": pd.Series([7, np.iinfo(np.int64).min]),
}


def fitted(**options):
    feature = Categorical("item", **options)
    table = pd.DataFrame({"item": KNOWN, "click": [0, 1, 0, 1, 0, 1]})
    return FeatureTransform([feature], [BinaryTask("click")]).fit(table)


def both_ways(transform, series, monkeypatch):
    quick = transform.encode(pd.DataFrame({"item": series}))["item"], transform.unseen
    with monkeypatch.context() as patch:
        patch.setattr(Column, "integers", lambda self: None)
        slow = transform.encode(pd.DataFrame({"item": series}))["item"], transform.unseen
    return quick, slow


@pytest.mark.parametrize("series", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("options", [{}, {"vocabulary": (40_000, 7, -3, 12, 0)}], ids=["learned", "given"])
def test_a_quick_look_up_gives_the_same_ids_and_the_same_unseen_values(series, options, monkeypatch):
    quick, slow = both_ways(fitted(**options), series, monkeypatch)
    assert quick[0].dtype == slow[0].dtype == np.int32
    np.testing.assert_array_equal(quick[0], slow[0])
    assert quick[1] == slow[1]


@pytest.mark.parametrize("values", [[0, 4, 9], [0, 10], [9, 2**40]], ids=str)
def test_a_range_of_whole_numbers_too(values, monkeypatch):
    table = pd.DataFrame({"item": [0, 9, 3], "click": [0, 1, 0]})
    transform = FeatureTransform([Categorical("item", size=10)], [BinaryTask("click")]).fit(table)
    quick, slow = both_ways(transform, pd.Series(values), monkeypatch)
    np.testing.assert_array_equal(quick[0], slow[0])
    assert quick[1] == slow[1]


def test_a_table_is_made_only_where_it_is_small():
    assert Listed(np.array([5, 10**12])).ids_of_numbers(np.array([5])) is None
    near = Listed(np.array([10**12 + 5, 10**12]))
    assert near.ids_of_numbers(np.array([10**12, 10**12 + 5])).tolist() == [3, 2]


def test_known_numbers_are_not_counted_one_by_one(monkeypatch):
    transform = fitted()
    monkeypatch.setattr(Column, "cells", lambda *_: pytest.fail("the distinct values were looked for"))
    assert transform.encode(pd.DataFrame({"item": KNOWN}))["item"].min() >= 2
