"""KuaiRand: what users of a video app did with videos that it recommended, and with videos drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import Resource, find_file, missing_files, open_bytes, quick_version, search_roots
from mtl_zoo.datasets._splits import NAMES, without_training_row
from mtl_zoo.features.spec import Categorical, Feature, Numeric, Sequence
from mtl_zoo.tasks import BinaryTask

VARIANTS = ("pure", "1k")
FOLDERS = (
    "kuairand",
    "kuairand/KuaiRand-Pure/data",
    "kuairand/KuaiRand-1K/data",
    "KuaiRand-Pure/data",
    "KuaiRand-1K/data",
    "KuaiRand-Pure",
    "KuaiRand-1K",
)
# Task by column. What is watched how long is an outcome as well, and none of these is ever a feature.
TASKS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
}
LOG = ("user_id", "video_id", "date", "hourmin", "time_ms", *TASKS.values(), "duration_ms", "is_rand", "tab")
USER_FIELDS = (
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{i}" for i in range(18)),
)
VIDEO_FIELDS = ("author_id", "video_type", "upload_type", "music_id", "music_type", "tag")
# The last day of training and of validation, as yyyymmdd.
TRAIN_END, VALIDATION_END = 20220421, 20220428
TAGS_LENGTH = 5


def _files(variant: str) -> dict[str, str]:
    return {
        "first": f"log_standard_4_08_to_4_21_{variant}.csv",
        "second": f"log_standard_4_22_to_5_08_{variant}.csv",
        "random": f"log_random_4_22_to_5_08_{variant}.csv",
        "users": f"user_features_{variant}.csv",
        "videos": f"video_features_basic_{variant}.csv",
    }


def _check_files(roots: list[Path]) -> list[Check]:
    checks = []
    for variant in VARIANTS:
        if any(find_file(roots, FOLDERS, file) is None for file in _files(variant).values()):
            continue
        paths = _paths(roots, variant)
        for log in ("first", "second", "random"):
            rows = _log(paths[log], None)
            found = ", ".join(
                [f"{len(rows):,} rows", *(f"{int(rows[task].sum()):,} {task}" for task in ("click", "like"))]
            )
            checks.append(Check(f"{variant} {log}", "columns and labels of the format", found, len(rows) > 0))
    if not checks:
        raise missing_files("kuairand", roots, FOLDERS[0], _files("pure").values())
    return checks


@register_dataset(
    "kuairand",
    source="https://kuairand.com/ and https://zenodo.org/records/10439422",
    licence="CC BY-SA 4.0",
    folders=FOLDERS,
    files=tuple(_files("pure").values()),
    resources=(
        Resource("https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz", "KuaiRand-Pure.tar.gz", unpack=True),
    ),
    check_files=_check_files,
)
def kuairand(
    data_dir: str | Path | None = None,
    *,
    variant: str = "pure",
    test: str = "standard",
    max_rows: int | None = None,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """KuaiRand: click, like, follow, comment, forward, hate and long view of a video app's impressions.

    Seven binary tasks on every row. Features: user, video, the tab of the app, the hour, the video's duration (seconds,
    logarithm), the user's groups and 18 encrypted fields, the video's author, kind, upload, music and tags (a list).
    `data.entities` has `user_id` and `video_id`; rows also have `date` (yyyymmdd), `time_ms` (since 1970)
    and `is_rand`.

    Never read: how long a video was watched and what was done beside it (outcomes), and the file of the videos'
    statistics, which counts the days of the test.

    Args:
        data_dir: See `load_dataset`.
        variant: `"pure"` (27,285 users, 7,583 videos) or `"1k"` (1,000 users, 4,369,953 videos; about 11.7 million
            rows, for which there should be 32 GB of memory).
        test: `"standard"`: what the app recommended from 29 April to 8 May 2022. `"random"`: videos drawn at random,
            22 April to 8 May: an unbiased test. Trained on is what it recommended until 21 April, and what it
            recommended from 22 to 28 April validates.
        max_rows: Read so many rows of each log only.
        embedding_dim: Width of every embedding.
        seed: Not used: nothing is drawn.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a file has other columns or labels; a split has no rows.

    Reference: Gao et al., CIKM 2022, arXiv:2208.08696.
    """
    check.check_choice("variant", variant, VARIANTS)
    check.check_choice("test", test, ("standard", "random"))
    check.check_int("seed", seed, minimum=0)
    if max_rows is not None:
        check.check_int("max_rows", max_rows, minimum=2)
    paths = _paths(search_roots(data_dir), variant)
    second = _log(paths["second"], max_rows)
    early = second["date"] <= VALIDATION_END
    tables = {
        "train": _log(paths["first"], max_rows),
        "validation": second[early].reset_index(drop=True),
        "test": second[~early].reset_index(drop=True) if test == "standard" else _log(paths["random"], max_rows),
    }
    _check_parts(tables, paths)
    return fitted_dataset(
        tables=tables,
        features=_features(embedding_dim),
        tasks=tuple(BinaryTask(task) for task in TASKS),
        group_columns=("user_id",),
        entities={
            "user_id": _entity(paths["users"], "user_id", USER_FIELDS),
            "video_id": _entity(paths["videos"], "video_id", VIDEO_FIELDS, pd.concat(tables.values())["video_id"]),
        },
        keep_raw=True,
        name="kuairand",
        variant=f"{variant},{test}_test" + ("" if max_rows is None else f",max_rows={max_rows}"),
        version=quick_version(paths.values()),
        split_rule="by day: standard log until 21 April, 22 to 28 April; test "
        + ("standard log from 29 April" if test == "standard" else "random log from 22 April"),
        notes=tuple(_new(tables, key, what) for key, what in (("user_id", "users"), ("video_id", "videos"))),
    )


def _check_parts(tables: dict[str, pd.DataFrame], paths: dict[str, Path]) -> None:
    for name in NAMES:
        if tables[name].empty:
            raise ValueError(
                f"`{name}` must have rows. Received: none in {paths['second']}, of the days that it stands for"
            )
    late = tables["train"]["date"] > TRAIN_END
    if late.any():
        raise ValueError(
            f"`{paths['first'].name}` must end with {TRAIN_END}. Received: {int(late.sum())} rows of later days"
        )


def _new(tables: dict[str, pd.DataFrame], key: str, what: str) -> str:
    ids = np.concatenate([tables[name][key].to_numpy() for name in ("train", "test")])
    part = np.repeat(np.array([0, 2]), [len(tables["train"]), len(tables["test"])])
    return without_training_row(ids, part, what)


def _features(dim: int) -> tuple[Feature, ...]:
    fields = ("tab", "hour", *USER_FIELDS, *(name for name in VIDEO_FIELDS if name != "tag"))
    return (
        Categorical("user_id", dim=dim),
        Categorical("video_id", dim=dim),
        *(Categorical(name, dim=dim) for name in fields),
        Sequence("tag", length=TAGS_LENGTH, separator=",", pooling="mean", dim=dim),
        Numeric("duration", normalization="log"),
    )


def _paths(roots: list[Path], variant: str) -> dict[str, Path]:
    found = {name: find_file(roots, FOLDERS, file) for name, file in _files(variant).items()}
    absent = [_files(variant)[name] for name, path in found.items() if path is None]
    if absent:
        raise missing_files("kuairand", roots, FOLDERS[0], absent)
    return {name: path for name, path in found.items() if path is not None}


def _header(path: Path, columns: tuple[str, ...]) -> None:
    with open_bytes(path) as file:
        header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    absent = [column for column in columns if column not in header]
    if absent:
        raise ValueError(f"`{path.name}` must have the columns {', '.join(columns)}. Received: {path} without {absent}")


def _log(path: Path, max_rows: int | None) -> pd.DataFrame:
    _header(path, LOG)
    labels = dict.fromkeys(TASKS.values(), "float32")
    others = {column: "float64" if column == "duration_ms" else "int64" for column in LOG if column not in labels}
    table = pd.read_csv(path, usecols=list(LOG), dtype={**others, **labels}, nrows=max_rows, encoding="utf-8-sig")
    for task, column in TASKS.items():
        odd = ~table[column].isin((0, 1))
        if odd.any():
            raise ValueError(
                f"`{column}` must be 0 or 1. Received {int(odd.sum())} others in {path}: "
                f"{check.sample_values(table[column][odd])} (task {task})"
            )
    table = table.rename(columns={column: task for task, column in TASKS.items()})
    duration = (table["duration_ms"] / 1000).clip(lower=0).astype("float32")
    return table.assign(hour=table["hourmin"] // 100, duration=duration).drop(columns=["hourmin", "duration_ms"])


def _entity(path: Path, key: str, fields: tuple[str, ...], known: pd.Series | None = None) -> pd.DataFrame:
    _header(path, (key, *fields))
    # A field may be a number for some and missing for others; as text it reads the same in every file.
    types = {key: "int64", **dict.fromkeys(fields, "str")}
    table = pd.read_csv(path, usecols=list(types), dtype=types, encoding="utf-8-sig")
    if known is not None:
        table = table[table[key].isin(known.unique())]
    return table.drop_duplicates(key).reset_index(drop=True)[[key, *fields]]
