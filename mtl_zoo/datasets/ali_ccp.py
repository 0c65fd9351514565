"""Ali-CCP: impressions, clicks and conversions of Taobao, 85 million rows, as published at Tianchi.

Raw layout, without header: a line of sample_skeleton_{train,test}.csv is `sample id, click, conversion, index of its
common features, number of features, features`; one of common_features_{train,test}.csv is `index, number, features`.
Features are separated by \\x01, each `field \\x02 feature id \\x03 value`.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import (
    cache_folder,
    find_file,
    missing_files,
    open_bytes,
    quick_version,
    require_file,
    search_roots,
)
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.tasks import BinaryTask

logger = logging.getLogger(__name__)

# The 18 fields with one value a row, and how many ids AITM's published preprocessing gives them, id 0 for all rarer
# values included: the checksum of a full download.
VOCABULARY_SIZES = {
    "101": 238_635,
    "121": 98,
    "122": 14,
    "124": 3,
    "125": 8,
    "126": 4,
    "127": 4,
    "128": 3,
    "129": 5,
    "205": 467_298,
    "206": 6_929,
    "207": 263_942,
    "216": 106_399,
    "508": 5_888,
    "509": 104_830,
    "702": 51_878,
    "853": 37_148,
    "301": 4,
}
FIELDS = tuple(VOCABULARY_SIZES)
# "More than 10 times", by a counter that starts at 0 for the first.
MIN_COUNT = 12
TRAIN_COUNTS = {"rows": 42_299_905, "clicks": 1_644_256, "conversions": 8_802}
TEST_COUNTS = {"rows": 43_016_616}
FOLDERS = ("ali_ccp", "ali_ccp/sample_train", "ali_ccp/sample_test", "ali-ccp", "")
RAW_FILES = tuple(f"{kind}_{part}.csv" for part in ("train", "test") for kind in ("sample_skeleton", "common_features"))
TASKS = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))

_PAIR = re.compile(rb"(?:^|\x01)(" + b"|".join(f.encode() for f in FIELDS) + rb")\x02(\d+)\x03")
_PLACE = {field.encode(): place for place, field in enumerate(FIELDS)}


def _check_files(roots: list[Path]) -> list[Check]:
    """Passes over all rows, without the cache."""
    paths = _raw_paths(roots)
    checks = []
    for part, expected in (("train", TRAIN_COUNTS), ("test", TEST_COUNTS)):
        rows = parse_raw(*paths[part])
        found = {"rows": len(rows), "clicks": int(rows[:, 0].sum()), "conversions": int(rows[:, 1].sum())}
        checks += [
            Check(f"{part} {what}", f"{n:,}", f"{found[what]:,}", n == found[what]) for what, n in expected.items()
        ]
        if part == "train":
            for place, field in enumerate(FIELDS):
                values, counts = np.unique(rows[:, 2 + place], return_counts=True)
                ids = 1 + int(np.count_nonzero(counts[values > 0] >= MIN_COUNT))
                size = VOCABULARY_SIZES[field]
                checks.append(Check(f"ids of field {field}", f"{size:,}", f"{ids:,}", ids == size))
    return checks


@register_dataset(
    "ali_ccp",
    source="https://tianchi.aliyun.com/dataset/408",
    licence="Alibaba Tianchi: research use, non-commercial",
    folders=FOLDERS,
    files=RAW_FILES,
    login="Download sample_train.tar.gz and sample_test.tar.gz from https://tianchi.aliyun.com/dataset/408 and unpack.",
    check_files=_check_files,
)
def ali_ccp(
    data_dir: str | Path | None = None,
    *,
    variant: str = "raw",
    max_rows: int | None = None,
    cache: bool = True,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Ali-CCP: click, and conversion given a click, for 85 million impressions of Taobao.

    Preprocessing as published with AITM: rows with a conversion but no click are dropped, the 18 fields with one value
    are used, and values seen less than 12 times in training are unknown. Vocabularies are learned on the training rows
    alone. Validation is a tenth of the official train file at random by seed, testing the official test file.

    Reading the raw files takes minutes, once: the parsed ids are kept in the cache folder (7 GB). A full load needs
    about 20 GB of memory; `max_rows` is for trying things out.

    Args:
        data_dir: See `load_dataset`.
        variant: `"raw"`: the official files. `"encoded"`: the CSVs with encoded ids that other libraries hand out,
            ali_ccp_train.csv, ali_ccp_val.csv and ali_ccp_test.csv; columns like `D508` are numeric there.
        max_rows: Read so many rows of the train and the test file only.
        cache: Keep the parsed rows for the next load.
        embedding_dim: Width of every embedding.
        seed: Of the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a file breaks the format.

    Reference: Ma et al. (ESMM), SIGIR 2018, arXiv:1804.07931.
    """
    check.check_choice("variant", variant, ("raw", "encoded"))
    check.check_int("seed", seed, minimum=0)
    if max_rows is not None:
        check.check_int("max_rows", max_rows, minimum=2)
    roots = search_roots(data_dir)
    limited = "" if max_rows is None else f",max_rows={max_rows}"
    if variant == "encoded":
        return _load_encoded(roots, max_rows, limited, embedding_dim)
    paths = _raw_paths(roots)
    version = quick_version(path for part in paths.values() for path in part)
    rows = {part: _parsed(*files, part, version, max_rows, cache) for part, files in paths.items()}
    held_out = np.random.default_rng(seed).random(len(rows["train"])) < 0.1
    parts = {"train": rows["train"][~held_out], "validation": rows["train"][held_out], "test": rows["test"]}
    return fitted_dataset(
        tables={name: _table(part) for name, part in parts.items()},
        features=tuple(Categorical(field, min_count=MIN_COUNT, dim=embedding_dim) for field in FIELDS),
        tasks=TASKS,
        group_columns=("user_id",),
        name="ali_ccp",
        variant=variant + limited,
        version=version,
        split_rule=f"official train file, a tenth of it at random for validation (seed {seed}); official test file",
    )


