"""Rows of ids, and what is known of users and items: joined, encoded and made into splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mtl_zoo.datasets._dataset import Split
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.tasks import Task


def joined(rows: pd.DataFrame, entities: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows with the columns of each entity table beside them; an id without an entity gets missing values.

    Args:
        rows: Rows with the key columns.
        entities: By key column a table with one row for each id.

    Raises:
        ValueError: A key is not unique, or not a column of the rows; a column stands in both.
    """
    for key, entity in entities.items():
        if key not in rows.columns or key not in entity.columns:
            raise ValueError(f"`entities` must be named by a column of the rows and of their own. Received: {key!r}")
        twice = int(entity[key].duplicated().sum())
        if twice:
            raise ValueError(f"`entities[{key!r}]` must have each id once. Received: {twice} more")
        both = [column for column in entity.columns if column != key and column in rows.columns]
        if both:
            raise ValueError(f"`entities[{key!r}]` must have columns of its own. Received: {both}, which others have")
        places = pd.Index(entity[key]).get_indexer(pd.Index(rows[key]))
        found = entity.drop(columns=key).reset_index(drop=True)
        if (places < 0).any():
            # A row of missing values stands last, where -1 points; whole numbers stay what they are beside it.
            whole = dict.fromkeys(found.select_dtypes("integer").columns, "Int64")
            found = found.astype(whole).reindex([*range(len(found)), -1])
        rows = pd.concat([rows, found.iloc[places].set_axis(rows.index)], axis=1)
    return rows


def fitted_splits(
    raw: Mapping[str, pd.DataFrame],
    features: tuple,
    tasks: Sequence[Task],
    group_columns: Sequence[str],
    entities: Mapping[str, pd.DataFrame],
    keep_raw: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """The transform fitted on the training rows, and each split encoded by it."""
    from mtl_zoo.features.transform import FeatureTransform

    for name in raw.keys() - {"train"}:
        refuse_generated(name, raw[name])
    tables = {name: joined(table, entities) for name, table in raw.items()}
    transform = FeatureTransform(features, tasks).fit(tables["train"])
    splits = {
        name: Split(
            inputs=transform.encode(table),
            labels=transform.encode_labels(table),
            weights=transform.encode_weights(table),
            groups={column: table[column].to_numpy() for column in group_columns},
            raw=raw[name] if keep_raw else None,
        )
        for name, table in tables.items()
    }
    return transform, splits
