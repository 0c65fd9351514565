"""What is written about an item, where nobody has rated it yet: MovieLens 100K with sentences of Wikipedia.

    python -m benchmarks.studies.cold_text --out benchmarks/results/content/cold_text.csv

For each seed, 300 films with a summary are held out of training altogether (the cold test) and 150 others for the choice
of the epoch; of the other ratings a tenth is the warm test, and a tenth chooses as well. Every case is trained on the same
rows: it is a function from the seed's split to the features, and the table that they read, entered under its name by
`@case`. `like` (4 stars and more) is scored by AUC, `rating` by RMSE. Scores are kept beside the rows, so that a case that
is added later is compared with those before, by a bootstrap of the test's films that all seeds share.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, RegressionTask, Text, create_model
from mtl_zoo.metrics.exact import auc, rmse

BASE = "ids"
TASKS = (BinaryTask("like"), RegressionTask("rating"))
COLUMNS = ("case", "seed", "items", "task", "metric", "value", "rows", "films", "best_epoch", "epochs", "seconds")
_GENRES = 19


@dataclasses.dataclass(frozen=True)
class Split:
    """The rows of a seed, with columns user_id, item_id, title, summary, genres, rating and like."""

    train: pd.DataFrame
    validation: pd.DataFrame
    tests: dict[str, pd.DataFrame]
    seed: int


@dataclasses.dataclass(frozen=True)
class Made:
    """What a case makes of a split: features, and a table of each part of it, with columns of its own if it needs any."""

    features: list[Any]
    table: Callable[[pd.DataFrame], pd.DataFrame] = lambda part: part


CASES: dict[str, Callable[[Split], Made]] = {}


def case(name: str) -> Callable[[Callable[[Split], Made]], Callable[[Split], Made]]:
    """Enters a case of the study under its name."""

    def enter(make: Callable[[Split], Made]) -> Callable[[Split], Made]:
        if name in CASES:
            raise ValueError(f"`case` must have a new name. Received: {name!r}")
        CASES[name] = make
        return make

    return enter


def ids() -> list[Any]:
    """User and film; in training a part of the films are read as unknown, so that an unknown one has a vector."""
    return [Categorical("user_id", dim=16), Categorical("item_id", dim=16, unknown_rate=0.2)]


def summary(encoder: Any, **arguments: Any) -> Text:
    """The sentences on a film, as all cases read them."""
    return Text("summary", encoder, **{"dim": 32, "max_length": 48, "vocabulary_size": 4000, **arguments})


@case(BASE)
def _(split: Split) -> Made:
    return Made(ids())


@case("genres")
def _(split: Split) -> Made:
    return Made([*ids(), Categorical("genres", dim=16, multi_hot=True)])


for _encoder in ("mean", "cnn", "attention"):
    CASES[f"text: {_encoder}"] = lambda split, encoder=_encoder: Made([*ids(), summary(encoder)])  # type: ignore[misc]


@case("text: mean, dropout")
def _(split: Split) -> Made:
    return Made([*ids(), summary("mean", dropout_tokens=0.2)])


@case("text: mean + genres")
def _(split: Split) -> Made:
    return Made([*ids(), Categorical("genres", dim=16, multi_hot=True), summary("mean")])


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


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How every case is trained."""

    model: str
    epochs: int
    batch_size: int
    learning_rate: float


