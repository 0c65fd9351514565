"""Whether training survives that one of its processes is killed: a worker, the chief, a server; at any moment.

A cluster on this machine trains a small model with checkpoints, and `launch` starts it again after a failure. At a
moment drawn from a seed one process gets SIGKILL: while the cluster starts, at some step, or as a checkpoint is
written. Synchronous training must end with the weights of training that was left alone, and do no more steps again
than lie between two checkpoints. On parameter servers, where two runs differ anyway, every row must have been trained,
no more steps again than that and those in flight, and the final loss must lie where those of runs left alone do.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from scipy import stats

from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.agreement import difference
from mtl_zoo.benchmark.results import append_row
from mtl_zoo.features.spec import FIRST_ID, Categorical, Numeric
from mtl_zoo.models import create_model
from mtl_zoo.options import MLP, Embedding
from mtl_zoo.tasks import BinaryTask
from mtl_zoo.training import Checkpoints, ParameterServerTrainer, launch

COLUMNS = (
    *("setting", "role", "number", "moment", "at", "killed", "seen", "writing", "survived", "attempts", "steps"),
    *("again", "untrained", "loss", "difference", "allowed", "seconds", "commit", "dirty", "versions", "hardware"),
    "error",
)
EVERY_STEPS = 5
_BATCH = 16
_AHEAD = 2
# Of a weight, in parts of its largest value.
_EQUAL = 1e-5
# Runs left alone that say how far losses on parameter servers lie apart, and how sure the interval is.
_ALONE, _CONFIDENCE = 6, 0.999
# Only the table of row numbers is so wide, by which its weights are found.
_ROW_DIM = 3
_LONGEST_START = 10.0
_LOOK_SECONDS = 0.001
_SEEDS = {"worker": 1, "chief": 2, "server": 3}


class Setting(NamedTuple):
    """A cluster, and what it trains."""

    workers: int
    servers: int
    rows: int
    epochs: int

    @property
    def steps(self) -> int:
        """Of the whole run; the last batch of an epoch is short."""
        return self.epochs * -(-self.rows // _BATCH)

    @property
    def in_flight(self) -> int:
        return self.workers * _AHEAD if self.servers else 0


SETTINGS = {
    "workers": Setting(workers=2, servers=0, rows=2005, epochs=2),
    # One epoch, so that a row that no step has seen shows.
    "servers": Setting(workers=2, servers=2, rows=4005, epochs=1),
}


class Kill(NamedTuple):
    """Whom to kill, and when.

    Args:
        process: Its name in the cluster, such as `worker-1`.
        moment: `"start"`, `delay` seconds after the processes were started; `"step"`, `delay` seconds after step `at`;
            `"checkpoint"`, as soon as step `at` has ended, after which a checkpoint is written.
        at: The step, from 1; 0 for the start.
        delay: Seconds.
    """

    process: str
    moment: str
    at: int
    delay: float


def draw_kill(setting: Setting, role: str, number: int) -> Kill:
    """The kill of a number; the same one each time."""
    rng = np.random.default_rng([_SEEDS[role], number])
    index = int(rng.integers(setting.servers)) if role == "server" else 0
    if setting.servers:
        process = {"chief": "chief-0", "worker": f"worker-{rng.integers(setting.workers)}", "server": f"ps-{index}"}[
            role
        ]
    else:
        process = {"chief": "worker-0", "worker": f"worker-{rng.integers(1, setting.workers)}"}[role]
    moment = str(rng.choice(["start", "step", "checkpoint"], p=[0.1, 0.5, 0.4]))
    if moment == "start":
        return Kill(process, moment, 0, float(rng.uniform(0, _LONGEST_START)))
    # Early enough that the process still runs when the signal comes.
    at = int(rng.integers(1, setting.steps - 4 * EVERY_STEPS))
    if moment == "checkpoint":
        return Kill(process, moment, -(-at // EVERY_STEPS) * EVERY_STEPS, 0.0)
    return Kill(process, moment, at, float(rng.uniform(0, 0.01)))


# What the processes of a cluster run.


def make_model(setting: Setting) -> Any:
    keras.utils.set_random_seed(3)
    features = [
        Categorical("row", size=setting.rows, dim=_ROW_DIM),
        Categorical("user_id", size=50, dim=4),
        Numeric("age"),
    ]
    tasks = [BinaryTask("click"), BinaryTask("like")]
    # tanh, so that no unit is dead and every row has a gradient.
    sizes: dict[str, Any] = {"bottom_units": MLP((16,), activation="tanh"), "tower_units": MLP((4,), activation="tanh")}
    model = create_model("shared_bottom", features, tasks, embedding=Embedding(shards=max(1, setting.servers)), **sizes)
    model.compile("auto", metrics=None)
    return model


def draw_rows(setting: Setting) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    count = setting.rows
    user, age = rng.integers(0, 50, count), rng.normal(size=count)
    click = rng.random(count) < 1 / (1 + np.exp(-(age + np.sin(user))))
    x = {
        "row": (np.arange(count) + FIRST_ID).astype("int32"),
        "user_id": (user + FIRST_ID).astype("int32"),
        "age": age.astype("float32"),
    }
    like = np.where(rng.random(count) < 0.5, np.nan, click & (rng.random(count) < 0.4))
    return x, {"click": click.astype("float32"), "like": like.astype("float32")}


class _Note(keras.callbacks.Callback):
    """Adds a line to a file after each step: who reads it knows where training is."""

    def __init__(self, path: Path, word: str, saves: Checkpoints):
        super().__init__()
        self._path, self._word, self._saves = path, word, saves

    def on_train_begin(self, logs=None):
        resumed = self._saves.resumed_from
        self._total = 0 if resumed is None else resumed.total
        self._file = open(self._path, "a", buffering=1, encoding="utf-8")

    def on_train_batch_end(self, batch, logs=None):
        self._total += 1
        self._file.write(f"{self._word} {self._total}\n")

    def on_train_end(self, logs=None):
        self._file.close()


def _values(weight) -> np.ndarray:
    """A copy: what a variable shows of itself may change with it."""
    return np.array(keras.ops.convert_to_numpy(weight))


def _row_weights(model) -> list[np.ndarray]:
    return [_values(weight) for weight in model.weights if tuple(weight.shape)[1:] == (_ROW_DIM,)]


def train(setting: Setting, folder: Path, strategy: Any = None) -> dict[str, np.ndarray]:
    """Arrays by name: the weights, and what says whether all was trained. Without a strategy, on parameter servers."""
    x, y = draw_rows(setting)
    saves = Checkpoints(folder / "run", every_steps=EVERY_STEPS)
    callbacks = [_Note(folder / "steps.txt", "step", saves), saves, _Note(folder / "steps.txt", "after", saves)]
    options: dict[str, Any] = {"batch_size": _BATCH, "epochs": setting.epochs, "verbose": 0}
    if strategy is None:
        trainer = ParameterServerTrainer(lambda: make_model(setting), ahead=_AHEAD)
        model, fit = trainer.model, trainer.fit
    else:
        with strategy.scope():
            model = make_model(setting)
        fit = model.fit
        if json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0):
            callbacks = [saves]  # one process notes
    before = _row_weights(model)
    history = fit(x, y, callbacks=callbacks, **options).history
    found = {f"weight {i} {weight.path}": _values(weight) for i, weight in enumerate(model.weights)}
    moved = sum(int((a != b).any(1).sum()) for a, b in zip(before, _row_weights(model), strict=True))
    found["untrained"] = np.array(setting.rows - moved)
    found["steps"] = np.array(int(model.optimizer.iterations.numpy()))
    found["epoch_loss"] = np.array(history["loss"][-1])
    scores = model.predict({name: values[:1024] for name, values in x.items()}, batch_size=512, verbose=0)["click"]
    chance, click = np.clip(scores.ravel(), 1e-7, 1 - 1e-7).astype("float64"), y["click"][:1024]
    found["loss"] = np.array(-np.mean(np.where(click == 1, np.log(chance), np.log(1 - chance))))
    return found


def _inside(folder: Path, setting: Setting) -> None:
    import tensorflow as tf

    found = train(setting, folder, None if setting.servers else tf.distribute.MultiWorkerMirroredStrategy())
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    if task["type"] == "chief" or task["index"] == 0:
        np.savez(folder / "found.npz", **found)  # type: ignore[arg-type]


# What starts them.


class _Killer:
    """Kills one process of the first attempt."""

    def __init__(self, kill: Kill, folder: Path):
        self._kill, self._folder = kill, folder
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.found: dict[str, Any] = {"killed": False, "seen": "", "writing": False}

    def started(self, process_ids: dict[str, int]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(process_ids[self._kill.process],), daemon=True)
            self._thread.start()

    def _run(self, process_id: int) -> None:
        notes = self._folder / "steps.txt"
        awaited = f"step {self._kill.at}\n".encode()
        while self._kill.at and not (notes.exists() and awaited in notes.read_bytes()):
            if self._ended.wait(_LOOK_SECONDS):
                return
        if self._ended.wait(self._kill.delay):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
            self.found["killed"] = True
        lines = notes.read_text().split("\n")[:-1] if notes.exists() else []
        self.found["seen"] = lines[-1] if lines else ""
        self.found["writing"] = any((self._folder / "run").glob("*.part"))

    def end(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()


def steps_again(notes: str) -> int:
    """How many steps were noted more than once."""
    steps = [line for line in notes.splitlines() if line.startswith("step ")]
    return len(steps) - len(set(steps))


def run_case(setting: Setting, kill: Kill | None, folder: Path, timeout: float = 1800.0) -> dict[str, Any]:
    """Trains once, with a kill or without; what the columns of that name say, and `weights` by name.

    Raises:
        RuntimeError: Training did not end well.
    """
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "mtl_zoo.benchmark.faults", str(folder), json.dumps(setting)]
    killer = None if kill is None else _Killer(kill, folder)
    root = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
    began = time.perf_counter()
    try:
        done = launch(
            command,
            workers=setting.workers,
            servers=setting.servers,
            restarts=0 if kill is None else 1,
            logs=folder,
            timeout=timeout,
            environment=root,
            started=None if killer is None else killer.started,
        )
    finally:
        if killer is not None:
            killer.end()
    if done.code:
        raise RuntimeError("; ".join(done.failures))
    with np.load(folder / "found.npz") as file:
        found = dict(file)
    row = {} if killer is None or kill is None else {"moment": kill.moment, "at": kill.at, **killer.found}
    row |= {"attempts": done.attempts, "again": steps_again((folder / "steps.txt").read_text())}
    row |= {"steps": int(found["steps"]), "untrained": int(found["untrained"]), "loss": float(found["loss"])}
    row["epoch_loss"] = float(found["epoch_loss"])
    row["seconds"] = round(time.perf_counter() - began, 1)
    row["weights"] = {name: values for name, values in found.items() if name.startswith("weight ")}
    return row


def faults_of(setting: Setting, row: dict[str, Any]) -> list[str]:
    """What is wrong with a run in which one process was killed once; none if it has survived.

    Args:
        setting: The cluster.
        row: From `run_case`; with `difference` and `allowed` these are judged too.
    """
    most = EVERY_STEPS + setting.in_flight
    wrong = {
        "nothing was killed": not row["killed"],
        f"{row['attempts']} attempts": row["attempts"] != 2,
        f"{row['steps']} steps of {setting.steps}": not 0 <= row["steps"] - setting.steps <= setting.in_flight,
        f"{row['again']} steps again": row["again"] > most,
        f"{row['untrained']} rows untrained": row["untrained"] != 0,
        f"difference {row.get('difference', 0)}": not row.get("difference", 0) <= row.get("allowed", 0),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def _read(out: Path) -> pd.DataFrame:
    return pd.read_csv(out, keep_default_na=False) if out.exists() else pd.DataFrame(columns=list(COLUMNS))


def run_faults(
    roles: Sequence[str], times: int, out: Path, setting: str | None = None, timeout: float = 600.0
) -> pd.DataFrame:
    """Kills what the file does not hold yet, and gives all of its rows.

    Rows of the role `none` are runs that were left alone, to which the others are compared. A run that fails has a row
    with its `error`, and has not survived.

    Args:
        roles: Among `worker`, `chief` and `server`.
        times: Kills of each.
        out: The CSV file. Logs and weights lie beside it, in a folder; where that is missing, one run is left alone
            again, for its weights.
        setting: Among `SETTINGS`. Default: `servers` for a server, else `workers`.
        timeout: Seconds for one attempt of a run.
    """
    check.check_int("times", times)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_suffix(".runs")

    def run(name: str, role: str, number: int, kill: Kill | None) -> None:
        table = _read(out)
        is_kept = ((table["setting"] == name) & (table["role"] == role) & (table["number"] == number)).any()
        lacks_weights = kill is None and not SETTINGS[name].servers and not (folder / f"{name}-{number}.npz").exists()
        if is_kept and not lacks_weights:
            return
        row: dict[str, Any] = {"setting": name, "role": role, "number": number}
        place = folder / f"{name}-{role}-{number}-{time.time_ns()}"
        try:
            row |= run_case(SETTINGS[name], kill, place, timeout)
        except RuntimeError as error:
            row["error"] = f"{error}; its logs are in {place.name}"
        if "error" not in row and kill is None:
            np.savez(folder / f"{name}-{number}.npz", **row["weights"])
        if kill is not None:
            row["survived"] = False
        if "error" not in row and kill is not None:
            row |= _compare(name, row, table, folder)
            wrong = faults_of(SETTINGS[name], row)
            row |= {"survived": not wrong, "error": "; ".join(wrong)}
        if not is_kept:
            append_row(out, COLUMNS, row | environment.about())

    # In turn, so that a file that was cut short has some of each.
    for number, role in itertools.product(range(times), roles):
        name = setting or ("servers" if role == "server" else "workers")
        for alone in range(_ALONE if SETTINGS[name].servers else 1):
            run(name, "none", alone, None)
        run(name, role, number, draw_kill(SETTINGS[name], role, number))
    return _read(out)


def _compare(name: str, row: dict[str, Any], table: pd.DataFrame, folder: Path) -> dict[str, float]:
    """`difference` from the runs that were left alone, and how much is `allowed`."""
    if not SETTINGS[name].servers:
        with np.load(folder / f"{name}-0.npz") as alone:
            worst, _ = difference(dict(alone), row["weights"])
        return {"difference": float(f"{worst:.3g}"), "allowed": _EQUAL}
    losses = table[(table["setting"] == name) & (table["role"] == "none")]["loss"].astype(float)
    # Where one more run lies that is like the others.
    width = stats.t.ppf((1 + _CONFIDENCE) / 2, len(losses) - 1) * losses.std() * np.sqrt(1 + 1 / len(losses))
    return {"difference": round(abs(row["loss"] - losses.mean()), 6), "allowed": round(float(width), 6)}


def faults_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.faults`; 1 if a kill was not survived."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kill", nargs="+", default=list(_SEEDS), choices=list(_SEEDS))
    parser.add_argument("--times", type=int, default=20, help="kills of each")
    parser.add_argument("--setting", choices=list(SETTINGS), help="default: servers for a server, else workers")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="rows are added; what is there stays"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one attempt of a run")
    args = parser.parse_args(arguments)
    table = run_faults(args.kill, args.times, args.out, args.setting, args.timeout)
    killed = table[table["role"] != "none"]
    is_well = killed["survived"].astype(str) == "True"
    console = Console(width=160)
    for (name, role), group in is_well.groupby([killed["setting"], killed["role"]]):
        console.print(f"{name}: {group.sum()} of {len(group)} kills of a {role} survived", highlight=False)
    for row in killed[~is_well].itertuples():
        console.print(row.setting, row.role, row.number, row.error)
    return int(not is_well.all())


if __name__ == "__main__":
    _inside(Path(sys.argv[1]), Setting(*json.loads(sys.argv[2])))
