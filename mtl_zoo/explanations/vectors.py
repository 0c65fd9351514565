"""`embedding_of(model, "item_id")`: the vectors that a model has learned, by the values that they stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.explanations._given import embeddings_of
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID

METRICS = ("cosine", "dot", "euclidean")
MISSING, UNKNOWN = "(missing)", "(unknown)"


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The result of `embedding_of`.

    Attributes:
        feature: The feature's name.
        embedding: The name of the layer that has the vectors.
        table: A row for each value, by the value, and a column for each coordinate. Behind the values come
            `"(missing)"` and `"(unknown)"`.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.explanations import embedding_of
    >>> cities = Categorical("city", vocabulary=("Rome", "Oslo"), dim=4)
    >>> found = embedding_of(create_model("shared_bottom", [cities], [BinaryTask("click")]), "city")
    >>> list(found.table.index), list(found.nearest("Rome")["value"])
    (['Rome', 'Oslo', '(missing)', '(unknown)'], ['Oslo'])
    """

    feature: str
    embedding: str
    table: pd.DataFrame

    def nearest(self, value: Any, k: int = 10, metric: str = "cosine") -> pd.DataFrame:
        """The values whose vectors are nearest to that of one value, the nearest first.

        Args:
            value: A value of the feature, or `"(missing)"` or `"(unknown)"`.
            k: The most values.
            metric: `"cosine"` or `"dot"`, of which more is nearer, or `"euclidean"`, of which less is.

        Returns:
            The columns `value` and the metric's name. The value itself, missing and unknown ones are left out.

        Raises:
            ValueError: There is no such value.
        """
        check.check_int("k", k)
        check.check_choice("metric", metric, METRICS)
        # The first: a value that is itself called "(missing)" stands before what is missing.
        names = list(self.table.index)
        place = next((i for i, name in enumerate(names) if _same(name, value)), None)
        if place is None:
            raise ValueError(
                f"`value` must be one of feature {self.feature!r}. Received: value={value!r}. "
                f"Expected: such as {check.sample_values(self.table.index)}"
            )
        values = self.table.iloc[:-2]
        others = values[np.arange(len(values)) != place]
        own, rows = self.table.iloc[place].to_numpy(), others.to_numpy()
        if metric == "euclidean":
            found = np.linalg.norm(rows - own, axis=1)
        else:
            found = rows @ own
            if metric == "cosine":
                lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(own)
                found = found / np.where(lengths > 0, lengths, 1)
        order = np.argsort(found if metric == "euclidean" else -found, kind="stable")[:k]
        return pd.DataFrame({"value": others.index[order], metric: found[order]})


def _same(name: Any, value: Any) -> bool:
    """Whether a value is the one of this name; True is not 1."""
    return isinstance(name, bool | np.bool_) == isinstance(value, bool | np.bool_) and np.array_equal(name, value)


def embedding_of(model: Any, feature: str, embedding: str | None = None) -> Vectors:
    """The vectors of a feature's values in a model's embedding table.

    Features that share a table have the same vectors. Of a table with int8 rows they are what the model reads.

    Args:
        model: A model of the zoo.
        feature: Name of a feature with a table: a category, a list of them, a number in buckets.
        embedding: Name of the embedding layer, where several read the feature, such as STEM's `"shared_embedding"`.
            Default: the only one.

    Raises:
        ValueError: No such feature or layer; the feature has no table, as numbers and texts have none.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.explanations import embedding_of
    >>> model = create_model("stem", [Categorical("item_id", size=9, dim=4)], [BinaryTask("click")])
    >>> embedding_of(model, "item_id", "click_embedding").table.shape
    (11, 4)
    """
    by_name = {one.name: one for one in model.features}
    spec = by_name[check.check_choice("feature", feature, tuple(by_name))]
    layers = {one.name: one for one in embeddings_of(model) if feature in [read.name for read in one.features]}
    if embedding is None and len(layers) > 1:
        raise ValueError(f"`embedding` must name one of the embeddings of {feature!r}. Expected: one of {list(layers)}")
    name = next(iter(layers)) if embedding is None else check.check_choice("embedding", embedding, tuple(layers))
    found = [(group, tables) for group, tables in layers[name].tables_by_group() if feature in group.offsets]
    if not found:
        raise ValueError(
            f"`feature` must have a table of vectors. Received: feature={feature!r}, a {type(spec).__name__} without"
        )
    ((group, tables),) = found
    size = next(place.request.num_ids for place in group.places if place.name == feature)
    ids = np.arange(size, dtype="int32") + group.offsets[feature]
    rows = ops.convert_to_numpy(ops.cast(_backend.gather_rows(tables, ops.convert_to_tensor(ids)), "float32"))
    values = spec.values(None) if model.transform is None else model.transform.values_of(feature)
    known = np.arange(FIRST_ID, size) if values is None else values
    # Room that a table has for values to come is left out.
    kept = [*range(FIRST_ID, FIRST_ID + min(len(known), size - FIRST_ID)), MISSING_ID, UNKNOWN_ID]
    index = pd.Index([*known[: len(kept) - 2], MISSING, UNKNOWN], name=feature, dtype=object)
    return Vectors(feature, name, pd.DataFrame(rows[kept], index=index))
