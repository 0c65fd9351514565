"""One run of a baseline, with rows as those of a network have."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_zoo.benchmark.baselines import BASELINES, fit_baseline
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import features_of
from mtl_zoo.benchmark.progress import Silent
from mtl_zoo.benchmark.scores import save_scores_of
from mtl_zoo.datasets import Dataset
from mtl_zoo.evaluation import evaluate_scores
from mtl_zoo.training.callbacks import task_scores


def fit_rows(
    config: RunConfig,
    dataset: Dataset,
    arguments: Mapping[str, Any],
    seed: int,
    about: Mapping[str, Any],
    *,
    save_scores: str | Path | None,
    splits: Sequence[str],
    progress: Silent,
    after: Any,
) -> tuple[list[dict[str, Any]], dict[str, float], float]:
    """One run of a baseline: (rows, headline test score by task, seconds of fitting)."""
    progress.started(config, seed, len(dataset.tasks))
    started = time.perf_counter()
    baseline = BASELINES[config.model](**arguments)
    features = features_of(config, dataset)
    model, columns = fit_baseline(baseline, dataset, seed=seed, features=features, told=lambda task: progress.step())
    seconds = time.perf_counter() - started
    progress.noted(config, model.notes, columns["train"].left_out)
    rate = len(dataset.train) / max(seconds, 1e-9)
    common = {**about, "parameters": model.size, "train_seconds": round(seconds, 3)}
    common["examples_per_second"] = round(rate, 1)
    rows = []
    for split_name in splits:
        split, scores = dataset.splits[split_name], model.predict(columns[split_name])
        table = evaluate_scores(model, split, scores, group=config.group, products=True)
        rows += [{**common, "split": split_name, **row} for row in table.drop(columns="note").to_dict("records")]
    if save_scores is not None and split_name == "test":
        save_scores_of(Path(save_scores), model, dataset.test, scores, about)
    if after is not None:
        after(model, dataset, config, seed)
    return rows, task_scores(model, table), seconds
