"""Two sources of MovieLens 100K, jointly against each alone: few ratings, and who watched what.

    python -m benchmarks.studies.sources --out benchmarks/results/learning/sources.csv
    python -m benchmarks.studies.sources --about watches --out benchmarks/results/learning/sources-watches.csv

Of each seed's training rows (70 % of all, drawn at random; 10 % choose the epoch and 20 % are the test) a fifth keep
their stars: the source `ratings`, with the tasks `like` (4 stars and more, AUC) and `rating` (RMSE). All of them say
that a film was watched: the source `watches`, with as many films that the user has not watched in the training rows,
and the task `watched` (AUC). Ratings have the user's age and occupation, which watches lack. The base is a model of the
one source alone. `concatenation` trains on the tables below one another, which must end with the scores of `jointly`.
`after watches` trains on the watches, and takes the body over to the tasks of ratings. The bootstrap draws users.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._cases import Made, Split, Study
from mtl_zoo import BinaryTask, Categorical, JointSources, Numeric, RegressionTask

DIM, SHARE = 16, 0.2
RATED = (BinaryTask("like"), RegressionTask("rating"))
WATCHED = (BinaryTask("watched"),)
STUDIES = {
    "ratings": Study(__doc__ or "", "movielens_100k", RATED, {"like": "auc", "rating": "rmse"}, "user_id", {}, "alone"),
    "watches": Study(__doc__ or "", "movielens_100k", WATCHED, {"watched": "auc"}, "user_id", {}, "alone"),
}
MIXTURES: dict[str, dict[str, Any]] = {
    "jointly": {},
    "equal shares": {"mixing": {"ratings": 1.0, "watches": 1.0}},
    "temperature 2": {"temperature": 2.0},
    "alternating": {"alternating": True},
}


def features() -> list[Any]:
    return [
        Categorical("user_id", dim=DIM, unknown_rate=0.05),
        Categorical("item_id", dim=DIM, unknown_rate=0.05),
        Categorical("occupation", dim=4),
        Numeric("age"),
    ]


def sources_of(split: Split) -> dict[str, pd.DataFrame]:
    """The two tables of the training rows."""
    train, rng = split.train, np.random.default_rng([split.seed, 1])
    rated = train[rng.random(len(train)) < SHARE][["user_id", "item_id", "age", "occupation", "like", "rating"]]
    return {"ratings": rated, "watches": watches(train, train, rng)}


def watches(rows: pd.DataFrame, known: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows that were watched, and as many films that their users have not watched in the rows that are known."""
    films = known["item_id"].unique()
    seen = set(zip(known["user_id"], known["item_id"], strict=True)) | set(
        zip(rows["user_id"], rows["item_id"], strict=True)
    )
    users = rows["user_id"].to_numpy()
    others = rng.choice(films, len(rows))
    for _ in range(20):
        again = np.array([(user, film) in seen for user, film in zip(users, others, strict=True)])
        others[again] = rng.choice(films, int(again.sum()))
    kept = np.array([(user, film) not in seen for user, film in zip(users, others, strict=True)])
    pairs = [rows[["user_id", "item_id"]].assign(watched=1)]
    pairs.append(pd.DataFrame({"user_id": users[kept], "item_id": others[kept], "watched": 0}))
    return pd.concat(pairs, ignore_index=True)


def _alone(name: str) -> Any:
    def make(split: Split) -> Made:
        own = sources_of(split)[name]
        specs = features() if name == "ratings" else features()[:2]
        return Made(specs, lambda part: own if part is split.train else part)

    return make


def _together(options: dict[str, Any], joined: bool = False) -> Any:
    def make(split: Split) -> Made:
        sources = JointSources(sources_of(split), **options)
        rows, tasks = sources.table() if joined else sources, (*RATED, *WATCHED)
        return Made(
            features(),
            lambda part: rows if part is split.train else part,
            tasks=tasks,
            fitted_on=lambda: (sources, tasks),
        )

    return make


def _after_watches(split: Split) -> Made:
    tables = sources_of(split)

    def start(transform: Any, create: Any) -> Any:
        import keras

        from mtl_zoo import transfer

        before = create(WATCHED)
        before.compile(keras.optimizers.Adam(1e-3), metrics=None)
        before.fit(tables["watches"], batch_size=256, epochs=3, verbose=0)
        return transfer(before, RATED)

    # One transform over both, so that users and films are known by the same ids.
    both = JointSources(tables)
    return Made(
        features(),
        lambda part: tables["ratings"] if part is split.train else part,
        fitted_on=lambda: (both, (*RATED, *WATCHED)),
        start=start,
    )


for about, study in STUDIES.items():
    study.case("alone")(_alone(about))
    for case, options in MIXTURES.items():
        study.case(case)(_together(options))
    study.case("concatenation")(_together({}, joined=True))
STUDIES["ratings"].case("after watches")(_after_watches)


def rows_of(folder: Path) -> pd.DataFrame:
    """All ratings, with their users' age and occupation."""
    text = gzip.decompress((folder / "u.data.gz").read_bytes()).decode("latin1")
    rows = pd.read_csv(io.StringIO(text), sep="\t", names=["user_id", "item_id", "rating", "timestamp"])
    names = ["user_id", "age", "gender", "occupation", "zip"]
    users = pd.read_csv(folder / "u.user", sep="|", names=names, encoding="latin1")
    rows = rows.merge(users[["user_id", "age", "occupation"]], on="user_id", how="left")
    return rows.assign(like=(rows["rating"] >= 4).astype(int)).drop(columns="timestamp")


def splits(about: str) -> Any:
    """Drawn anew for every seed."""

    def make(folder: Path, args: Any) -> dict[int, Split]:
        rows, found = rows_of(folder), {}
        for seed in range(args.seeds):
            order = np.random.default_rng(seed).permutation(len(rows))
            first, second = int(len(rows) * 0.7), int(len(rows) * 0.8)
            parts = [rows.iloc[order[at]].reset_index(drop=True) for at in (slice(first), slice(first, second))]
            train, validation, test = *parts, rows.iloc[order[second:]].reset_index(drop=True)
            if about == "watches":
                rng = np.random.default_rng([seed, 2])
                validation, test = watches(validation, train, rng), watches(test, train, rng)
            found[seed] = Split(train, validation, {"all": test}, seed)
        return found

    return make


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--about", choices=tuple(STUDIES), default="ratings")
    given, rest = chosen.parse_known_args(arguments)
    return STUDIES[given.about].run(splits(given.about), rest)


if __name__ == "__main__":
    frame.start(__file__)
