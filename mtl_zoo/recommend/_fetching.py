"""Candidates by an index of the catalogue and the user's tower of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_zoo.recommend._catalogue import Catalogue
from mtl_zoo.recommend._ids import is_filled
from mtl_zoo.recommend._pairs import Arrays
from mtl_zoo.recommend.indexes import Index


class Fetching:
    """An index that follows the catalogue, and is asked with the vectors of users.

    Args:
        model: A model with a `RetrievalTask`.
        index: Without items, which are then added, or with those of the catalogue.
        task: Name of the task. Default: the only one.
    """

    def __init__(self, model: Any, index: Any, task: str | None):
        import tensorflow as tf

        if not isinstance(index, Index):
            raise ValueError(f"`index` must be an index, such as ExactIndex(). Received: {index!r}")
        self.index, self.task, self._model = index, task, model
        tower = model.side_tower("user", task)
        specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in tower.input.items()}
        self._inputs = list(specs)
        function = tf.function(lambda x: tower(x, training=False), input_signature=[specs], autograph=False)
        self._run = function.get_concrete_function()

    def vectors_of(self, users: Arrays) -> np.ndarray:
        """Vectors of users, from the model's inputs of them."""
        import tensorflow as tf

        return self._run({name: tf.constant(users[name]) for name in self._inputs}).numpy()

    def build(self, ids: np.ndarray, arrays: Arrays) -> None:
        """Makes the index one of these items, unless it has them."""
        if not len(self.index) or set(self.index.ids.tolist()) != set(ids.tolist()):
            self.index.build(ids, self._model.item_vectors(dict(arrays), self.task))

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """The index's vectors of items."""
        if np.array_equal(self.index.ids, ids):
            return self.index.vectors
        places = {name: place for place, name in enumerate(self.index.ids.tolist())}
        return self.index.vectors[[places[name] for name in ids.tolist()]]

    def add(self, ids: np.ndarray, arrays: Arrays) -> None:
        self.index.add(ids, self._model.item_vectors(dict(arrays), self.task))

    def update(self, ids: np.ndarray, arrays: Arrays) -> None:
        self.index.update(ids, self._model.item_vectors(dict(arrays), self.task))

    def rows(self, catalogue: Catalogue, users: Arrays, hidden: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        """The rows of the `count` nearest items of each user, without those of the rows that are hidden."""
        exclude = [catalogue.ids[rows] for rows in hidden] if any(map(len, hidden)) else None
        ids, _ = self.index.query(self.vectors_of(users), min(count, len(catalogue)), exclude)
        return [np.sort(catalogue.find(mine[is_filled(mine)])) for mine in ids]
