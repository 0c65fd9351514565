"""How long a ranking takes: one user against many candidates, with the exported model, on one core.

The model is exported, and loaded by a fresh process that is pinned to a core before TensorFlow starts, with one thread.
Ways to score are called in turn there, so that they compare; the core's own ceiling is measured in the same process.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.ceilings import ceilings
from mtl_zoo.benchmark.config import parse_assignments
from mtl_zoo.benchmark.cost import graph_cost
from mtl_zoo.benchmark.runner import resolve_hyperparameters
from mtl_zoo.export import export_serving, make_scorer
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models import create_model, model_info
from mtl_zoo.tasks import BinaryTask

_TASKS = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))
_WARM_UP = 20
_CHILD = (
    "import os, sys; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, [int(sys.argv[1])]); "
    "from mtl_zoo.benchmark.latency import child_main; child_main(*sys.argv[2:])"
)


@dataclasses.dataclass(frozen=True)
class LatencyCase:
    """A model and a request.

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

    def __post_init__(self):
        for argument in ("candidates", "vocabulary", "features", "dim"):
            check.check_int(argument, getattr(self, argument))
        check.check_int("numerics", self.numerics, minimum=0)

    @property
    def user_columns(self) -> tuple[str, ...]:
        ids, numbers = range(self.features // 2), range(self.numerics // 2)
        return (*(f"id_{i}" for i in ids), *(f"number_{i}" for i in numbers))


def measure_latency(cases: Sequence[LatencyCase], *, calls: int = 500, core: int | None = None) -> pd.DataFrame:
    """Times requests, one process for each case: a row for each way to score.

    The ways: `exported` takes the raw columns of all rows, NumPy arrays, and gives NumPy scores; `scorer` is
    `make_scorer` on encoded arrays; `rank` and `raw rank` are its `rank`, on encoded and on raw columns.

    Columns: the case's fields, `way`, `median_ms`, `p99_ms`, `calls`, `candidates_per_second` (by the median),
    `gflops` of a request by its graph, `matmul_gflops` of the core, `matmul_share` of it that the matrix products of
    the median call reach, `core`, and what the figures depend on.

    Args:
        cases: What to time.
        calls: Timed calls of each way, after 20 that are not.
        core: The core to run on. Default: the last one that this process may use.

    Raises:
        ValueError: No case; `calls` < 1; the backend is not TensorFlow.
        RuntimeError: The process of a case failed; its last words are told.
    """
    if not _backend.is_tensorflow():
        raise ValueError(f"`measure_latency` needs the TensorFlow backend. Received: {keras.backend.backend()!r}")
    if not cases:
        raise ValueError("`cases` must hold at least one case. Received: none")
    check.check_int("calls", calls)
    if core is None:
        core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    about = {
        "core": core,
        **environment.about(),
    }
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            _write(case, Path(folder))
            settings = {**dataclasses.asdict(case), "hyperparameters": json.dumps(case.hyperparameters)}
            rows += [{**settings, **found, **about} for found in _in_own_process(case, Path(folder), calls, core)]
    return pd.DataFrame(rows)


def draw_table(case: LatencyCase, rows: int, seed: int = 0) -> pd.DataFrame:
    """Raw columns: uniform ids, of which a table of some times the vocabulary holds nearly all, and normal numbers."""
    rng = np.random.default_rng(seed)
    # Large ids, as they come from a data base.
    ids = {f"id_{i}": rng.integers(0, case.vocabulary, rows) * 7919 + 10**9 for i in range(case.features)}
    columns: dict[str, Any] = {name: column.astype(str) if case.text else column for name, column in ids.items()}
    columns |= {f"number_{i}": rng.normal(size=rows) for i in range(case.numerics)}
    columns |= {task.name: rng.integers(0, 2, rows) for task in _TASKS}
    return pd.DataFrame(columns)


def _write(case: LatencyCase, folder: Path) -> None:
    """The model, exported and as it is, and a request."""
    features: list[Feature] = [Categorical(f"id_{i}", dim=case.dim) for i in range(case.features)]
    features += [Numeric(f"number_{i}") for i in range(case.numerics)]
    table = draw_table(case, 8 * case.vocabulary)
    table["conversion"] *= table["click"]
    transform = FeatureTransform(features, _TASKS).fit(table)
    model = create_model(case.model, transform, _TASKS, **resolve_hyperparameters(case.model, case.hyperparameters))
    export_serving(model, folder / "exported")
    model.save(folder / "model.keras")
    request = draw_table(case, case.candidates, seed=1)
    for column in case.user_columns:
        request[column] = request[column].iloc[0]
    raw: dict[str, Any] = {name: _without_objects(a) for name, a in transform.raw_arrays(request).items()}
    encoded: dict[str, Any] = transform.encode(request)
    np.savez(folder / "raw.npz", **raw)
    np.savez(folder / "encoded.npz", **encoded)


def _without_objects(array: np.ndarray) -> np.ndarray:
    return array.astype(str) if array.dtype == object else array


def _in_own_process(case: LatencyCase, folder: Path, calls: int, core: int) -> list[dict[str, Any]]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    threads = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(core), str(folder), ",".join(case.user_columns), str(calls)],
        env={**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"The process of {case} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def child_main(folder: str, user_columns: str, calls: str) -> None:
    """What the process of a case runs: its last line of output is the rows."""
    found = _time_ways(Path(folder), [name for name in user_columns.split(",") if name], int(calls))
    sys.stdout.write(json.dumps(found) + "\n")


def _time_ways(folder: Path, user_columns: Sequence[str], calls: int) -> list[dict[str, Any]]:
    import tensorflow as tf

    limit = ceilings()["matmul_gflops"]
    ways, function = _ways(folder, user_columns)
    rows = len(next(iter(ways["exported"]().values())))
    fixed = tf.function(function, autograph=False).get_concrete_function()
    cost = graph_cost(fixed)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in range(_WARM_UP + calls):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if call >= _WARM_UP:
                times[name].append(time.perf_counter() - started)
    found = []
    for name, seconds in times.items():
        median = float(np.median(seconds))
        found.append(
            {
                "way": name,
                "median_ms": round(median * 1e3, 3),
                "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 3),
                "calls": calls,
                "candidates_per_second": round(rows / median, 1),
                "gflops": round(cost.flops / 1e9, 4),
                "matmul_gflops": limit,
                "matmul_share": round(cost.matmul_flops / median / 1e9 / limit, 4),
            }
        )
    return found


def _ways(folder: Path, user_columns: Sequence[str]) -> tuple[dict[str, Callable[[], dict[str, Any]]], Callable]:
    """Calls that score the request, by name; and the model's forward pass on it, for a trace."""
    import tensorflow as tf

    raw = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in _arrays(folder, "raw")}
    encoded = dict(_arrays(folder, "encoded"))
    served = tf.saved_model.load(str(folder / "exported")).signatures["serving_default"]
    model = keras.saving.load_model(folder / "model.keras")
    scorer, raw_scorer = make_scorer(model), make_scorer(model, raw=True)

    def exported():
        scores = served(**{name: tf.constant(array) for name, array in raw.items()})
        return {name: values.numpy() for name, values in scores.items()}

    def ranked(score, columns):
        user = {name: columns[name][:1] for name in user_columns}
        candidates = {name: array for name, array in columns.items() if name not in user}
        return lambda: score.rank(user, candidates)

    ways = {
        "exported": exported,
        "scorer": lambda: scorer(encoded),
        "rank": ranked(scorer, encoded),
        "raw rank": ranked(raw_scorer, raw),
    }
    return ways, lambda: model({name: tf.constant(array) for name, array in encoded.items()}, training=False)


