"""What a tuned fusion is worth where the truth is known: expected conversions among the first of a user's candidates.

    python -m benchmarks.studies.fusion --out benchmarks/results/recommend/fusion.csv
    python -m benchmarks.studies.fusion --leave-out none --epochs 1 --out FILE

A model is trained on `synthetic_funnel`, keeps its best epoch by the mean validation AUC, and scores the validation and
test rows; the rows of a user are that user's candidates. By default it does not read the ids of users and items, which
it would over-fit to within two epochs. Fusions are tuned on the conversions that validation users really made, and
judged on the test rows by the true probabilities: the mean over users of `sum of q r` among the first k. The best
single task's order, chosen on validation too, is what gains are measured against, and the order of the true
probabilities is the most there can be.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.studies import _frame as frame
from mtl_zoo.datasets import Dataset, Split, load_dataset
from mtl_zoo.evaluation import bootstrap_interval
from mtl_zoo.metrics.exact import auc
from mtl_zoo.recommend import Fusion, MonotoneNetwork, Powers, ScoredLists, WeightedSum, tune_fusion

KINDS = ("powers", "weighted_sum", "reciprocal_rank", "borda")
LABEL, PRODUCT, ORACLE = "conversions", "click_and_conversion", "oracle"
COLUMNS = (
    *("model", "data", "seed", "train_rows", "test_rows", "users", "k", "fusion", "parameters", "sampler", "trials"),
    *("expected", "share", "share_over_random", "baseline", "gain", "low", "high", "reaches"),
    *("auc_click", "auc_conversion", "seconds"),
)
CRITERION = 0.9


def trained_scores(data: Dataset, args: Any, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by split and task of a model that is trained on the data, after its best epoch."""
    import keras

    from mtl_zoo import ExactValidation
    from mtl_zoo.models import create_model

    keras.utils.set_random_seed(seed)
    features = [feature for feature in data.features if feature.name not in args.leave_out]
    made = create_model(args.model, features, data.tasks, **options)
    made.compile("auto", metrics=None)

    def read(split: Split) -> Split:
        return dataclasses.replace(split, inputs={feature.name: split.inputs[feature.name] for feature in features})

    train, parts = read(data.train), {"validation": read(data.validation), "test": read(data.test)}
    best = ExactValidation(parts["validation"], patience=2)
    made.fit(train.inputs, train.labels, batch_size=1024, epochs=args.epochs, callbacks=[best], verbose=0)
    found = {name: made.predict(split.inputs, batch_size=4096, verbose=0) for name, split in parts.items()}
    return {
        name: {task: np.asarray(scores[task]).reshape(-1) for task in ("click", "conversion")}
        for name, scores in found.items()
    }


def lists_of(split: Split, scores: Mapping[str, np.ndarray], worth: np.ndarray) -> ScoredLists:
    """Each user's rows as a list of candidates."""
    return ScoredLists(scores, {LABEL: worth}, split.groups["user_id"])