def trained(split: Split, made: Made, sizes: Sizes) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Scores of the tests by part and task, at the epoch with the best validation AUC of `like`, and how it went."""
    import keras

    from mtl_zoo.training import ExactValidation, PrimaryTask

    keras.utils.set_random_seed(split.seed)
    transform = FeatureTransform(made.features, TASKS).fit(made.table(split.train))
    units = {"bottom_units": (64, 32), "tower_units": (16,)} if sizes.model == "shared_bottom" else {}
    model = create_model(sizes.model, transform, **units)
    model.compile(keras.optimizers.Adam(sizes.learning_rate), metrics=None)
    best = ExactValidation(made.table(split.validation), patience=2, select=PrimaryTask("like"))
    started = time.perf_counter()
    history = model.fit(
        made.table(split.train), batch_size=sizes.batch_size, epochs=sizes.epochs, verbose=0, callbacks=[best]
    )
    about = {"seconds": round(time.perf_counter() - started, 1), "epochs": len(history.epoch)}
    scores = {}
    for part, test in split.tests.items():
        found = model.predict(made.table(test), batch_size=4096, verbose=0)
        scores[part] = {task.name: np.asarray(found[task.name]).reshape(-1) for task in TASKS}
    return scores, {**about, "best_epoch": best.best_epochs["like"]}


def metrics(test: pd.DataFrame, scores: dict[str, np.ndarray], rows: Any = slice(None)) -> dict[str, float]:
    """By task, on some rows of a test."""
    like, rating = test["like"].to_numpy()[rows], test["rating"].to_numpy(float)[rows]
    return {"like": float(auc(like, scores["like"][rows])), "rating": float(rmse(rating, scores["rating"][rows]))}


def differences(
    tests: dict[int, pd.DataFrame],
    base: dict[int, dict[str, np.ndarray]],
    other: dict[int, dict[str, np.ndarray]],
    resamples: int,
) -> dict[str, tuple[float, float, float]]:
    """By task: the mean over seeds of `other - base`, and its 95 % interval.

    Films are drawn with all their rows, in every seed anew: ratings of one film are not independent.
    """
    rng = np.random.default_rng(0)
    by_film = {s: list(test.groupby("item_id").indices.values()) for s, test in tests.items()}

    def mean_difference(rows: dict[int, Any]) -> dict[str, float]:
        gaps = []
        for seed, test in tests.items():
            before, after = (metrics(test, scores[seed], rows[seed]) for scores in (base, other))
            gaps.append({task: after[task] - before[task] for task in before})
        return {task: float(np.mean([gap[task] for gap in gaps])) for task in gaps[0]}

    value = mean_difference(dict.fromkeys(tests, slice(None)))
    drawn = []
    for _ in range(resamples):
        rows = {}
        for seed, films in by_film.items():
            rows[seed] = np.concatenate([films[i] for i in rng.integers(len(films), size=len(films))])
        drawn.append(mean_difference(rows))
    found = {}
    for task, middle in value.items():
        low, high = np.percentile([one[task] for one in drawn], [2.5, 97.5])
        found[task] = (middle, float(low), float(high))
    return found


def compare(splits: dict[int, Split], scores: Path, resamples: int) -> list[dict[str, Any]]:
    """Rows of every case against ids only, on the seeds that both have."""
    kept = {(name, seed): _read(scores, name, seed) for name in CASES for seed in splits}
    rows = []
    for name in CASES:
        seeds = [seed for seed in splits if kept[name, seed] and kept[BASE, seed]]
        if name == BASE or not seeds:
            continue
        for part in ("cold", "warm"):
            tests = {seed: splits[seed].tests[part] for seed in seeds}
            base, other = ({seed: kept[which, seed][part] for seed in seeds} for which in (BASE, name))
            for task, (value, low, high) in differences(tests, base, other, resamples).items():
                numbers = {"difference": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
                about = {"case": name, "base": BASE, "items": part, "task": task, "seeds": len(seeds)}
                rows.append({**about, **numbers, "resamples": resamples})
    return rows


def _file(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.replace(': ', '-').replace(', ', '-').replace(' ', '-')}-{seed}.npz"


def _read(folder: Path, name: str, seed: int) -> dict[str, dict[str, np.ndarray]]:
    path = _file(folder, name, seed)
    if not path.exists():
        return {}
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            part, task = key.split(".")
            found.setdefault(part, {})[task] = arrays[key]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"seeds": 3, "held_out": 300, "train_rows": 0, "resamples": 500, "model": "shared_bottom"}
    options |= {"epochs": 15, "batch_size": 256, "learning_rate": 1e-3, "cases": tuple(CASES), "report_only": False}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    if not os.environ.get("MTL_ZOO_DATA"):
        raise ValueError("`MTL_ZOO_DATA` must name the folder of data sets, with movielens_100k in it.")
    table = ratings(Path(os.environ["MTL_ZOO_DATA"]) / "movielens_100k")
    splits = {s: split_of(table, s, args.held_out, args.held_out // 2, args.train_rows) for s in range(args.seeds)}
    sizes = Sizes(args.model, args.epochs, args.batch_size, args.learning_rate)
    kept, scores = frame.Rows(args.out, COLUMNS), args.out.with_name(f"{args.out.stem}-scores")
    scores.mkdir(exist_ok=True)
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        raise ValueError(f"`--cases` must be of {list(CASES)}. Received: {unknown}")
    for seed, split in splits.items():
        for name in [] if args.report_only else args.cases:
            if not (kept.has(case=name, seed=seed) and _file(scores, name, seed).exists()):
                _run(name, split, sizes, kept, scores)
    rows = compare(splits, scores, args.resamples)
    if rows:
        found = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), rows)
        frame.show(found, ["case", "items", "task", "seeds", "difference", "low", "high"], f"against {BASE}")
    return 0


def _run(name: str, split: Split, sizes: Sizes, kept: frame.Rows, scores: Path) -> None:
    found, about = trained(split, CASES[name](split), sizes)
    arrays = {f"{part}.{task}": values for part, by_task in found.items() for task, values in by_task.items()}
    np.savez(_file(scores, name, split.seed), **arrays)  # type: ignore[arg-type]
    for part, test in split.tests.items():
        for task, value in metrics(test, found[part]).items():
            of = {"case": name, "seed": split.seed, "items": part, "task": task}
            size = {"rows": len(test), "films": test["item_id"].nunique()}
            kept.add({**of, "metric": "auc" if task == "like" else "rmse", "value": round(value, 5), **size, **about})


if __name__ == "__main__":
    frame.start(__file__)
