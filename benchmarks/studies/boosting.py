"""What gradient boosting or a linear model does better, where it beats the defaults: one change at a time.

    MTL_ZOO_DATA=data python -m benchmarks.studies.boosting --out benchmarks/results/bench/boosting.csv

Tables, rows, features and the base network are those of `numbers.py` with the defaults of `infer`. A case changes the
network alone (what it learns, its size, rate, batches, regularisation, how many are averaged) or the boosting alone
(trees of two leaves, which cannot make one number's effect depend on another's). A row of the file is one task of one
case and seed: AUC, or RMSE / standard deviation.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies import numbers
from benchmarks.studies._tables import Mixed
from mtl_zoo import MLP, Embedding, ExactValidation, create_model

COLUMNS = ("table", "seed", "case", "task", "metric", "value", "train_rows", "best_epoch", "epochs", "seconds")
DEFAULT = numbers.CASES["few ids, piecewise linear"]


@dataclasses.dataclass(frozen=True)
class Network:
    """How a network differs from the defaults.

    Args:
        arguments: Of `create_model`.
        numbers: How numbers enter.
        optimizer: What `compile` is given.
        batch_size: Rows a step.
        members: How many networks of other seeds the scores are averaged over.
        alone: Whether each task has a network of its own.
    """

    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    numbers: numbers.Case = DEFAULT
    optimizer: Any = "auto"
    batch_size: int = 256
    members: int = 1
    alone: bool = False


RATE = 1e-3
CASES: dict[str, Network] = {
    "network": Network(),
    "a network a task": Network(alone=True),
    "5 networks": Network(members=5),
    "twice as wide": Network({"bottom_units": (512, 256)}),
    "a layer more": Network({"bottom_units": (256, 256, 128)}),
    "dropout 0.2": Network({"bottom_units": MLP((256, 128), dropout=0.2)}),
    "5 networks, dropout 0.2": Network({"bottom_units": MLP((256, 128), dropout=0.2)}, members=5),
    "2 cross layers": Network({"embedding": Embedding(cross_layers=2)}),
    "vectors' penalty": Network({"embedding": Embedding(l2=0.01)}),
    "a third of the rate": Network(optimizer={"embeddings": RATE / 3, "dense": RATE / 3}),
    "3 times the rate": Network(optimizer={"embeddings": 3 * RATE, "dense": 3 * RATE}),
    "batches of 64": Network(batch_size=64),
    "64 pieces": Network(numbers=numbers.CASES["numbers, piecewise linear of 64 pieces"]),
    "vectors of numbers of 8": Network(numbers=numbers.CASES["numbers, piecewise linear of 8"]),
}
BASELINES: dict[str, Mapping[str, Any]] = {
    "boosting": {},
    "boosting, trees of two leaves": {"max_leaf_nodes": 2, "max_iter": 500},
    "linear": {},
}


def train(case: Network, mixed: Mixed, parts: numbers.Parts, seed: int, args: Any) -> tuple[numbers.Scores, dict]:
    """Test scores by task, and how the training went."""
    import keras

    groups = [(task,) for task in mixed.tasks] if case.alone else [mixed.tasks]
    scores: numbers.Scores = {task.name: np.zeros(len(parts["test"])) for task in mixed.tasks}
    started, epochs, best_epochs = time.perf_counter(), [], []
    for tasks in groups:
        told = tuple(t.label or t.name for t in mixed.tasks if t not in tasks)
        own = dataclasses.replace(mixed, tasks=tasks, exclude=(*mixed.exclude, *told))
        transform = numbers.transform_of(case.numbers, own, parts["train"])
        for member in range(case.members):
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed + 100 * member)
            model = create_model(args.model, transform, **case.arguments)
            model.compile(case.optimizer, metrics=None)
            best = ExactValidation(parts["validation"], patience=3)
            options = {"batch_size": case.batch_size, "epochs": args.epochs, "verbose": 0}
            epochs.append(len(model.fit(parts["train"], callbacks=[best], **options).epoch))
            best_epochs.append(max(best.best_epochs.values()))
            found = model.predict(parts["test"], batch_size=4096, verbose=0)
            for task in tasks:
                scores[task.name] += np.asarray(found[task.name], float).reshape(-1) / case.members
    seconds = round(time.perf_counter() - started, 1)
    return scores, {"epochs": max(epochs), "best_epoch": max(best_epochs), "seconds": seconds}


def run_boosting(args: Any) -> pd.DataFrame:
    def scores_of(case: str, mixed: Mixed, parts: numbers.Parts, seed: int) -> tuple[numbers.Scores, dict[str, Any]]:
        if case in CASES:
            return train(CASES[case], mixed, parts, seed, args)
        scores, about = numbers.train_baseline(case.partition(",")[0], mixed, parts, **BASELINES[case])
        return scores, {"seconds": about["seconds"]}

    return numbers.run_cases(args, COLUMNS, scores_of)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    defaults: dict[str, Any] = {"tables": ("hotel", "churn", "credit", "ratings"), "cases": (*BASELINES, *CASES)}
    defaults |= {"seeds": 3, "rows": 10_000, "model": "shared_bottom", "epochs": 20}
    args = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    found = numbers.differences(run_boosting(args)).T
    found.columns = [" ".join(name[:2]) for name in found.columns]
    frame.show(found.reset_index(), ["case", *found.columns], "better than boosting by")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
