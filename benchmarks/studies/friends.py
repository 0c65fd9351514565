"""What a graph of friends is worth: Last.fm with it, without it, and with a graph of the same degrees that is random.

    MTL_ZOO_DATA=... python -m benchmarks.studies.friends --out benchmarks/results/content/friends.csv

Every case reads the same rows, ids of users and artists, and the artists' tags (from a table of entities): alone
(`ids`), with the friends' rows of the users' table pooled in several ways, and with the friends after random swaps of
edges, which keep each user's number of friends (`shuffled`). The split is by user (each user's listens 80/10/10) or of
cold users, who are in no training row, but have friends who are; in training a tenth of the users is read as unknown,
so that the row of unknown users is trained in every case. Differences are against `ids` and against the shuffled graph,
on the same test rows, with a bootstrap over users within each seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _bootstrap as bootstrap
from benchmarks.studies import _frame as frame
from mtl_zoo import Categorical, EntityTable, FeatureTransform, Neighbours, create_model, load_dataset
from mtl_zoo import Sequence as SequenceFeature
from mtl_zoo.metrics.exact import auc

COLUMNS = ("case", "split", "seed", "task", "metric", "value", "rows", "best_epoch", "epochs", "seconds")
BASES = ("ids", "shuffled: mean")
Edges = pd.DataFrame


def friends(edges: Edges, **options: Any) -> list[Any]:
    """The feature under study."""
    return [Neighbours("friends", of="user_id", edges=edges, length=30, **options)]


CASES: dict[str, Callable[[Edges, int], list[Any]]] = {
    "ids": lambda edges, seed: [],
    "mean": lambda edges, seed: friends(edges),
    "attention": lambda edges, seed: friends(edges, pooling="attention"),
    "lightgcn, 1 layer": lambda edges, seed: friends(edges, pooling="lightgcn", layers=1),
    "lightgcn, 2 layers": lambda edges, seed: friends(edges, pooling="lightgcn", layers=2),
    "shuffled: mean": lambda edges, seed: friends(swapped(edges, seed)),
}


def swapped(edges: Edges, seed: int, rounds: int = 10) -> Edges:
    """A graph of the same degrees: pairs of edges a-b, c-d become a-d, c-b, `rounds` tries for each edge."""
    rng = np.random.default_rng(seed)
    ends = edges[["source", "target"]].to_numpy()
    pairs = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)
    there = set(map(tuple, pairs.tolist()))
    tries = zip(rng.integers(len(pairs), size=(rounds * len(pairs), 2)), rng.random(rounds * len(pairs)), strict=True)
    for (one, other), turn in tries:
        (a, b), (c, d) = pairs[one].tolist(), pairs[other].tolist()
        if turn < 0.5:
            c, d = d, c
        first, second = (min(a, d), max(a, d)), (min(c, b), max(c, b))
        if a == d or c == b or first == second or first in there or second in there:
            continue
        there -= {(a, b), (min(c, d), max(c, d))}
        there |= {first, second}
        pairs[one], pairs[other] = first, second
    return pd.DataFrame({"source": np.append(pairs[:, 0], pairs[:, 1]), "target": np.append(pairs[:, 1], pairs[:, 0])})


def trained(data: Any, extra: list[Any], args: Any, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Test scores by task, at the epoch with the best validation AUC of `listen`, and how it went."""
    import keras

    from mtl_zoo.training import ExactValidation, PrimaryTask

    keras.utils.set_random_seed(seed)
    features = [
        Categorical("user_id", dim=16, unknown_rate=0.1),
        Categorical("artist_id", dim=16),
        SequenceFeature("tags", dim=16, length=5),
        *extra,
    ]
    artists = EntityTable(data.entities["artist_id"], key="artist_id")
    parts = [
        part.raw.drop(columns=["tags", "friends"], errors="ignore") for part in (data.train, data.validation, data.test)
    ]
    tasks = [task for task in data.tasks if task.link == "sigmoid"]
    transform = FeatureTransform(features, tasks, entities=artists).fit(parts[0])
    model = create_model(args.model, transform, bottom_units=(64, 32), tower_units=(16,))
    model.compile(keras.optimizers.Adam(args.learning_rate), metrics=None)
    best = ExactValidation(parts[1], patience=1, select=PrimaryTask("listen"))
    started = time.perf_counter()
    history = model.fit(parts[0], batch_size=args.batch_size, epochs=args.epochs, verbose=0, callbacks=[best])
    about = {"seconds": round(time.perf_counter() - started, 1), "epochs": len(history.epoch)}
    found = model.predict(parts[2], batch_size=4096, verbose=0)
    scores = {task.name: np.asarray(found[task.name], "float32").reshape(-1) for task in tasks}
    return scores, {**about, "best_epoch": best.best_epochs["listen"]}


