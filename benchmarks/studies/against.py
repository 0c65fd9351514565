"""Whether this checkout is as quick as another: what users call most, timed in both, in turns.

    python -m benchmarks.studies.against --base ../older --out FILE.csv

A process of each checkout does the same work on the same rows, a case at a time; the times are those of its processor,
which other work on the machine disturbs less than the clock. A ratio above 1 says that this checkout is the quicker.
`--cases models methods` are the training steps of every model, and of MMoE under every balancing method.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.studies import _frame as frame
from benchmarks.studies._turns import Worker, take_turns
from mtl_zoo import list_balancing, list_models

COLUMNS = ("case", "rounds", "base_seconds", "seconds", "ratio", "ratio_low", "ratio_high")
CASES = ("fit from memory", "fit, small batches", "fit from Parquet", "encode", "predict")
CASES += ("scorer, 1,000 rows", "scorer, 1 row")
GROUPS = {
    "models": [f"model {name}" for name in list_models()],
    "methods": [f"balancing {name}" for name in list_balancing()],
}


def _worker(root: Path, folder: str) -> Worker:
    """A process that works with the package of one checkout."""
    code = (
        f"import sys; sys.path[:0] = [{str(root)!r}]; import mtl_zoo; sys.path[:0] = [{str(frame.ROOT)!r}]; "
        f"assert mtl_zoo.__file__.startswith({str(root)!r}); "
        f"from benchmarks.studies import _work; _work.work({folder!r})"
    )
    return Worker(code, {"PYTHONPATH": ""})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    import tempfile

    args = frame.parser(__doc__ or "", {"base": str, "rounds": 15, "cases": CASES}).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        base, ours = _worker(Path(args.base).resolve(), folder), _worker(frame.ROOT, folder)
        for case in itertools.chain(*(GROUPS.get(case, [case]) for case in args.cases)):
            if kept.has(case=case):
                continue
            before, now = take_turns([base, ours], [case, case], args.rounds)
            row = {"case": case, "rounds": args.rounds, "base_seconds": round(float(np.median(before)), 4)}
            kept.add({**row, "seconds": round(float(np.median(now)), 4), **frame.ratios(before, now)})
    table = kept.read()
    frame.show(table, ["case", "rounds", "base_seconds", "seconds", "ratio"], "base / here")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
