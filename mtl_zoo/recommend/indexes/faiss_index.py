from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._files import DamagedFile, intact
from mtl_zoo.recommend._ids import EMPTY
from mtl_zoo.recommend.indexes._base import Index, register_index
from mtl_zoo.recommend.indexes._storage import WHAT

_FILE, _SLOTS = "faiss.index", "slots.npy"
# Vectors that were removed or replaced stay in faiss, and are passed over, up to this share of all.
_MOST_DEAD = 0.25


@register_index("faiss")
class FaissIndex(Index):
    """An approximate search by faiss, for catalogues whose scores are too many to compute.

    It needs the extra: `pip install "mtl-zoo[faiss]"`.

    `"hnsw"` walks a graph of neighbours, `"ivf"` looks into the lists of the centroids that are nearest to the query;
    both compute inner products of what they visit and keep vectors whole. Items may be missed: measure the recall
    against `ExactIndex` on your own vectors. Vectors of one length (as the towers of a `RetrievalTask` give) suit both;
    where lengths differ much, a graph by inner product finds less, and so it does where vectors lie in a few narrow
    clusters far apart, between which no links lead.

    Removed and replaced vectors stay in faiss and are passed over until they are a quarter of all; then it is made anew
    from the vectors. Ties have no stated order, and a graph that several threads built differs from run to run.

    Args:
        method: `"hnsw"` or `"ivf"`.
        neighbours: Links of a vector in the graph of `"hnsw"` (twice as many at its base).
        ef_construction: Candidates that are looked at for a new vector's links.
        ef_search: Candidates that a search keeps: more find more and take longer. At least k are kept.
        lists: Centroids of `"ivf"`. Default: None, 4 times the root of the number of items.
        probes: Lists that a search looks into. Default: None, a sixteenth of them.
        seed: Of the centroids.

    Raises:
        ImportError: faiss is not installed.
        ValueError: An unknown method, or a number below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import FaissIndex
    >>> index = FaissIndex().build([10, 11, 12], np.eye(3))
    >>> index.query(np.array([[0.1, 0.3, 0.2]]), k=2)[0].tolist()
    [[11, 12]]

    Reference: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
    Navigable Small World graphs", arXiv:1603.09320; Johnson et al., "Billion-scale similarity search with GPUs",
    arXiv:1702.08734.
    """

    def __init__(
        self,
        method: str = "hnsw",
        neighbours: int = 32,
        ef_construction: int = 200,
        ef_search: int = 256,
        lists: int | None = None,
        probes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _faiss()
        self.method = check.check_choice("method", method, ("hnsw", "ivf"))
        self.neighbours = check.check_int("neighbours", neighbours, 2, 1024)
        self.ef_construction = check.check_int("ef_construction", ef_construction)
        self.ef_search = check.check_int("ef_search", ef_search)
        self.lists = None if lists is None else check.check_int("lists", lists)
        self.probes = None if probes is None else check.check_int("probes", probes)
        self.seed = check.check_int("seed", seed, 0)

    def _rebuild(self) -> None:
        faiss, items, width = _faiss(), len(self), self._vectors.shape[1]
        if self.method == "hnsw":
            made = faiss.IndexHNSWFlat(width, self.neighbours, faiss.METRIC_INNER_PRODUCT)
            made.hnsw.efConstruction = self.ef_construction
        else:
            lists = min(self.lists or max(1, round(4 * items**0.5)), max(items, 1))
            made = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
            made.cp.seed, made.cp.min_points_per_centroid = self.seed, 1
            made.nprobe = self.probes or max(1, lists // 16)
            if items:
                made.train(self._vectors)
        self._index = made
        if items:
            made.add(self._vectors)
        # By position in faiss, the position in `ids`; -1 where it is there no more.
        self._slots = np.arange(items)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        faiss = _faiss()
        alive = np.packbits(self._slots != EMPTY, bitorder="little")
        chosen = {"sel": faiss.IDSelectorBitmap(alive)} if (self._slots == EMPTY).any() else {}
        if self.method == "hnsw":
            params = faiss.SearchParametersHNSW(efSearch=max(self.ef_search, k), **chosen)
        else:
            params = faiss.SearchParametersIVF(nprobe=self._index.nprobe, **chosen)
        scores, found = self._index.search(queries, k, params=params)
        return np.where(found < 0, EMPTY, self._slots[found]), scores

    def _added(self, start: int) -> None:
        if not start:  # centroids are those of the items that there are
            self._rebuild()
            return
        self._index.add(self._vectors[start:])
        self._slots = np.concatenate([self._slots, np.arange(start, len(self))])

    def _removed(self, keep: np.ndarray) -> None:
        after = np.where(keep, np.cumsum(keep) - 1, EMPTY)
        self._slots = np.where(self._slots == EMPTY, EMPTY, after[self._slots])
        self._rebuild_if_needed()

    def _updated(self, at: np.ndarray) -> None:
        self._slots = np.where(np.isin(self._slots, at), EMPTY, self._slots)
        self._index.add(self._vectors[at])
        self._slots = np.concatenate([self._slots, at])
        self._rebuild_if_needed()

    def _rebuild_if_needed(self) -> None:
        if (self._slots == EMPTY).mean() > _MOST_DEAD:
            self._rebuild()

    def _write(self, folder: Path) -> list[str]:
        _faiss().write_index(self._index, str(folder / _FILE))
        np.save(folder / _SLOTS, self._slots, allow_pickle=False)
        return [_FILE, _SLOTS]

    def _read(self, folder: Path) -> None:
        faiss = _faiss()
        with intact(folder / _SLOTS, WHAT):
            slots = np.load(folder / _SLOTS, allow_pickle=False)
            alive = np.sort(slots[slots != EMPTY])
            if not np.array_equal(alive, np.arange(len(self))):
                raise ValueError("its positions are not those of the items")
        try:
            index = faiss.read_index(str(folder / _FILE))
        except RuntimeError as error:
            raise DamagedFile(f"A file of {WHAT} must be faiss'. Received: {str(folder / _FILE)!r}: {error}") from error
        kind = faiss.IndexHNSWFlat if self.method == "hnsw" else faiss.IndexIVFFlat
        if not isinstance(index, kind) or (index.ntotal, index.d) != (len(slots), self._vectors.shape[1]):
            raise DamagedFile(
                f"A file of {WHAT} must hold its {len(slots)} vectors. Received: {str(folder / _FILE)!r}, with "
                f"{index.ntotal} of width {index.d} in a {type(index).__name__}"
            )
        self._index, self._slots = index, slots


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('`FaissIndex` needs faiss: pip install "mtl-zoo[faiss]"') from error
    return faiss
