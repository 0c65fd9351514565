"""What all studies share: a command line, processes that measure one case each, rows that are kept, a table to look at.

A study is a module with `main(arguments)`; the rest of it is what it measures. Where a process of its own is needed, or
a cluster of them, `run` calls a function of the study there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.results import append_row
from mtl_zoo.training.launch import Launched, launch

ROOT = Path(__file__).parents[2]
ABOUT = ("commit", "dirty", "versions", "hardware")


def parser(text: str, defaults: Mapping[str, Any], out: str = "rows are added; what is there stays"):
    """A parser with `--out` and an option for each default: a number, a tuple (of one type, any number), True or False.

    A default that is a type stands for an option without a default.
    """
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            made.add_argument(option, action="store_true")
        elif isinstance(default, tuple):
            made.add_argument(option, nargs="+", type=type(default[0]), default=list(default))
        elif isinstance(default, type):
            made.add_argument(option, type=default)
        else:
            made.add_argument(option, type=type(default), default=default)
    made.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help=out)
    return made


def start(file: str) -> None:
    """Runs the study in `file` as a command, under its own name, by which child processes find its functions."""
    sys.exit(importlib.import_module(f"benchmarks.studies.{Path(file).stem}").main())


def run(
    function: Callable[..., Any],
    *arguments: Any,
    logs: Path | None = None,
    environ: Mapping[str, str] | None = None,
    **cluster: Any,
) -> tuple[Any, Launched]:
    """Calls `function(*arguments)` in a process of its own, or in each process of a cluster.

    Args:
        function: A function at the top of a module; its arguments can be pickled.
        logs: Where the processes' logs are kept. Default: nowhere.
        environ: Variables of the processes, beside those of this one.
        **cluster: Of `mtl_zoo.training.launch`: `workers` (1), `servers`, `restarts`, `timeout`, `started`.

    Returns:
        What the function returned in the process that leads (with servers the chief, else the first), and how it ended.

    Raises:
        RuntimeError: A process failed; the end of its log is told.
    """
    with tempfile.TemporaryDirectory() as folder:
        call, answer, place = Path(folder, "call"), Path(folder, "answer"), logs or Path(folder, "logs")
        call.write_bytes(pickle.dumps((function, arguments)))
        command = [sys.executable, "-m", "benchmarks.studies._frame", str(call), str(answer)]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = launch(
            command, logs=place, environment={"PYTHONPATH": paths, **(environ or {})}, **{"workers": 1, **cluster}
        )
        if done.code:
            log = place / f"{done.failures[-1].split(':')[0]}.log"
            words = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:] if log.exists() else ""
            where = "" if logs is None else f" (logs in {logs})"
            raise RuntimeError(f"{'; '.join(done.failures)}{where}: {words}")
        return pickle.loads(answer.read_bytes()), done


def task_of_process() -> dict[str, Any]:
    """`type` and `index` of this process in its cluster; alone it is the first worker."""
    return json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {"type": "worker", "index": 0})


def leads() -> bool:
    """Whether this process is the one whose answer counts."""
    cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    return task_of_process() == {"type": "chief" if "chief" in cluster else "worker", "index": 0}


def _inside(call: str, answer: str) -> None:
    function, arguments = pickle.loads(Path(call).read_bytes())
    found = function(*arguments)
    if leads():
        Path(answer).write_bytes(pickle.dumps(found))


class Rows:
    """Rows of a CSV file, added as they come; a study that was cut short goes on after them.

    Args:
        out: The file.
        columns: Its columns, before those on what the figures depend on.
    """

    def __init__(self, out: Path, columns: Sequence[str]):
        self.path, self.columns = out, (*columns, *ABOUT, "error")
        out.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> pd.DataFrame:
        if not self.path.exists():
            return pd.DataFrame(columns=list(self.columns))
        return pd.read_csv(self.path, keep_default_na=False)

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        table = self.read()
        same = pd.Series(True, index=table.index)
        for name, value in key.items():
            same &= table[name].astype(str) == str(value)
        return bool(same.any())

    def add(self, row: Mapping[str, Any]) -> None:
        append_row(self.path, self.columns, {**environment.about(), **row})


def write(out: Path, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a new file, and as a table."""
    about = environment.about()
    table = pd.DataFrame([{**row, **about} for row in rows])
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False)
    return table


def show(table: pd.DataFrame, columns: Sequence[str], title: str = "") -> None:
    """Columns of a table on the terminal; a ratio with its range, where it has one."""
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        cells = {column: "" if row.get(column) is None else str(row.get(column)) for column in columns}
        if "ratio_low" in row and "ratio" in cells:
            cells["ratio"] = f"{row['ratio']:.3f} ({row['ratio_low']:.3f}-{row['ratio_high']:.3f})"
        shown.add_row(*cells.values())
    Console(width=180).print(shown)


def use_logical_cpus(count: int) -> None:
    """Splits the processor into devices, for a MirroredStrategy over them; before TensorFlow starts."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def ratios(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """`ratio`, `ratio_low`, `ratio_high`: of times to those of the same round, the median over rounds and the range."""
    found = sorted(one / other for one, other in zip(times, base, strict=True))
    middle = pd.Series(found).median()
    return {"ratio": round(middle, 4), "ratio_low": round(found[0], 4), "ratio_high": round(found[-1], 4)}


if __name__ == "__main__":
    _inside(*sys.argv[1:])
