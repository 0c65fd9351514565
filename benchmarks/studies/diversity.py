"""What diversity of genres costs on MovieLens: films that users like among the first k, by how much is traded for it.

    MTL_ZOO_DATA=... python -m benchmarks.studies.diversity --out benchmarks/results/recommend/diversity.csv

A model learns ratings, likes and loves of `movielens_100k`, each user's ratings split at random. For test users who
like a film of the test rows, a `Recommender` orders all films that the user did not rate in training, by the scores of
`like` and `love`; the first of them are re-ranked by MMR and by DPP on the films' genres. `precision` is the share of
the first k that the user likes in the test rows, `score` their mean fused score, `diversity` the mean of 1 - cos over
pairs of their genres. Intervals are of the difference in precision from the order without re-ranking, by a bootstrap
of users.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from mtl_zoo.datasets import Dataset, load_dataset
from mtl_zoo.evaluation import bootstrap_interval
from mtl_zoo.evaluation._figures import save_figure
from mtl_zoo.recommend import DPP, MMR, Candidates, Recommender, WeightedSum, diversity_curve, plot_diversity_curve

COLUMNS = (
    *("model", "seed", "epochs", "users", "candidates", "k", "stage", "trade_off"),
    *("precision", "score", "diversity", "difference", "low", "high", "seconds"),
)
# The genres of a film as a list, which stages read as a vector.
VECTORS = "genre_list"
STAGES = {"MMR": lambda t: MMR(VECTORS, t), "DPP": lambda t: DPP(VECTORS, t)}
FUSION = {"like": 1.0, "love": 1.0}
ITEM = ("movie_id", "year", "genres")


def recommender_of(data: Dataset, model: str, epochs: int, seed: int, candidates: int) -> Recommender:
    """A recommender of a model that is trained on the data's training rows."""
    import keras

    from mtl_zoo import create_model

    keras.utils.set_random_seed(seed)
    made = create_model(model, data.transform, data.tasks)
    made.compile(keras.optimizers.Adam(1e-3), metrics=None)
    made.fit(data.train.inputs, data.train.labels, batch_size=512, epochs=epochs, verbose=0)
    columns = data.transform.columns  # type: ignore[union-attr]
    sides = {column: "item" if column in ITEM else "user" for column in columns}
    items, train = data.entities["movie_id"], data.table("train")
    return Recommender(
        made,
        items[[column for column in items if column in (*ITEM, "title")]].assign(
            **{VECTORS: items["genres"].str.split("|")}
        ),
        item="movie_id",
        users=data.entities["user_id"],
        fusion=WeightedSum(FUSION),
        exclude=train[["user_id", "movie_id"]],
        candidates=candidates,
        sides=sides,
    )


def lists_of(recommender: Recommender, test: pd.DataFrame, users: Sequence[Any], candidates: int) -> list[Candidates]:
    """Each user's best films, with their genres and whether the user likes them in the test rows."""
    liked = test[test["like"] > 0].groupby("user_id")["movie_id"].agg(set)
    shown = recommender.recommend(users, candidates, rerank=())
    genres, rows = recommender.catalogue.columns[VECTORS], recommender.catalogue.find(shown["item"].to_numpy())
    return [
        Candidates(
            part["item"],
            part["score"],
            {VECTORS: genres[rows[part.index]], "hit": part["item"].isin(liked[user]).to_numpy("float64")},
            ordered=True,
        )
        for user, part in shown.groupby("user", sort=False)
    ]


def compare(lists: Sequence[Candidates], trade_offs: Sequence[float], k: int, resamples: int, seed: int) -> list[dict]:
    """A row for each stage and trade-off, and one without re-ranking."""
    before = np.array([one.numbers("hit")[:k].mean() for one in lists])
    stages = {"none": lambda t: MMR(VECTORS, 1.0), **STAGES}
    rows = []
    for name, make in stages.items():
        for trade_off in [1.0] if name == "none" else trade_offs:
            by_user = {
                value: [
                    diversity_curve([one], {name: make}, [trade_off], vectors=VECTORS, value=value, k=k).iloc[0]
                    for one in lists
                ]
                for value in ("hit", None)
            }
            hits = np.array([row["value"] for row in by_user["hit"]])
            gap = bootstrap_interval(np.mean, hits - before, resamples=resamples, seed=seed)
            numbers = {"precision": hits.mean(), "score": np.mean([row["value"] for row in by_user[None]])}
            numbers |= {"diversity": np.mean([row["diversity"] for row in by_user["hit"]])}
            numbers |= {"difference": gap.value, "low": gap.low, "high": gap.high}
            rounded = {key: round(float(value), 5) for key, value in numbers.items()}
            rows.append({"stage": name, "trade_off": trade_off, **rounded})
    return rows


def picture(rows: pd.DataFrame, k: int) -> Any:
    """Precision against diversity, the mean over seeds."""
    mean = rows.groupby(["stage", "trade_off"], sort=False)[["precision", "diversity"]].mean().reset_index()
    return plot_diversity_curve(mean.rename(columns={"precision": "value"}), value=f"precision@{k} of likes")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"model": "mmoe", "seeds": 3, "epochs": 4, "users": 300, "candidates": 100, "k": 10, "resamples": 1000}
    trade_offs = {"trade_offs": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)}
    args = frame.parser(__doc__ or "", options | trade_offs).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    for seed in range(args.seeds):
        about = {"model": args.model, "seed": seed, "epochs": args.epochs, "k": args.k}
        if kept.has(**about):
            continue
        started = time.perf_counter()
        data = load_dataset("movielens_100k", split="user", seed=seed)
        test = data.table("test")
        users = np.sort(test.loc[test["like"] > 0, "user_id"].unique())
        users = np.sort(np.random.default_rng(seed).choice(users, min(args.users, len(users)), replace=False))
        recommender = recommender_of(data, args.model, args.epochs, seed, args.candidates)
        lists = lists_of(recommender, test, users, args.candidates)
        found = compare(lists, args.trade_offs, args.k, args.resamples, seed)
        about |= {"users": len(users), "candidates": args.candidates}
        for row in found:
            kept.add({**about, **row, "seconds": round(time.perf_counter() - started, 1)})
    save_figure(picture(kept.read(), args.k), args.out.with_suffix(".png"))
    frame.show(kept.read(), ("seed", *COLUMNS[6:14]), f"MovieLens genres, first {args.k}")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
