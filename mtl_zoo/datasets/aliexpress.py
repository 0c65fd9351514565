"""AliExpress search logs of four countries: impressions, clicks and conversions.

Read are {country}/train.csv and test.csv with header: search_id, categorical_1 .. 16, numerical_1 .. 63, click,
conversion. That is the form in which results on it are published: the official files hold the columns of searches and
of items apart, and Multitask-Recommendation-Library's preprocess.py joins them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import find_file, missing_files, open_bytes, quick_version, require_file, search_roots
from mtl_zoo.features.spec import Categorical, Numeric
from mtl_zoo.tasks import BinaryTask

COUNTRIES = ("NL", "ES", "FR", "US")
CATEGORICAL = tuple(f"categorical_{i}" for i in range(1, 17))
NUMERIC = tuple(f"numerical_{i}" for i in range(1, 64))
LABELS = ("click", "conversion")
COLUMNS = ("search_id", *CATEGORICAL, *NUMERIC, *LABELS)
FOLDERS = ("aliexpress", "")


def _names(country: str, part: str) -> tuple[str, ...]:
    return f"{country}/{part}.csv", f"AliExpress_{country}/{part}.csv"


def _check_files(roots: list[Path]) -> list[Check]:
    checks = []
    for country in COUNTRIES:
        for part in ("train", "test"):
            path = find_file(roots, FOLDERS, _names(country, part))
            if path is None:
                continue
            table = _read(path, None, columns=("search_id", *LABELS))
            counts = {"rows": len(table), "clicks": table["click"].sum(), "conversions": table["conversion"].sum()}
            found = ", ".join(f"{int(n):,} {what}" for what, n in counts.items())
            checks.append(Check(f"{country} {part}", "columns and labels of the format", found, True))
    if not checks:
        raise missing_files("aliexpress", roots, FOLDERS[0], ("NL/train.csv", "NL/test.csv", "..."))
    return checks


@register_dataset(
    "aliexpress",
    source="https://tianchi.aliyun.com/dataset/74690",
    licence="Alibaba Tianchi: research use, non-commercial",
    folders=FOLDERS,
    files=tuple(_names(country, part)[0] for country in COUNTRIES for part in ("train", "test")),
    login=(
        "Download aliexpress_NL_datasets.zip (or _ES_, _FR_, _US_) from https://tianchi.aliyun.com/dataset/74690 and "
        "join its searches and items with preprocess.py of github.com/easezyc/Multitask-Recommendation-Library; one "
        "country is enough."
    ),
    check_files=_check_files,
)
def aliexpress(
    data_dir: str | Path | None = None,
    *,
    country: str = "NL",
    max_rows: int | None = None,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """AliExpress: click, and conversion given a click, in the search results of one of four countries.

    16 categorical and 63 numeric columns. A tenth of the train file's searches, at random by seed, is held out whole
    for validation; testing is the official test file. (Published tables chose their epoch on the test file; a clean
    validation split scores slightly lower.)

    Args:
        data_dir: See `load_dataset`.
        country: `"NL"`, `"ES"`, `"FR"` or `"US"`.
        max_rows: Read so many rows of each file only.
        embedding_dim: Width of every embedding.
        seed: Of the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a column is missing; a label is not 0 or 1, or converts without a click.

    Reference: Li et al., "Improving multi-scenario learning to rank in e-commerce by exploiting task relationships in
    the label space", CIKM 2020, doi:10.1145/3340531.3412713.
    """
    check.check_choice("country", country, COUNTRIES)
    check.check_int("seed", seed, minimum=0)
    if max_rows is not None:
        check.check_int("max_rows", max_rows, minimum=2)
    roots = search_roots(data_dir)
    paths = {part: require_file("aliexpress", roots, FOLDERS, _names(country, part)) for part in ("train", "test")}
    tables = {part: _read(path, max_rows) for part, path in paths.items()}
    held_out = held_out_searches(tables["train"]["search_id"].to_numpy(), seed)
    return fitted_dataset(
        tables={
            "train": tables["train"][~held_out].reset_index(drop=True),
            "validation": tables["train"][held_out].reset_index(drop=True),
            "test": tables["test"],
        },
        features=(*(Categorical(c, dim=embedding_dim) for c in CATEGORICAL), *(Numeric(c) for c in NUMERIC)),
        tasks=(BinaryTask("click"), BinaryTask("conversion", sample_space="click")),
        group_columns=("search_id",),
        name="aliexpress",
        variant=country if max_rows is None else f"{country},max_rows={max_rows}",
        version=quick_version(paths.values()),
        split_rule=(
            f"official train file, a tenth of its searches at random for validation (seed {seed}); official test file"
        ),
    )


def held_out_searches(searches: np.ndarray, seed: int) -> np.ndarray:
    """True for the rows of a tenth of the searches (at least one, never all), drawn at random."""
    codes, known = pd.factorize(searches)
    if len(known) < 2:
        raise ValueError(
            f"`search_id` must have at least two values to split by. Received: {check.sample_values(known)}"
        )
    chosen = np.zeros(len(known), bool)
    chosen[np.random.default_rng(seed).permutation(len(known))[: max(1, round(len(known) / 10))]] = True
    return chosen[codes]


def _read(path: Path, max_rows: int | None, columns: tuple[str, ...] = COLUMNS) -> pd.DataFrame:
    with open_bytes(path) as file:
        header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    absent = [c for c in COLUMNS if c not in header]
    if absent:
        raise ValueError(
            f"`{path.name}` must have the header search_id, categorical_1 .. 16, numerical_1 .. 63, click, conversion. "
            f"Received: {path} without {check.sample_values(absent)}"
        )
    dtypes = {c: "float32" if c in NUMERIC else "int64" for c in columns}
    table = pd.read_csv(path, usecols=list(columns), dtype=dtypes, nrows=max_rows, encoding="utf-8-sig")
    for label in LABELS:
        odd = ~table[label].isin((0, 1))
        if odd.any():
            raise ValueError(
                f"`{label}` must be 0 or 1. Received {int(odd.sum())} others in {path}: "
                f"{check.sample_values(table[label][odd])}"
            )
    without_click = int((table["conversion"] > table["click"]).sum())
    if without_click:
        raise ValueError(
            f"`conversion` must be 0 where click is 0. Received: {without_click} rows in {path} where it is 1"
        )
    return table
