"""Whether several devices and workers train to the weights of one process: every model, balancing method and optimizer.

One process trains a case first and keeps its weights in files; then two mirrored devices, two workers and four train
it from the same seed on the same global batches. Half of the rows have no label of one task, so that its observed rows
fall on the replicas unevenly, and on some not at all.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from rich.console import Console

from mtl_zoo.balancing import DataBased, label_frequencies, list_balancing
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.results import append_row
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.features.spec import Sequence as SequenceFeature
from mtl_zoo.models import create_model, list_models, model_info
from mtl_zoo.optimizers import OPTIMIZER_NAMES
from mtl_zoo.tasks import BinaryTask, label_names
from mtl_zoo.training.launch import launch

SETTINGS = ("mirrored 2", "workers 2", "workers 4")
COLUMNS = (
    *("setting", "model", "balancing", "optimizer", "steps", "batch", "worst", "weight", "seconds"),
    *("commit", "dirty", "versions", "hardware", "error"),
)
_STEPS, _BATCH = 50, 16
# Cases that one cluster trains after another: its start takes as long as a case.
_CASES_AT_ONCE = 8
# A weight that is smaller is rounding, such as the bias before a normalisation: it has no gradient.
_SMALLEST = 1e-3
_SMALL: dict[str, Any] = {
    "num_experts": 3,
    "num_task_experts": 2,
    "num_shared_experts": 1,
    "expert_units": (8, 6),
    "bottom_units": (8, 6),
    "column_units": (8, 8),
    "stage_units": (5,),
    "tower_units": (5,),
}


class Case(NamedTuple):
    model: str
    balancing: str = ""
    optimizer: str = "lazy_sgd"

    @property
    def key(self) -> str:
        return "-".join(part or "none" for part in self)


def all_cases() -> list[Case]:
    """Every model; every balancing method; every optimizer of ours that is not a name for another."""
    cases = [Case(model) for model in list_models()]
    cases += [Case("mmoe", balancing) for balancing in list_balancing()]
    cases += [Case("shared_bottom", "", optimizer) for optimizer in OPTIMIZER_NAMES if optimizer != "auto"]
    return list(dict.fromkeys(cases))


def small_arguments(model: str) -> dict[str, Any]:
    """Few experts and narrow layers, as far as a model has such arguments, so that its steps take no time."""
    names = inspect.signature(model_info(model).cls).parameters
    given = {argument: value for argument, value in _SMALL.items() if argument in names}
    if "backbone" in names:
        inner = small_arguments(names["backbone"].default)
        given["backbone_options"] = {a: v for a, v in inner.items() if a != "tower_units"}
    return given


def make_model(case: Case) -> Any:
    """The case's model, small, on one feature of every kind that has weights."""
    needs = model_info(case.model).requires
    middle = [BinaryTask("cart", sample_space="click")] if "middle_action" in needs else []
    tasks = [BinaryTask("click"), *middle, BinaryTask("conversion", sample_space="click"), BinaryTask("like")]
    features: list[Feature] = [
        Categorical("user_id", size=30, dim=4),
        Categorical("tags", size=8, dim=3, multi_hot=True, length=3),
        SequenceFeature("history", size=30, dim=4, length=5),
        Numeric("age"),
        Categorical("domain", size=3, dim=2),
    ]
    return create_model(case.model, features, tasks, **small_arguments(case.model))


def draw_rows(model: Any, rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    x = {
        "user_id": rng.integers(0, 32, rows).astype("int32"),
        "tags": rng.integers(0, 10, (rows, 3)).astype("int32"),
        "history": rng.integers(0, 32, (rows, 5)).astype("int32"),
        "age": rng.normal(size=rows).astype("float32"),
        "domain": rng.integers(2, 5, rows).astype("int32"),
    }
    click = (rng.random(rows) < 0.5).astype("float32")
    y = {"click": click} | {name: click * (rng.random(rows) < 0.5) for name in ("cart", "conversion")}
    y["like"] = np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows) < 0.4).astype("float32")
    return x, {name: y[name].astype("float32") for name in label_names(model.tasks)}


