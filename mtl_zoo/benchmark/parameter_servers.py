"""A table that no single machine need hold: training on parameter servers against one process, and who holds what.

The funnel with one more feature, a device: each user has 50, used by Zipf's law, and their ids are hashed to as many
rows as the table is to have. All features are one fused table, split over the servers. One process trains the same
model on the same rows; then a cluster does, and each server notes its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.memory import peak_mb
from mtl_zoo.datasets import Dataset, load_dataset
from mtl_zoo.evaluation import evaluate
from mtl_zoo.features.spec import FIRST_ID, Categorical
from mtl_zoo.models import MultiTaskModel, create_model
from mtl_zoo.options import Embedding
from mtl_zoo.training import ParameterServerTrainer, launch

DEVICES_PER_USER = 50
TASKS = ("click", "conversion")
# A multiple of the servers, so that each holds as many rows; small enough that a copy of one is little beside a share.
_SHARDS_PER_SERVER = 8
_MB = 1e6


def draw_data(table_rows: int, train_rows: int, seed: int = 0) -> Dataset:
    """`synthetic_funnel` with the feature `device_id` in place of `user_id` and `item_id`."""
    data = load_dataset("synthetic_funnel", size=train_rows, seed=seed)
    rng = np.random.default_rng([seed, 1])
    share = 1 / np.arange(1, DEVICES_PER_USER + 1)
    # What a hash gives: any row of the table, two devices on one row now and then.
    bucket = rng.integers(0, table_rows, size=(len(set(data.train.groups["user_id"])), DEVICES_PER_USER))
    for split in (data.train, data.validation, data.test):
        users = split.groups["user_id"]
        device = rng.choice(DEVICES_PER_USER, size=len(users), p=share / share.sum())
        split.inputs = {name: ids for name, ids in split.inputs.items() if name not in ("user_id", "item_id")}
        split.inputs["device_id"] = (bucket[users, device] + FIRST_ID).astype("int32")
    kept = [feature for feature in data.features if feature.name not in ("user_id", "item_id")]
    data.features = (*kept, Categorical("device_id", size=table_rows, dim=16))
    return data


def make_model(data: Dataset, shards: int) -> MultiTaskModel:
    keras.utils.set_random_seed(0)
    sizes: dict[str, Any] = {"num_experts": 4, "expert_units": (64, 32), "tower_units": (16,)}
    model = create_model("mmoe", data.features, data.tasks, embedding=Embedding(shards=shards), **sizes)
    model.compile("auto", metrics=None)
    return model


def aucs(table: pd.DataFrame) -> dict[str, float]:
    found = table[table["metric"] == "auc"].set_index("task")["value"]
    return {f"auc_{task}": round(float(found[task]), 5) for task in TASKS}


def _inside(where: str, folder: Path, table_rows: int, train_rows: int, servers: int, epochs: int, batch: int) -> None:
    """What each process runs; the one that leads writes what it found."""
    import tensorflow as tf

    tf.constant(0.0)  # starts TensorFlow
    start = peak_mb()
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"type": "chief", "index": 0}}'))["task"]
    if task["type"] == "ps":
        _note_memory(folder / f"server-{task['index']}.json", start)
    if where == "cluster" and task["type"] != "chief":
        ParameterServerTrainer(lambda: make_model(draw_data(table_rows, 1000), 1))  # serves, and makes nothing
    data = draw_data(table_rows, train_rows)
    shards = servers * _SHARDS_PER_SERVER
    began = time.perf_counter()
    found: dict[str, Any] = {"where": where}
    if where == "one":
        model = make_model(data, shards)
        found["built_seconds"] = round(time.perf_counter() - began, 1)
        began = time.perf_counter()
        model.fit(data.train.inputs, data.train.labels, batch_size=batch, epochs=epochs, verbose=0)
    else:
        trainer = ParameterServerTrainer(lambda: make_model(data, shards))
        model = trainer.model
        found["built_seconds"] = round(time.perf_counter() - began, 1)
        found["server_bytes"] = trainer.server_bytes()
        began = time.perf_counter()
        trainer.fit(data.train.inputs, data.train.labels, batch_size=batch, epochs=epochs)
    found["train_seconds"] = round(time.perf_counter() - began, 1)
    found["table_bytes"] = sum(4 * int(np.prod(v.shape)) for v in model.weights if _backend.is_table(v))
    found["variable_bytes"] = sum(4 * int(np.prod(v.shape)) for v in (*model.variables, *model.optimizer.variables))
    found["steps"] = int(model.optimizer.iterations.numpy())
    found |= aucs(evaluate(model, data.test))
    found["peak_mb"] = round(peak_mb() - start, 1)
    (folder / f"{where}.json").write_text(json.dumps(found), encoding="utf-8")


def _note_memory(path: Path, start: float) -> None:
    def note():
        while True:
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"start_mb": start, "peak_mb": peak_mb()}), encoding="utf-8")
            os.replace(part, path)
            time.sleep(0.5)

    threading.Thread(target=note, daemon=True).start()


def measure_parameter_servers(
    folder: Path,
    *,
    table_rows: int = 20_000_000,
    train_rows: int = 500_000,
    servers: int = 2,
    workers: int = 3,
    epochs: int = 1,
    batch: int = 1024,
    timeout: float = 3000.0,
) -> pd.DataFrame:
    """Trains in one process and on a cluster: a row for each, and one for each server.

    Columns: `where` ("one", "cluster", "server 0" ...), the settings, `auc_click` and `auc_conversion` on the test
    split, `steps`, `built_seconds`, `train_seconds`, `held_mb` (bytes of weights and slots that it holds), `peak_mb`
    (its largest resident memory over that at its start, building included), `share_mb` (an equal share of all weights
    and slots), and what the figures depend on.

    Args:
        folder: Where logs and what the processes found lie.
        table_rows, train_rows, epochs, batch: Of the data, and of training; `batch` is that of a worker's step.
        servers, workers: Of the cluster, beside its chief.
        timeout: Seconds for each of the two.

    Raises:
        RuntimeError: A process failed; its log's place is told.
    """
    for name, value in (("table_rows", table_rows), ("servers", servers), ("workers", workers), ("epochs", epochs)):
        check.check_int(name, value)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"table_rows": table_rows, "train_rows": train_rows, "servers": servers, "workers": workers}
    settings |= {"epochs": epochs, "batch": batch}
    rows = []
    for where in ("one", "cluster"):
        inside = [str(value) for value in (where, folder, table_rows, train_rows, servers, epochs, batch)]
        command = [sys.executable, "-m", "mtl_zoo.benchmark.parameter_servers", *inside]
        size = {"workers": workers, "servers": servers} if where == "cluster" else {"workers": 1}
        done = launch(command, logs=folder / where, timeout=timeout, **size)  # type: ignore[arg-type]
        if done.code:
            raise RuntimeError(f"Training failed: {'; '.join(done.failures)}. Its logs lie in {folder / where}")
        found = json.loads((folder / f"{where}.json").read_text(encoding="utf-8"))
        held = found.pop("server_bytes", [])
        variables = found.pop("variable_bytes")
        found["table_mb"] = round(found.pop("table_bytes") / _MB, 1)
        rows.append(settings | found | ({"held_mb": round(variables / _MB, 1)} if where == "one" else {}))
        for index, size_held in enumerate(held):
            memory = json.loads((folder / f"server-{index}.json").read_text(encoding="utf-8"))
            server = {"where": f"server {index}", "held_mb": round(size_held / _MB, 1)}
            server |= {"peak_mb": round(memory["peak_mb"] - memory["start_mb"], 1)}
            rows.append(settings | server | {"share_mb": round(variables / servers / _MB, 1)})
    about = environment.about()
    return pd.DataFrame([row | about for row in rows])


def parameter_servers_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.parameter_servers`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parameter_servers", description=__doc__.splitlines()[0])
    parser.add_argument("--table-rows", type=int, default=20_000_000)
    parser.add_argument("--train-rows", type=int, default=500_000)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1024, help="rows of a worker's step")
    parser.add_argument("--folder", type=Path, required=True, help="for logs and what the processes found")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    args = vars(parser.parse_args(arguments))
    out = args.pop("out")
    table = measure_parameter_servers(**args)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False)
    shown = ["where", "auc_click", "auc_conversion", "steps", "train_seconds", "held_mb", "share_mb", "peak_mb"]
    Console(width=160).print(table[shown].to_string(index=False), highlight=False)
    return 0


if __name__ == "__main__":
    _where, _folder, *_numbers = sys.argv[1:]
    _inside(_where, Path(_folder), *map(int, _numbers))
