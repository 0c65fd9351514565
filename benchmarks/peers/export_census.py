"""Writes census_income as plain arrays: a peer in another environment then trains and tests on the same rows and ids.

python -m benchmarks.peers.export_census --out results/peers/census.npz
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mtl_zoo import Categorical
from mtl_zoo.datasets import load_dataset


def export(path: Path, data_dir: str | None, variant: str, group: int, embedding_dim: int, seed: int) -> None:
    data = load_dataset(
        "census_income", data_dir=data_dir, variant=variant, group=group, embedding_dim=embedding_dim, seed=seed
    )
    others = [feature.name for feature in data.features if type(feature) is not Categorical or feature.multi_hot]
    if others:
        raise SystemExit(f"The peer scripts take one id a feature and row. Received: {others} (use --variant nominal)")
    names = [feature.name for feature in data.features]
    tasks = [task.name for task in data.tasks]
    arrays = {}
    for split in ("train", "validation", "test"):
        part = getattr(data, split)
        arrays[f"{split}_ids"] = np.stack([part.inputs[name] for name in names], axis=1).astype(np.int32)
        arrays[f"{split}_labels"] = np.stack([part.labels[name] for name in tasks], axis=1).astype(np.float32)
    about = {
        "dataset": data.name,
        "variant": data.variant,
        "version": data.version,
        "split_rule": data.split_rule,
        "features": names,
        "num_ids": [feature.num_ids for feature in data.features],
        "embedding_dim": embedding_dim,
        "tasks": tasks,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=json.dumps(about), **arrays)
    print(
        f"{path}: {len(names)} features, tasks {tasks}, rows", {s: len(a) for s, a in arrays.items() if "labels" in s}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", default=None, help="default: $MTL_ZOO_DATA")
    parser.add_argument("--variant", default="nominal")
    parser.add_argument("--group", type=int, default=1)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    args = parser.parse_args()
    export(args.out, args.data_dir, args.variant, args.group, args.embedding_dim, args.seed)


if __name__ == "__main__":
    main()
