"""What indexes of items cost and find: seconds to build, milliseconds a query, memory, recall against the exact one.

    python -m benchmarks.studies.indexes --out benchmarks/results/recommend/indexes.csv
    python -m benchmarks.studies.indexes --items 1000000 --out benchmarks/results/recommend/indexes.csv

Vectors have length 1, as the towers of a `RetrievalTask` give them. `even` ones are drawn from all directions alike,
which no graph or list of centroids can use; `grouped` ones lie about 1,000 centres, each item's own part being as long
as the centre's, and queries are drawn as items are. Each index is built in a process of its own; `memory_mb` is what
that process holds more than before the vectors were made, and `vectors_mb` is what the vectors alone take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.studies import _frame as frame
from benchmarks.studies.memory import status_mb
from mtl_zoo.recommend import ExactIndex, FaissIndex

SETTINGS: dict[str, Any] = {
    "exact": lambda: ExactIndex(),
    "hnsw-64": lambda: FaissIndex(ef_search=64),
    "hnsw-256": lambda: FaissIndex(),
    "hnsw-1024": lambda: FaissIndex(ef_search=1024),
    "ivf-1/16": lambda: FaissIndex("ivf"),
    "ivf-1/4": lambda: FaissIndex("ivf", lists=1024, probes=256),
}
K = 100
COLUMNS = (
    *("index", "data", "items", "width", "k", "queries", "recall", "build_seconds", "ms_one", "ms_of_64"),
    *("vectors_mb", "memory_mb"),
)


def unit_vectors(kind: str, rows: int, width: int, seed: int) -> np.ndarray:
    """`even` or `grouped` vectors of length 1, (rows, width) float32; the centres do not depend on the seed."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, width)).astype("float32")
    if kind == "grouped":
        centres = np.random.default_rng(99).normal(size=(1000, width)).astype("float32")
        vectors += centres[rng.integers(1000, size=rows)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measured(setting: str, kind: str, items: int, width: int, queries: int) -> dict[str, Any]:
    """One row: the index of a setting, against the exact one."""
    asked = unit_vectors(kind, queries, width, seed=1)
    index = SETTINGS[setting]()
    before = status_mb("VmRSS")
    index.build(np.arange(items), unit_vectors(kind, items, width, seed=0))  # the index keeps a copy
    started = time.perf_counter()
    index._rebuild()
    built = time.perf_counter() - started
    memory = status_mb("VmRSS") - before
    found, _ = index.query(asked, K)
    exact, _ = ExactIndex().build(index.ids, index.vectors).query(asked, K)
    recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, exact, strict=True)])
    times = {}
    for name, rows in (("ms_one", 1), ("ms_of_64", 64)):
        taken = []
        for i in range(10):
            started = time.perf_counter()
            index.query(asked[i : i + rows], K)
            taken.append(time.perf_counter() - started)
        times[name] = round(1000 * float(np.median(taken)), 2)
    sizes = {"vectors_mb": round(items * width * 4 / 2**20), "memory_mb": round(memory)}
    return {"recall": round(float(recall), 4), "build_seconds": round(built, 2), **times, **sizes}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"items": 200_000, "width": 64, "queries": 200, "data": ("even", "grouped"), "settings": tuple(SETTINGS)}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    rows = frame.Rows(args.out, COLUMNS)
    for kind in args.data:
        for setting in args.settings:
            about = {"index": setting, "data": kind, "items": args.items, "width": args.width, "k": K}
            if not rows.has(**about):
                found, _ = frame.run(measured, setting, kind, args.items, args.width, args.queries)
                rows.add({**about, "queries": args.queries, **found})
    frame.show(rows.read(), COLUMNS, "recall against the exact index")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
