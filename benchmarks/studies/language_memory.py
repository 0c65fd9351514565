"""Memory and time of training a language model inside of a model: low-rank updates against all weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.studies import _frame as frame
from benchmarks.studies.memory import peak_mb

DEFAULTS = {"folder": str, "batch": 32, "length": 64, "rank": 8, "steps": 4}
CASES = (("lora", False), ("lora", True), ("full", False), ("full", True))
COLUMNS = (
    *("model", "mode", "checkpointing", "batch", "length", "rank", "steps", "parameters", "trained", "slots_mb"),
    *("start_mb", "built_mb", "peak_mb", "training_mb", "seconds_a_step"),
)


def measure(
    folder: str, mode: str, checkpointing: bool, batch: int, length: int, rank: int, steps: int
) -> dict[str, Any]:
    """Figures of this process: peaks of memory before there is a model, once it is built, and after some steps."""
    import numpy as np
    import pandas as pd
    import tensorflow as tf

    from mtl_zoo import BinaryTask, FeatureTransform, LanguageModel, SharedBottom, Text

    tf.constant(0.0)  # starts TensorFlow
    rng = np.random.default_rng(0)
    words = np.array(["film", "good", "bad", "dog", "save", "town", "love", "war", "old", "new"])
    texts = [" ".join(rng.choice(words, length)) for _ in range(batch)]  # a token a word, cut at the length
    table = pd.DataFrame({"text": texts, "click": np.arange(batch) % 2})
    start = peak_mb()
    options = {"mode": mode, "rank": rank, "max_length": length, "checkpointing": checkpointing}
    transform = FeatureTransform(Text("text", LanguageModel(folder, **options)), BinaryTask("click")).fit(table)
    model = SharedBottom(transform, bottom_units=(16,), tower_units=())
    model.compile("adam", metrics=None)
    built = peak_mb()
    model.fit(table, batch_size=batch, verbose=0)  # traces, and makes the slots
    began = time.perf_counter()
    model.fit(table, batch_size=batch, epochs=steps, verbose=0)
    seconds = (time.perf_counter() - began) / steps
    count = lambda variables: sum(int(np.prod(v.shape)) for v in variables)  # noqa: E731
    slots = 4e-6 * count(model.optimizer.variables)
    peak = peak_mb()
    figures = {"slots_mb": slots, "start_mb": start, "built_mb": built, "peak_mb": peak, "training_mb": peak - built}
    return {
        "parameters": count(model.weights),
        "trained": count(model.trainable_variables),
        **{name: round(value, 1) for name, value in figures.items()},
        "seconds_a_step": round(seconds, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Adds a row for each way of training."""
    given = frame.parser(__doc__, DEFAULTS).parse_args(arguments)
    rows = frame.Rows(given.out, COLUMNS)
    numbers = {name: getattr(given, name) for name in ("batch", "length", "rank", "steps")}
    name = given.folder.rstrip("/").split("/")[-1]
    for mode, checkpointing in CASES:
        key = {"model": name, "mode": mode, "checkpointing": checkpointing, **numbers}
        if rows.has(**key):
            continue
        found, _ = frame.run(measure, given.folder, mode, checkpointing, *numbers.values())
        rows.add({**key, **found})
    frame.show(rows.read(), ("mode", "checkpointing", "trained", "slots_mb", "training_mb", "seconds_a_step"))
    return 0


if __name__ == "__main__":
    frame.start(__file__)
