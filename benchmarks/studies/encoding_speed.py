"""Texts a second of `LanguageModel.vectors`, tokens and files included, against the network on its own batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.studies import _frame as frame

DEFAULTS = {"folder": str, "texts": 512, "batch": 32, "length": 64, "rounds": 5, "seed": 0}
COLUMNS = (
    *("model", "texts", "batch", "length", "rounds", "seed", "network_texts_a_second", "texts_a_second"),
    *("ratio", "ratio_low", "ratio_high", "cached_texts_a_second"),
)


def measure(folder: str, texts: int, batch: int, length: int, rounds: int, seed: int) -> dict[str, Any]:
    """Both in turns, on other texts in each round; `ratio` is of rates, the median of the rounds and their range.

    The network's own rate is that of `predict_on_batch` on ids that are tokenised, sorted by length and padded before
    the clock starts.
    """
    import keras
    import numpy as np

    from mtl_zoo import LanguageModel
    from mtl_zoo.language._tokenizers import padded

    rng = np.random.default_rng(seed)
    words = np.array("film good bad dog save town love war old new king night city story road sea".split())

    def drawn() -> list[str]:
        return [" ".join([*rng.choice(words, n), str(i)]) for i, n in enumerate(rng.integers(3, length - 4, texts))]

    with tempfile.TemporaryDirectory() as cache:
        model = LanguageModel(folder, max_length=length, batch_size=batch, cache=cache)
        layer = model.layer()
        inputs = keras.Input((None,), dtype="int32")
        network = keras.Model(inputs, layer(inputs))
        own, ours, again = [], [], []
        for number in range(rounds + 1):  # the first one traces
            found = drawn()
            lists = sorted(model.tokenizer().lists(found, length), key=len)
            batches = [lists[i : i + batch] for i in range(0, texts, batch)]
            ids = [padded(one, len(one[-1])) for one in batches]
            turns: list[tuple[list[float], Callable[[], Any]]] = [
                (own, lambda ids=ids: [network.predict_on_batch(one) for one in ids]),  # type: ignore[misc]
                (ours, lambda found=found: model.vectors(found)),  # type: ignore[misc]
            ]
            for times, call in turns[:: 1 if number % 2 else -1]:
                times.append(_seconds(call))
            again.append(_seconds(lambda found=found: model.vectors(found)))  # type: ignore[misc]
    own, ours, again = own[1:], ours[1:], again[1:]
    return {
        "network_texts_a_second": round(texts / float(np.median(own)), 1),
        "texts_a_second": round(texts / float(np.median(ours)), 1),
        **frame.ratios(own, ours),
        "cached_texts_a_second": round(texts / float(np.median(again)), 1),
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Adds a row."""
    given = frame.parser(__doc__ or "", DEFAULTS).parse_args(arguments)
    numbers = {name: getattr(given, name) for name in ("texts", "batch", "length", "rounds", "seed")}
    found, _ = frame.run(measure, given.folder, *numbers.values())
    rows = frame.Rows(given.out, COLUMNS)
    rows.add({"model": given.folder.rstrip("/").split("/")[-1], **numbers, **found})
    frame.show(rows.read(), ("model", "batch", "length", "network_texts_a_second", "texts_a_second", "ratio"))
    return 0


if __name__ == "__main__":
    frame.start(__file__)
