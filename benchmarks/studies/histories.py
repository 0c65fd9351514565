"""What a user liked before, read for the film that is asked about: MovieLens 100K in the order of time.

    python -m benchmarks.studies.histories --out benchmarks/results/content/histories.csv

The ratings are sorted by time: the last fifth is the test, the tenth before it chooses the epoch. A row's history is
the films that its user gave 4 stars and more at an earlier time, the last 30 of them; rows of users without any count
too. `like` (4 stars and more) is scored by AUC, `rating` by RMSE, and the bootstrap draws users. Seeds differ in the
starting weights and the order of the rows. The base reads the history as the mean of its films.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._cases import Made, Split, Study
from mtl_zoo import BinaryTask, Categorical, RegressionTask
from mtl_zoo import Sequence as History

LENGTH, DIM, UNKNOWN = 30, 16, 0.1
STUDY = Study(
    __doc__ or "",
    folder="movielens_100k",
    tasks=(BinaryTask("like"), RegressionTask("rating")),
    metrics={"like": "auc", "rating": "rmse"},
    groups="user_id",
    options={},
    base="mean",
)


def ids() -> list[Any]:
    """User and film; both are new to the model in part of the test."""
    return [
        Categorical("user_id", dim=DIM, unknown_rate=UNKNOWN),
        Categorical("item_id", dim=DIM, unknown_rate=UNKNOWN),
    ]


def history(**arguments: Any) -> History:
    """The films that the user liked before, in the table of films."""
    return History("history", key="item_id", dim=DIM, length=LENGTH, unknown_rate=UNKNOWN, **arguments)


STUDY.case("no history")(lambda split: Made(ids()))
STUDY.case("mean")(lambda split: Made([*ids(), history()]))
STUDY.case("attention")(lambda split: Made([*ids(), history(encoder="attention")]))
STUDY.case("gru")(lambda split: Made([*ids(), history(encoder="gru")]))
STUDY.case("din")(lambda split: Made([*ids(), history(encoder="din", query="item_id")]))
STUDY.case("sasrec")(lambda split: Made([*ids(), history(encoder="sasrec", query="item_id")]))


def ratings(folder: Path) -> pd.DataFrame:
    """All ratings in the order of time, with `like` and the `history` of each."""
    text = gzip.decompress((folder / "u.data.gz").read_bytes()).decode("latin1")
    rows = pd.read_csv(io.StringIO(text), sep="\t", names=["user_id", "item_id", "rating", "timestamp"])
    rows = rows.sort_values(["timestamp", "user_id", "item_id"], kind="stable").reset_index(drop=True)
    rows["like"] = (rows["rating"] >= 4).astype(int)
    histories = np.empty(len(rows), object)
    for _, of_user in rows.groupby("user_id"):
        liked: list[int] = []
        # What has the same time stamp is no history of each other.
        for _, at_once in of_user.groupby("timestamp"):
            for at in at_once.index:
                histories[at] = liked[-LENGTH:]
            liked = liked + at_once.loc[at_once["like"] == 1, "item_id"].tolist()
    return rows.assign(history=histories)


def splits(folder: Path, args: Any) -> dict[int, Split]:
    """By time; the same for every seed."""
    rows = ratings(folder)
    first, second = int(len(rows) * 0.7), int(len(rows) * 0.8)
    train, validation, test = rows[:first], rows[first:second], rows[second:]
    known = test["user_id"].isin(set(train["user_id"]))
    tests = {"all": test, "known users": test[known], "new users": test[~known]}
    return {seed: Split(train, validation, tests, seed) for seed in range(args.seeds)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    return STUDY.run(splits, arguments)


if __name__ == "__main__":
    frame.start(__file__)