def compare(
    validation: ScoredLists, test: ScoredLists, truth: np.ndarray, *, k: int, trials: int, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """A row for each fusion: what it is worth on the test lists, and what it gains on the best single task's order.

    Args:
        validation: Lists with the labels that were observed.
        test: Lists with what each candidate is truly worth.
        truth: The order that is best, as a score of the test rows.
        k, trials, resamples, seed: Of the search and the bootstrap.
    """
    found: dict[str, tuple[Fusion, dict[str, Any]]] = {}
    for kind in KINDS:
        tuned = tune_fusion(kind, validation, objective=LABEL, k=k, trials=trials, seed=seed)
        parameters = json.dumps({name: round(value, 4) for name, value in tuned.parameters.items()})
        found[kind] = tuned.fusion, {"parameters": parameters, "sampler": tuned.sampler, "trials": trials}
        baseline = tuned.baseline
    learned = MonotoneNetwork.fit(validation.scores, validation.labels[LABEL], validation.groups, seed=seed)
    found["monotone"] = learned, {}
    found["product"] = Powers(dict.fromkeys(validation.scores, 1.0)), {}
    found |= {name: (WeightedSum({name: 1.0}), {}) for name in validation.scores}
    before = test.values(baseline, LABEL, k=k)
    oracle = ScoredLists({ORACLE: truth}, test.labels, test.groups).values(WeightedSum({ORACLE: 1}), LABEL, k=k)
    at_random = _at_random(test, k)
    rows = []
    for name, (fusion, about) in found.items():
        values = test.values(fusion, LABEL, k=k)
        gain = bootstrap_interval(np.mean, values - before, resamples=resamples, seed=seed)
        share = float(values.mean() / oracle.mean())
        over = float((values.mean() - at_random) / (oracle.mean() - at_random))
        numbers = {"expected": values.mean(), "share": share, "share_over_random": over}
        numbers |= {"gain": gain.value, "low": gain.low, "high": gain.high}
        rounded = {key: round(float(value), 5) for key, value in numbers.items()}
        reaches = name in KINDS and share >= CRITERION and gain.low > 0
        rows.append({"fusion": name, **about, **rounded, "baseline": baseline.tasks()[0], "reaches": reaches})
    best = {"expected": round(float(oracle.mean()), 5), "share": 1.0, "share_over_random": 1.0}
    return [*rows, {"fusion": ORACLE, **best}]


def _at_random(lists: ScoredLists, k: int) -> float:
    """The mean over lists of what k candidates at random are worth."""
    codes = np.unique(lists.groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    means = np.bincount(codes, weights=lists.labels[LABEL]) / sizes
    return float((means * np.minimum(sizes, k)).mean())


def run_seed(args: Any, seed: int) -> list[dict[str, Any]]:
    """The rows of one seed, of the data and the model alike."""
    started = time.perf_counter()
    size = (args.train_rows, args.eval_rows, args.eval_rows)
    data = load_dataset("synthetic_funnel", size=size, seed=seed)
    options = {"num_experts": 4, "expert_units": (128, 64), "tower_units": (32,)} if args.model == "mmoe" else {}
    scores = trained_scores(data, args, seed, options)
    truth = data.test.truth[PRODUCT]
    validation = lists_of(data.validation, scores["validation"], data.validation.labels["conversion"])
    test = lists_of(data.test, scores["test"], truth)
    rows = compare(validation, test, truth, k=args.k, trials=args.trials, resamples=args.resamples, seed=seed)
    clicked = data.test.labels["click"] == 1
    about = {"model": args.model, "data": "synthetic_funnel", "seed": seed, "train_rows": args.train_rows, "k": args.k}
    about |= {"test_rows": args.eval_rows, "users": len(np.unique(test.groups))}
    about["auc_click"] = round(auc(data.test.labels["click"], scores["test"]["click"]), 5)
    about["auc_conversion"] = round(
        auc(data.test.labels["conversion"][clicked], scores["test"]["conversion"][clicked]), 5
    )
    return [{**about, **row, "seconds": round(time.perf_counter() - started, 1)} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"model": "mmoe", "seeds": 3, "train_rows": 500_000, "eval_rows": 100_000, "epochs": 6, "k": 10}
    options |= {"trials": 100, "resamples": 2000, "leave_out": ("user_id", "item_id")}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    rows = frame.Rows(args.out, COLUMNS)
    for seed in range(args.seeds):
        key = {"model": args.model, "seed": seed, "train_rows": args.train_rows, "test_rows": args.eval_rows}
        if not rows.has(**key, k=args.k):
            for row in run_seed(args, seed):
                rows.add(row)
    shown = ("seed", "fusion", "parameters", "expected", "share", "share_over_random", "gain", "low", "high", "reaches")
    frame.show(rows.read(), shown, "expected conversions among the first k")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
