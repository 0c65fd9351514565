"""Whether several devices and workers train to the weights of one process: every model, balancing method and optimizer.

One process trains a case first and keeps its weights; then two mirrored devices, two workers and four train it from the
same seed on the same global batches. Half of the rows have no label of one task, so that its observed rows fall on the
replicas unevenly, and on some not at all. Model and rows are those of the tests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.studies import _frame as frame
from mtl_zoo.balancing import DataBased, label_frequencies, list_balancing
from mtl_zoo.models import list_models
from mtl_zoo.optimizers import OPTIMIZER_NAMES
from tests import toys

SETTINGS = ("mirrored 2", "workers 2", "workers 4")
_COLUMNS = ("setting", "model", "balancing", "optimizer", "steps", "batch", "worst", "weight", "seconds")
_STEPS, _BATCH = 50, 16
# Cases that one cluster trains after another: its start takes as long as a case.
_CASES_AT_ONCE = 8
# A weight that is smaller is rounding, such as the bias before a normalisation: it has no gradient.
_SMALLEST = 1e-3

Weights = dict[str, np.ndarray]


class Case(NamedTuple):
    model: str
    balancing: str = ""
    optimizer: str = "lazy_sgd"


def all_cases() -> list[Case]:
    """Every model; every balancing method; every optimizer of ours that is not a name for another."""
    cases = [Case(model) for model in list_models()]
    cases += [Case("mmoe", balancing) for balancing in list_balancing()]
    cases += [Case("shared_bottom", "", optimizer) for optimizer in OPTIMIZER_NAMES if optimizer != "auto"]
    return list(dict.fromkeys(cases))


def train(case: Case, strategy: Any) -> Weights:
    """The weights after the steps, by number and path."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = toys.build(case.model)
        rows = _STEPS * _BATCH
        x, y = toys.inputs(rows), toys.labels_for(model, rows)
        if "like" in y:
            y["like"][np.random.default_rng(0).random(rows) < 0.5] = np.nan
        balancing = DataBased(label_frequencies(model, y)) if case.balancing == "data_based" else case.balancing or None
        model.compile(case.optimizer, balancing=balancing, metrics=None)
    model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0)
    found = {f"{i} {weight.path}": weight.numpy() for i, weight in enumerate(model.weights)}
    keras.backend.clear_session()
    return found


def difference(one: Weights, other: Weights) -> tuple[float, str]:
    """The largest max|dW| / max|W| of a weight, and which."""
    gaps = [
        (float(np.abs(a - b).max() / max(np.abs(a).max(), _SMALLEST)), name)
        for (name, a), b in zip(one.items(), other.values(), strict=True)
    ]
    return max(gap if np.isfinite(gap[0]) else (np.inf, gap[1]) for gap in gaps)


def _strategy(setting: str) -> Any:
    import tensorflow as tf

    kind, _, count = setting.partition(" ")
    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "mirrored":
        frame.use_logical_cpus(int(count))
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(count))])
    return tf.distribute.get_strategy()


def _inside(setting: str, cases: Sequence[Case], weights: Path, out: Path) -> None:
    """What a process of a setting does; the first writes weights of one process, or rows that compare with them."""
    strategy = _strategy(setting)
    for case in cases:
        started = time.perf_counter()
        found, kept = train(case, strategy), weights / f"{'-'.join(case)}.npz"
        if setting == "one":
            np.savez(kept.with_suffix(".part.npz"), **found)  # type: ignore[arg-type]
            kept.with_suffix(".part.npz").rename(kept)
        elif frame.leads():
            with np.load(kept) as one:
                worst, weight = difference(dict(one), found)
            _note(
                out, setting, case, worst=f"{worst:.3g}", weight=weight, seconds=round(time.perf_counter() - started, 1)
            )


def _note(out: Path, setting: str, case: Case, **found: Any) -> None:
    frame.Rows(out, _COLUMNS).add(
        {"setting": setting, **case._asdict(), "steps": _STEPS, "batch": _BATCH, "error": "", **found}
    )


def run_agreement(settings: Sequence[str], cases: Sequence[Case], out: Path, timeout: float = 1800.0) -> pd.DataFrame:
    """Trains what the file does not hold yet, and gives all of its rows.

    The weights of one process lie beside the file, in a folder. A case that fails has a row with its `error`; delete
    the row to try again. `timeout` are the seconds for eight cases in one setting.
    """
    rows, weights = frame.Rows(out, _COLUMNS), out.with_suffix(".weights")
    weights.mkdir(exist_ok=True)

    def has_ended(setting: str, case: Case) -> bool:
        if setting == "one":
            return (weights / f"{'-'.join(case)}.npz").exists()
        return rows.has(setting=setting, **case._asdict())

    def failures(setting: str, some: Sequence[Case]) -> Any:
        """Trains what has not ended; the cases that fail, and why: the first in turn, whose others start again."""
        todo = [case for case in some if not has_ended(setting, case)]
        workers = int(setting.split()[1]) if setting.startswith("workers") else 1
        while todo:
            try:
                frame.run(_inside, setting, todo, weights, out, workers=workers, logs=weights / "logs", timeout=timeout)
                return
            except RuntimeError as error:
                left = [case for case in todo if not has_ended(setting, case)]
                if not left:
                    return
                yield left[0], str(error)
                todo = left[1:]

    for begin in range(0, len(cases), _CASES_AT_ONCE):
        some = cases[begin : begin + _CASES_AT_ONCE]
        wanted = [case for case in some if not all(has_ended(setting, case) for setting in settings)]
        for case, error in failures("one", wanted):
            for setting in settings:
                if not has_ended(setting, case):
                    _note(out, setting, case, error=f"in one process: {error}")
        # A case that failed alone has its rows now, and is not tried.
        for setting in settings:
            for case, error in failures(setting, some):
                _note(out, setting, case, error=error)
    return rows.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.agreement`; 1 if a weight is apart."""
    parser = frame.parser(__doc__, {"settings": SETTINGS, "tolerance": 1e-5, "timeout": 1800.0})
    parser.add_argument("--models", nargs="+", help="only the cases of these models")
    parser.add_argument("--balancing", nargs="+", help="only the cases of these methods")
    args = parser.parse_args(arguments)
    cases = [case for case in all_cases() if not args.models or case.model in args.models]
    cases = [case for case in cases if not args.balancing or case.balancing in args.balancing]
    table = run_agreement(args.settings, cases, args.out, args.timeout)
    apart = table[pd.to_numeric(table["worst"], errors="coerce").fillna(np.inf) > args.tolerance]
    Console().print(f"{len(table)} rows, {len(apart)} apart by more than {args.tolerance}", highlight=False)
    frame.show(apart, (*_COLUMNS[:4], "worst", "weight", "error"))
    return int(len(apart) > 0)


if __name__ == "__main__":
    frame.start(__file__)
