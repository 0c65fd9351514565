"""How long a ranking takes: one user against many candidates, with the exported model, on one core.

The model is exported, and loaded by a fresh process that is pinned to a core before TensorFlow starts, with one thread.
Ways to score are called in turn there, so that they compare; the core's own ceiling is measured in the same process.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._cost import ceilings, graph_cost
from mtl_zoo.benchmark.config import parse_assignments
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.export import export_serving, make_scorer
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models import create_model, model_info
from mtl_zoo.tasks import BinaryTask

_TASKS = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))
_WARM_UP = 20


@dataclasses.dataclass(frozen=True)
class Request:
    """A model and what it is asked.

    Args:
        model: A name of `list_models()`.
        candidates: Rows of a request, which share the user's columns.
        vocabulary: Ids of each categorical column, as the transform learns them.
        features: Categorical columns, half of them the user's.
        numerics: Numeric columns, half of them the user's.
        dim: Width of an embedding.
        text: Whether the categorical columns hold strings, instead of whole numbers.
        hyperparameters: Arguments of the model.
    """

    model: str
    candidates: int = 1000
    vocabulary: int = 5000
    features: int = 30
    numerics: int = 10
    dim: int = 16
    text: bool = False
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def user_columns(self) -> tuple[str, ...]:
        ids, numbers = range(self.features // 2), range(self.numerics // 2)
        return (*(f"id_{i}" for i in ids), *(f"number_{i}" for i in numbers))

    def draw(self, rows: int, seed: int = 0) -> pd.DataFrame:
        """Raw columns: uniform ids, as large as they come from a data base, and normal numbers."""
        rng = np.random.default_rng(seed)
        ids = {f"id_{i}": rng.integers(0, self.vocabulary, rows) * 7919 + 10**9 for i in range(self.features)}
        columns: dict[str, Any] = {name: column.astype(str) if self.text else column for name, column in ids.items()}
        columns |= {f"number_{i}": rng.normal(size=rows) for i in range(self.numerics)}
        click, conversion = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
        return pd.DataFrame(columns | {"click": click, "conversion": click * conversion})


def write_model(case: Request, folder: Path) -> None:
    """The model, exported and as it is, and a request."""
    features: list[Feature] = [Categorical(f"id_{i}", dim=case.dim) for i in range(case.features)]
    features += [Numeric(f"number_{i}") for i in range(case.numerics)]
    # Some times the vocabulary, so that nearly all of it is there.
    transform = FeatureTransform(features, _TASKS).fit(case.draw(8 * case.vocabulary))
    model = create_model(case.model, transform, _TASKS, **resolve_hyperparameters(case.model, case.hyperparameters))
    export_serving(model, folder / "exported")
    model.save(folder / "model.keras")
    request = case.draw(case.candidates, seed=1)
    for column in case.user_columns:
        request[column] = request[column].iloc[0]
    raw = {name: a.astype(str) if a.dtype == object else a for name, a in transform.raw_arrays(request).items()}
    np.savez(folder / "raw.npz", **raw)  # type: ignore[arg-type]
    np.savez(folder / "encoded.npz", **transform.encode(request))  # type: ignore[arg-type]


def time_ways(folder: Path, user_columns: Sequence[str], calls: int, core: int | None = None) -> list[dict[str, Any]]:
    """What the process of a case runs: a row for each way to score.

    The ways: `exported` takes the raw columns of all rows, NumPy arrays, and gives NumPy scores; `scorer` is
    `make_scorer` on encoded arrays; `rank` and `raw rank` are its `rank`, on encoded and on raw columns; `prepared` is
    that of candidates which were prepared, all in their order or `by place`.

    Columns: `way`, `median_ms`, `p99_ms`, `calls`, `candidates_per_second` (by the median), `gflops` of a request by
    its graph, `matmul_gflops` of the core, `matmul_share` of it that the matrix products of the median call reach.
    """
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    import tensorflow as tf

    limit = ceilings()["matmul_gflops"]
    ways, function = ways_to_score(folder, user_columns)
    rows = len(next(iter(ways["exported"]().values())))
    cost = graph_cost(tf.function(function, autograph=False).get_concrete_function())
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in range(_WARM_UP + calls):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if call >= _WARM_UP:
                times[name].append(time.perf_counter() - started)
    found = []
    for name, seconds in times.items():
        median, p99 = float(np.median(seconds)), float(np.percentile(seconds, 99))
        row = {"way": name, "median_ms": round(median * 1e3, 3), "p99_ms": round(p99 * 1e3, 3), "calls": calls}
        row |= {"candidates_per_second": round(rows / median, 1), "gflops": round(cost.flops / 1e9, 4)}
        row |= {"matmul_gflops": limit, "matmul_share": round(cost.matmul_flops / median / 1e9 / limit, 4)}
        found.append(row)
    return found


def ways_to_score(folder: Path, user_columns: Sequence[str]) -> tuple[dict[str, Callable[[], dict]], Callable]:
    """Calls that score the request, by name; and the model's forward pass on it, for a trace."""
    import tensorflow as tf

    def arrays(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / f"{name}.npz") as file:
            return {column: file[column] for column in file.files}

    raw = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays("raw").items()}
    encoded = arrays("encoded")
    served = tf.saved_model.load(str(folder / "exported")).signatures["serving_default"]
    model = keras.saving.load_model(folder / "model.keras")
    scorer, raw_scorer = make_scorer(model), make_scorer(model, raw=True)

    def exported() -> dict[str, np.ndarray]:
        scores = served(**{name: tf.constant(array) for name, array in raw.items()})
        return {name: values.numpy() for name, values in scores.items()}

    def ranked(score: Any, columns: dict[str, np.ndarray]) -> Callable[[], dict]:
        user = {name: columns[name][:1] for name in user_columns}
        candidates = {name: array for name, array in columns.items() if name not in user}
        return lambda: score.rank(user, candidates)

    user = {name: encoded[name][:1] for name in user_columns}
    prepared = scorer.prepare({name: array for name, array in encoded.items() if name not in user})
    places = np.arange(len(prepared))
    ways = {
        "exported": exported,
        "scorer": lambda: scorer(encoded),
        "rank": ranked(scorer, encoded),
        "raw rank": ranked(raw_scorer, raw),
        "prepared": lambda: prepared.rank(user),
        "prepared, by place": lambda: prepared.rank(user, places),
    }
    return ways, lambda: model({name: tf.constant(array) for name, array in encoded.items()}, training=False)


