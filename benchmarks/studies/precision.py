"""What narrow numbers cost in quality: models trained in bfloat16 products beside float32 ones.

    MTL_ZOO_DATA=... python -m benchmarks.studies.precision --out benchmarks/results/speed/precision.csv

For each data set, model and seed one training in each policy, the same rows in the same order, from the same weights.
A row is the AUC of a task on the test rows; `difference` is to that of float32 with the same seed. `step_profile` has
what is gained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras

from benchmarks.studies import _frame as frame
from benchmarks.studies._steps import SMALL
from benchmarks.studies.step_profile import POLICIES
from mtl_zoo import create_model, evaluate, load_dataset

COLUMNS = ("data", "model", "seed", "policy", "task", "auc", "difference", "epochs", "train_rows", "seconds")
DATA: dict[str, dict[str, Any]] = {"synthetic_funnel": {"size": "small"}, "movielens_100k": {}}


def trained(data: Any, model: str, seed: int, policy: str, epochs: int) -> tuple[dict[str, float], float]:
    """AUC by task, and the seconds of training."""
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(seed)
        made = create_model(model, data.features, data.tasks, **(SMALL if model == "mmoe" else {}))
        made.compile("auto", metrics=None)
        started = time.perf_counter()
        made.fit(data.train.inputs, data.train.labels, batch_size=1024, epochs=epochs, verbose=0)
        seconds = time.perf_counter() - started
        found = evaluate(made, data.test, verbose=0)
    finally:
        keras.config.set_dtype_policy(POLICIES[0])
    return found[found["metric"] == "auc"].set_index("task")["value"].to_dict(), seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.precision`."""
    options: dict[str, Any] = {"data": tuple(DATA), "models": ("shared_bottom", "mmoe"), "seeds": 3, "epochs": 2}
    args = frame.parser(__doc__, options).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    for name in args.data:
        data = load_dataset(name, **DATA.get(name, {}))
        for model in args.models:
            for seed in range(args.seeds):
                if kept.has(data=name, model=model, seed=seed, policy=POLICIES[-1]):
                    continue
                found = {policy: trained(data, model, seed, policy, args.epochs) for policy in POLICIES}
                for policy, (scores, seconds) in found.items():
                    about = {"data": name, "model": model, "seed": seed, "policy": policy, "epochs": args.epochs}
                    about |= {"train_rows": len(next(iter(data.train.inputs.values()))), "seconds": round(seconds, 1)}
                    for task, auc in scores.items():
                        difference = auc - found[POLICIES[0]][0][task]
                        kept.add({**about, "task": task, "auc": round(auc, 5), "difference": round(difference, 5)})
    frame.show(kept.read(), COLUMNS, "AUC by policy")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
