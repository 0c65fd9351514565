"""From users and their candidates to ordered lists: scores of pairs, fusion, re-ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.recommend._catalogue import Catalogue
from mtl_zoo.recommend._pairs import Arrays, PairScores
from mtl_zoo.recommend.fusion import Fusion
from mtl_zoo.recommend.reranking import Candidates, rerank

# Pairs that are scored in one call.
PAIRS = 65_536
ROW = "__row__"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How a list is made.

    Args:
        k: Its length.
        fusion: Of the tasks' scores.
        stages: Of re-ranking.
        depth: How many of the best are re-ranked.
        seed: Of the stages that draw, for the first user; the next ones get the next numbers.
    """

    k: int
    fusion: Fusion
    stages: tuple[Any, ...]
    depth: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One user's list.

    Args:
        rows: The items' rows in the catalogue, best first.
        score: What they were ordered by.
        scores: Of tasks, by column.
        fused: Fused scores of all candidates.
        all_scores: Scores of all candidates, by column.
        places: Where the list's items stand among the candidates.
    """

    rows: np.ndarray
    score: np.ndarray
    scores: dict[str, np.ndarray]
    fused: np.ndarray
    all_scores: dict[str, np.ndarray]
    places: np.ndarray


def ranked_lists(
    pairs: PairScores, catalogue: Catalogue, users: Arrays, rows: Sequence[np.ndarray], wanted: Wanted
) -> Iterator[Ranked]:
    """The list of each user.

    Args:
        users: Inputs, a row a user.
        rows: For each user, the catalogue's rows to choose from.
        wanted: How lists are made.
    """
    for first, last in _chunks([len(mine) for mine in rows]):
        sizes = [len(mine) for mine in rows[first:last]]
        of_user = np.repeat(np.arange(last - first), sizes)
        of_item = np.concatenate(rows[first:last]) if sizes else np.zeros(0, "int64")
        mine = {name: array[first:last] for name, array in users.items()}
        scores = score_pairs(pairs, catalogue, mine, of_user, of_item)
        fused = fuse(wanted.fusion, scores, sizes)
        start = 0
        for number, size in enumerate(sizes, first):
            part = slice(start, start + size)
            start += size
            own = {name: values[part] for name, values in scores.items()}
            seeded = dataclasses.replace(wanted, seed=wanted.seed + number)
            yield _one_list(catalogue, of_item[part], fused[part], own, seeded)


def score_pairs(
    pairs: PairScores, catalogue: Catalogue, users: Arrays, of_user: np.ndarray, of_item: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores of pairs by column, some at a time."""
    items, prepared = catalogue.tensors, catalogue.prepared
    parts = [
        pairs(users, items, of_user[start : start + PAIRS], of_item[start : start + PAIRS], prepared)
        for start in range(0, len(of_item), PAIRS)
    ]
    if not parts:
        return {name: np.zeros(0, "float32") for name in pairs.columns}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fuse(fusion: Fusion, scores: Mapping[str, np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Fused scores of lists that lie one behind the other."""
    if not sum(sizes):
        return np.zeros(0)
    # A fusion reads (rows, 1) as one list.
    if len(set(sizes)) == 1 and sizes[0] > 1:
        return fusion({name: values.reshape(len(sizes), -1) for name, values in scores.items()}).reshape(-1)
    return fusion(scores, groups=np.repeat(np.arange(len(sizes)), sizes))


def best_rows(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest scores in order; of equal ones the first come first."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > least)
        places = np.concatenate([above, np.flatnonzero(scores == least)[: count - len(above)]])
        places.sort()
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")]


def _one_list(
    catalogue: Catalogue, rows: np.ndarray, fused: np.ndarray, scores: dict[str, np.ndarray], wanted: Wanted
) -> Ranked:
    if not wanted.stages or not len(rows):
        places = best_rows(fused, wanted.k)
        score = fused[places]
    else:
        first = best_rows(fused, max(wanted.k, wanted.depth))
        columns = {name: values[rows[first]] for name, values in catalogue.columns.items()}
        columns |= {name: values[first] for name, values in scores.items()}
        candidates = Candidates(catalogue.ids[rows[first]], fused[first], {**columns, ROW: first}, ordered=True)
        chosen = rerank(candidates, *wanted.stages, k=wanted.k, seed=wanted.seed)
        places, score = chosen.columns[ROW], chosen.scores
    own = {name: values[places] for name, values in scores.items()}
    return Ranked(rows[places], score, own, fused, scores, places)


def as_table(parts: Sequence[Any], catalogue: Catalogue, tasks: Sequence[str]) -> pd.DataFrame:
    """The lists as one table, from the name, rows, score and tasks' scores of each."""
    sizes = [len(rows) for _, rows, _, _ in parts]
    users = [name for (name, _, _, _), size in zip(parts, sizes, strict=True) for _ in range(size)]

    def joined(arrays: list[Any], dtype: str) -> np.ndarray:
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype)

    rows = joined([rows for _, rows, _, _ in parts], "int64").astype("int64")
    table = {
        "user": users,
        "rank": joined([np.arange(1, size + 1) for size in sizes], "int64"),
        "item": catalogue.ids[rows],
        "score": joined([score for _, _, score, _ in parts], "float64"),
    }
    return pd.DataFrame(table | {name: joined([s[name] for _, _, _, s in parts], "float32") for name in tasks})


def _chunks(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Users that are scored together: as many as have few enough pairs, one at least."""
    first, pairs = 0, 0
    for number, size in enumerate(sizes):
        if number > first and pairs + size > PAIRS:
            yield first, number
            first, pairs = number, 0
        pairs += size
    if len(sizes):
        yield first, len(sizes)
