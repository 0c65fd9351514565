"""What every data set holds: rows, users, items, tasks with their base rates by split, and how long it takes to load.

Sets whose files are not there are left out. Each is loaded several times, after everything is imported.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from mtl_zoo.datasets import Dataset, dataset_info, list_datasets, load_dataset

# What else is measured than the default of each set.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("census_income", {"variant": "nominal"}),
    ("movielens_100k", {"split": "cold_items"}),
    ("movielens_100k", {"profile": True}),
    ("movielens_1m", {"posters": True}),
    ("druglib", {"split": "cold_items"}),
    ("amazon_reviews", {"split": "cold_items"}),
    ("coat", {"space": "entire"}),
)
# Of which columns ids are counted.
ITEMS = ("item_id", "movie_id", "artist_id", "book_id", "video_id", "news_id", "drug")


def cases() -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of every set, the options of `VARIANTS` after the defaults."""
    return [
        case
        for name in list_datasets()
        for case in ((name, {}), *((other, options) for other, options in VARIANTS if other == name))
    ]


def describe(data: Dataset) -> dict[str, Any]:
    """The figures of one data set: rows, distinct users and items, and each task's rows and mean label by split."""
    raw = [split.raw for split in data.splits.values() if split.raw is not None]
    rows = pd.concat(raw, ignore_index=True) if raw else pd.DataFrame()
    counted = {
        what: next((int(rows[column].nunique()) for column in columns if column in rows), "")
        for what, columns in (("users", ("user_id",)), ("items", ITEMS))
    }
    tasks = {}
    for task in data.tasks:
        tasks[task.name] = {"kind": task.kind, "given": task.sample_space}
        for name, split in data.splits.items():
            label = split.labels[task.name]
            observed = np.isfinite(label)
            if task.sample_space is not None:
                observed &= split.labels[task.sample_space] == 1
            mean = round(float(label[observed].mean()), 4) if observed.any() else None
            tasks[task.name][name] = {"rows": int(observed.sum()), "mean": mean}
            if hasattr(task, "class_labels"):
                shares = np.bincount(label[observed].astype("int64"), minlength=task.units) / max(1, observed.sum())
                tasks[task.name][name] = {"rows": int(observed.sum()), "shares": shares.round(4).tolist()}
    return {
        "dataset": data.name,
        "variant": data.variant,
        "version": data.version,
        "rows": sum(len(split) for split in data.splits.values()),
        **{name: len(split) for name, split in data.splits.items()},
        **counted,
        "features": len(data.features),
        "tasks": json.dumps(tasks),
        "split_rule": data.split_rule,
        "notes": json.dumps(data.notes),
    }


def measure(name: str, options: dict[str, Any], loads: int, data_dir: Path | None = None) -> dict[str, Any] | None:
    """`describe`, and the median of the seconds that `loads` loads took; None where the files are not there."""
    seconds = []
    try:
        for _ in range(loads):
            started = time.perf_counter()
            data = load_dataset(name, data_dir, **options)
            seconds.append(time.perf_counter() - started)
    except FileNotFoundError:
        return None
    return {
        **describe(data),
        "options": json.dumps(options),
        "loads": loads,
        "seconds": round(statistics.median(seconds), 2),
        "seconds_most": round(max(seconds), 2),
        "licence": dataset_info(name).licence,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.datasets`."""
    parser = frame.parser(__doc__, {"loads": 3}, out="where the rows go, anew")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; default: $MTL_ZOO_DATA")
    args = parser.parse_args(arguments)
    load_dataset("synthetic_funnel", size="small")
    found = [measure(name, options, args.loads, args.data_dir) for name, options in cases()]
    table = frame.write(args.out, [row for row in found if row is not None])
    frame.show(table, ("dataset", "variant", "train", "validation", "test", "users", "items", "features", "seconds"))
    return 0


if __name__ == "__main__":
    frame.start(__file__)