def measure(case: Request, calls: int, core: int) -> list[dict[str, Any]]:
    """Times a request in a process of its own, pinned to a core, with one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    about = {**dataclasses.asdict(case), "hyperparameters": json.dumps(case.hyperparameters)}
    with tempfile.TemporaryDirectory() as folder:
        write_model(case, Path(folder))
        found, _ = frame.run(time_ways, Path(folder), case.user_columns, calls, core, environ=threads)
    return [{**about, **row, "core": core} for row in found]


def _taken(model: str, given: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """Those of the hyperparameters that the model has; one that no model of the run has is refused."""
    known = {name: set(inspect.signature(model_info(name).cls).parameters) for name in models}
    unknown = sorted(set(given) - set().union(*known.values()))
    if unknown:
        raise ValueError(f"`--set` must name arguments of the models. Received: {unknown}, of none of {list(models)}")
    return {name: value for name, value in given.items() if name in known[model]}


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.latency`."""
    sizes = {"vocabulary": 5000, "features": 30, "numerics": 10, "text": False}
    options = {"models": ("mmoe", "shared_bottom"), "candidates": (1000,), **sizes, "calls": 500, "core": int}
    parser = frame.parser(__doc__, options, out="where the rows go, anew")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    args = parser.parse_args(arguments)
    core = args.core
    if core is None:  # the last that this process may use
        core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    given, rows = parse_assignments("--set", args.set), []
    for model in args.models:
        for candidates in args.candidates:
            about = {name: getattr(args, name) for name in sizes}
            case = Request(model, candidates, hyperparameters=_taken(model, given, args.models), **about)
            rows += measure(case, args.calls, core)
    columns = ("model", "candidates", "way", "median_ms", "p99_ms", "candidates_per_second", "matmul_share")
    frame.show(frame.write(args.out, rows), columns, f"one user against candidates, on core {core}")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
