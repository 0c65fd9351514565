"""Coats that people chose to rate, tested on coats that chance chose for them: what the remedies for biased logs bring.

    python -m benchmarks.studies.biased_logs --out benchmarks/results/learning/biased_logs.csv

Every case is trained on the official training file, a tenth of each person's rows choosing the epoch (weighted as the
case weighs its rows), and tested on the official random test: `like` (4 stars and more) by AUC, its order by NDCG@5
within a person's 16 coats, `rating` by MSE. A twentieth of the test rows, the same for all cases, serves as the small
random sample that naive Bayes needs, and is not tested on. `self-normalised` weighs rows by inverse propensities;
`doubly robust` trains the rating on all 87,000 pairs, with the naive model's scores as imputations; the funnels learn
`rated`, then `like` on all pairs. The bootstrap draws persons.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import ndcg_score

from benchmarks.studies import _bootstrap as bootstrap
from benchmarks.studies import _frame as frame
from mtl_zoo.metrics.exact import auc

COLUMNS = ("case", "seed", "metric", "value", "rows", "persons", "epoch", "seconds")
FUNNELS = {"ESMM": "esmm", "ESCM2-IPS": "escm2_ips", "ESCM2-DR": "escm2_dr", "DCMT": "dcmt"}
CASES = ("naive", "self-normalised, naive Bayes", "self-normalised, logistic", "doubly robust", *FUNNELS)
OPTIONS: dict[str, Any] = {
    **{"seeds": 5, "epochs": 40, "patience": 4, "batch_size": 256, "learning_rate": 1e-3, "clip": 0.02},
    **{"resamples": 500, "report_only": False, "cases": CASES},
}
METRICS = ("like_auc", "like_ndcg@5", "rating_mse")


def data_of(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, np.ndarray]:
    """All pairs for training and validation, the test, and the labels of the small random sample."""
    from mtl_zoo import load_dataset

    data = load_dataset("coat", space="entire", seed=seed)
    test = data.test.raw
    sampled = np.random.default_rng(0).random(len(test)) < 0.05
    return data.train.raw, data.validation.raw, test[~sampled], test.loc[sampled, "rating"].to_numpy()


def with_weights(case: str, train: pd.DataFrame, validation: pd.DataFrame, sample: np.ndarray, clip: float) -> tuple:
    """The seen rows of both parts, weighed as the case says; the mean weight of each is 1."""
    from mtl_zoo.features import learn_propensities, naive_bayes_propensities, propensity_weights

    if case.endswith("naive Bayes"):
        parts = [part[part["rated"] == 1] for part in (train, validation)]
        shares = [part["rated"].mean() for part in (train, validation)]
        found = [naive_bayes_propensities(p["rating"], sample, s) for p, s in zip(parts, shares, strict=True)]
    else:
        whole = [learn_propensities(p[["user_id", "item_id"]], p["rated"]) for p in (train, validation)]
        found = [p[(part["rated"] == 1).to_numpy()] for p, part in zip(whole, (train, validation), strict=True)]
        parts = [part[part["rated"] == 1] for part in (train, validation)]
    return tuple(part.assign(weight=propensity_weights(p, clip=clip)) for part, p in zip(parts, found, strict=True))


def fitted(
    name: str, tasks: list, train: pd.DataFrame, validation: pd.DataFrame, args: Any, seed: int
) -> tuple[Any, int]:
    """A model of ids at the epoch with the lowest validation loss, and that epoch."""
    import keras

    from mtl_zoo import Categorical, FeatureTransform, create_model

    keras.utils.set_random_seed(seed)
    features = [Categorical("user_id", dim=16), Categorical("item_id", dim=16)]
    transform = FeatureTransform(features, tasks).fit(train)
    units = {"bottom_units": (32,), "tower_units": (16,)} if name == "shared_bottom" else {"tower_units": (16,)}
    model = create_model(name, transform, **units)
    model.compile(keras.optimizers.Adam(args.learning_rate), metrics=None)
    stop = keras.callbacks.EarlyStopping(
        "val_loss", mode="min", patience=args.patience, restore_best_weights=True, start_from_epoch=1
    )
    history = model.fit(
        train, validation_data=validation, batch_size=args.batch_size, epochs=args.epochs, verbose=0, callbacks=[stop]
    )
    return model, int(np.argmin(history.history["val_loss"])) + 1


def scores_of(case: str, parts: tuple, args: Any, seed: int) -> tuple[dict[str, np.ndarray], int]:
    """Scores of the test rows by task, and the epoch."""
    from mtl_zoo import BinaryTask, RegressionTask
    from mtl_zoo.features import doubly_robust_labels, learn_propensities

    train, validation, test, sample = parts
    if case in FUNNELS:
        tasks = [BinaryTask("rated"), BinaryTask("like", sample_space="rated")]
        model, epoch = fitted(FUNNELS[case], tasks, train, validation, args, seed)
        return {"like": model.predict(test, verbose=0)["like"].ravel()}, epoch
    seen = [part[part["rated"] == 1] for part in (train, validation)]
    if case == "doubly robust":
        naive, _ = fitted("shared_bottom", [BinaryTask("like"), RegressionTask("rating")], *seen, args, seed)
        made = []
        for part in (train, validation):
            imputed = naive.predict(part, verbose=0)["rating"].ravel()
            chances = learn_propensities(part[["user_id", "item_id"]], part["rated"])
            labels = doubly_robust_labels(part["rating"], chances, imputed, part["rated"], clip=args.clip)
            made.append(part.assign(rating=labels))
        model, epoch = fitted("shared_bottom", [RegressionTask("rating")], *made, args, seed)
    elif case == "naive":
        model, epoch = fitted("shared_bottom", [BinaryTask("like"), RegressionTask("rating")], *seen, args, seed)
    else:
        weighed = with_weights(case, train, validation, sample, args.clip)
        tasks = [BinaryTask("like", sample_weight="weight"), RegressionTask("rating", sample_weight="weight")]
        model, epoch = fitted("shared_bottom", tasks, *weighed, args, seed)
    return {name: values.ravel() for name, values in model.predict(test, verbose=0).items()}, epoch


class Judged:
    """The metrics of scores, for all persons or for some, of whom one may come more than once."""

    def __init__(self, test: pd.DataFrame, scores: dict[str, np.ndarray]):
        self.rows = test.reset_index(drop=True).groupby("user_id").indices
        self.like, self.order = test["like"].to_numpy(), scores["like"] if "like" in scores else scores["rating"]
        gains = {person: self._gain(at) for person, at in self.rows.items()}  # once, and not for every draw
        self.gains = {person: gain for person, gain in gains.items() if gain is not None}
        self.errors = (scores["rating"] - test["rating"].to_numpy(float)) ** 2 if "rating" in scores else None

    def _gain(self, at: np.ndarray) -> float | None:
        if len(at) < 2 or not self.like[at].any():
            return None
        return float(ndcg_score(self.like[None, at], self.order[None, at], k=5))

    def metrics(self, persons: np.ndarray | None = None) -> dict[str, float]:
        drawn = list(self.rows) if persons is None else list(persons)
        rows = np.concatenate([self.rows[person] for person in drawn])
        found = {"like_auc": auc(self.like[rows], self.order[rows])}
        found["like_ndcg@5"] = float(np.mean([self.gains[person] for person in drawn if person in self.gains]))
        if self.errors is not None:
            found["rating_mse"] = float(self.errors[rows].mean())
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    args = frame.parser(__doc__ or "", OPTIONS).parse_args(arguments)
    if not os.environ.get("MTL_ZOO_DATA"):
        raise ValueError("`MTL_ZOO_DATA` must name the folder of data sets, with coat in it.")
    unknown = [case for case in args.cases if case not in CASES]
    if unknown:
        raise ValueError(f"`--cases` must be of {list(CASES)}. Received: {unknown}")
    kept, folder = frame.Rows(args.out, COLUMNS), args.out.with_name(f"{args.out.stem}-scores")
    folder.mkdir(parents=True, exist_ok=True)
    tests = {}
    for seed in range(args.seeds):
        parts = data_of(seed)
        tests[seed] = parts[2]
        for case in [] if args.report_only else args.cases:
            if kept.has(case=case, seed=seed):
                continue
            started = time.perf_counter()
            scores, epoch = scores_of(case, parts, args, seed)
            np.savez(_file(folder, case, seed), **scores)  # type: ignore[arg-type]
            about = {"rows": len(parts[2]), "persons": parts[2]["user_id"].nunique(), "epoch": epoch}
            seconds = round(time.perf_counter() - started, 1)
            for metric, value in Judged(parts[2], scores).metrics().items():
                kept.add(
                    {
                        "case": case,
                        "seed": seed,
                        "metric": metric,
                        "value": round(value, 5),
                        **about,
                        "seconds": seconds,
                    }
                )
    rows = compared(args, folder, tests)
    if rows:
        found = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), rows)
        frame.show(found, ["case", "metric", "seeds", "difference", "low", "high"], "against the naive model")
    return 0


def _file(folder: Any, case: str, seed: int) -> Any:
    return folder / f"{''.join(letter if letter.isalnum() else '-' for letter in case)}-{seed}.npz"


def compared(args: Any, folder: Any, tests: dict[int, pd.DataFrame]) -> list[dict[str, Any]]:
    """Every case against the naive one, means over seeds, with an interval over persons."""
    rows = []
    for case in args.cases:
        pairs = {seed: [_file(folder, name, seed) for name in (case, "naive")] for seed in tests}
        found = {
            seed: [Judged(tests[seed], dict(np.load(path))) for path in both]
            for seed, both in pairs.items()
            if all(path.exists() for path in both)
        }
        if case == "naive" or not found:
            continue
        for metric, numbers in differences(list(found.values()), tests[0]["user_id"].unique(), args.resamples).items():
            gap = dict(zip(("difference", "low", "high"), (round(float(n), 5) for n in numbers), strict=True))
            rows.append({"case": case, "base": "naive", "metric": metric, "seeds": len(found), **gap})
    return rows


def differences(pairs: Sequence[Sequence[Judged]], persons: np.ndarray, resamples: int) -> dict[str, tuple]:
    """By metric: the mean over seeds of the first of a pair less the second, and its 95 % interval."""
    known = pairs[0][0].metrics()
    metrics = [metric for metric in METRICS if metric in known]

    def gaps(drawn: np.ndarray | None) -> list[float]:
        values = [[judged.metrics(drawn) for judged in both] for both in pairs]
        return [float(np.mean([ours[m] - naive[m] for ours, naive in values])) for m in metrics]

    found = bootstrap.interval(gaps, lambda rng: rng.choice(persons, len(persons)), resamples)
    return dict(zip(metrics, zip(*found, strict=True), strict=True))


if __name__ == "__main__":
    frame.start(__file__)
