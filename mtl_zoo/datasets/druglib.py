"""Druglib.com: patients' reviews of drugs, with a rating, the effect and the side effects in five classes each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import Resource, check_count, content_version, read_bytes, require_file, search_roots
from mtl_zoo.datasets._splits import cold_split, cut, without_training_row
from mtl_zoo.features.spec import Categorical
from mtl_zoo.tasks import MulticlassTask, RegressionTask

FOLDERS = ("druglib", "drug_review_druglib")
NAMES_OF_FILES = {
    "train": ("drugLibTrain_raw.tsv", "druglib_train.csv"),
    "test": ("drugLibTest_raw.tsv", "druglib_test.csv"),
}
COUNTS = {"train": 3_107, "test": 1_036}
EFFECTIVENESS = (
    "Ineffective",
    "Marginally Effective",
    "Moderately Effective",
    "Considerably Effective",
    "Highly Effective",
)
SIDE_EFFECTS = (
    "No Side Effects",
    "Mild Side Effects",
    "Moderate Side Effects",
    "Severe Side Effects",
    "Extremely Severe Side Effects",
)
COLUMNS = {
    "urlDrugName": "drug",
    "rating": "rating",
    "effectiveness": "effectiveness",
    "sideEffects": "side_effects",
    "condition": "condition",
    "benefitsReview": "benefits_review",
    "sideEffectsReview": "side_effects_review",
    "commentsReview": "comments_review",
}
REVIEWS = ("benefits_review", "side_effects_review", "comments_review")


def _check_files(roots: list[Path]) -> list[Check]:
    tables, _ = _read(roots)
    return [
        Check(part, f"{n:,} rows", f"{len(tables[part]):,} rows", n == len(tables[part])) for part, n in COUNTS.items()
    ]


@register_dataset(
    "druglib",
    source="https://archive.ics.uci.edu/dataset/461/drug+review+dataset+druglib+com",
    licence="CC BY 4.0 by the page; its authors ask for research use, no redistribution, and to be cited",
    folders=FOLDERS,
    files=tuple(names[0] for names in NAMES_OF_FILES.values()),
    resources=(
        Resource(
            "https://archive.ics.uci.edu/static/public/461/drug+review+dataset+druglib+com.zip",
            "druglib.zip",
            unpack=True,
        ),
    ),
    check_files=_check_files,
)
def druglib(
    data_dir: str | Path | None = None, *, split: str = "official", embedding_dim: int = 16, seed: int = 0
) -> Dataset:
    """Druglib.com: 4,143 reviews of drugs with a rating, and how well and how badly they worked.

    Tasks `rating` (regression, 1 to 10), `effectiveness` and `side_effects` (five classes each, from none to the
    most). Features `drug` and `condition` (lower case). The rows hold the texts `benefits_review`,
    `side_effects_review`, `comments_review`, and `review`, the three together; `data.entities["drug"]` the `name` as
    words.

    The texts were written with the labels: with them the tasks are the reading of a review, not the recommendation of a
    drug to someone who has not taken it.

    Args:
        data_dir: See `load_dataset`. Read are the official .tsv files, or the same as .csv.
        split: `"official"`: the test file is the test split, and a tenth of the train file, drawn, validates.
            `"cold_items"`: of both files a tenth of the drugs each for validation and test, with all their reviews.
        embedding_dim: Width of every embedding.
        seed: Of what is drawn for the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; the rows, ratings or classes are not those of the official files.

    Reference: Graesser, Kallumadi, Malberg and Zaunseder, DH 2018, doi:10.1145/3194658.3194677.
    """
    check.check_choice("split", split, ("official", "cold_items"))
    check.check_int("seed", seed, minimum=0)
    tables, version = _read(search_roots(data_dir))
    for name, count in COUNTS.items():
        check_count(f"rows of the {name} file", count, len(tables[name]))
    rows = pd.concat([tables["train"], tables["test"]], ignore_index=True)
    if split == "cold_items":
        part = cold_split(rows["drug"], seed)
        rule = f"drugs 80/10/10 at random, each with all of its reviews (seed {seed})"
    else:
        held_out = np.random.default_rng(seed).permutation(len(tables["train"])) < len(tables["train"]) // 10
        part = np.concatenate([held_out.astype("int8"), np.full(len(tables["test"]), 2, "int8")])
        rule = f"official train file, a tenth of it at random for validation (seed {seed}); official test file"
    drugs = sorted(set(rows["drug"].tolist()))
    return fitted_dataset(
        tables=cut(rows, part),
        features=(Categorical("drug", dim=embedding_dim), Categorical("condition", dim=embedding_dim)),
        tasks=(
            RegressionTask("rating"),
            MulticlassTask("effectiveness", classes=EFFECTIVENESS),
            MulticlassTask("side_effects", classes=SIDE_EFFECTS),
        ),
        group_columns=("drug",),
        entities={"drug": pd.DataFrame({"drug": drugs, "name": [drug.replace("-", " ") for drug in drugs]})},
        keep_raw=True,
        name="druglib",
        variant=f"{split}_split",
        version=version,
        split_rule=rule,
        notes=(
            without_training_row(rows["drug"], part, "drugs"),
            _repeated(rows["review"], part),
            "the texts were written with the labels",
        ),
    )


def _repeated(review: pd.Series, part: np.ndarray) -> str:
    again = review[part == 2].isin(review[part == 0])
    return f"{int(again.sum())} test rows have a review that a training row has, word for word"


def _read(roots: list[Path]) -> tuple[dict[str, pd.DataFrame], str]:
    paths = {part: require_file("druglib", roots, FOLDERS, names) for part, names in NAMES_OF_FILES.items()}
    contents = {part: read_bytes(path) for part, path in paths.items()}
    return {part: _table(paths[part], contents[part]) for part in paths}, content_version(*contents.values())


def _table(path: Path, content: bytes) -> pd.DataFrame:
    separator = "\t" if ".tsv" in path.suffixes else ","
    table = pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False, encoding="utf-8")
    absent = [column for column in COLUMNS if column not in table.columns]
    if absent:
        raise ValueError(f"`{path.name}` must have the columns {', '.join(COLUMNS)}. Received: {path} without {absent}")
    table = table[list(COLUMNS)].rename(columns=COLUMNS)
    rating = pd.to_numeric(table["rating"], errors="coerce")
    odd = ~rating.isin(range(1, 11))
    if odd.any():
        raise ValueError(
            f"`rating` must be 1 to 10. Received {int(odd.sum())} others in {path}: "
            f"{check.sample_values(table['rating'][odd])}"
        )
    for column, classes in (("effectiveness", EFFECTIVENESS), ("side_effects", SIDE_EFFECTS)):
        unknown = ~table[column].isin(classes)
        if unknown.any():
            raise ValueError(
                f"`{column}` must be one of {', '.join(classes)}. Received {int(unknown.sum())} others in {path}: "
                f"{check.sample_values(table[column][unknown])}"
            )
    # Cells of many lines are whole reviews; spaces at their ends and line breaks within mean nothing.
    texts = {name: table[name].str.split().str.join(" ") for name in REVIEWS}
    whole = texts[REVIEWS[0]].str.cat([texts[name] for name in REVIEWS[1:]], sep=" ").str.strip()
    condition = table["condition"].str.strip().str.lower()
    return table.assign(rating=rating.astype("float32"), condition=condition, **texts, review=whole)
