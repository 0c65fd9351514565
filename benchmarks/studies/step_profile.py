"""Where the time of a training step goes, operation by operation, on one thread; in float32 and in bfloat16.

    python -m benchmarks.studies.step_profile --out benchmarks/results/speed/step_profile.csv

TensorFlow's own profiler times every operation of some steps of a process that is pinned to one core, with one thread,
so that times add up. A row is a part of the step: `products` (matrix products, with the bias and activation that are
fused into them), `tables: read`, `tables: duplicates` (unique ids, sums of their rows), `tables: written`, `updates,
other` (arithmetic of rows and of dense weights), `mixtures` (batched products of gates and experts), `other`, and
`all`. `share` is of all of them, and `rate` what the products alone reach of the core's own rate for one large product
of that type, in that process.

`ratio` is that of the steps' wall time to those in float32, in turn, the median over rounds with its range.
"""

from __future__ import annotations

import collections
import glob
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from benchmarks.studies import _frame as frame
from benchmarks.studies._cost import best_rate
from benchmarks.studies._steps import SMALL, Case, Timed

COLUMNS = ("model", "vocabulary", "batch", "policy", "part", "operations", "ms", "share", "rate", "gflops")
COLUMNS += ("ratio", "ratio_low", "ratio_high", "step_ms", "rounds", "steps")
POLICIES = ("float32", "mixed_bfloat16")
_OPERATION = re.compile(r"[\w./-]+:\w+")
# What of a name's end tells the part, in this order; the operations of a table have its layer or optimizer in the name.
_TABLES = {
    "tables: duplicates": ("Unique", "SegmentSum"),
    "tables: written": ("Scatter",),
    "tables: read": ("Gather",),
}


def is_operation(name: str) -> bool:
    """Whether a name in a profile is that of an operation of a graph, `scope/name:Type`."""
    return _OPERATION.fullmatch(name) is not None


def part_of(name: str) -> str:
    """The part of a step that an operation belongs to, by its name in a profile, `scope/name:Type`."""
    scope, _, kind = name.rpartition(":")
    if "BatchMatMul" in kind:
        return "mixtures"
    if "MatMul" in kind:
        return "products"
    for part, kinds in _TABLES.items():
        if any(one in kind for one in kinds):
            return part
    return "updates, other" if "lazy_adam" in scope or "embedding" in scope else "other"


def times_of(folder: str, steps: int) -> dict[str, tuple[float, float]]:
    """Operations and milliseconds a step, by part, of the profile in a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    space = xplane_pb2.XSpace()
    with open(path, "rb") as file:
        space.ParseFromString(file.read())
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            name = names[event.metadata_id]
            if not is_operation(name):
                continue
            entry = found[part_of(name)]
            entry[0] += 1 / steps
            entry[1] += event.duration_ps / 1e9 / steps
    return {part: (count, ms) for part, (count, ms) in found.items()}


def product_gflops(policy: str) -> float:
    """What the core reaches in one large product of the policy's type; the best call counts."""
    import tensorflow as tf

    dtype = keras.DTypePolicy(policy).compute_dtype
    left = tf.cast(tf.random.normal((1024, 512)), dtype)
    right = tf.cast(tf.random.normal((512, 1024)), dtype)
    return best_rate(tf.function(lambda: tf.matmul(left, right)), 2 * 1024 * 512 * 1024)


def measure(case: Case, rounds: int, steps: int, core: int) -> list[dict[str, Any]]:
    """The rows of a case, what a process of its own runs."""
    os.sched_setaffinity(0, [core])
    import tensorflow as tf

    timed: dict[str, Timed] = {}
    for policy in POLICIES:
        keras.config.set_dtype_policy(policy)
        timed[policy] = Timed(case)
    times: Mapping[str, list[float]] = {policy: [] for policy in POLICIES}
    for _ in range(rounds):
        for policy, one in timed.items():
            times[policy].append(one.parts["step"](steps))
    rows = []
    for policy, one in timed.items():
        with tempfile.TemporaryDirectory() as folder:
            tf.profiler.experimental.start(folder)
            one.parts["step"](steps)
            tf.profiler.experimental.stop()
            found = times_of(folder, steps)
        total, limit = sum(ms for _, ms in found.values()), product_gflops(policy)
        flops, about = one.cost().matmul_flops, {"model": case.model, "vocabulary": case.vocabulary}
        compared = frame.ratios(times[policy], times[POLICIES[0]])
        about |= {"batch": case.batch, "policy": policy, "rounds": rounds, "steps": steps, **compared}
        about |= {"step_ms": round(sorted(times[policy])[rounds // 2] * 1e3, 3), "gflops": round(limit, 1)}
        found["all"] = (sum(count for count, _ in found.values()), total)
        for part, (count, ms) in sorted(found.items(), key=lambda item: item[1][1]):
            row = {"part": part, "operations": round(count, 1), "ms": round(ms, 3), "share": round(ms / total, 4)}
            if part == "products":
                row["rate"] = round(flops / ms / 1e6 / limit, 4)
            rows.append({**about, **row})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.step_profile`."""
    options: dict[str, Any] = {"models": ("mmoe", "shared_bottom"), "vocabulary": (5_000, 100_000), "batch": 1024}
    args = frame.parser(__doc__, {**options, "rounds": 7, "steps": 20, "core": int}).parse_args(arguments)
    core = max(os.sched_getaffinity(0)) if args.core is None else args.core
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    kept = frame.Rows(args.out, COLUMNS)
    for model in args.models:
        for vocabulary in args.vocabulary:
            case = Case(model, vocabulary, batch=args.batch, hyperparameters=SMALL if model == "mmoe" else {})
            if kept.has(model=model, vocabulary=vocabulary, batch=args.batch):
                continue
            for row in frame.run(measure, case, args.rounds, args.steps, core, environ=threads)[0]:
                kept.add(row)
    frame.show(kept.read(), COLUMNS[:-2], "a step by its parts, on one core")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
