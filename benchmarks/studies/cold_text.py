"""What is written about an item, where nobody has rated it yet: MovieLens 100K with sentences of Wikipedia.

    python -m benchmarks.studies.cold_text --out benchmarks/results/content/cold_text.csv

For each seed, 300 films with a summary are held out of training altogether (the cold test) and 150 others for the
choice of the epoch; of the other ratings a tenth is the warm test, and a tenth chooses as well. `like` (4 stars and
more) is scored by AUC, `rating` by RMSE, and the bootstrap draws films.

The cases of language models need `MTL_ZOO_LANGUAGE_MODELS` (see `_language.py`). Low-rank updates cost a hundred
times what a vector does, so those of MiniLM are trained for one epoch on `FEW` rows and scored on `TESTED` rows of each
test; the names of their cases say so, and beside them stand the ids alone and frozen MiniLM with the same rows. A
decoder of 135 M parameters is asked of each film, not of a user, whether viewers like it; it knows no rating beyond its
examples, and gives no number of stars.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies import _language
from benchmarks.studies._cases import Made, Scored, Split, Study
from mtl_zoo import BinaryTask, Categorical, RegressionTask, Text

_GENRES = 19
FEW, TESTED, ASKED = 4000, 2000, 1000
_QUESTION = "Film: {title}\nAbout: {summary}\nQuestion: Do most viewers like this film?\nAnswer:"

STUDY = Study(
    __doc__ or "",
    folder="movielens_100k",
    tasks=(BinaryTask("like"), RegressionTask("rating")),
    metrics={"like": "auc", "rating": "rmse"},
    groups="item_id",
    options={"held_out": 300, "train_rows": 0},
)


def ids() -> list[Any]:
    """User and film; in training a part of the films are read as unknown, so that an unknown one has a vector."""
    return [Categorical("user_id", dim=16), Categorical("item_id", dim=16, unknown_rate=0.2)]


def summary(encoder: Any, **arguments: Any) -> Text:
    """The sentences on a film, as all cases read them."""
    return Text("summary", encoder, **{"dim": 32, "max_length": 48, "vocabulary_size": 4000, **arguments})


@STUDY.case(STUDY.base)
def _(split: Split) -> Made:
    return Made(ids())


@STUDY.case("genres")
def _(split: Split) -> Made:
    return Made([*ids(), Categorical("genres", dim=16, multi_hot=True)])


for _encoder in ("mean", "cnn", "attention"):
    STUDY.cases[f"text: {_encoder}"] = lambda split, encoder=_encoder: Made([*ids(), summary(encoder)])  # type: ignore[misc]


@STUDY.case("text: mean, dropout")
def _(split: Split) -> Made:
    return Made([*ids(), summary("mean", dropout_tokens=0.2)])


@STUDY.case("text: mean + genres")
def _(split: Split) -> Made:
    return Made([*ids(), Categorical("genres", dim=16, multi_hot=True), summary("mean")])


if _language.has(_language.MINILM):

    @STUDY.case("MiniLM, frozen")
    def _(split: Split) -> Made:
        return Made([*ids(), minilm()])

    @STUDY.case("MiniLM, frozen + genres")
    def _(split: Split) -> Made:
        return Made([*ids(), Categorical("genres", dim=16, multi_hot=True), minilm()])

    _few = f"{FEW} rows"

    @STUDY.case(f"ids, {_few}")
    def _(split: Split) -> Made:
        return Made(ids(), train_rows=FEW)

    @STUDY.case(f"MiniLM, frozen, {_few}", bases=[f"ids, {_few}"])
    def _(split: Split) -> Made:
        return Made([*ids(), minilm()], train_rows=FEW)

    @STUDY.case(f"MiniLM, LoRA, {_few}, 1 epoch", bases=[f"ids, {_few}", f"MiniLM, frozen, {_few}"])
    def _(split: Split) -> Made:
        text = minilm(mode="lora", max_length=40)
        slow: dict[str, Any] = {"epochs": 1, "batch_size": 32, "predict_batch_size": 256}
        return Made([*ids(), text], train_rows=FEW, test_rows=TESTED, learning_rate=_language.LORA_RATES, **slow)


if _language.has(_language.SMOLLM):
    for _examples in (0, 2, 8):

        @STUDY.case(f"prompt of a decoder, {_examples} examples", bases=["ids"])
        def _(split: Split, examples: int = _examples) -> Scored:
            known = split.train[split.train["summary"].notna()]
            score = _language.prompted(short(known), {"like": _QUESTION}, (" yes", " no"), examples, split.seed)
            return Scored(lambda test: score(short(test)), ASKED)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """The table with summaries of 40 words at most: what a prompt holds is paid for by the word."""
    return table.assign(summary=_language.words(table["summary"], 40))


def minilm(max_length: int = 64, **options: Any) -> Text:
    """The summary as a vector of MiniLM, through a trained projection; of a frozen one made once for each text."""
    return Text("summary", _language.model(_language.MINILM, max_length=max_length, **options), dim=32)


def ratings(folder: Path) -> pd.DataFrame:
    """All ratings with what is known of their films."""

    def text(name: str, encoding: str = "latin1") -> io.StringIO:
        return io.StringIO(gzip.decompress((folder / name).read_bytes()).decode(encoding))

    named = ["user_id", "item_id", "rating", "timestamp"]
    rows = pd.read_csv(text("u.data.gz"), sep="\t", names=named)
    films = pd.read_csv(text("u.item.gz"), sep="|", header=None)
    genres = films[films.columns[-_GENRES:]].to_numpy().astype(bool)
    about = pd.DataFrame({"item_id": films[0], "title": films[1]})
    about["genres"] = ["|".join(str(number) for number in np.flatnonzero(row)) for row in genres]
    written = pd.read_csv(text("wiki_summaries.csv.gz", "utf-8")).drop_duplicates("movie_title")
    about["summary"] = about["title"].map(written.set_index("movie_title")["wiki_summary"])
    rows = rows.merge(about, on="item_id", how="left")
    return rows.assign(like=(rows["rating"] >= 4).astype(int))


def split_of(rows: pd.DataFrame, seed: int, held_out: int = 300, choosing: int = 150, train_rows: int = 0) -> Split:
    """The split of a seed. `train_rows` takes a sample of the training rows; 0 takes all."""
    rng = np.random.default_rng(seed)
    films = rng.permutation(np.sort(rows.loc[rows["summary"].notna(), "item_id"].unique()))
    cold, chooses = films[:held_out], films[held_out : held_out + choosing]
    is_cold, is_choosing = rows["item_id"].isin(cold), rows["item_id"].isin(chooses)
    others = rows[~is_cold & ~is_choosing]
    others = others.iloc[rng.permutation(len(others))]
    tenth = len(others) // 10
    train = others[2 * tenth :]
    train = train[:train_rows] if train_rows else train
    # Films and users that the sample lacks would be cold as well.
    warm = others[:tenth]
    warm = warm[warm["item_id"].isin(set(train["item_id"])) & warm["user_id"].isin(set(train["user_id"]))]
    validation = pd.concat([others[tenth : 2 * tenth], rows[is_choosing]])
    return Split(train, validation, {"cold": rows[is_cold], "warm": warm}, seed)


def splits(folder: Path, args: Any) -> dict[int, Split]:
    table = ratings(folder)
    return {s: split_of(table, s, args.held_out, args.held_out // 2, args.train_rows) for s in range(args.seeds)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    return STUDY.run(splits, arguments)


if __name__ == "__main__":
    frame.start(__file__)