def _arrays(folder: Path, name: str) -> list[tuple[str, np.ndarray]]:
    with np.load(folder / f"{name}.npz") as file:
        return [(column, file[column]) for column in file.files]


def _taken(model: str, given: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """Those of the hyperparameters that the model has; one that no model of the run has is refused."""
    known = {name: set(inspect.signature(model_info(name).cls).parameters) for name in models}
    unknown = sorted(set(given) - set().union(*known.values()))
    if unknown:
        raise ValueError(f"`--set` must name arguments of the models. Received: {unknown}, of none of {list(models)}")
    return {name: value for name, value in given.items() if name in known[model]}


def latency_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.latency`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description="Times one user against many candidates, on one core."
    )
    parser.add_argument("--models", nargs="+", default=["mmoe", "shared_bottom"], help="names of list_models()")
    parser.add_argument("--candidates", nargs="+", type=int, default=[1000], help="rows of a request")
    parser.add_argument("--vocabulary", type=int, default=5000, help="ids of each column")
    parser.add_argument("--features", type=int, default=30, help="categorical columns")
    parser.add_argument("--numerics", type=int, default=10)
    parser.add_argument("--text", action="store_true", help="the ids are strings")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--core", type=int, help="default: the last that this process may use")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    args = parser.parse_args(arguments)
    given = parse_assignments("--set", args.set)
    sizes = {"vocabulary": args.vocabulary, "features": args.features, "numerics": args.numerics, "text": args.text}
    cases = [
        LatencyCase(model, candidates, hyperparameters=_taken(model, given, args.models), **sizes)
        for model in args.models
        for candidates in args.candidates
    ]
    table = measure_latency(cases, calls=args.calls, core=args.core)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    columns = ("model", "candidates", "way", "median_ms", "p99_ms", "candidates_per_second", "matmul_share")
    shown = Table(title=f"one user against candidates, on core {table['core'][0]}, {args.calls} calls each, in turn")
    for column in columns:
        shown.add_column(column, justify="right")
    for row in table.to_dict("records"):
        shown.add_row(*(str(row[column]) for column in columns))
    Console(width=120).print(shown)
    return 0
