"""What `against` times. It imports nothing of the studies, since the package of another checkout runs it."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_ROWS, _FEATURES, _VALUES = 40_000, 20, 5_000


def _table(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"id_{i}": rng.integers(0, _VALUES, rows) * 7919 for i in range(_FEATURES)}
    columns |= {f"text_{i}": pd.Series(rng.integers(0, 500, rows)).map("value {}".format) for i in range(3)}
    columns |= {f"number_{i}": rng.normal(size=rows) for i in range(10)}
    click = rng.random(rows) < 0.3
    return pd.DataFrame({**columns, "click": click.astype(int), "buy": (click & (rng.random(rows) < 0.2)).astype(int)})


def cases(folder: Path) -> dict[str, Callable[[], Any]]:
    """The work by case, warmed up, with the code that this process has imported."""
    from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MMoE, Numeric, SharedBottom, make_scorer
    from mtl_zoo.features import TableStream

    table = _table(_ROWS)
    features = [Categorical(name, dim=8) for name in table if name.startswith(("id_", "text_"))]
    features += [Numeric(name) for name in table if name.startswith("number_")]
    transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("buy", sample_space="click")]).fit(table)
    file = folder / "rows.parquet"
    if not file.exists():
        table.to_parquet(file)
    model = MMoE(transform, num_experts=4, expert_units=(64, 32), tower_units=(16,))
    model.compile("auto", metrics=None)
    small = SharedBottom(transform, bottom_units=(64,), tower_units=(32,))
    small.compile("auto", metrics=None)
    x, y = transform.encode(table), transform.encode_labels(table)
    stream = TableStream(file, transform)
    scorer = make_scorer(model)
    many, one = ({name: array[:rows] for name, array in x.items()} for rows in (1_000, 1))

    def score(rows: dict[str, np.ndarray], times: int) -> None:
        for _ in range(times):
            scorer(rows)

    return {
        "fit from memory": lambda: model.fit(x, y, batch_size=1024, verbose=0),
        "fit, small batches": lambda: small.fit(x, y, batch_size=256, verbose=0),
        "fit from Parquet": lambda: model.fit(stream.batches(1024), verbose=0),
        "encode": lambda: [transform.encode(table) for _ in range(10)],
        "predict": lambda: model.predict(x, verbose=0),
        "scorer, 1,000 rows": lambda: score(many, 100),
        "scorer, 1 row": lambda: score(one, 500),
    }


# Of the steps of every model and method: 16 of 1,024 rows.
_STEP_ROWS, _STEP_FEATURES, _HISTORY, _DOMAINS = 16_384, 12, 10, 4


@functools.cache
def _inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {f"id_{i}": rng.integers(2, _VALUES, _STEP_ROWS) for i in range(_STEP_FEATURES)}
    found |= {"domain": rng.integers(2, 2 + _DOMAINS, _STEP_ROWS)}
    found |= {"history": rng.integers(0, _VALUES, (_STEP_ROWS, _HISTORY))}
    found = {name: ids.astype("int32") for name, ids in found.items()}
    return {**found, **{f"number_{i}": rng.normal(size=(_STEP_ROWS, 1)).astype("float32") for i in range(4)}}


def fit_of(kind: str, name: str) -> Callable[[], Any]:
    """An epoch of a model, or of an MMoE under a balancing method, with what it asks for beside the features of all."""
    from mtl_zoo import BinaryTask, Categorical, Numeric, Sequence, create_model, model_info
    from mtl_zoo.balancing import DataBased, label_frequencies

    model_name = name if kind == "model" else "mmoe"
    needs = model_info(model_name).requires
    features: list[Any] = [Categorical(f"id_{i}", size=_VALUES, dim=16) for i in range(_STEP_FEATURES)]
    features += [Numeric(f"number_{i}", normalization=None) for i in range(4)]
    features += [Categorical("domain", size=2 + _DOMAINS, dim=16)] if "domain" in needs else []
    features += [Sequence("history", size=_VALUES, length=_HISTORY, dim=16)] if "sequence" in needs else []
    cart = ["cart"] if "middle_action" in needs else []
    tasks = [BinaryTask("click"), *(BinaryTask(task, sample_space="click") for task in (*cart, "conversion"))]
    model = create_model(model_name, features, tasks)
    x = {feature.name: _inputs()[feature.name] for feature in features}
    rng = np.random.default_rng(2)
    click = rng.random(_STEP_ROWS) < 0.3
    labels = {task.name: click if task.name == "click" else click & (rng.random(_STEP_ROWS) < 0.2) for task in tasks}
    y = {task: values.astype("float32") for task, values in labels.items()}
    balancing = DataBased(label_frequencies(model, y)) if name == "data_based" else name
    model.compile("auto", metrics=None, **({"balancing": balancing} if kind == "balancing" else {}))
    return lambda: model.fit(x, y, batch_size=1024, verbose=0)


def work(folder: str) -> None:
    """Does the cases that are asked for on standard input, and answers with their seconds of the processor."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    house = functools.cache(lambda: cases(Path(folder)))
    warm: dict[str, Callable[[], Any]] = {}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        if case not in warm:
            kind, _, name = case.partition(" ")
            warm = {case: fit_of(kind, name) if kind in ("model", "balancing") else house()[case]}
            gc.collect()
            warm[case]()
        begun = time.process_time()
        warm[case]()
        print(time.process_time() - begun, file=answers, flush=True)
