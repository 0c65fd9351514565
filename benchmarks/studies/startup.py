"""What it takes until something happens: imports, the command line, and the first step and score of a model.

    python -m benchmarks.studies.startup --out benchmarks/results/speed/startup.csv

Each case is a process of its own, in turn, round by round; `seconds` and `cpu_seconds` (user and system) are those of
the whole process, medians over rounds, and `ratio` that of its CPU seconds to those of `import keras` in the same
round, with its range. Cases of a model are cumulative: `first step` imports, builds, compiles and trains one batch.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.studies import _frame as frame

COLUMNS = ("case", "seconds", "cpu_seconds", "ratio", "ratio_low", "ratio_high", "rounds")
BASE = "import keras"
_MODEL = """
import numpy as np
from mtl_zoo import BinaryTask, Categorical, MMoE
features = [Categorical(f"id_{i}", size=5000, dim=16) for i in range(30)]
model = MMoE(features, [BinaryTask("click"), BinaryTask("like")], expert_units=(128, 64), tower_units=(32,))
rng = np.random.default_rng(0)
x = {f"id_{i}": rng.integers(2, 5000, 1024).astype("int32") for i in range(30)}
y = {name: rng.integers(0, 2, 1024).astype("float32") for name in ("click", "like")}
"""
CODE = {
    "python": "",
    "import tensorflow": "import tensorflow",
    BASE: "import keras",
    "import mtl_zoo": "import mtl_zoo",
    "build": _MODEL,
    "first step": _MODEL + "model.compile('auto')\nmodel.fit(x, y, batch_size=1024, verbose=0)",
    "first score": _MODEL + "model.predict(x, verbose=0)",
}
COMMANDS = {"mtl-zoo --version": ["--version"], "mtl-zoo bench --help": ["bench", "--help"]}


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a process by the clock, and of the processor."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, started = spent(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=frame.ROOT)
    return time.perf_counter() - started, spent() - before


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.startup`."""
    cases = {name: [sys.executable, "-c", code] for name, code in CODE.items()}
    cases |= {name: [sys.executable, "-m", "mtl_zoo_cli", *words] for name, words in COMMANDS.items()}
    options: dict[str, Any] = {"rounds": 5, "cases": tuple(cases)}
    args = frame.parser(__doc__, options, out="where the rows go, anew").parse_args(arguments)
    unknown = [name for name in args.cases if name not in cases]
    if unknown:
        raise ValueError(f"`--cases` must be of {list(cases)}. Received: {unknown}")
    chosen = [name for name in cases if name in {*args.cases, BASE}]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for _ in range(args.rounds):
        for name in chosen:
            found[name].append(measure(cases[name]))
    base = [cpu for _, cpu in found[BASE]]
    rows = [
        {
            "case": name,
            "seconds": round(statistics.median(clock for clock, _ in each), 3),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in each), 3),
            **frame.ratios([cpu for _, cpu in each], base),
            "rounds": args.rounds,
        }
        for name, each in found.items()
    ]
    frame.show(frame.write(args.out, rows), COLUMNS[:4], "until something happens")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
