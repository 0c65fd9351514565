"""Peak memory of building and training a model, each in a process of its own, and of single calls."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import _frame as frame
from benchmarks.studies._steps import Case
from benchmarks.studies.speed import OPTIONS, cases_of
from mtl_zoo import _backend

_MB = 1e6
# What the bound grants beside tables and slots: TensorFlow's buffers, the dense part, the batch.
_FIXED_MB = 1000


def memory_of(case: Case, steps: int) -> dict[str, Any]:
    """What building the case's model and some steps take of this process.

    Columns: `tables_mb`; `slots` (of the tables' size, that the optimizer keeps); `start_mb`, `built_mb` and `peak_mb`
    (peaks so far); `over_start_mb`; `bound_mb` (tables x (1 + slots) + 1 GB) and `within_bound`.
    """
    import tensorflow as tf

    from mtl_zoo.features.batching import make_batches

    tf.constant(0.0)  # starts TensorFlow
    start = peak_mb()
    model = case.build()
    built = peak_mb()
    inputs, labels = case.draw(case.batch * max(steps, case.steps_per_execution))
    model.fit(make_batches(inputs, labels, batch_size=case.batch), verbose=0)
    tables = [v for v in model.trainable_variables if _backend.is_table(v)]
    shapes = {tuple(v.shape) for v in tables}
    size = sum(4 * math.prod(v.shape) for v in tables)
    slots = sum(4 * math.prod(v.shape) for v in model.optimizer.variables if tuple(v.shape) in shapes) / size
    over, bound = peak_mb() - start, size / _MB * (1 + slots) + _FIXED_MB
    figures = {"tables_mb": size / _MB, "start_mb": start, "built_mb": built, "peak_mb": peak_mb()}
    figures |= {"over_start_mb": over, "bound_mb": bound}
    return {
        **{name: round(value, 1) for name, value in figures.items()},
        **{"slots": round(slots, 2), "within_bound": over <= bound, "steps": steps},
    }


def transient_mb(call: Callable[[], Any]) -> float:
    """How far the memory of this process rises while `call` works, over what it holds before; NaN where unknown.

    Linux alone can forget a process' peak. Memory that the allocator keeps for later is given back first, or what is
    taken of it would not be seen.
    """
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not (forget.exists() and status.exists()):
        return float("nan")
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    forget.write_text("5")
    before = status_mb("VmRSS")
    call()
    return max(status_mb("VmHWM") - before, 0.0)


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024 / _MB


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    if Path("/proc/self/status").exists():
        # Not getrusage: a process inherits there the peak of the one that started it.
        return status_mb("VmHWM")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.memory`."""
    parser = frame.parser(__doc__, OPTIONS | {"steps": 20}, out="where the rows go, anew")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    args = parser.parse_args(arguments)
    table = frame.write(
        args.out, [{**case.columns, **frame.run(memory_of, case, args.steps)[0]} for case in cases_of(args)]
    )
    columns = ("model", "vocabulary", "optimizer", "tables_mb", "slots", "start_mb", "built_mb", "peak_mb")
    frame.show(table, (*columns, "over_start_mb", "bound_mb", "within_bound"), "peak memory")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
