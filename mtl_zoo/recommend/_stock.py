"""The catalogue of a recommender as it is now, and how it changes while lists are made."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.recommend import _catalogue
from mtl_zoo.recommend._catalogue import Catalogue
from mtl_zoo.recommend._fetching import Fetching
from mtl_zoo.recommend._ids import EMPTY
from mtl_zoo.recommend._pairs import Arrays, PairScores


class Stock:
    """Items that come, go and change. Whoever makes a list holds the catalogue that was there when it began.

    Args:
        model: Of the recommender; its entity tables of items follow the catalogue.
        items: The first catalogue.
        item: The column of ids.
        columns: Those that the model reads of an item.
        pairs: Which knows the types of the model's inputs.
        fetching: The index, which follows the catalogue, or None.
        prepare: Whether what the model makes of items before it knows a user is kept.
    """

    def __init__(
        self,
        model: Any,
        items: Any,
        item: str,
        columns: Sequence[str],
        pairs: PairScores,
        fetching: Fetching | None,
        prepare: bool,
    ):
        self._model, self._item, self._columns = model, item, columns
        self._pairs, self._fetching, self._prepare = pairs, fetching, prepare
        self._lock = threading.Lock()
        made = self._encoded(_catalogue.checked_items(items, item))
        if fetching is not None:
            fetching.build(made.ids, made.arrays)
        self.catalogue = self._whole(made)

    def candidates(
        self, users: Arrays, hidden: Sequence[Sequence[Any]], wanted: Sequence[Any] | None, count: int
    ) -> tuple[Catalogue, list[np.ndarray]]:
        """The catalogue, and the rows of it that each user may be shown.

        Args:
            users: Inputs of the model, a row a user.
            hidden: For each user, lists of ids that are left out.
            wanted: For each user, the ids to choose from; empty places are passed over. None: the whole catalogue, or
                what the index gives.
            count: How many the index gives.
        """
        with self._lock:  # an index changes with the catalogue
            catalogue = self.catalogue
            gone = []
            for lists in hidden:
                rows = np.concatenate([np.zeros(0, "int64"), *(catalogue.find(ids) for ids in lists)])
                gone.append(np.unique(rows[rows >= 0]))
            if wanted is None and self._fetching is not None:
                return catalogue, self._fetching.rows(catalogue, users, gone, count)
        if wanted is None:
            rows_of = [np.arange(len(catalogue))] * len(gone)
        else:
            filled = [[i for i in mine if i is not None and i != EMPTY] for mine in wanted]
            rows_of = [catalogue.rows_of("candidates", mine) for mine in filled]
        left = [
            rows[~np.isin(rows, out, assume_unique=True)] if len(out) else rows
            for rows, out in zip(rows_of, gone, strict=True)
        ]
        return catalogue, left

    # Changes. What can be refused is refused before anything is changed.

    def add(self, items: Any) -> None:
        """See `Recommender.add_items`."""
        new = _catalogue.checked_items(items, self._item)
        wanted = _catalogue.read_columns(self._model.transform, self._columns, self._item)
        _catalogue.check_columns("items", new, wanted)
        with self._lock:
            before = self.catalogue
            known = new[self._item][before.find(new[self._item]) >= 0]
            if len(known):
                raise ValueError(
                    f"`items` must be new; `update_items` changes those that are there. Received: {len(known)} that "
                    f"are there, {check.sample_values(known)}"
                )
            start = len(before)
            made = self._encoded(pd.concat([before.frame, new], ignore_index=True), before)
            if self._fetching is not None:
                self._fetching.add(made.ids[start:], {name: array[start:] for name, array in made.arrays.items()})
            self.catalogue = self._whole(made)

    def update(self, items: Any) -> None:
        """See `Recommender.update_items`."""
        new = _catalogue.checked_items(items, self._item)
        with self._lock:
            rows = self.catalogue.rows_of("items", new[self._item])
            frame = self.catalogue.frame.copy()
            for column in new.columns:
                values = frame[column].to_numpy(object, copy=True) if column in frame else np.full(len(frame), None)
                for row, value in zip(rows, new[column], strict=True):
                    values[row] = value  # one by one, since a value may be a list
                frame[column] = pd.Series(values, dtype=object).infer_objects()
            made = self._encoded(frame)
            if self._fetching is not None:
                self._fetching.update(made.ids[rows], {name: array[rows] for name, array in made.arrays.items()})
            self.catalogue = self._whole(made)

    def remove(self, ids: Sequence[Any]) -> None:
        """See `Recommender.remove_items`."""
        with self._lock:
            before = self.catalogue
            gone = before.rows_of("ids", list(ids))
            left = np.delete(np.arange(len(before)), gone)
            if not len(left):
                raise ValueError(f"`ids` must leave an item. Received: all {len(before)}")
            if self._fetching is not None:
                self._fetching.index.remove(before.ids[gone])
            arrays = {name: array[left] for name, array in before.arrays.items()}
            made = Catalogue(before.frame.iloc[left].reset_index(drop=True), self._item, arrays)
            self.catalogue = self._whole(made)

    def _encoded(self, frame: pd.DataFrame, before: Catalogue | None = None) -> Catalogue:
        """A catalogue; its first rows are those of `before`, and are not encoded again."""
        transform, kept = self._model.transform, 0 if before is None else len(before)
        frame, changed = _catalogue.with_entities(transform, frame, self._item)
        transform = transform.with_entities(changed) if changed else transform
        new = _catalogue.encoded(transform, frame.iloc[kept:], self._columns, "items")
        arrays = self._pairs.typed(new)
        if before is not None:
            arrays = {name: np.concatenate([before.arrays[name], array]) for name, array in arrays.items()}
        if changed:
            self._model.update_entities(changed)
        return Catalogue(frame, self._item, arrays)

    def _whole(self, catalogue: Catalogue) -> Catalogue:
        """The catalogue with what is computed of its items beforehand."""
        if self._fetching is not None:
            catalogue = dataclasses.replace(catalogue, vectors=self._fetching.vectors(catalogue.ids))
        if self._prepare:
            catalogue = dataclasses.replace(catalogue, prepared=self._pairs.prepared(catalogue.tensors))
        return catalogue
