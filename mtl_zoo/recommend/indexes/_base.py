"""What an index of items is: ids and vectors, asked for those nearest to a user's vector; and the registry of kinds."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._files import intact, read_header, refuse_other_content, whole_folder
from mtl_zoo._progress import Bar
from mtl_zoo._registry import Registry
from mtl_zoo.recommend._ids import EMPTY, id_array, is_filled
from mtl_zoo.recommend.indexes._arrays import checked_ids, checked_vectors, filled_up, ids_and_vectors, without
from mtl_zoo.recommend.indexes._storage import WHAT, check_files, digest, read_items, write_items

MARKER = "index.json"
_FORMAT = 1
_Kind = TypeVar("_Kind", bound="type[Index]")


class Index:
    """Items by id, each with a vector; asked with a user's vector for the k of the largest inner product.

        score(u, i) = sum_d u_d v_id

    The base keeps ids and vectors, in the order in which items were added, and answers for all that an index must do;
    a kind extends it with the search: `_rebuild` and `_search`, and what `_added`, `_removed` and `_updated` can spare
    it. Use `ExactIndex` unless it is too slow.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import ExactIndex
    >>> index = ExactIndex().build(["a", "b", "c"], np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    >>> ids, scores = index.query(np.array([[2.0, 1.0]]), k=2)
    >>> ids.tolist(), scores.tolist()
    ([['a', 'c']], [[2.0, 1.5]])
    >>> index.remove(["a"]).query(np.array([[2.0, 1.0]]), k=4)[0].tolist()
    [['c', 'b', None, None]]
    """

    kind: ClassVar[str] = ""

    def __init__(self) -> None:
        self._vectors = np.zeros((0, 0), "float32")
        self._known = pd.Index(np.zeros(0, "int64"))

    # What users call.

    @property
    def ids(self) -> np.ndarray:
        """The items' ids, (items,), in the order in which they were added."""
        return self._known.to_numpy()

    @property
    def vectors(self) -> np.ndarray:
        """The items' vectors, (items, width) float32, in the order of `ids`. Not to be written to."""
        return self._vectors

    def __len__(self) -> int:
        return len(self._known)

    def build(self, ids: Any, vectors: Any, *, verbose: int = 1) -> Index:
        """Makes the index anew, of these items alone.

        Args:
            ids: Whole numbers or strings, (items,), each once. -1 and missing ones are no ids.
            vectors: Finite numbers, (items, width), kept as float32.
            verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

        Returns:
            The index itself.

        Raises:
            ValueError: There are no items; ids come twice or are missing; vectors are not finite or of another number.
        """
        with Bar("Building the index", verbose=verbose):
            given = ids_and_vectors(ids, vectors)
            if not len(given[0]):
                raise ValueError("`ids` must hold at least one item. Received: ids=[]")
            self._known, self._vectors = pd.Index(given[0]), given[1]
            self._rebuild()
        return self

    def query(self, vectors: Any, k: int, exclude: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each vector, best first.

        Args:
            vectors: Finite numbers, (rows, width).
            k: How many.
            exclude: For each row ids that are not to be given, such as what a user has seen: a list of arrays of any
                lengths, or an array (rows, most) whose empty places hold -1 (None among strings). Ids that the index
                does not have are passed over. Default: None, none.

        Returns:
            Ids, (rows, k) int64 or objects, and their inner products, (rows, k) float32. Where there are fewer than k
            items, the places at the end hold -1 (None among strings) and -inf.

        Raises:
            ValueError: The index was not built; vectors are not finite or of another width; `exclude` has another
                number of rows; `k` is no whole number >= 1.
        """
        k, queries = check.check_int("k", k), self._checked_queries(vectors)
        out = self._positions_of_lists(exclude, len(queries))
        asked = min(k + out.shape[1], len(self))
        positions, scores = np.full((len(queries), 0), EMPTY), np.zeros((len(queries), 0), "float32")
        if asked and len(queries):
            positions, scores = self._search(queries, asked)
        if out.shape[1]:
            positions, scores = without(positions, scores, out, len(self))
        positions, scores = filled_up(positions[:, :k], k, EMPTY), filled_up(scores[:, :k], k, -np.inf)
        is_empty = positions == EMPTY
        scores = np.where(is_empty, np.float32(-np.inf), scores.astype("float32"))
        return self._names(positions, is_empty), scores

    def add(self, ids: Any, vectors: Any) -> Index:
        """Adds items behind those that there are; nothing is trained.

        Args:
            ids, vectors: As in `build`, of items that the index does not have.

        Raises:
            ValueError: An id is there already; what `build` refuses; another width.
        """
        self._require_built()
        new, rows = ids_and_vectors(ids, vectors)
        self._check_same(new, rows)
        there = new[self._at(new) >= 0]
        if len(there):
            raise ValueError(
                f"`ids` must be of new items; `update` changes vectors. Received {len(there)} that the index has: "
                f"{check.sample_values(there)}"
            )
        start = len(self)
        self._known = pd.Index(np.concatenate([self.ids, new])) if start else pd.Index(new)
        self._vectors = np.concatenate([self._vectors, rows])
        self._added(start)
        return self

    def remove(self, ids: Any) -> Index:
        """Removes items.

        Args:
            ids: Ids that the index has, (items,), each once.

        Raises:
            ValueError: An id is not there, or comes twice.
        """
        gone = self._positions("ids", ids)
        keep = np.ones(len(self), bool)
        keep[gone] = False
        self._known, self._vectors = self._known[keep], self._vectors[keep]
        self._removed(keep)
        return self

    def update(self, ids: Any, vectors: Any) -> Index:
        """Gives items other vectors; their places in the order stay.

        Args:
            ids: Ids that the index has, (items,), each once.
            vectors: Their new vectors, (items, width).

        Raises:
            ValueError: An id is not there, or comes twice; what `build` refuses of vectors; another width.
        """
        at = self._positions("ids", ids)
        given, rows = ids_and_vectors(ids, vectors)
        self._check_same(given, rows)
        self._vectors = self._vectors.copy()
        self._vectors[at] = rows
        self._updated(at)
        return self

    def in_graph(self) -> Any:
        """The search as a `tf.Module` to export with a model; see `ExactIndex.in_graph`.

        Raises:
            ValueError: This kind cannot be computed in a TensorFlow graph.
        """
        raise ValueError(
            f"`index` must be one that a TensorFlow graph can compute. Received: {type(self).__name__}. Expected: "
            "ExactIndex().build(index.ids, index.vectors)"
        )

    # What a kind gives.

    def _rebuild(self) -> None:
        """Makes what searches, from `ids` and `vectors`."""
        raise NotImplementedError(f"{type(self).__name__} must define `_rebuild()`.")

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `ids`, (rows, k), and scores, best first; -1 at the end where it found fewer.

        Args:
            queries: (rows, width) float32, at least one.
            k: From 1 to the number of items.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `_search(queries, k)`.")

    def _added(self, start: int) -> None:
        """Items from position `start` on are new."""
        self._rebuild()

    def _removed(self, keep: np.ndarray) -> None:
        """Of the old positions those are left where `keep` is true."""
        self._rebuild()

    def _updated(self, at: np.ndarray) -> None:
        """The vectors at these positions are others."""
        self._rebuild()

    def get_config(self) -> dict[str, Any]:
        """The arguments that the index was made with."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _write(self, folder: Path) -> list[str]:
        """Writes what `_rebuild` would take long for, and gives the names of the files."""
        return []

    def _read(self, folder: Path) -> None:
        """Makes what searches from what `_write` wrote; ids and vectors are there already."""
        self._rebuild()

    # Files.

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the index into a folder, whole or not at all; an index that was there is replaced.

        Raises:
            ValueError: The index was not built; the folder holds something else.
        """
        self._require_built()
        place = Path(folder)
        refuse_other_content("folder", place, MARKER, WHAT)
        with whole_folder(place) as part:
            names = [*write_items(part, self.ids, self._vectors), *self._write(part)]
            about = {
                "format": _FORMAT,
                "kind": self.kind,
                "config": self.get_config(),
                "items": len(self),
                "width": self._vectors.shape[1],
                "files": {name: digest(part / name) for name in names},
            }
            (part / MARKER).write_text(json.dumps(about, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Any:
        """The index that `save` wrote: `Index.load` that of any kind, `ExactIndex.load` an exact one.

        Each file is held against the checksum that was written with it. That finds damage, and not a folder that
        somebody made up whole: load indexes that you trust.

        Raises:
            FileNotFoundError: There is no index.
            DamagedFile: A file is cut short, was changed, or is none of an index.
            ValueError: It is of another kind than `cls`, or was written by a newer version.
        """
        place = Path(folder)
        keys = {"kind": str, "config": dict, "items": int, "width": int, "files": dict}
        about = read_header(place, MARKER, WHAT, _FORMAT, keys)
        with intact(place / MARKER, WHAT):
            found = INDEXES[about["kind"]]
            index: Index = found(**about["config"])
        if not issubclass(found, cls):
            raise ValueError(f"`folder` must hold an index of kind {cls.kind!r}. Received: kind {found.kind!r}")
        check_files(place, about["files"])
        index._known, index._vectors = read_items(place, about["items"], about["width"])
        index._read(place)
        return index

    # Checks, and ids as positions.

    def _require_built(self) -> None:
        if not self._vectors.shape[1]:
            raise ValueError("`index` must be built first: index.build(ids, vectors). Received: an index without items")

    def _checked_queries(self, vectors: Any) -> np.ndarray:
        self._require_built()
        queries = checked_vectors(vectors)
        self._check_width(queries)
        return queries

    def _check_width(self, vectors: np.ndarray) -> None:
        width = self._vectors.shape[1]
        if vectors.shape[1] != width:
            raise ValueError(f"`vectors` must be {width} wide, as the index is. Received: {vectors.shape[1]} wide")

    def _check_same(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        self._check_width(vectors)
        self._check_kind("ids", ids)

    def _check_kind(self, argument: str, ids: np.ndarray) -> None:
        if ids.size and len(self) and (ids.dtype == object) != (self.ids.dtype == object):
            ours = "strings" if self.ids.dtype == object else "whole numbers"
            raise ValueError(f"`{argument}` must be {ours}, as the index's ids are. Received: dtype={ids.dtype}")

    def _at(self, ids: np.ndarray) -> np.ndarray:
        """Positions of ids, -1 where the index does not have them."""
        return self._known.get_indexer(pd.Index(ids))

    def _positions(self, argument: str, ids: Any) -> np.ndarray:
        self._require_built()
        given = checked_ids(ids)
        self._check_kind(argument, given)
        at = self._at(given)
        if (at < 0).any():
            raise ValueError(
                f"`{argument}` must hold ids of the index. Received {int((at < 0).sum())} others: "
                f"{check.sample_values(given[at < 0])}"
            )
        return at

    def _positions_of_lists(self, exclude: Any, rows: int) -> np.ndarray:
        """Positions of lists of ids, (rows, most), -1 where a list has no more."""
        if exclude is None:
            return np.full((rows, 0), EMPTY)
        if isinstance(exclude, str) or not hasattr(exclude, "__len__") or len(exclude) != rows:
            said = f"{len(exclude)} rows" if hasattr(exclude, "__len__") else repr(exclude)
            raise ValueError(f"`exclude` must hold one list of ids a row, {rows}. Received: {said}")
        lists = [id_array("exclude", row).reshape(-1) for row in exclude]
        filled = [row for row in lists if row.size]
        if not filled:
            return np.full((rows, 0), EMPTY)
        joined = np.concatenate([row.astype(object) if row.dtype == object else row for row in filled])
        self._check_kind("exclude", joined[is_filled(joined)])
        row_of = np.repeat(np.arange(rows), [row.size for row in lists])
        at = self._at(joined)
        row_of, at = row_of[at >= 0], at[at >= 0]
        pairs = np.unique(row_of * max(len(self), 1) + at)
        row_of, at = np.divmod(pairs, max(len(self), 1))
        counts = np.bincount(row_of, minlength=rows)
        out = np.full((rows, int(counts.max(initial=0))), EMPTY)
        out[row_of, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)] = at
        return out

    def _names(self, positions: np.ndarray, is_empty: np.ndarray) -> np.ndarray:
        if not len(self):
            return np.full(positions.shape, None if self.ids.dtype == object else EMPTY)
        names = self.ids[np.where(is_empty, 0, positions)]
        names[is_empty] = None if names.dtype == object else EMPTY
        return names


INDEXES: Registry[type[Index]] = Registry("index")


def register_index(kind: str) -> Callable[[_Kind], _Kind]:
    """Decorator that enters a kind of index under its name, by which `Index.load` finds it.

    Example:

    >>> from mtl_zoo.recommend import ExactIndex, list_indexes, register_index
    >>> @register_index("exact_of_ours")
    ... class Ours(ExactIndex):
    ...     pass
    >>> "exact_of_ours" in list_indexes()
    True
    """
    return INDEXES.register(kind, keep_as="kind")


def list_indexes() -> list[str]:
    """The names of the kinds of index.

    Example:

    >>> from mtl_zoo.recommend import list_indexes
    >>> "exact" in list_indexes()
    True
    """
    return INDEXES.names()
