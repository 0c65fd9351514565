"""What patients write about a drug that the model has not seen: reviews of Druglib.com.

    MTL_ZOO_DATA=... python -m benchmarks.studies.cold_drugs --out benchmarks/results/content/cold_drugs.csv

For each seed a third of the drugs is held out of training altogether (the cold test), and a tenth of the others for the
choice of the epoch; of the rest a tenth is the warm test, and a tenth chooses as well. Tasks are the `rating` (1 to 10,
by RMSE), and whether the drug worked `well` (considerably or highly effective) and had `harm` (moderate side effects or
more), by AUC. The text is the patient's own, written with the rating: what is measured is how much of it each encoder
reads, not a forecast. The bootstrap draws drugs.

The cases of language models need `MTL_ZOO_LANGUAGE_MODELS` (see `_language.py`). Low-rank updates of MiniLM are trained
for three epochs, on 64 tokens. A decoder of 135 M parameters is asked about `ASKED` rows of each test, whose reviews
are cut to 40 words, whether the drug worked and whether it did harm; it gives no rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies import _language
from benchmarks.studies._cases import Made, Scored, Split, Study
from mtl_zoo import BinaryTask, Categorical, RegressionTask, Text, load_dataset
from mtl_zoo.datasets.druglib import EFFECTIVENESS, SIDE_EFFECTS

LENGTH, SIZE, ASKED = 96, 3000, 200
_QUESTIONS = {
    "well": "Review of {drug} for {condition}: {review}\nQuestion: Did the drug help?\nAnswer:",
    "harm": "Review of {drug} for {condition}: {review}\nQuestion: Did the drug have bad side effects?\nAnswer:",
}
STUDY = Study(
    __doc__ or "",
    folder="",
    tasks=(BinaryTask("well"), BinaryTask("harm"), RegressionTask("rating")),
    metrics={"well": "auc", "harm": "auc", "rating": "rmse"},
    groups="drug",
    options={"epochs": 20, "batch_size": 64},
)


def ids() -> list[Any]:
    """The drug and what it was taken for."""
    return [Categorical("drug", dim=16, unknown_rate=0.2), Categorical("condition", dim=16, unknown_rate=0.2)]


def review(encoder: Any, **arguments: Any) -> Text:
    """All that the patient wrote."""
    return Text("review", encoder, **{"dim": 32, "max_length": LENGTH, "vocabulary_size": SIZE, **arguments})


STUDY.case(STUDY.base)(lambda split: Made(ids()))
for _encoder in ("mean", "cnn", "attention", "gru", "transformer"):
    STUDY.cases[f"text: {_encoder}"] = lambda split, encoder=_encoder: Made([*ids(), review(encoder)])  # type: ignore[misc]
if _language.has(_language.MINILM):

    @STUDY.case("MiniLM, frozen")
    def _(split: Split) -> Made:
        return Made([*ids(), Text("review", _language.model(_language.MINILM, max_length=LENGTH), dim=32)])

    @STUDY.case("MiniLM, LoRA, 3 epochs", bases=["ids", "MiniLM, frozen"])
    def _(split: Split) -> Made:
        text = Text("review", _language.model(_language.MINILM, mode="lora", max_length=64), dim=32)
        slow: dict[str, Any] = {"epochs": 3, "batch_size": 32, "predict_batch_size": 256}
        return Made([*ids(), text], learning_rate=_language.LORA_RATES, **slow)


if _language.has(_language.SMOLLM):
    for _examples in (0, 2, 8):

        @STUDY.case(f"prompt of a decoder, {_examples} examples", bases=["ids"])
        def _(split: Split, examples: int = _examples) -> Scored:
            score = _language.prompted(short(split.train), _QUESTIONS, (" yes", " no"), examples, split.seed)
            return Scored(lambda test: score(short(test)), ASKED)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """The table with reviews of 40 words at most: what a prompt holds is paid for by the word."""
    return table.assign(review=_language.words(table["review"], 40))


def rows(folder: Path) -> pd.DataFrame:
    """All reviews."""
    data = load_dataset("druglib", data_dir=folder)
    table = pd.concat([part.raw for part in (data.train, data.validation, data.test) if part is not None])
    well = table["effectiveness"].map(EFFECTIVENESS.index) >= 3
    harm = table["side_effects"].map(SIDE_EFFECTS.index) >= 2
    return table.assign(well=well.astype(int), harm=harm.astype(int)).reset_index(drop=True)


def splits(folder: Path, args: Any) -> dict[int, Split]:
    """By drugs."""
    table, found = rows(folder), {}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        drugs = rng.permutation(np.sort(table["drug"].unique()))
        cold, choosing = drugs[: len(drugs) // 3], drugs[len(drugs) // 3 : len(drugs) // 3 + len(drugs) // 10]
        is_cold, is_choosing = table["drug"].isin(cold), table["drug"].isin(choosing)
        others = table[~is_cold & ~is_choosing]
        others = others.iloc[rng.permutation(len(others))]
        tenth = len(others) // 10
        validation = pd.concat([others[tenth : 2 * tenth], table[is_choosing]])
        tests = {"cold": table[is_cold], "warm": others[:tenth]}
        found[seed] = Split(others[2 * tenth :], validation, tests, seed)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    return STUDY.run(splits, arguments)


if __name__ == "__main__":
    frame.start(__file__)
