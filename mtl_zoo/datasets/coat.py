"""Coat Shopping: ratings that people chose to give, and of coats that chance chose for them: an unbiased test."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import (
    Resource,
    check_count,
    content_version,
    find_file,
    read_bytes,
    require_file,
    search_roots,
)
from mtl_zoo.datasets._splits import cut, user_split
from mtl_zoo.features.spec import Categorical, Feature
from mtl_zoo.tasks import BinaryTask, RegressionTask, Task

FOLDERS = ("coat", "coat/coat", "coat/user_item_features", "coat/coat/user_item_features")
NAMES = {part: (f"{part}.ascii", f"{part}.txt") for part in ("train", "test")}
USERS, ITEMS = 290, 300
COUNTS = {"train": 6_960, "test": 4_640}
# Groups of 0/1 columns of which one is 1, by their number of columns, in the order of the feature files.
USER_GROUPS = {"gender": 2, "age_group": 6, "location": 3, "fashion_interest": 3}
ITEM_GROUPS = {"item_gender": 2, "jacket_type": 16, "color": 13, "on_front_page": 2}


def _check_files(roots: list[Path]) -> list[Check]:
    tables, _ = _read(roots)
    return [
        Check(part, f"{n:,} ratings", f"{len(tables[part]):,} ratings", n == len(tables[part]))
        for part, n in COUNTS.items()
    ]


@register_dataset(
    "coat",
    source="https://www.cs.cornell.edu/~schnabts/mnar/",
    licence="research use, cite; no explicit licence",
    folders=FOLDERS,
    files=("train.ascii", "test.ascii"),
    resources=(Resource("https://www.cs.cornell.edu/~schnabts/mnar/coat.zip", "coat.zip", unpack=True),),
    check_files=_check_files,
)
def coat(
    data_dir: str | Path | None = None, *, space: str = "rated", embedding_dim: int = 16, seed: int = 0
) -> Dataset:
    """Coat Shopping: 290 people rated 24 coats of their choice, and 16 that chance chose, which are the test.

    Tasks `rating` (regression, 1 to 5) and `like` (at least 4). With `space="entire"` a row is any of the 87,000 pairs
    of a person and a coat, and the tasks are `rated` (did they choose to rate it?), `like` and `rating` given `rated`:
    what a model of the entire space or with inverse propensities needs to be judged by an unbiased test.

    Features: `user_id`, `item_id`, and where the feature files are there, of the person `gender`, `age_group`,
    `location`, `fashion_interest`, of the coat `item_gender`, `jacket_type`, `color`, `on_front_page`: numbers of the
    official columns, in `data.entities`. `propensity`, the authors' estimate, is a column of the rows where
    propensities.ascii is there, and no feature.

    Args:
        data_dir: See `load_dataset`. Read are the official train.ascii and test.ascii (290 lines of 300 numbers, 0 for
            no rating), or train.txt and test.txt (lines of user, item, rating).
        space: `"rated"` or `"entire"`.
        embedding_dim: Width of every embedding.
        seed: Of the split: a tenth of each person's training rows validates, and is biased as they are. The test rows
            are the official ones.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; the ratings are not those of the official files.

    Reference: Schnabel et al., "Recommendations as treatments", ICML 2016, arXiv:1602.05352.
    """
    check.check_choice("space", space, ("rated", "entire"))
    check.check_int("seed", seed, minimum=0)
    roots = search_roots(data_dir)
    ratings, contents = _read(roots)
    for part, count in COUNTS.items():
        check_count(f"ratings of the {part} file", count, len(ratings[part]))
    entities, more = _entities(roots)
    chosen, asked = ratings["train"], ratings["test"].assign(rated=np.float32(1))
    if space == "entire":
        pairs = pd.MultiIndex.from_product([range(USERS), range(ITEMS)], names=["user_id", "item_id"])
        chosen = chosen.set_index(["user_id", "item_id"]).reindex(pairs).reset_index()
        chosen["rated"] = chosen["rating"].notna().astype("float32")
    else:
        chosen = chosen.assign(rated=np.float32(1))
    rows = pd.concat([chosen, asked], ignore_index=True)
    rows["like"] = (rows["rating"] >= 4).astype("float32").where(rows["rating"].notna())
    propensities = find_file(roots, FOLDERS, "propensities.ascii")
    if propensities is not None:
        rows["propensity"] = _matrix(propensities)[rows["user_id"], rows["item_id"]].astype("float32")
    held_out = user_split(chosen["user_id"].to_numpy(), seed) == 1
    part_of = np.concatenate([held_out.astype("int8"), np.full(len(asked), 2, "int8")])
    notes = ["ratings of training and validation are of coats that people chose, those of the test of coats drawn"]
    if space == "entire":
        notes.append("`rated` is 1 in every test row, where people were asked: it has no AUC there")
    return fitted_dataset(
        tables=cut(rows, part_of),
        features=_features(entities, embedding_dim),
        tasks=_tasks(space),
        group_columns=("user_id",),
        entities=entities,
        keep_raw=True,
        name="coat",
        variant=space + ("" if entities else ",ids"),
        version=content_version(*contents, *more),
        split_rule=f"official train file, a tenth of each person's rows validates (seed {seed}); official test file",
        notes=tuple(notes),
    )


def _tasks(space: str) -> tuple[Task, ...]:
    if space == "rated":
        return RegressionTask("rating"), BinaryTask("like")
    return BinaryTask("rated"), BinaryTask("like", sample_space="rated"), RegressionTask("rating", sample_space="rated")


def _features(entities: dict[str, pd.DataFrame], dim: int) -> tuple[Feature, ...]:
    return tuple(
        Categorical(name, dim=dim)
        for key in ("user_id", "item_id")
        for name in ([key] if key not in entities else list(entities[key].columns))
    )


def _read(roots: list[Path]) -> tuple[dict[str, pd.DataFrame], list[bytes]]:
    paths = {part: require_file("coat", roots, FOLDERS, names) for part, names in NAMES.items()}
    return {part: _ratings(path) for part, path in paths.items()}, [read_bytes(path) for path in paths.values()]


def _ratings(path: Path) -> pd.DataFrame:
    matrix = _matrix(path, None)
    if matrix.shape == (USERS, ITEMS):
        users, items = np.nonzero(matrix)
        values = matrix[users, items]
    elif matrix.ndim == 2 and matrix.shape[1] == 3:
        users, items, values = matrix[:, 0].astype("int64"), matrix[:, 1].astype("int64"), matrix[:, 2]
    else:
        raise ValueError(
            f"`{path.name}` must hold {USERS} lines of {ITEMS} ratings, or lines of user, item and rating. "
            f"Received: {path} with lines and columns {matrix.shape}"
        )
    odd = ~np.isin(values, range(1, 6)) | (users < 0) | (users >= USERS) | (items < 0) | (items >= ITEMS)
    if odd.any():
        raise ValueError(
            f"`{path.name}` must hold ratings 1 to 5 of users 0 to {USERS - 1} and items 0 to {ITEMS - 1}. "
            f"Received: {int(odd.sum())} others in {path}, such as {(users[odd][0], items[odd][0], values[odd][0])}"
        )
    table = pd.DataFrame({"user_id": users, "item_id": items, "rating": values.astype("float32")})
    return table.drop_duplicates(["user_id", "item_id"]).reset_index(drop=True)


def _matrix(path: Path, shape: tuple[int, int] | None = (USERS, ITEMS)) -> np.ndarray:
    try:
        matrix = np.loadtxt(io.BytesIO(read_bytes(path)), ndmin=2)
    except ValueError as error:
        raise ValueError(f"`{path.name}` must hold numbers alone. Received: {path} ({error})") from error
    if shape is not None and matrix.shape != shape:
        raise ValueError(f"`{path.name}` must have {shape} lines and columns. Received: {matrix.shape} in {path}")
    return matrix


def _entities(roots: list[Path]) -> tuple[dict[str, pd.DataFrame], list[bytes]]:
    """What the feature files say, as the number of the 1 in each group of columns; nothing where they are not there."""
    found, contents = {}, []
    for key, file, groups, count in (
        ("user_id", "user_features.ascii", USER_GROUPS, USERS),
        ("item_id", "item_features.ascii", ITEM_GROUPS, ITEMS),
    ):
        path = find_file(roots, FOLDERS, file)
        if path is None:
            continue
        matrix = _matrix(path, (count, sum(groups.values())))
        table = {key: np.arange(count)}
        start = 0
        for name, width in groups.items():
            group = matrix[:, start : start + width]
            if not np.isin(group, (0, 1)).all() or (group.sum(1) != 1).any():
                line = int(np.argmax((group.sum(1) != 1) | (group > 1).any(1))) + 1
                raise ValueError(
                    f"`{file}` must have one 1 among the {width} columns of `{name}` in each line. "
                    f"Received: others in line {line} of {path}"
                )
            table[name] = group.argmax(1)
            start += width
        found[key] = pd.DataFrame(table)
        contents.append(read_bytes(path))
    return found, contents
