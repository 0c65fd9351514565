"""Peak memory of building and training a model, each in a process of its own, and of single steps."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_zoo import _backend
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.speed_case import SpeedCase, build_model, draw_rows

_MB = 1e6
# What the bound grants beside tables and slots: TensorFlow's buffers, the dense part, the batch.
_FIXED = 1e9
_CODE = "import sys; from mtl_zoo.benchmark.memory import child_main; child_main(*sys.argv[1:])"


def measure_memory(cases: Sequence[SpeedCase], *, steps: int = 20) -> pd.DataFrame:
    """A row for each case: its peak resident memory over that of its process before the model, building included.

    Columns: the case's fields, `tables_mb`, `slots` (of the tables' size, that the optimizer keeps), `start_mb`,
    `built_mb` and `peak_mb` (peaks so far), `over_start_mb`, `bound_mb` (tables x (1 + slots) + 1 GB), `within_bound`,
    and what the figures depend on.

    Args:
        cases: What to build and train.
        steps: Training steps.

    Raises:
        ValueError: A case has several replicas.
        RuntimeError: The process of a case failed; its last words are told.
    """
    several = [case.model for case in cases if case.replicas > 1]
    if several:
        raise ValueError(f"`cases` must have one replica to measure their memory. Received several: {several}")
    rows = []
    for case in cases:
        found = _in_own_process(case, steps)
        bound = found["tables_mb"] * (1 + found["slots"]) + _FIXED / _MB
        over = found["peak_mb"] - found["start_mb"]
        rows.append(
            {
                **dataclasses.asdict(case),
                "hyperparameters": json.dumps(case.hyperparameters),
                **found,
                "over_start_mb": round(over, 1),
                "bound_mb": round(bound, 1),
                "within_bound": over <= bound,
                "steps": steps,
                **environment.about(),
            }
        )
    return pd.DataFrame(rows)


def _in_own_process(case: SpeedCase, steps: int) -> dict[str, Any]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps(dataclasses.asdict(case)), str(steps)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"The process of {case} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def child_main(case: str, steps: str) -> None:
    """What the process of a case runs: its last line of output is the figures."""
    sys.stdout.write(json.dumps(_measured(SpeedCase(**json.loads(case)), int(steps))) + "\n")


def _measured(case: SpeedCase, steps: int) -> dict[str, Any]:
    import tensorflow as tf

    from mtl_zoo.features.batching import make_batches

    tf.constant(0.0)  # starts TensorFlow
    start = peak_mb()
    model = build_model(case)
    built = peak_mb()
    inputs, labels = draw_rows(case, case.batch * max(steps, case.steps_per_execution))
    model.fit(make_batches(inputs, labels, batch_size=case.batch), verbose=0)
    tables = [v for v in model.trainable_variables if _backend.is_table(v)]
    shapes = {tuple(v.shape) for v in tables}
    size = sum(_bytes(v) for v in tables)
    slots = sum(_bytes(v) for v in model.optimizer.variables if tuple(v.shape) in shapes)
    return {
        "tables_mb": round(size / _MB, 1),
        "slots": round(slots / size, 2),
        "start_mb": round(start, 1),
        "built_mb": round(built, 1),
        "peak_mb": round(peak_mb(), 1),
    }


def _bytes(variable: Any) -> int:
    size = 1
    for length in variable.shape:
        size *= length
    return 4 * size


def transient_mb(run: Callable[[], Any]) -> float:
    """How far the memory of this process rises while `run` works, over what it holds before; NaN where unknown.

    Linux alone can forget a process' peak. Memory that the allocator keeps for later is given back first, or what `run`
    takes of it would not be seen.
    """
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not (forget.exists() and status.exists()):
        return float("nan")
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    forget.write_text("5")
    before = _status_mb("VmRSS")
    run()
    return max(_status_mb("VmHWM") - before, 0.0)


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024 / _MB


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    if Path("/proc/self/status").exists():
        # Not getrusage: a process inherits there the peak of the one that started it.
        return _status_mb("VmHWM")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB
