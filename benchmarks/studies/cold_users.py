"""Users with a few ratings: what adapting to them brings, and training for it, on MovieLens.

    python -m benchmarks.studies.cold_users --out benchmarks/results/learning/cold_users.csv

For each seed a fifth of the users is held out of training altogether. Of each, the first `k` ratings by time are known,
and the next 20 are scored: `rating` by RMSE, and the order of these 20 by NDCG@5 with the stars as gains, means over
users. The model knows of a user age, gender and occupation, and of a film its id and genres. Every case has the same
model, epochs and search: its step size of the adaptation is chosen on the validation users, a tenth, and so is the
epoch. `--support n` trains one model by episodes of n known rows for all `k`, else one is trained for each. `none` does
not adapt; `fine-tuned` is the same model, adapted by the same steps; `user mean` moves its ratings to the mean of those
that are known. The bootstrap draws users.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _bootstrap as bootstrap
from benchmarks.studies import _frame as frame

QUERY = 20
COLUMNS = ("data", "case", "seed", "k", "metric", "value", "users", "inner_rate", "epoch", "seconds")
OPTIONS: dict[str, Any] = {
    **{"data": "movielens_100k", "seeds": 3, "shots": ("1", "3", "5", "10"), "epochs": 12, "episodes": 16},
    **{"patience": 2, "rates": (0.003, 0.01, 0.03, 0.1)},
    **{"learning_rate": 1e-3, "resamples": 500, "users": 0, "support": 0, "report_only": False},
    "cases": ("none", "fine-tuned", "user mean", "maml", "fomaml", "anil", "reptile"),
}
STEPS = 5


def ndcg(stars: np.ndarray, scores: np.ndarray, k: int = 5) -> float:
    """NDCG@k of one user's rows, the gains being 2^stars - 1."""
    gains = 2.0**stars - 1
    discounts = 1 / np.log2(np.arange(2, 2 + min(k, len(stars))))
    best = np.sort(gains)[::-1][: len(discounts)] @ discounts
    return float(gains[np.argsort(-scores, kind="stable")][: len(discounts)] @ discounts / best)


def table_of(name: str) -> pd.DataFrame:
    """All ratings of a MovieLens data set, each user's in their order, with what is known of users and films.

    The order is that of time; without times, one drawn at random.
    """
    from mtl_zoo import load_dataset

    data = load_dataset(name, split="user")
    rows = pd.concat([part.raw for part in (data.train, data.validation, data.test)], ignore_index=True)
    for column, known in data.entities.items():
        rows = rows.merge(known, on=column, how="left")
    drawn = np.random.default_rng(0).permutation(len(rows))
    rows = rows.assign(order=rows["timestamp"] if "timestamp" in rows else drawn, drawn=drawn)
    return rows.sort_values(["user_id", "order", "drawn"], ignore_index=True)


def model_of(train: pd.DataFrame, step: Any, args: Any, seed: int) -> Any:
    """A compiled model of the training rows."""
    import keras

    from mtl_zoo import BinaryTask, Categorical, FeatureTransform, RegressionTask, create_model

    keras.utils.set_random_seed(seed)
    features = [
        Categorical("age", dim=8),
        Categorical("gender", dim=4),
        Categorical("occupation", dim=8),
        Categorical("movie_id", dim=16, unknown_rate=0.05),
        Categorical("genres", dim=16, multi_hot=True),
    ]
    tasks = [RegressionTask("rating"), BinaryTask("like")]
    transform = FeatureTransform(features, tasks).fit(train)
    model = create_model("shared_bottom", transform, bottom_units=(64, 32), tower_units=(16,))
    model.compile(keras.optimizers.Adam(args.learning_rate), metrics=None, step=step)
    return model


def step_of(case: str, rate: float, k: int) -> Any:
    from mtl_zoo.steps import MAML, Reptile

    sizes = {"support": k, "query": QUERY, "inner_rate": rate}
    if case == "reptile":
        return Reptile(**sizes, inner_steps=STEPS)
    if case in ("maml", "fomaml", "anil"):
        adapts = "towers" if case == "anil" else "dense"
        return MAML(**sizes, inner_steps=STEPS, adapts=adapts, second_order=case != "fomaml")
    return None


def parts_of(rows: pd.DataFrame, seed: int, users: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training, validation and test rows; no user is in two of them. `users` takes a sample of them; 0 takes all."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.sort(rows["user_id"].unique()))
    ids = ids[:users] if users else ids
    fifth = len(ids) // 5
    parts = (ids[fifth + fifth // 2 :], ids[fifth : fifth + fifth // 2], ids[:fifth])
    return tuple(rows[rows["user_id"].isin(part)] for part in parts)  # type: ignore[return-value]


class Users:
    """Users whose rows are encoded for a model: of each those that may be known, and the 20 after them.

    Users with fewer rows are left out. A scorer that adapts is made once for each step size.
    """

    def __init__(self, model: Any, rows: pd.DataFrame, shots: Sequence[int]):
        self.model, self.most = model, max(shots)
        whole = self.most + QUERY
        found = [user[:whole] for _, user in rows.groupby("user_id", sort=True) if len(user) >= whole]
        table = pd.concat(found)
        x, y = model.transform.encode(table), model.transform.encode_labels(table)
        self.stars = table["rating"].to_numpy(float).reshape(-1, whole)[:, self.most :]
        self.x = {name: array.reshape(len(found), whole, *array.shape[1:]) for name, array in x.items()}
        self.y = {name: array.reshape(len(found), whole) for name, array in y.items()}
        self._scorers: dict[float, Any] = {}

    def known(self, k: int) -> slice:
        return slice(self.most - k, self.most)

    def predicted(self, where: slice) -> np.ndarray:
        """The model's own ratings of some rows of each user, (users, rows)."""
        x = {name: array[:, where].reshape(-1, *array.shape[2:]) for name, array in self.x.items()}
        return self.model.predict(x, batch_size=4096, verbose=0)["rating"].reshape(len(self.stars), -1)

    def adapted(self, k: int, rate: float) -> np.ndarray:
        """Ratings of each user's query rows, after an adaptation to its last `k` known rows with steps of that size."""
        from mtl_zoo.export import FewShotScorer

        if rate not in self._scorers:
            adapts = getattr(self.model.training_step, "adapts", "dense")
            self._scorers[rate] = FewShotScorer(self.model, inner_rate=rate, inner_steps=STEPS, adapts=adapts)
        found = []
        for at in range(len(self.stars)):
            support = {name: array[at, self.known(k)] for name, array in self.x.items()}
            query = {name: array[at, self.most :] for name, array in self.x.items()}
            labels = {name: array[at, self.known(k)] for name, array in self.y.items()}
            found.append(self._scorers[rate](query, support, labels)["rating"].ravel())
        return np.stack(found)

    def moved(self, k: int) -> np.ndarray:
        """The model's own ratings, moved so that their mean on the known rows is that of the stars there."""
        known = self.known(k)
        of_known, query = self.predicted(known), self.predicted(slice(self.most, None))
        stars = np.stack([self.y["rating"][at, known] for at in range(len(self.stars))])
        return query + (stars - of_known).mean(axis=1, keepdims=True)

    def measured(self, ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean squared error and NDCG@5 by user."""
        gains = np.array([ndcg(stars, scores) for stars, scores in zip(self.stars, ratings, strict=True)])
        return ((ratings - self.stars) ** 2).mean(axis=1), gains

    def error(self, k: int, rate: float | None) -> float:
        """The mean squared error after an adaptation, or without one."""
        ratings = self.predicted(slice(self.most, None)) if rate is None else self.adapted(k, rate)
        return float(self.measured(ratings)[0].mean())


def trained(
    case: str, rate: float, k: int, train: pd.DataFrame, validation: pd.DataFrame, args: Any, seed: int
) -> tuple[Any, int, float]:
    """The model at the epoch with the lowest error on the validation users, that epoch, and that error."""
    from mtl_zoo.features import make_episodes

    step = step_of(case, rate, k)
    model = model_of(train, step, args, seed)
    users = Users(model, validation, [int(s) for s in args.shots])
    x, y = model.transform.encode(train), model.transform.encode_labels(train)
    data, passes = None, 1
    if step is not None:
        # An epoch of episodes sees a run of each user's rows: as many passes as bring it to the rows of a plain epoch.
        passes = max(1, round(len(train) / (train["user_id"].nunique() * (k + QUERY))))
        sizes = {"support": k, "query": QUERY, "episodes": args.episodes, "order": train["order"].to_numpy()}
        data = make_episodes(x, y, train["user_id"], seed=seed, **sizes).repeat(passes)
    best, kept, at = np.inf, model.get_weights(), 0
    for epoch in range(1, args.epochs + 1):
        if data is None:
            model.fit(x, y, batch_size=256, epochs=1, verbose=0)
        else:
            model.fit(data, epochs=1, verbose=0)
        error = users.error(k, None if step is None else rate)
        if error < best:
            best, kept, at = error, model.get_weights(), epoch
        elif epoch >= at + args.patience:
            break
    model.set_weights(kept)
    return model, at, best


def run_case(
    case: str, k: int, parts: tuple, plain: Any, args: Any, seed: int, made: dict[Any, Any]
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Squares and NDCG by test user, and how they came about; models that were made for another `k` are in `made`."""
    train, validation, test = parts
    shots = [int(s) for s in args.shots]
    model, epoch, rate = *plain, None
    if case == "fine-tuned":
        choosing = Users(model, validation, shots)
        rate = min(args.rates, key=lambda one: choosing.error(k, one))
    elif case not in ("none", "user mean"):
        support = args.support or k
        if (case, support) not in made:
            found = {one: trained(case, one, support, train, validation, args, seed) for one in args.rates}
            best = min(found, key=lambda one: found[one][2])
            made[case, support] = (best, *found[best])
        rate, model, epoch, _ = made[case, support]
    users = Users(model, test, shots)
    if case == "user mean":
        ratings = users.moved(k)
    else:
        ratings = users.predicted(slice(users.most, None)) if rate is None else users.adapted(k, rate)
    return *users.measured(ratings), {"epoch": epoch, "inner_rate": "" if rate is None else rate}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    args = frame.parser(__doc__ or "", OPTIONS).parse_args(arguments)
    if not os.environ.get("MTL_ZOO_DATA"):
        raise ValueError(f"`MTL_ZOO_DATA` must name the folder of data sets, with {args.data} in it.")
    kept, folder = frame.Rows(args.out, COLUMNS), args.out.with_name(f"{args.out.stem}-scores")
    folder.mkdir(parents=True, exist_ok=True)
    rows = table_of(args.data)
    shots = [int(k) for k in args.shots]
    for seed in [] if args.report_only else range(args.seeds):
        parts = parts_of(rows, seed, args.users)
        plain, made = None, dict[Any, Any]()
        for k in shots:
            for case in args.cases:
                if kept.has(data=args.data, case=case, seed=seed, k=k):
                    continue
                if plain is None:
                    plain = trained("none", 0.0, max(shots), parts[0], parts[1], args, seed)[:2]
                started = time.perf_counter()
                squares, gains, about = run_case(case, k, parts, plain, args, seed, made)
                np.savez(_file(folder, args.data, case, k, seed), squares=squares, gains=gains)
                about |= {"users": len(gains), "seconds": round(time.perf_counter() - started, 1)}
                of = {"data": args.data, "case": case, "seed": seed, "k": k, **about}
                kept.add({**of, "metric": "rmse", "value": round(float(np.sqrt(squares.mean())), 5)})
                kept.add({**of, "metric": "ndcg@5", "value": round(float(gains.mean()), 5)})
    found = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), compared(args, folder, shots))
    frame.show(found, ["data", "case", "k", "metric", "seeds", "difference", "low", "high"], "against no adaptation")
    return 0


def _file(folder: Path, data: str, case: str, k: int, seed: int) -> Path:
    return folder / f"{data}-{case.replace(' ', '-')}-{k}-{seed}.npz"


def compared(args: Any, folder: Path, shots: Sequence[int]) -> list[dict[str, Any]]:
    """Every case against none, means over seeds, with an interval over users."""
    rows = []
    for k in shots:
        for case in args.cases:
            pairs = []
            for seed in range(args.seeds):
                paths = [_file(folder, args.data, name, k, seed) for name in (case, "none")]
                if all(path.exists() for path in paths):
                    pairs.append([dict(np.load(path)) for path in paths])
            if case == "none" or not pairs:
                continue
            for metric, numbers in differences(pairs, args.resamples).items():
                about = {"data": args.data, "case": case, "base": "none", "k": k, "metric": metric, "seeds": len(pairs)}
                gap = dict(zip(("difference", "low", "high"), (round(float(n), 5) for n in numbers), strict=True))
                rows.append({**about, **gap, "resamples": args.resamples})
    return rows


def differences(pairs: Sequence[Sequence[Any]], resamples: int) -> dict[str, tuple]:
    """By metric: the mean over seeds of the first of a pair less the second, and its 95 % interval.

    Users are drawn in every seed anew.
    """

    def values(part: Any, at: Any) -> np.ndarray:
        return np.array([np.sqrt(part["squares"][at].mean()), part["gains"][at].mean()])

    def gaps(drawn: Sequence[np.ndarray] | None) -> np.ndarray:
        places = [slice(None)] * len(pairs) if drawn is None else drawn
        return np.mean([values(a, at) - values(b, at) for (a, b), at in zip(pairs, places, strict=True)], axis=0)

    counts = [len(ours["gains"]) for ours, _ in pairs]
    found = bootstrap.interval(gaps, lambda rng: [rng.integers(0, count, count) for count in counts], resamples)
    return dict(zip(("rmse", "ndcg@5"), zip(*found, strict=True), strict=True))


if __name__ == "__main__":
    frame.start(__file__)