def compiled(case: Case, strategy: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The case's model on a strategy, ready to train, with all of its rows and labels."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = make_model(case)
        x, y = draw_rows(model, _STEPS * _BATCH)
        balancing = DataBased(label_frequencies(model, y)) if case.balancing == "data_based" else case.balancing or None
        model.compile(case.optimizer, balancing=balancing, metrics=None)
    return model, x, y


def train(case: Case, strategy: Any) -> dict[str, np.ndarray]:
    """The weights after the steps, by number and path."""
    model, x, y = compiled(case, strategy)
    model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0)
    return {f"{i} {weight.path}": weight.numpy() for i, weight in enumerate(model.weights)}


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest max|dW| / max|W| of a weight, and which."""
    gaps = [
        (float(np.abs(a - b).max() / max(np.abs(a).max(), _SMALLEST)), name)
        for (name, a), b in zip(one.items(), other.values(), strict=True)
    ]
    return max(gap if np.isfinite(gap[0]) else (np.inf, gap[1]) for gap in gaps)


def _strategy(setting: str) -> Any:
    import tensorflow as tf

    kind, count = setting.split() if " " in setting else (setting, "1")
    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * int(count)
        tf.config.set_logical_device_configuration(cpu, devices)
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(count))])
    return tf.distribute.get_strategy()


def _inside(setting: str, cases: Sequence[Case], weights: Path, out: Path) -> None:
    """What a process of a setting does; its chief writes."""
    strategy = _strategy(setting)
    is_chief = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"] == 0
    for case in cases:
        started = time.perf_counter()
        found = train(case, strategy)
        if setting == "one":
            part = weights / f"{case.key}.part.npz"
            np.savez(part, **found)  # type: ignore[arg-type]
            os.replace(part, weights / f"{case.key}.npz")
        elif is_chief:
            with np.load(weights / f"{case.key}.npz") as one:
                worst, weight = difference(dict(one), found)
            about = {"setting": setting, **case._asdict(), "steps": _STEPS, "batch": _BATCH}
            about |= {"worst": f"{worst:.3g}", "weight": weight, "seconds": round(time.perf_counter() - started, 1)}
            append_row(out, COLUMNS, about | environment.about())
        keras.backend.clear_session()


def _finished(out: Path) -> set[tuple]:
    if not out.exists():
        return set()
    table = pd.read_csv(out, keep_default_na=False)
    return {(row["setting"], Case(row["model"], row["balancing"], row["optimizer"])) for _, row in table.iterrows()}


def run_agreement(settings: Sequence[str], cases: Sequence[Case], out: Path, timeout: float = 1800.0) -> pd.DataFrame:
    """Trains what the file does not hold yet, and gives all of its rows.

    A case that fails has a row with its `error`; delete the row to try again.

    Args:
        settings: Among `SETTINGS`.
        cases: What to train.
        out: The CSV file. The weights of one process lie beside it, in a folder.
        timeout: Seconds for eight cases in one setting.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = out.with_suffix(".weights")
    weights.mkdir(exist_ok=True)

    def start(setting: str, some: Sequence[Case]) -> str | None:
        inside = ["--inside", setting, "--out", str(out), "--cases", *("/".join(case) for case in some)]
        workers = int(setting.split()[1]) if setting.startswith("workers") else 1
        command = [sys.executable, "-m", "mtl_zoo.benchmark.agreement", *inside]
        done = launch(command, workers=workers, logs=weights / "logs", timeout=timeout)
        return "; ".join(done.failures) or None

    def has_ended(setting: str, case: Case) -> bool:
        return (weights / f"{case.key}.npz").exists() if setting == "one" else (setting, case) in _finished(out)

    def failures(setting: str, some: Sequence[Case]):
        """Trains what has not ended; the cases that fail, and why: the first in turn, whose others start again."""
        todo = [case for case in some if not has_ended(setting, case)]
        while todo:
            error = start(setting, todo)
            left = [case for case in todo if not has_ended(setting, case)]
            if error is None or not left:
                return
            yield left[0], error
            todo = left[1:]

    def note(setting: str, case: Case, error: str) -> None:
        about = {"setting": setting, **case._asdict(), "steps": _STEPS, "batch": _BATCH}
        append_row(out, COLUMNS, {**about, "error": error})

    for begin in range(0, len(cases), _CASES_AT_ONCE):
        some = cases[begin : begin + _CASES_AT_ONCE]
        wanted = [case for case in some if not all(has_ended(setting, case) for setting in settings)]
        for case, error in failures("one", wanted):
            for setting in settings:
                if not has_ended(setting, case):
                    note(setting, case, f"in one process: {error}")
        # A case that failed alone has its rows now, and is not tried.
        for setting in settings:
            for case, error in failures(setting, some):
                note(setting, case, error)
    return pd.read_csv(out, keep_default_na=False)


def agreement_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.agreement`; 1 if a weight is apart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--models", nargs="+", help="only the cases of these models")
    parser.add_argument("--balancing", nargs="+", help="only the cases of these methods")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest max|dW| / max|W| that is equal")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for eight cases in one setting")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="rows are added; what is there stays"
    )
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--cases", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.inside:
        cases = [Case(*text.split("/")) for text in args.cases]
        _inside(args.inside, cases, args.out.with_suffix(".weights"), args.out)
        return 0
    cases = [case for case in all_cases() if not args.models or case.model in args.models]
    cases = [case for case in cases if not args.balancing or case.balancing in args.balancing]
    table = run_agreement(args.settings, cases, args.out, args.timeout)
    table["worst"] = pd.to_numeric(table["worst"], errors="coerce").fillna(np.inf)
    apart = table[table["worst"] > args.tolerance]
    console = Console(width=160)
    console.print(f"{len(table)} rows, {len(apart)} apart by more than {args.tolerance}", highlight=False)
    for row in apart.itertuples():
        console.print(row.setting, row.model, row.balancing, row.optimizer, row.worst, row.weight, row.error)
    return int(len(apart) > 0)


if __name__ == "__main__":
    sys.exit(agreement_main())
