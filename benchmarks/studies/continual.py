"""Daily training with new ids: a model that is extended, against training from scratch and against none.

    python -m benchmarks.studies.continual --out benchmarks/results/learning/continual.csv

A world of users and items with hidden vectors, whose tastes drift a little from day to day. After the first day a share
of new users and of new items joins every day and takes part at once. Clicks follow the product of the vectors, and
conversions follow clicks, with known probabilities. Each way of training predicts a day before it may learn from it:

    never          the model of the first day
    fixed          trained on each day; new ids stay unknown
    extended       `transform.extend` and `model.extended`, then trained on the day
    mean, unknown  the same, new rows from the mean or from the unknown row
    replay         extended, with a reservoir of past rows among the day's
    ewc            extended, weights held by their Fisher information on past rows
    scratch        transform and model made anew on all days so far, every day

One row for each seed, way, day and task: the AUC on the day's rows by expectation over the true probabilities, that of
these probabilities, the seconds of training, and how many ids of the first day have moved (`moved`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

import mtl_zoo
from benchmarks.studies import _frame as frame
from benchmarks.studies.rare_labels import measure
from mtl_zoo import BinaryTask, Categorical, FeatureTransform
from mtl_zoo.continual import EWC, ReplayBuffer

COLUMNS = (
    *("seed", "way", "day", "task", "rows", "auc", "oracle_auc", "unknown", "seconds", "moved", "new_share"),
    *("rows_a_day", "days"),
)
TASKS = ("click", "conversion")
WAYS = ("never", "fixed", "extended", "mean", "unknown", "replay", "ewc", "scratch")


def world(seed: int, days: int, rows: int, new_share: float, users: int = 3000, items: int = 1500) -> list[Any]:
    """(table, true probabilities by task) of each day; ids are strings that say nothing of their age."""
    rng = np.random.default_rng(seed)
    width = 6
    made, counts = [], {"user": users, "item": items}
    # Vectors of all that will ever be, and names in an order of their own.
    last = {kind: int(count * (1 + new_share) ** days) + 1 for kind, count in counts.items()}
    vectors = {kind: rng.normal(0, 0.9, (count, width)) for kind, count in last.items()}
    bias = rng.normal(0, 0.7, last["item"])
    names = {kind: rng.permutation(10 * count)[:count] for kind, count in last.items()}
    for _ in range(days + 1):
        drawn = {kind: rng.integers(0, count, rows) for kind, count in counts.items()}
        u, v = vectors["user"][drawn["user"]], vectors["item"][drawn["item"]]
        taste = (u * v).sum(axis=1) / np.sqrt(width) * 1.4 + bias[drawn["item"]]
        p = {"click": 1 / (1 + np.exp(1.5 - taste)), "conversion": 1 / (1 + np.exp(2.5 - 0.6 * taste - u[:, 0]))}
        labels = {task: (rng.random(rows) < p[task]).astype(int) for task in TASKS}
        ids = {kind: [f"{kind[0]}{names[kind][i]}" for i in drawn[kind]] for kind in drawn}
        made.append((pd.DataFrame({**ids, **labels}), p))
        counts = {kind: min(round(count * (1 + new_share)), last[kind]) for kind, count in counts.items()}
        for kind in vectors:
            vectors[kind] = vectors[kind] + rng.normal(0, 0.03, vectors[kind].shape)
    return made


def fresh(table: pd.DataFrame, seed: int, epochs: int) -> Any:
    """A model of a table, trained on it."""
    keras.utils.set_random_seed(seed)
    features = [Categorical(kind, dim=8, unknown_rate=0.05) for kind in ("user", "item")]
    transform = FeatureTransform(features, [BinaryTask(task) for task in TASKS]).fit(table)
    model = mtl_zoo.create_model("shared_bottom", transform, bottom_units=(32,), tower_units=(16,))
    model.compile(mtl_zoo.optimizers.LazyAdam(0.005), metrics=None)
    model.fit(table, batch_size=512, epochs=epochs, verbose=0)
    return model


def measured(model: Any, table: pd.DataFrame, truth: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """By task."""
    scores = model.predict(table, verbose=0)
    unknown = max((u.share for u in model.transform.unseen.values()), default=0.0)
    of_tasks = {task: measure(scores[task][:, 0].astype("float64"), truth[task]) for task in TASKS}
    return {
        task: {
            **{name: found[name] for name in ("auc", "oracle_auc")},
            "unknown": unknown,
        }
        for task, found in of_tasks.items()
    }


def moved(first: Any, transform: Any) -> int:
    """Ids of the first day that are others now."""
    count = 0
    for kind in ("user", "item"):
        before, after = first.values_of(kind), transform.values_of(kind)
        count += sum(a != b for a, b in zip(before, after, strict=False)) + max(len(before) - len(after), 0)
    return count


def run_way(way: str, days: list[Any], seed: int, epochs: int, day_epochs: int) -> list[dict[str, Any]]:
    """The rows of one way of training."""
    model = fresh(days[0][0], seed, epochs)
    first, found = model.transform, []
    buffer = ReplayBuffer(4 * len(days[0][0]), seed)
    buffer.add(days[0][0])
    past = [days[0][0]]
    for number, (table, truth) in enumerate(days[1:], 1):
        by_task = measured(model, table, truth)
        keras.utils.set_random_seed(seed + 1000 * number)
        started = time.perf_counter()
        past.append(table)
        if way == "scratch":
            model = fresh(pd.concat(past, ignore_index=True), seed, epochs)
        elif way != "never":
            if way != "fixed":
                start = way if way in ("mean", "unknown") else "initializer"
                model = model.extended(model.transform.extend(table), rows=start)
            anchor = EWC(100.0, buffer.rows, rows=200) if way == "ewc" else None
            rows = buffer.mixed(table, 1.0) if way == "replay" else table
            model.fit(rows, batch_size=512, epochs=day_epochs, verbose=0, anchor=anchor)
            buffer.add(table)
        about = {"day": number, "seconds": round(time.perf_counter() - started, 2), "rows": len(table)}
        about["moved"] = moved(first, model.transform)
        found += [{**about, "way": way, "task": task, **_rounded(values)} for task, values in by_task.items()]
    return found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def run_continual(
    seeds: Sequence[int],
    ways: Sequence[str],
    days: int,
    rows: int,
    new_share: float,
    epochs: int,
    day_epochs: int,
    out: Path,
) -> pd.DataFrame:
    """Trains what the file does not hold yet, and gives all of its rows."""
    kept = frame.Rows(out, COLUMNS)
    for seed in seeds:
        left = [way for way in ways if not kept.has(seed=seed, way=way, day=days, task=TASKS[-1])]
        tables = world(seed, days, rows, new_share) if left else []
        for way in left:
            for row in run_way(way, tables, seed, epochs, day_epochs):
                kept.add({**row, "seed": seed, "new_share": new_share, "rows_a_day": rows, "days": days, "error": ""})
            keras.backend.clear_session()
    return kept.read()


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = {
        **{"seeds": (0, 1, 2), "ways": WAYS, "days": 10, "rows": 30_000, "new_share": 0.05},
        **{"epochs": 3, "day_epochs": 1},
    }
    given = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    table = run_continual(
        given.seeds, given.ways, given.days, given.rows, given.new_share, given.epochs, given.day_epochs, given.out
    )
    metrics = ["auc", "oracle_auc", "unknown", "seconds", "moved"]
    means = table.astype(dict.fromkeys(metrics, float)).groupby(["way", "task"], sort=False)[metrics].mean()
    frame.show(means.reset_index().round(4), ["way", "task", *metrics], "means over seeds and days")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
