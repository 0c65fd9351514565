"""Whether training survives that one of its processes is killed: a worker, the chief, a server; at any moment.

A cluster on this machine trains a small model with checkpoints, and `launch` starts it again after a failure. At a
moment drawn from a seed one process gets SIGKILL: while the cluster starts, at some step, or as a checkpoint is
written. Synchronous training must end with the weights of training that was left alone, and do no more steps again
than lie between two checkpoints. On parameter servers, where two runs differ anyway, every row must have been trained,
no more steps again than that and those in flight, and the final loss must lie where those of runs left alone do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
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

from benchmarks.studies import _frame as frame
from benchmarks.studies.agreement import difference
from mtl_zoo.features.spec import FIRST_ID, Categorical, Numeric
from mtl_zoo.models import create_model
from mtl_zoo.options import MLP, Embedding
from mtl_zoo.tasks import BinaryTask
from mtl_zoo.training import Checkpoints, ParameterServerTrainer

_COLUMNS = (
    *("setting", "role", "number", "moment", "at", "killed", "seen", "writing", "survived", "attempts", "steps"),
    *("again", "untrained", "loss", "difference", "allowed", "seconds"),
)
EVERY_STEPS = 5
_BATCH, _AHEAD = 16, 2
# Of a weight, in parts of its largest value.
_EQUAL = 1e-5
# Runs left alone that say how far losses on parameter servers lie apart, and how sure the interval is.
_ALONE, _CONFIDENCE = 6, 0.999
# Only the table of row numbers is so wide, by which its weights are found.
_ROW_DIM = 3
_LONGEST_START, _LOOK_SECONDS = 10.0, 0.001
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
    first_worker = 0 if setting.servers else 1  # without servers worker 0 is the chief
    process = {
        "chief": lambda: "chief-0" if setting.servers else "worker-0",
        "worker": lambda: f"worker-{rng.integers(first_worker, setting.workers)}",
        "server": lambda: f"ps-{index}",
    }[role]()
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
    x = {"row": np.arange(count) + FIRST_ID, "user_id": user + FIRST_ID}
    inputs = {name: ids.astype("int32") for name, ids in x.items()} | {"age": age.astype("float32")}
    like = np.where(rng.random(count) < 0.5, np.nan, click & (rng.random(count) < 0.4))
    return inputs, {"click": click.astype("float32"), "like": like.astype("float32")}


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


def _values(weight: Any) -> np.ndarray:
    """A copy: what a variable shows of itself may change with it."""
    return np.array(keras.ops.convert_to_numpy(weight))


def train(setting: Setting, folder: Path, strategy: Any = None) -> dict[str, Any]:
    """`weights` by name, and what says whether all was trained. Without a strategy, on parameter servers."""
    x, y = draw_rows(setting)
    saves = Checkpoints(folder / "run", every_steps=EVERY_STEPS)
    callbacks = [_Note(folder / "steps.txt", "step", saves), saves, _Note(folder / "steps.txt", "after", saves)]
    if strategy is None:
        trainer = ParameterServerTrainer(lambda: make_model(setting), ahead=_AHEAD)
        model, fit = trainer.model, trainer.fit
    else:
        with strategy.scope():
            model = make_model(setting)
        fit = model.fit
        if frame.task_of_process()["index"]:
            callbacks = [saves]  # one process notes
    of_rows = [weight for weight in model.weights if tuple(weight.shape)[1:] == (_ROW_DIM,)]
    before = [_values(weight) for weight in of_rows]
    fit(x, y, callbacks=callbacks, batch_size=_BATCH, epochs=setting.epochs, verbose=0)
    moved = sum(int((a != _values(b)).any(1).sum()) for a, b in zip(before, of_rows, strict=True))
    scores = model.predict({name: values[:1024] for name, values in x.items()}, batch_size=512, verbose=0)["click"]
    chance, click = np.clip(scores.ravel(), 1e-7, 1 - 1e-7).astype("float64"), y["click"][:1024]
    return {
        "weights": {f"{i} {weight.path}": _values(weight) for i, weight in enumerate(model.weights)},
        "untrained": setting.rows - moved,
        "steps": int(model.optimizer.iterations.numpy()),
        "loss": float(-np.mean(np.where(click == 1, np.log(chance), np.log(1 - chance)))),
    }


def _inside(setting: Setting, folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    return train(setting, folder, None if setting.servers else tf.distribute.MultiWorkerMirroredStrategy())


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


def run_case(setting: Setting, kill: Kill | None, folder: Path, timeout: float = 600.0) -> dict[str, Any]:
    """Trains once, with a kill or without; what the columns of that name say, and `weights` by name."""
    folder.mkdir(parents=True)
    killer = None if kill is None else _Killer(kill, folder)
    size = {"workers": setting.workers, "servers": setting.servers, "restarts": 0 if kill is None else 1}
    began = time.perf_counter()
    try:
        started = None if killer is None else killer.started
        found, done = frame.run(_inside, setting, folder, logs=folder, timeout=timeout, started=started, **size)
    finally:
        if killer is not None:
            killer.end()
    row = {} if killer is None or kill is None else {"moment": kill.moment, "at": kill.at, **killer.found}
    row |= {"attempts": done.attempts, "again": steps_again((folder / "steps.txt").read_text())}
    return row | found | {"seconds": round(time.perf_counter() - began, 1)}


def faults_of(setting: Setting, row: dict[str, Any]) -> list[str]:
    """What is wrong with a run in which one process was killed once; none if it has survived.

    With `difference` and `allowed` in `row` these are judged too.
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


