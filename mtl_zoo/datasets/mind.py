"""MIND: which news the readers of Microsoft News clicked, of those that they were shown, with titles and abstracts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import find_file, missing_files, quick_version, read_bytes, search_roots
from mtl_zoo.datasets._splits import without_training_row
from mtl_zoo.features.spec import Categorical, Sequence
from mtl_zoo.tasks import BinaryTask

SIZES = ("small", "large")
FOLDERS = ("mind", "MIND", "")
PARTS = ("train", "dev")
NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
_TIME = "%m/%d/%Y %I:%M:%S %p"


def _names(size: str, part: str, file: str) -> tuple[str, ...]:
    return f"MIND{size}_{part}/{file}", f"{size}/{part}/{file}"


def _check_files(roots: list[Path]) -> list[Check]:
    checks = []
    for size in SIZES:
        if find_file(roots, FOLDERS, _names(size, "train", "behaviors.tsv")) is None:
            continue
        for part, (behaviors, news) in _paths(roots, size).items():
            impressions, articles = len(_read_behaviors(behaviors, None)), len(_read_news([news]))
            found = f"{impressions:,} impressions, {articles:,} news"
            checks.append(Check(f"{size} {part}", "impressions and news of the format", found, impressions > 0))
    if not checks:
        raise missing_files("mind", roots, FOLDERS[0], [_names("small", p, f)[0] for p in PARTS for f in _FILES])
    return checks


_FILES = ("behaviors.tsv", "news.tsv")


@register_dataset(
    "mind",
    source="https://msnews.github.io/",
    licence="Microsoft Research licence: non-commercial research",
    folders=FOLDERS,
    files=tuple(_names("small", part, file)[0] for part in PARTS for file in _FILES),
    login=(
        "Accept the terms at https://msnews.github.io/, download MINDsmall_train.zip and MINDsmall_dev.zip (or the "
        "large ones), and unpack each into a folder of its name."
    ),
    check_files=_check_files,
)
def mind(
    data_dir: str | Path | None = None,
    *,
    size: str = "small",
    history: int = 20,
    negatives: int | None = None,
    max_rows: int | None = None,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """MIND: a click or none for each article that a reader of Microsoft News was shown.

    A row is one article of an impression. Task `click`. Features: user, article, its category and subcategory, hour of
    the day, and `history`, the last articles that the user clicked before the impression, which share the articles'
    table. `data.entities["news_id"]` has the texts `title` and `abstract`, `url`, and the entities found in them, as
    JSON. Rows also have `impression_id` (the group of the metrics) and `time`.

    A history ends before its impression, as published. News of both folders are known, clicks of the second are not.

    Args:
        data_dir: See `load_dataset`.
        size: `"small"` (50,000 users) or `"large"` (a million; some 80 million rows).
        history: Length of the history.
        negatives: So many articles without a click, drawn, beside each click of an impression in training; None: all.
            Validation and test have all.
        max_rows: Read so many impressions of each file only.
        embedding_dim: Width of every embedding.
        seed: Of the negatives. The last day of the train folder validates, and the dev folder is the test.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a line breaks the format; the train folder has a single day.

    Reference: Wu et al., ACL 2020, doi:10.18653/v1/2020.acl-main.331.
    """
    check.check_choice("size", size, SIZES)
    check.check_int("history", history)
    check.check_int("seed", seed, minimum=0)
    if negatives is not None:
        check.check_int("negatives", negatives)
    if max_rows is not None:
        check.check_int("max_rows", max_rows, minimum=2)
    paths = _paths(search_roots(data_dir), size)
    behaviors = {part: _read_behaviors(files[0], max_rows) for part, files in paths.items()}
    day = behaviors["train"]["time"].dt.normalize()
    if day.nunique() < 2:
        raise ValueError(
            f"`behaviors.tsv` must have two days or more. Received: {day.nunique()} in {paths['train'][0]}"
        )
    last = (day == day.max()).to_numpy()
    tables = {
        "train": _rows(behaviors["train"][~last], paths["train"][0], negatives, seed),
        "validation": _rows(behaviors["train"][last], paths["train"][0], None, seed),
        "test": _rows(behaviors["dev"], paths["dev"][0], None, seed),
    }
    ids = np.concatenate([tables[name]["news_id"].to_numpy() for name in ("train", "test")])
    part = np.repeat(np.array([0, 2]), [len(tables["train"]), len(tables["test"])])
    limits = {"negatives": negatives, "max_rows": max_rows}
    return fitted_dataset(
        tables=tables,
        features=(
            *(Categorical(n, dim=embedding_dim) for n in ("user_id", "news_id", "category", "subcategory", "hour")),
            Sequence("history", key="news_id", length=history, separator=" ", pooling="mean", dim=embedding_dim),
        ),
        tasks=(BinaryTask("click"),),
        group_columns=("impression_id", "user_id"),
        entities={"news_id": _read_news([files[1] for files in paths.values()])},
        keep_raw=True,
        name="mind",
        variant=",".join([size, f"history={history}", *(f"{n}={v}" for n, v in limits.items() if v is not None)]),
        version=quick_version(path for files in paths.values() for path in files),
        split_rule="train folder but for its last day, that day, dev folder",
        notes=(without_training_row(ids, part, "news"),),
    )


def _paths(roots: list[Path], size: str) -> dict[str, tuple[Path, Path]]:
    found = {(part, file): find_file(roots, FOLDERS, _names(size, part, file)) for part in PARTS for file in _FILES}
    absent = [_names(size, part, file)[0] for (part, file), path in found.items() if path is None]
    if absent:
        raise missing_files("mind", roots, FOLDERS[0], absent)
    paths = {key: path for key, path in found.items() if path is not None}
    return {part: (paths[part, _FILES[0]], paths[part, _FILES[1]]) for part in PARTS}


def _read_table(path: Path, columns: tuple[str, ...], max_rows: int | None = None) -> pd.DataFrame:
    """A file without header, separated by tabs, in which quotes mean nothing."""
    content = read_bytes(path)
    width = content.partition(b"\n")[0].count(b"\t") + 1
    if width != len(columns):
        raise ValueError(
            f"`{path.name}` must have {len(columns)} columns, {', '.join(columns)}. Received: {width} in {path}"
        )
    return pd.read_csv(
        io.BytesIO(content), sep="\t", header=None, names=list(columns), quoting=3, dtype=str, keep_default_na=False,
        nrows=max_rows, encoding="utf-8", encoding_errors="replace",
    )  # fmt: skip


def _read_behaviors(path: Path, max_rows: int | None) -> pd.DataFrame:
    table = _read_table(path, BEHAVIORS, max_rows)
    time = pd.to_datetime(table["time"], format=_TIME, errors="coerce")
    if time.isna().any():
        raise ValueError(
            f"`{path.name}` must have times such as 11/11/2019 9:05:58 AM. Received {int(time.isna().sum())} others in "
            f"{path}: {check.sample_values(table['time'][time.isna()])}"
        )
    return table.assign(time=time)


def _read_news(paths: list[Path]) -> pd.DataFrame:
    news = pd.concat([_read_table(path, NEWS) for path in paths], ignore_index=True)
    return news.drop_duplicates("news_id").reset_index(drop=True)


def _rows(behaviors: pd.DataFrame, path: Path, negatives: int | None, seed: int) -> pd.DataFrame:
    """A row for each article of each impression."""
    shown = behaviors["impressions"].str.split()
    place = np.repeat(np.arange(len(behaviors)), [len(impression) for impression in shown])
    articles = pd.Series([article for impression in shown for article in impression], dtype=object)
    parts = articles.str.rpartition("-")
    odd = ~parts[2].isin(("0", "1"))
    if odd.any() or articles.empty:
        raise ValueError(
            f"`{path.name}` must have impressions such as N55689-1 N35729-0, labels included. Received "
            f"{int(odd.sum())} others in {path}: {check.sample_values(articles[odd])}"
        )
    click = (parts[2] == "1").to_numpy()
    if negatives is not None:
        keep = _kept(place, click, negatives, np.random.default_rng(seed))
        place, click, parts = place[keep], click[keep], parts[keep].reset_index(drop=True)
    repeated = behaviors.iloc[place].reset_index(drop=True)
    return pd.DataFrame(
        {
            "impression_id": repeated["impression_id"],
            "user_id": repeated["user_id"],
            "news_id": parts[0],
            "time": repeated["time"],
            "hour": repeated["time"].dt.hour,
            "history": repeated["history"],
            "click": click.astype("float32"),
        }
    )


def _kept(place: np.ndarray, click: np.ndarray, negatives: int, rng: np.random.Generator) -> np.ndarray:
    """True for clicks, and for so many others of each impression, drawn, as `negatives` for each of its clicks."""
    order = np.lexsort((rng.random(len(place)), click, place))
    impression, others = place[order], ~click[order]
    starts = np.flatnonzero(np.concatenate([[True], impression[1:] != impression[:-1]]))
    rank = np.arange(len(place)) - np.repeat(starts, np.diff(np.append(starts, len(place))))
    allowed = negatives * np.bincount(place, weights=click, minlength=int(place.max()) + 1)
    kept = np.empty(len(place), bool)
    kept[order] = ~others | (rank < allowed[impression])
    return kept
