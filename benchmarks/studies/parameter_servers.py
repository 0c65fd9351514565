"""A table that no single machine need hold: training on parameter servers against one process, and who holds what.

The funnel with one more feature, a device: each user has 50, used by Zipf's law, and their ids are hashed to as many
rows as the table is to have. All features are one fused table, split over the servers. One process trains the same
model on the same rows; then a cluster does, and each server notes its memory.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.studies import _frame as frame
from benchmarks.studies.memory import peak_mb
from mtl_zoo import _backend
from mtl_zoo.datasets import Dataset, load_dataset
from mtl_zoo.datasets.synthetic_funnel import NUM_USERS
from mtl_zoo.evaluation import evaluate
from mtl_zoo.features.spec import FIRST_ID, Categorical
from mtl_zoo.models import MultiTaskModel, create_model
from mtl_zoo.options import Embedding
from mtl_zoo.training import ParameterServerTrainer

DEVICES_PER_USER = 50
# A multiple of the servers, so that each holds as many rows; small enough that a copy of one is little beside a share.
_SHARDS_PER_SERVER = 8
_MB = 1e6
_SIZES = {"table_rows": 20_000_000, "train_rows": 500_000, "servers": 2, "workers": 3, "epochs": 1, "batch": 1024}


def draw_data(table_rows: int, train_rows: int, seed: int = 0) -> Dataset:
    """`synthetic_funnel` with the feature `device_id` in place of `user_id` and `item_id`."""
    data = load_dataset("synthetic_funnel", size=train_rows, seed=seed)
    rng = np.random.default_rng([seed, 1])
    share = 1 / np.arange(1, DEVICES_PER_USER + 1)
    # What a hash gives: any row of the table, two devices on one row now and then.
    bucket = rng.integers(0, table_rows, size=(NUM_USERS, DEVICES_PER_USER))
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


def _inside(is_cluster: bool, folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """What each process runs."""
    import tensorflow as tf

    tf.constant(0.0)  # starts TensorFlow
    start, task = peak_mb(), frame.task_of_process()
    if task["type"] == "ps":
        _note_memory(folder / f"server-{task['index']}.json", start)
    if is_cluster and not frame.leads():
        # Serves, and makes nothing.
        ParameterServerTrainer(lambda: make_model(draw_data(sizes["table_rows"], 1000), 1))
    data = draw_data(sizes["table_rows"], sizes["train_rows"])
    shards = sizes["servers"] * _SHARDS_PER_SERVER
    began = time.perf_counter()
    held = None
    if is_cluster:
        trainer = ParameterServerTrainer(lambda: make_model(data, shards))
        model, fit, held = trainer.model, trainer.fit, trainer.server_bytes()
    else:
        model = make_model(data, shards)
        fit = model.fit
    built = time.perf_counter()
    fit(data.train.inputs, data.train.labels, batch_size=sizes["batch"], epochs=sizes["epochs"], verbose=0)
    ended = time.perf_counter()
    table = evaluate(model, data.test)
    auc = table[table["metric"] == "auc"].set_index("task")["value"]

    def size_mb(variables: Any) -> float:
        return sum(4 * math.prod(v.shape) for v in variables) / _MB

    return {
        **{"built_seconds": round(built - began, 1), "train_seconds": round(ended - built, 1)},
        "steps": int(model.optimizer.iterations.numpy()),
        **{f"auc_{name}": round(float(auc[name]), 5) for name in ("click", "conversion")},
        "peak_mb": round(peak_mb() - start, 1),
        "table_mb": round(size_mb(v for v in model.weights if _backend.is_table(v)), 1),
        "held": size_mb((*model.variables, *model.optimizer.variables)) if held is None else [h / _MB for h in held],
    }


def _note_memory(path: Path, start: float) -> None:
    def note() -> None:
        while True:
            part = path.with_suffix(".part")
            part.write_text(json.dumps(peak_mb() - start), encoding="utf-8")
            os.replace(part, path)
            time.sleep(0.5)

    threading.Thread(target=note, daemon=True).start()


def measure(folder: Path, sizes: dict[str, int], timeout: float = 3000.0) -> list[dict[str, Any]]:
    """Trains in one process and on a cluster: a row for each, and one for each server.

    Columns: the sizes; `where` ("one", "cluster", "server 0" ...); `auc_click` and `auc_conversion` on the test split;
    `steps`, `built_seconds`, `train_seconds`; `held_mb` (weights and slots that it holds), `peak_mb` (its largest
    resident memory over that at its start, building included), `share_mb` (an equal share of all weights and slots).
    """
    folder.mkdir(parents=True, exist_ok=True)
    one, _ = frame.run(_inside, False, folder, sizes, logs=folder / "one", timeout=timeout)
    many = {name: sizes[name] for name in ("workers", "servers")}
    cluster, _ = frame.run(_inside, True, folder, sizes, logs=folder / "cluster", timeout=timeout, **many)
    whole, held = one.pop("held"), cluster.pop("held")
    rows = [{"where": "one", **one, "held_mb": round(whole, 1)}, {"where": "cluster", **cluster}]
    for index, own in enumerate(held):
        peak = json.loads((folder / f"server-{index}.json").read_text(encoding="utf-8"))
        memory = {"held_mb": round(own, 1), "peak_mb": round(peak, 1), "share_mb": round(whole / sizes["servers"], 1)}
        rows.append({"where": f"server {index}", **memory})
    return [sizes | row for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.parameter_servers`."""
    parser = frame.parser(__doc__, _SIZES, out="where the rows go, anew")
    parser.add_argument("--folder", type=Path, required=True, help="for logs, and what the servers note")
    args = parser.parse_args(arguments)
    table = frame.write(args.out, measure(args.folder, {name: getattr(args, name) for name in _SIZES}))
    frame.show(table, ("where", "auc_click", "auc_conversion", "steps", "train_seconds", "held_mb", "share_mb"))
    return 0


if __name__ == "__main__":
    frame.start(__file__)
