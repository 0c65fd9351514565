"""torch-rechub's MMOE and SharedBottom on the arrays that export_census.py writes, in an environment without mtl_zoo.

python benchmarks/peers/rechub_census.py --data census.npz --model mmoe --seeds 3 --out rechub.csv --scores scores/

What is the same as on our side: rows, ids, widths, embedding width, batch size, Adam with 1e-3, and the stopping rule:
after every epoch the exact AUC of all validation rows, mean over the tasks; stop after `--patience` epochs without a
better one; the best epoch's weights score the test rows, once.

What is torch-rechub's own, left as its 0.9.0 has it:
- every hidden layer is Linear, BatchNorm1d, ReLU, Dropout (rate 0, its default), and a gate is Linear, BatchNorm1d,
  softmax;
- embeddings start as normal(0, 1e-4); the loss, on probabilities, is the mean of the tasks' losses.

What had to be set or replaced:
- weight decay is 0 here, as on our side; `MTLTrainer`'s default is 1e-5 (`--weight-decay 1e-5` runs it so);
- `MTLTrainer.fit` stops on one task (`earlystop_taskid`), and where it reaches the last epoch unstopped it keeps the
  last weights, not the best ones. So its `train_one_epoch` and `evaluate` (scikit-learn's exact AUC) are called epoch
  by epoch;
- its loader builds every row as a dict of scalars. `Batches` below gives the trainer shuffled batches by indexing,
  several times faster, so that the times recorded are those of its training, not of its loader.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import MMOE, SharedBottom
from torch_rechub.trainers import MTLTrainer

# Those of mtl_zoo.benchmark, so that one report reads both.
COLUMNS = (
    "key dataset variant split split_rule data_version dataset_options model hyperparameters parameters seed epochs "
    "patience best_epoch batch_size optimizer balancing train_seconds examples_per_second commit dirty versions "
    "hardware task metric space observed value error"
).split()


class Batches:
    """What `MTLTrainer` iterates over: (dict of ids by feature, labels)."""

    def __init__(self, names, ids, labels, batch_size, generator=None):
        self.columns = {name: torch.from_numpy(np.ascontiguousarray(ids[:, i])) for i, name in enumerate(names)}
        self.labels = torch.from_numpy(labels)
        self.batch_size, self.generator = batch_size, generator

    def __len__(self):
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self):
        rows = len(self.labels)
        order = torch.randperm(rows, generator=self.generator) if self.generator is not None else torch.arange(rows)
        for part in order.split(self.batch_size):
            yield {name: column[part] for name, column in self.columns.items()}, self.labels[part]


class Unlabelled:
    """What `MTLTrainer.predict` iterates over: the batches without their labels."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return (x for x, _ in self.batches)


def hyperparameters(args) -> dict:
    """The sizes of the model, as torch-rechub names them."""
    tower = {"dims": args.tower_units}
    if args.model == "mmoe":
        return {"n_expert": args.num_experts, "expert_params": {"dims": args.expert_units}, "tower": tower}
    return {"bottom_params": {"dims": args.bottom_units}, "tower": tower}


def build(args, about) -> torch.nn.Module:
    features = [
        SparseFeature(name, vocab_size=size, embed_dim=about["embedding_dim"])
        for name, size in zip(about["features"], about["num_ids"], strict=True)
    ]
    sizes = hyperparameters(args)
    towers = [sizes.pop("tower")] * len(about["tasks"])
    types = ["classification"] * len(about["tasks"])
    return {"mmoe": MMOE, "shared_bottom": SharedBottom}[args.model](features, types, **sizes, tower_params_list=towers)


