"""Rows a second of `fit` on frozen text that stands in the cache, against the same model with a `Vector` of that width.

python -m benchmarks.studies.frozen_speed --folder FOLDER --out benchmarks/results/content/frozen_speed.csv
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.studies import _frame as frame

DEFAULTS = {"folder": str, "rows": 50_000, "texts": 300, "batch": 256, "length": 32, "rounds": 7, "seed": 0}
COLUMNS = (
    *("model", "rows", "texts", "batch", "length", "rounds", "seed", "vector_rows_a_second", "text_rows_a_second"),
    *("ratio", "ratio_low", "ratio_high"),
)


def measure(folder: str, rows: int, texts: int, batch: int, length: int, rounds: int, seed: int) -> dict[str, Any]:
    """An epoch of each in turns, from the table on; `ratio` is of rates, the median of the rounds and their range.

    Texts are looked up in the cache and vectors are read from their column in each epoch. The texts were encoded before
    the clock starts.
    """
    import numpy as np
    import pandas as pd

    from mtl_zoo import BinaryTask, Categorical, FeatureTransform, LanguageModel, SharedBottom, Text, Vector

    rng = np.random.default_rng(seed)
    words = np.array("film good bad dog save town love war old new king night city story road sea".split())
    drawn = np.array([" ".join([*rng.choice(words, length - 8), str(i)]) for i in range(texts)], object)
    at = rng.integers(0, texts, rows)
    with tempfile.TemporaryDirectory() as cache:
        encoder = LanguageModel(folder, max_length=length, cache=cache)
        vectors = encoder.vectors(drawn.tolist())
        table = pd.DataFrame({"user": rng.integers(0, 5000, rows), "text": drawn[at], "vector": list(vectors[at])})
        table = table.assign(click=rng.integers(0, 2, rows), like=rng.integers(0, 2, rows))
        models = []
        for feature in (Vector("vector", scaling=None, encoder=32), Text("text", encoder, dim=32)):
            tasks = [BinaryTask("click"), BinaryTask("like")]
            transform = FeatureTransform([Categorical("user"), feature], tasks).fit(table)
            models.append(SharedBottom(transform, bottom_units=(128, 64), tower_units=(32,)))
            models[-1].compile("auto", metrics=None)
        seconds: list[list[float]] = [[], []]
        for number in range(rounds + 1):  # the first one traces
            for i in (0, 1) if number % 2 else (1, 0):
                start = time.perf_counter()
                models[i].fit(table, batch_size=batch, epochs=1, verbose=0)
                seconds[i].append(time.perf_counter() - start)
    of_vector, of_text = seconds[0][1:], seconds[1][1:]
    return {
        "vector_rows_a_second": round(rows / float(np.median(of_vector))),
        "text_rows_a_second": round(rows / float(np.median(of_text))),
        **frame.ratios(of_vector, of_text),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    args = vars(frame.parser(__doc__ or "", DEFAULTS).parse_args(arguments))
    rows = frame.Rows(args.pop("out"), COLUMNS)
    found, _ = frame.run(measure, *(args[name] for name in DEFAULTS))
    sizes = {name: args[name] for name in DEFAULTS if name != "folder"}
    rows.add({"model": args["folder"].rstrip("/").rsplit("/", 1)[-1], **sizes, **found})
    frame.show(rows.read(), COLUMNS, "rate of frozen text over that of a Vector")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
