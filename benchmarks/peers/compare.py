"""Ours against a peer's on the same test rows: mean AUC over seeds, and a bootstrap interval of their difference.

python -m benchmarks.peers.compare --data census.npz --ours "scores/zoo-mmoe-*.npz" --theirs "scores/rechub-mmoe-*.npz"

Each resample draws test rows with replacement; every run of both sides is scored on the same rows, and a side's value
is the mean AUC of its runs. The interval is thus about the rows, given these runs; the spread over seeds stands beside.
"""

from __future__ import annotations

import argparse
import glob
import json
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo.evaluation import auc


def load_scores(pattern: str) -> list[dict[str, np.ndarray]]:
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise SystemExit(f"No file of scores is named {pattern!r}")
    return [dict(np.load(path)) for path in paths]


def compare(y: np.ndarray, ours: list[np.ndarray], theirs: list[np.ndarray], resamples: int, seed: int) -> dict:
    """One task: both means, their difference, its 95 % interval."""
    rng = np.random.default_rng(seed)

    def mean_auc(runs, weight=None):
        return np.mean([auc(y, run, weight) for run in runs])

    differences = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(len(y), size=len(y)), minlength=len(y)).astype(np.float64)
        differences.append(mean_auc(ours, drawn) - mean_auc(theirs, drawn))
    low, high = np.percentile(differences, [2.5, 97.5])
    return {
        "auc_ours": mean_auc(ours),
        "std_ours": np.std([auc(y, run) for run in ours]),
        "auc_theirs": mean_auc(theirs),
        "std_theirs": np.std([auc(y, run) for run in theirs]),
        "difference": mean_auc(ours) - mean_auc(theirs),
        "low": low,
        "high": high,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what export_census.py wrote")
    parser.add_argument("--ours", required=True, help="pattern of files, one a seed")
    parser.add_argument("--theirs", required=True, help="pattern of files, one a seed")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    parser.add_argument("--out", type=Path, default=None, help="CSV file to write")
    args = parser.parse_args()
    with np.load(args.data) as file:
        labels, tasks = file["test_labels"], json.loads(str(file["about"]))["tasks"]
    ours, theirs = load_scores(args.ours), load_scores(args.theirs)
    rows = []
    for index, task in enumerate(tasks):
        for run in ours:
            # benchmarks.run keeps the labels beside the scores: the two sides must speak of the same rows.
            if not np.array_equal(run[f"label:{task}"].reshape(-1), labels[:, index]):
                raise SystemExit(f"The labels of {task!r} in --ours and in --data differ: other rows, or another order")
        sides = [[run[task].reshape(-1) for run in side] for side in (ours, theirs)]
        found = compare(labels[:, index], *sides, args.resamples, args.seed)
        about = {"task": task, "rows": len(labels), "runs_ours": len(ours), "runs_theirs": len(theirs)}
        rows.append(about | found | {"resamples": args.resamples})
    table = pd.DataFrame(rows)
    print(table.round(5).to_string(index=False))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        table.round(6).to_csv(args.out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
