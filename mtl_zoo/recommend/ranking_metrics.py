"""Exact metrics of ranked lists, user by user: recall, precision, hit rate, NDCG, MRR and MAP at several lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.evaluation.significance import Interval, bootstrap_interval
from mtl_zoo.recommend._ids import (
    Codes,
    Pairs,
    checked_cuts,
    checked_lists,
    compacted,
    id_array,
    pairs_of,
    refuse_duplicates,
    refuse_unknown,
)

METRICS = ("recall", "precision", "hit_rate", "ndcg", "mrr", "map")
COLUMNS = ("task", "metric", "k", "candidates", "users", "without", "value", "note")


@dataclasses.dataclass(frozen=True)
class RankingResult:
    """What `ranking_metrics` and `evaluate_ranking` find: a table of means, and each user's values.

    Args:
        table: One row for each task, metric and cut-off, with `task`, `metric`, `k`, `candidates` (`"full"` or how many
            were sampled), `users` (who count), `without` (users left out, since nothing is relevant to them), `value`
            (the mean over those who count) and `note`.
        by_user: One row for each task and user who counts: `task`, `user` (the row in the lists, or the user's id)
            and columns such as `ndcg@10`.

    Example:

    >>> from mtl_zoo.recommend import ranking_metrics
    >>> result = ranking_metrics([[3, 1], [2, 4]], [[1], [2]], k=2)
    >>> result.value("mrr@2"), result.by_user["mrr@2"].tolist()
    (0.75, [0.5, 1.0])
    >>> result.interval("mrr@2", resamples=100).value
    0.75
    """

    table: pd.DataFrame
    by_user: pd.DataFrame

    def _users(self, metric: str, task: str | None) -> pd.Series:
        tasks = tuple(dict.fromkeys(self.by_user["task"]))
        if task is None and len(tasks) > 1:
            raise ValueError(f"`task` must be given where there are several. Received: None. Expected: one of {tasks}")
        task = tasks[0] if task is None and tasks else task
        check.check_choice("task", task, tasks)
        check.check_choice("metric", metric, tuple(self.by_user.columns[2:]))
        rows = self.by_user[self.by_user["task"] == task]
        return rows.set_index("user")[metric]

    def value(self, metric: str, task: str | None = None) -> float:
        """The mean over users of a metric such as `"ndcg@10"`; `task` may be left out where there is one."""
        return float(self._users(metric, task).mean())

    def interval(self, metric: str, task: str | None = None, **options: Any) -> Interval:
        """The mean over users and its percentile interval, from a bootstrap of users.

        Args:
            metric: Such as `"ndcg@10"`.
            task: The task; may be left out where there is one.
            **options: `resamples`, `confidence` and `seed` of `mtl_zoo.evaluation.bootstrap_interval`.

        Raises:
            ValueError: An unknown metric or task; fewer than 2 users.
        """
        return bootstrap_interval(np.mean, self._users(metric, task).to_numpy(), **options)

    def difference(self, other: RankingResult, metric: str, task: str | None = None, **options: Any) -> Interval:
        """The mean over users of `self - other`, with an interval from a paired bootstrap of the users of both.

        Args:
            other: Another recommender's result on the same users.
            metric, task, **options: As in `interval`.

        Raises:
            ValueError: The results are not of the same users; an unknown metric or task; fewer than 2 users.

        Example:

        >>> from mtl_zoo.recommend import ranking_metrics
        >>> good = ranking_metrics([[1, 2], [3, 4], [5, 6]], [[1], [3], [5]], k=2)
        >>> bad = ranking_metrics([[2, 1], [4, 3], [6, 5]], [[1], [3], [5]], k=2)
        >>> tuple(good.difference(bad, "mrr@2", resamples=50))
        (0.5, 0.5, 0.5)
        """
        mine, others = self._users(metric, task), other._users(metric, task)
        if set(mine.index) != set(others.index):
            apart = len(set(mine.index) ^ set(others.index))
            raise ValueError(f"`other` must be of the same users. Received: {apart} users that only one of both has")
        gaps = mine.to_numpy() - others.reindex(mine.index).to_numpy()
        return bootstrap_interval(np.mean, gaps, **options)


def ranking_metrics(
    recommended: Any,
    relevant: Any,
    *,
    k: int | Sequence[int] = (5, 10, 20),
    gains: Any = None,
    gain: str = "exponential",
    seen: Any = None,
    catalogue: Any = None,
    users: Any = None,
    task: str = "relevance",
    candidates: str = "full",
) -> RankingResult:
    """Exact metrics of users' ranked lists, and their means over the users to whom something is relevant.

    With `r_j` = 1 where the item in place j of a user's list is relevant (else 0), `g_j` its gain (0 if not relevant)
    and R the user's relevant items:

        recall@k    = sum_(j<=k) r_j / |R|              precision@k = sum_(j<=k) r_j / k
        hit_rate@k  = 1 if any r_j with j <= k, else 0   mrr@k       = 1 / (first j <= k with r_j = 1), else 0
        map@k       = sum_(j<=k) r_j precision@j / min(k, |R|)
        ndcg@k      = DCG@k / IDCG@k,  DCG@k = sum_(j<=k) (2^(g_j) - 1) / log2(j + 1)

    IDCG is the DCG of the best list there can be. Without `gains` every relevant item has gain 1, which is the binary
    NDCG. A list with fewer items than k counts its empty places as not relevant: precision still divides by k.

    Args:
        recommended: Ids of items, best first, of shape (users, at least the largest k). Where a list is shorter, the
            places at its end hold -1 (None among strings).
        relevant: The relevant items: an array of ids for each user, or a sparse matrix (users, items) whose columns
            are the ids and whose values are the gains.
        k: One cut-off or several.
        gains: Numbers > 0 for the items of `relevant`, in the same shape. Default: 1 each.
        gain: `"exponential"` (`2^g - 1`) or `"linear"` (`g`) in the DCG.
        seen: Items that each user knows from training, in the forms of `relevant`. They are taken out of the lists,
            where those behind them move up, and out of what is relevant; the note counts them.
        catalogue: All ids that exist; an id that is not among them is an error. Default: not checked.
        users: A name for each row, unique. Default: the row's number.
        task: What relevance means, for the table.
        candidates: What the lists were chosen from, for the table.

    Returns:
        A `RankingResult`.

    Raises:
        ValueError: A list or a user's relevant items name an id twice; lists with an id behind an empty place, or
            shorter than the largest k; an id that is not in `catalogue`; ids of different kinds; gains that are not
            > 0; another number of users; nobody has a relevant item.

    Example:

    >>> from mtl_zoo.recommend import ranking_metrics
    >>> result = ranking_metrics([[7, 3, 5], [1, 2, 9]], [[3, 8], []], k=(1, 3))
    >>> result.value("recall@3"), result.value("mrr@3"), int(result.table["without"][0])
    (0.5, 0.5, 1)

    Reference: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002,
    https://doi.org/10.1145/582415.582418
    """
    check.check_choice("gain", gain, ("exponential", "linear"))
    cuts, lists = checked_cuts(k), checked_lists(recommended)
    rows, places = lists.shape
    if places < cuts[-1]:
        raise ValueError(
            f"`recommended` must have at least the largest k, {cuts[-1]}, places a list (-1 in those that are empty). "
            f"Received: {places}"
        )
    names = _checked_users(users, rows)
    wanted = pairs_of("relevant", relevant, rows, gains)
    known = Pairs(*[np.zeros(0, "int64")] * 3) if seen is None else pairs_of("seen", seen, rows)
    if catalogue is not None:
        refuse_unknown("recommended", lists, id_array("catalogue", catalogue))
        refuse_unknown("relevant", wanted.items, id_array("catalogue", catalogue))
    codes = Codes(recommended=lists, relevant=wanted.items, seen=known.items)
    coded, keys = codes.of(lists), codes.keys(wanted.users, codes.of(wanted.items))
    row_of = np.broadcast_to(np.arange(rows)[:, None], coded.shape)
    refuse_duplicates("recommended", codes.keys(row_of, coded)[coded >= 0], codes)
    refuse_duplicates("relevant", keys, codes)
    value, note = wanted.gains, ""
    if seen is not None:
        seen_keys = codes.keys(known.users, codes.of(known.items))
        in_list = (coded >= 0) & np.isin(codes.keys(row_of, coded), seen_keys)
        left = ~np.isin(keys, seen_keys)
        note = f"seen items taken out: {int(in_list.sum())} of the lists, {int((~left).sum())} of the relevant"
        coded, keys, value = compacted(coded, ~in_list), keys[left], value[left]
    found, user_of = _gains_in_place(codes, coded, keys, value), keys // codes.size
    counts = np.bincount(user_of, minlength=rows)
    ideal = _best_gains(user_of, value, counts, cuts[-1])
    short = int((coded[:, : cuts[-1]] < 0).any(axis=1).sum())
    note = "; ".join(filter(None, [note, f"{short} lists shorter than {cuts[-1]}" if short else ""]))
    kept = counts > 0
    if not kept.any():
        raise ValueError("`relevant` must have an item for at least one user. Received: none")
    values = _by_user(found[kept], ideal[kept], counts[kept], cuts, gain)
    return _result(values, names[kept], int((~kept).sum()), task, candidates, note)


def _checked_users(users: Any, rows: int) -> np.ndarray:
    if users is None:
        return np.arange(rows)
    names = np.asarray(users)
    if names.shape != (rows,) or len(np.unique(names)) != rows:
        raise ValueError(
            f"`users` must name each of the {rows} rows once. Received: shape {names.shape}, or a name twice"
        )
    return names


def _gains_in_place(codes: Codes, lists: np.ndarray, keys: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The gain of each place of each list, 0 where its item is not relevant."""
    order = np.argsort(keys)
    keys, gains = keys[order], gains[order]
    asked = codes.keys(np.arange(len(lists))[:, None], lists)
    if not len(keys):
        return np.zeros(lists.shape)
    places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where((keys[places] == asked) & (lists >= 0), gains[places], 0.0)


def _best_gains(users: np.ndarray, gains: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """Each user's largest gains in order, shape (users, most), 0 where there are no more."""
    order = np.lexsort((-gains, users))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    best = np.zeros((len(counts), most))
    kept = place < most
    best[users[order][kept], place[kept]] = gains[order][kept]
    return best


def _by_user(
    gains: np.ndarray, ideal: np.ndarray, counts: np.ndarray, cuts: tuple[int, ...], gain: str
) -> dict[str, np.ndarray]:
    """`metric@k` -> a value for each user."""
    hits = (gains > 0).astype("float64")
    ranks = np.arange(1, gains.shape[1] + 1)
    running = np.cumsum(hits, axis=1)
    precisions = np.cumsum(hits * running / ranks, axis=1)
    discounted = _discounted(gains, gain)
    best = _discounted(ideal, gain)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    values: dict[str, np.ndarray] = {}
    for cut in cuts:
        found = running[:, cut - 1]
        values |= {
            f"recall@{cut}": found / counts,
            f"precision@{cut}": found / cut,
            f"hit_rate@{cut}": (found > 0).astype("float64"),
            f"ndcg@{cut}": discounted[:, cut - 1] / best[:, cut - 1],
            f"mrr@{cut}": np.where(first <= cut, 1 / first, 0.0),
            f"map@{cut}": precisions[:, cut - 1] / np.minimum(cut, counts),
        }
    return values


def _discounted(gains: np.ndarray, gain: str) -> np.ndarray:
    """The DCG at each place."""
    amounts = np.exp2(gains) - 1 if gain == "exponential" else gains
    return np.cumsum(amounts / np.log2(np.arange(2, gains.shape[1] + 2)), axis=1)


def _result(
    values: Mapping[str, np.ndarray], users: np.ndarray, without: int, task: str, candidates: str, note: str
) -> RankingResult:
    rows = []
    for name, numbers in values.items():
        metric, cut = name.split("@")
        rows.append((task, metric, int(cut), candidates, len(users), without, float(numbers.mean()), note))
    by_user = pd.DataFrame({"task": task, "user": users, **values})
    return RankingResult(pd.DataFrame(rows, columns=list(COLUMNS)), by_user)