def labels_of(data: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By task, the test rows on which it is scored, and their labels."""
    found = {}
    for task in data.tasks:
        label = data.test.labels[task.name]
        rows = ~np.isnan(label)
        if task.sample_space is not None:
            rows &= data.test.labels[task.sample_space] == 1
        found[task.name] = (np.flatnonzero(rows), label)
    return found


def differences(data: dict[int, Any], base: Any, other: Any, resamples: int) -> dict[str, tuple[float, float, float]]:
    """By task: the mean over seeds of the AUC of `other` less that of `base`, and its 95 % interval.

    Users are drawn with all their rows, in every seed anew.
    """
    users = {s: list(d.test.raw.groupby("user_id").indices.values()) for s, d in data.items()}
    labels = {seed: labels_of(d) for seed, d in data.items()}
    tasks = list(next(iter(other.values())))

    def gaps(drawn: dict[int, np.ndarray] | None) -> np.ndarray:
        rows = []
        for seed in data:
            row = []
            for task in tasks:
                at, label = labels[seed][task]
                if drawn is not None:
                    weight = np.zeros(len(label), bool)
                    weight[at] = True
                    at = drawn[seed][weight[drawn[seed]]]
                row.append(auc(label[at], other[seed][task][at]) - auc(label[at], base[seed][task][at]))
            rows.append(row)
        return np.mean(rows, axis=0)

    found = bootstrap.interval(
        gaps, lambda rng: {seed: bootstrap.rows_of_groups(of, rng) for seed, of in users.items()}, resamples
    )
    return {task: (float(m), float(low), float(high)) for task, m, low, high in zip(tasks, *found, strict=True)}


def _file(folder: Path, case: str, split: str, seed: int) -> Path:
    return folder / f"{case.replace(': ', '-').replace(', ', '-').replace(' ', '-')}-{split}-{seed}.npz"


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def compare(data: dict[int, Any], split: str, folder: Path, resamples: int) -> list[dict[str, Any]]:
    """Rows of every case against each base, on the seeds that both have."""
    rows = []
    for base in BASES:
        for case in CASES:
            paths = {s: (_file(folder, base, split, s), _file(folder, case, split, s)) for s in data}
            seeds = [s for s, both in paths.items() if all(path.exists() for path in both)]
            if case == base or not seeds:
                continue
            first, second = ({s: _read(paths[s][i]) for s in seeds} for i in (0, 1))
            found = differences({s: data[s] for s in seeds}, first, second, resamples)
            for task, numbers in found.items():
                gap = dict(zip(("difference", "low", "high"), (round(n, 5) for n in numbers), strict=True))
                about = {"case": case, "base": base, "split": split, "task": task, "seeds": len(seeds)}
                rows.append({**about, **gap, "resamples": resamples})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"seeds": 3, "splits": ("user", "cold_users"), "cases": tuple(CASES), "resamples": 200, "epochs": 12}
    options |= {"batch_size": 1024, "learning_rate": 3e-3, "model": "shared_bottom", "report_only": False}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    if not os.environ.get("MTL_ZOO_DATA"):
        raise ValueError("`MTL_ZOO_DATA` must name the folder of data sets, with hetrec_lastfm_2k in it.")
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        raise ValueError(f"`--cases` must be of {list(CASES)}. Received: {unknown}")
    kept, folder = frame.Rows(args.out, COLUMNS), args.out.with_name(f"{args.out.stem}-scores")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in args.splits:
        data = {seed: load_dataset("hetrec_lastfm_2k", split=split, seed=seed) for seed in range(args.seeds)}
        for seed, of_seed in data.items():
            for case in [] if args.report_only else args.cases:
                path = _file(folder, case, split, seed)
                if not (path.exists() and kept.has(case=case, split=split, seed=seed)):
                    _run(case, split, seed, of_seed, args, kept, path)
        rows += compare(data, split, folder, args.resamples)
    if rows:
        found = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), rows)
        frame.show(found, ["case", "base", "split", "task", "seeds", "difference", "low", "high"])
    return 0


def _run(case: str, split: str, seed: int, data: Any, args: Any, kept: frame.Rows, path: Path) -> None:
    edges = data.tables["friends"].rename(columns={"user_id": "source", "friend_id": "target"})
    scores, about = trained(data, CASES[case](edges, seed), args, seed)
    np.savez(path, **scores)  # type: ignore[arg-type]
    for task, (at, label) in labels_of(data).items():
        if task in scores:
            of = {"case": case, "split": split, "seed": seed, "task": task, "metric": "auc"}
            kept.add({**of, "value": round(float(auc(label[at], scores[task][at])), 5), "rows": len(at), **about})


if __name__ == "__main__":
    frame.start(__file__)