def quietly(function, *args):
    """The trainer prints a bar and a line a call; ours are enough."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function(*args)


def run(args, data, about, seed: int) -> tuple[dict, np.ndarray]:
    """Trains with one seed; gives what the result's rows have in common, and the test scores."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    loaders = {
        split: Batches(about["features"], data[f"{split}_ids"], data[f"{split}_labels"], args.batch_size, generator)
        for split, generator in (
            ("train", torch.Generator().manual_seed(seed)),
            ("validation", None),
            ("test", None),
        )
    }
    model = build(args, about)
    trainer = MTLTrainer(
        model,
        ["classification"] * len(about["tasks"]),
        optimizer_params={"lr": args.learning_rate, "weight_decay": args.weight_decay},
        n_epoch=args.epochs,
    )
    best, best_epoch, best_weights, seconds = -np.inf, 0, None, 0.0
    for epoch in range(1, args.epochs + 1):
        began = time.perf_counter()
        losses = quietly(trainer.train_one_epoch, loaders["train"])
        seconds += time.perf_counter() - began
        aucs = quietly(trainer.evaluate, model, loaders["validation"])
        print(f"seed {seed}, epoch {epoch}: loss {np.round(losses, 5).tolist()}, validation AUC", end=" ")
        print(f"{np.round(aucs, 5).tolist()}, {seconds:.0f} s", flush=True)
        if np.mean(aucs) > best:
            best, best_epoch, best_weights = np.mean(aucs), epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= args.patience:
            break
    model.load_state_dict(best_weights)
    scores = np.array(quietly(trainer.predict, model, Unlabelled(loaders["test"])), dtype=np.float32)
    common = {
        "dataset": about["dataset"],
        "variant": about["variant"],
        "split": "test",
        "split_rule": about["split_rule"],
        "data_version": about["version"],
        "model": f"torch-rechub/{args.model}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": seed,
        "epochs": args.epochs,
        "patience": args.patience,
        "batch_size": args.batch_size,
        "optimizer": f"torch.optim.Adam, learning rate {args.learning_rate}, weight decay {args.weight_decay}",
        "best_epoch": best_epoch,
        "train_seconds": round(seconds, 2),
        "examples_per_second": round(epoch * len(data["train_labels"]) / seconds, 1),
    }
    return common, scores


def environment(args, about) -> dict:
    def git(*command):
        done = subprocess.run(["git", *command], capture_output=True, text=True, cwd=Path(__file__).parent)
        return done.stdout.strip() if done.returncode == 0 else ""

    libraries = ("torch", "torch-rechub", "numpy", "scikit-learn")
    return {
        "hyperparameters": json.dumps(
            hyperparameters(args) | {"embedding_dim": about["embedding_dim"]}, sort_keys=True
        ),
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "versions": json.dumps({"python": platform.python_version(), **{n: metadata.version(n) for n in libraries}}),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used",
    }


def key(common: dict) -> str:
    """Tells runs apart that could differ in their result."""
    names = COLUMNS[COLUMNS.index("dataset") : COLUMNS.index("optimizer") + 1]
    values = [str(common.get(name, "")) for name in names if name not in ("parameters", "best_epoch")]
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:16]


def append(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def widths(text: str) -> list[int]:
    return [int(width) for width in text.split(",")]


def parse_args(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what export_census.py wrote")
    parser.add_argument("--model", choices=("mmoe", "shared_bottom"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="CSV file that rows are appended to")
    parser.add_argument("--scores", type=Path, required=True, help="folder for the test scores; keep it out of git")
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10, help="at most")
    parser.add_argument("--patience", type=int, default=1, help="epochs without a better mean validation AUC")
    parser.add_argument("--num-experts", type=int, default=8)
    parser.add_argument("--expert-units", type=widths, default=[128, 64])
    parser.add_argument("--bottom-units", type=widths, default=[256, 128])
    parser.add_argument("--tower-units", type=widths, default=[32])
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    with np.load(args.data) as file:
        data = dict(file)
    about = json.loads(str(data.pop("about")))
    labels = data["test_labels"]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        common, scores = run(args, data, about, seed)
        common |= environment(args, about)
        common["key"] = key(common)
        rows = []
        for index, task in enumerate(about["tasks"]):
            for metric, function in (("auc", roc_auc_score), ("logloss", log_loss)):
                value = float(function(labels[:, index], scores[:, index].astype(np.float64)))
                cell = {"task": task, "metric": metric, "space": "impressions", "observed": len(labels), "value": value}
                rows.append(common | cell)
                print(f"seed {seed}, test {task} {metric}: {value:.5f}", flush=True)
        append(args.out, rows)
        args.scores.mkdir(parents=True, exist_ok=True)
        by_task = {task: scores[:, index] for index, task in enumerate(about["tasks"])}
        np.savez_compressed(args.scores / f"rechub-{args.model}-seed{seed}.npz", **by_task)


if __name__ == "__main__":
    main()