def _raw_paths(roots: list[Path]) -> dict[str, tuple[Path, Path]]:
    found = {name: find_file(roots, FOLDERS, name) for name in RAW_FILES}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        raise missing_files("ali_ccp", roots, FOLDERS[0], absent)
    paths = {name: path for name, path in found.items() if path is not None}
    return {
        part: (paths[f"sample_skeleton_{part}.csv"], paths[f"common_features_{part}.csv"]) for part in ("train", "test")
    }


def parse_raw(skeleton: Path, common: Path, max_rows: int | None = None) -> np.ndarray:
    """The rows as int32: click, conversion, then the feature id of each of `FIELDS`, 0 where there is none.

    Args:
        skeleton, common: A pair of raw files, plain or .gz.
        max_rows: Stop after so many rows.

    Raises:
        ValueError: A line breaks the format; names the file and the line.
    """
    shared: dict[bytes, list[tuple[int, int]]] = {}
    with open_bytes(common) as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip(b"\r\n").split(b",", 2)
            if len(columns) != 3:
                raise _format_error(common, number, "index, number, features", line)
            shared[columns[0]] = [(2 + _PLACE[f], int(v)) for f, v in _PAIR.findall(columns[2])]
    result = array.array("i")
    width = 2 + len(FIELDS)
    with open_bytes(skeleton) as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip(b"\r\n").split(b",", 5)
            if len(columns) != 6 or columns[1] not in (b"0", b"1") or columns[2] not in (b"0", b"1"):
                raise _format_error(skeleton, number, "sample id, click, conversion, index, number, features", line)
            if columns[3] not in shared:
                raise _format_error(skeleton, number, f"an index that {common.name} holds", line)
            row = [int(columns[1]), int(columns[2])] + [0] * len(FIELDS)
            if row[1] > row[0]:
                continue
            for field, value in _PAIR.findall(columns[5]):
                row[2 + _PLACE[field]] = int(value)
            for place, value in shared[columns[3]]:
                row[place] = value
            result.extend(row)
            if max_rows is not None and len(result) >= max_rows * width:
                break
    if not result:
        raise ValueError(f"`{skeleton.name}` must hold at least one row. Received: an empty file, {skeleton}")
    return np.frombuffer(result, dtype=np.int32).reshape(-1, width)


def _format_error(path: Path, number: int, expected: str, line: bytes) -> ValueError:
    return ValueError(f"`{path.name}` must hold lines of: {expected}. Received: line {number} of {path}: {line[:80]!r}")


def _parsed(skeleton: Path, common: Path, part: str, version: str, max_rows: int | None, cache: bool) -> np.ndarray:
    kept = cache_folder() / "ali_ccp" / f"parsed-{version}-{part}.npy"
    if cache and max_rows is None and kept.is_file():
        return np.load(kept, mmap_mode="r")
    rows = parse_raw(skeleton, common, max_rows)
    if cache and max_rows is None:
        partial = kept.with_suffix(f".{os.getpid()}.part")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, rows)
            os.replace(partial, kept)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            logger.warning("the parsed rows of Ali-CCP were not kept in %s: %s", kept, error)
    return rows


def _table(rows: np.ndarray) -> pd.DataFrame:
    if len(rows) == 0:
        raise ValueError("`ali_ccp` must have rows in every split. Received: an empty split")
    columns: dict[str, object] = {
        "click": rows[:, 0].astype("float32"),
        "conversion": rows[:, 1].astype("float32"),
        "user_id": np.array(rows[:, 2 + FIELDS.index("101")]),
    }
    for place, field in enumerate(FIELDS, 2):
        ids = np.array(rows[:, place])
        columns[field] = pd.arrays.IntegerArray(ids, mask=ids == 0)
    return pd.DataFrame(columns, copy=False)


def _load_encoded(roots: list[Path], max_rows: int | None, limited: str, embedding_dim: int) -> Dataset:
    names = {"train": "train", "validation": "val", "test": "test"}
    files = {
        split: require_file("ali_ccp", roots, FOLDERS, (f"ali_ccp_{short}.csv", f"ali_ccp_{short}_sample.csv"))
        for split, short in names.items()
    }
    tables = {split: pd.read_csv(path, nrows=max_rows) for split, path in files.items()}
    for split, table in tables.items():
        tables[split] = table.rename(columns={"purchase": "conversion"})
        absent = [c for c in ("click", "conversion", "101") if c not in tables[split]]
        if absent:
            raise ValueError(f"`{files[split].name}` must have the columns click, purchase, 101 ... Lacks: {absent}")
    features: list[Feature] = []
    for column in tables["train"].columns.drop(["click", "conversion"]):
        numeric = column.startswith("D")
        features.append(Numeric(column) if numeric else Categorical(column, dim=embedding_dim))
    return fitted_dataset(
        tables={split: table.assign(user_id=table["101"]) for split, table in tables.items()},
        features=tuple(features),
        tasks=TASKS,
        group_columns=("user_id",),
        name="ali_ccp",
        variant=f"encoded{limited}",
        version=quick_version(files.values()),
        split_rule="the files' own",
    )
