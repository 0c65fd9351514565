"""What pages of 2 MB for large tables are worth: a training step with and without them, in turns.

    python -m benchmarks.studies.pages --out benchmarks/results/speed/pages.csv

Two processes train the same model, an MMoE with 8 experts, on the same batches, one with MTL_ZOO_HUGE_PAGES=0. `ratio`
is the time with large pages over that without, the median over rounds with its range; `huge_mb` is what of the memory
of the process that has them lies in such pages, as Linux says, and `build_ratio` compares the times of building.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.studies import _frame as frame
from benchmarks.studies._turns import Worker, serve, take_turns
from mtl_zoo._pages import VARIABLE

COLUMNS = ("model", "vocabulary", "mirrored", "rounds", "steps", "huge_mb", "step_ms", "ratio", "ratio_low")
COLUMNS += ("ratio_high", "build_ratio")


def work(vocabulary: int, mirrored: int, steps: int) -> None:
    """What a process does: answers with the seconds of a step, or what it is asked for otherwise."""
    import time

    import tensorflow as tf

    from benchmarks.studies._steps import SMALL, Case, Timed

    if mirrored > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * mirrored
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    case = Case("mmoe", vocabulary, replicas=mirrored, hyperparameters=SMALL)
    started = time.perf_counter()
    timed = Timed(case)
    built = time.perf_counter() - started

    def answer(request: str) -> float:
        return {"built": lambda: built, "huge": huge_megabytes}.get(request, lambda: timed.parts["step"](steps))()

    serve(answer)


def huge_megabytes() -> float:
    """What of this process' memory lies in pages of 2 MB; NaN where the system does not say."""
    try:
        with open("/proc/self/smaps_rollup") as file:
            return next(float(line.split()[1]) / 1024 for line in file if line.startswith("AnonHugePages"))
    except OSError:
        return float("nan")


def measure(vocabulary: int, mirrored: int, rounds: int, steps: int) -> dict[str, float]:
    """The row of a case."""
    code = f"from benchmarks.studies import pages; pages.work({vocabulary}, {mirrored}, {steps})"
    without, ours = Worker(code, {VARIABLE: "0"}), Worker(code, {VARIABLE: "1"})
    small, large = take_turns([without, ours], ["step", "step"], rounds)
    row = {"huge_mb": round(ours.ask("huge")), "step_ms": round(statistics.median(large) * 1e3, 2)}
    row["build_ratio"] = round(ours.ask("built") / without.ask("built"), 2)
    without.close()
    ours.close()
    return {**row, **frame.ratios(large, small)}


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.pages`."""
    options = {"vocabulary": (10_000, 100_000, 1_000_000), "mirrored": (1,), "rounds": 9, "steps": 20}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    for vocabulary in args.vocabulary:
        for mirrored in args.mirrored:
            case = {"model": "mmoe", "vocabulary": vocabulary, "mirrored": mirrored}
            if not kept.has(**case):
                row = measure(vocabulary, mirrored, args.rounds, args.steps)
                kept.add({**case, "rounds": args.rounds, "steps": args.steps, **row})
    frame.show(kept.read(), COLUMNS, "a step with large pages over one without")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