def run_faults(
    roles: Sequence[str], times: int, out: Path, setting: str | None = None, timeout: float = 600.0
) -> pd.DataFrame:
    """Kills what the file does not hold yet, `times` for each role, and gives all of its rows.

    Rows of the role `none` are runs that were left alone, to which the others are compared. A run that fails has a row
    with its `error`, and has not survived. Logs and weights lie beside the file, in a folder; where that is missing,
    one run is left alone again, for its weights. Servers are killed in the setting `servers`, others in `workers`.
    """
    rows, folder = frame.Rows(out, _COLUMNS), out.with_suffix(".runs")

    def run(name: str, role: str, number: int, kill: Kill | None) -> None:
        row: dict[str, Any] = {"setting": name, "role": role, "number": number}
        is_kept = rows.has(**row)
        lacks_weights = kill is None and not SETTINGS[name].servers and not (folder / f"{name}-{number}.npz").exists()
        if is_kept and not lacks_weights:
            return
        try:
            row |= run_case(SETTINGS[name], kill, folder / f"{name}-{role}-{number}-{time.time_ns()}", timeout)
        except RuntimeError as error:
            row |= {"error": str(error), "survived": "" if kill is None else False}
        else:
            if kill is None:
                np.savez(folder / f"{name}-{number}.npz", **row["weights"])
            else:
                row |= _compare(name, row, rows.read(), folder)
                wrong = faults_of(SETTINGS[name], row)
                row |= {"survived": not wrong, "error": "; ".join(wrong)}
        if not is_kept:
            rows.add(row)

    # In turn, so that a file that was cut short has some of each.
    for number, role in itertools.product(range(times), roles):
        name = setting or ("servers" if role == "server" else "workers")
        for alone in range(_ALONE if SETTINGS[name].servers else 1):
            run(name, "none", alone, None)
        run(name, role, number, draw_kill(SETTINGS[name], role, number))
    return rows.read()


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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.faults`; 1 if a kill was not survived."""
    parser = frame.parser(__doc__, {"kill": tuple(_SEEDS), "times": 20, "timeout": 600.0, "setting": str})
    args = parser.parse_args(arguments)
    table = run_faults(args.kill, args.times, args.out, args.setting, args.timeout)
    killed = table[table["role"] != "none"]
    is_well = killed["survived"].astype(str) == "True"
    for (name, role), group in is_well.groupby([killed["setting"], killed["role"]]):
        Console().print(f"{name}: {group.sum()} of {len(group)} kills of a {role} survived", highlight=False)
    frame.show(killed[~is_well], ("setting", "role", "number", "error"))
    return int(not is_well.all())


if __name__ == "__main__":
    frame.start(__file__)
