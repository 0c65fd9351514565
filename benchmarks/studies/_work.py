"""What `against` times. It imports nothing of the studies, since the package of another checkout runs it."""

from __future__ import annotations

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
    from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MMoE, Numeric, make_scorer
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
    x, y = transform.encode(table), transform.encode_labels(table)
    stream = TableStream(file, transform)
    scorer = make_scorer(model)
    many, one = ({name: array[:rows] for name, array in x.items()} for rows in (1_000, 1))

    def score(rows: dict[str, np.ndarray], times: int) -> None:
        for _ in range(times):
            scorer(rows)

    return {
        "fit from memory": lambda: model.fit(x, y, batch_size=1024, verbose=0),
        "fit from Parquet": lambda: model.fit(stream.batches(1024), verbose=0),
        "encode": lambda: [transform.encode(table) for _ in range(10)],
        "predict": lambda: model.predict(x, verbose=0),
        "scorer, 1,000 rows": lambda: score(many, 100),
        "scorer, 1 row": lambda: score(one, 500),
    }


def work(folder: str) -> None:
    """Does the cases that are asked for on standard input, and answers with their seconds of the processor."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made = cases(Path(folder))
    for call in made.values():
        call()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        begun = time.process_time()
        made[json.loads(line)]()
        answers.write(f"{time.process_time() - begun}\n")
        answers.flush()
