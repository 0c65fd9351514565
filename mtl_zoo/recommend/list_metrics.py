"""What lists are like beside being right: how much of the catalogue they show, how novel, diverse and fair they are.

Lists hold ids of shape (users, places), best first; empty places at a list's end hold -1 (None among strings).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check
from mtl_zoo.recommend._ids import (
    Codes,
    Pairs,
    checked_lists,
    id_array,
    is_filled,
    pairs_of,
    refuse_duplicates,
    refuse_unknown,
)


def _counts(recommended: Any, catalogue: Any) -> np.ndarray:
    """How often each id of the catalogue is in the lists."""
    lists, ids = checked_lists(recommended), id_array("catalogue", catalogue).reshape(-1)
    if len(pd.unique(ids)) != len(ids) or not len(ids):
        raise ValueError(
            f"`catalogue` must name each id once. Received: {len(ids)} ids, {len(pd.unique(ids))} of them different"
        )
    refuse_unknown("recommended", lists, ids)
    codes = pd.Index(ids).get_indexer(lists[is_filled(lists)])
    return np.bincount(codes, minlength=len(ids))


def catalogue_coverage(recommended: Any, catalogue: ArrayLike) -> float:
    """The share of the catalogue that is in at least one list, `|union of the lists| / |catalogue|`.

    Args:
        recommended: Ids, of shape (users, places).
        catalogue: All ids that can be recommended, each once.

    Raises:
        ValueError: An id is not in the catalogue, which is empty or names one twice; lists are malformed.

    Example:

    >>> from mtl_zoo.recommend import catalogue_coverage
    >>> catalogue_coverage([[1, 2], [2, 3]], catalogue=[1, 2, 3, 4])
    0.75
    """
    return float(np.mean(_counts(recommended, catalogue) > 0))


def gini(recommended: Any, catalogue: ArrayLike) -> float:
    """The Gini coefficient of how often the catalogue's items are shown: 0 if all equally, near 1 if one has it all.

    With the counts in ascending order, `x_1 <= ... <= x_n`: `sum_i (2 i - n - 1) x_i / (n sum_i x_i)`.

    Args:
        recommended: Ids, of shape (users, places).
        catalogue: All ids that can be recommended, each once. Items that are never shown count, with 0.

    Raises:
        ValueError: As for `catalogue_coverage`; all places are empty.

    Example:

    >>> from mtl_zoo.recommend import gini
    >>> gini([[1, 2], [3, 4]], catalogue=[1, 2, 3, 4]), gini([[1], [1]], catalogue=[1, 2, 3, 4])
    (0.0, 0.75)

    Reference: Fleder and Hosanagar, Blockbuster Culture's Next Rise or Fall, Management Science 55(5), 2009,
    https://doi.org/10.1287/mnsc.1080.0974
    """
    counts = np.sort(_counts(recommended, catalogue)).astype("float64")
    if not counts.sum():
        raise ValueError("`recommended` must show at least one item. Received: empty lists")
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def novelty(recommended: Any, popularity: Mapping[Any, float] | pd.Series, users: int) -> float:
    """The mean self-information of what is shown, `mean -log2(users of the item / users)`, in bits.

    The mean is over each list, then over lists. An item that no training user had counts as if half a user had.

    Args:
        recommended: Ids, of shape (users, places).
        popularity: How many training users had each item, by id.
        users: How many training users there were.

    Raises:
        ValueError: A count is negative or larger than `users`; lists are malformed; all are empty.

    Example:

    >>> from mtl_zoo.recommend import novelty
    >>> novelty([["a", "b", "c"]], {"a": 4, "b": 2, "c": 1}, users=8)
    2.0

    Reference: Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107(10), 2010,
    https://doi.org/10.1073/pnas.1000488107
    """
    users = check.check_int("users", users)
    lists = checked_lists(recommended)
    counts = _counts_by_id(popularity)
    if (counts > users).any():
        raise ValueError(f"`popularity` must be at most `users`, {users}. Received: {counts.max():g}")
    shares = np.maximum(_looked_up(counts, lists), 0.5) / users
    return _mean_of_lists(-np.log2(shares), is_filled(lists))


def _counts_by_id(popularity: Mapping[Any, float] | pd.Series) -> pd.Series:
    counts = pd.Series(popularity, dtype="float64")
    if not (counts >= 0).all():
        raise ValueError(f"`popularity` must be numbers >= 0. Received: {check.sample_values(counts[~(counts >= 0)])}")
    return counts


def _looked_up(counts: pd.Series, ids: np.ndarray) -> np.ndarray:
    """The count of each id; 0 for one that has none."""
    places = counts.index.get_indexer(pd.Index(ids.reshape(-1))).reshape(ids.shape)
    padded = np.append(counts.to_numpy(), 0.0)
    return padded[places]


def _mean_of_lists(values: np.ndarray, filled: np.ndarray) -> float:
    sizes = filled.sum(axis=1)
    if not sizes.any():
        raise ValueError("`recommended` must show at least one item. Received: empty lists")
    sums = np.where(filled, values, 0.0).sum(axis=1)
    return float((sums[sizes > 0] / sizes[sizes > 0]).mean())


def _vectors_in_place(recommended: Any, items: Any, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """The row of `vectors` of each place, and the vectors with a row of zeros at the end, for empty places."""
    lists, ids, table = checked_lists(recommended), id_array("items", items), np.asarray(vectors, "float64")
    if table.ndim != 2 or len(table) != len(ids) or not np.isfinite(table).all():
        raise ValueError(
            f"`vectors` must be finite numbers of shape (items, width), one row for each of the {len(ids)} `items`. "
            f"Received: shape {table.shape}"
        )
    refuse_unknown("recommended", lists, ids)
    places = pd.Index(ids).get_indexer(lists.reshape(-1)).reshape(lists.shape)
    return np.where(is_filled(lists), places, len(ids)), np.vstack([table, np.zeros(table.shape[1])])


def intra_list_diversity(recommended: Any, items: ArrayLike, vectors: ArrayLike) -> float:
    """The mean over lists of the mean over pairs of a list of `1 - cos(v_i, v_j)`.

    Lists with fewer than two items are left out. The cosine with a vector of zeros is 0.

    Args:
        recommended: Ids, of shape (users, places).
        items: The ids that have vectors.
        vectors: Their vectors (genres, embeddings), of shape (items, width).

    Raises:
        ValueError: An id has no vector; vectors are not finite or have the wrong shape; no list has two items.

    Example:

    >>> from mtl_zoo.recommend import intra_list_diversity
    >>> round(intra_list_diversity([[0, 1, 2]], [0, 1, 2], [[1, 0], [0, 1], [1, 1]]), 6)
    0.528595

    Reference: Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005,
    https://doi.org/10.1145/1060745.1060754
    """
    places, table = _vectors_in_place(recommended, items, vectors)
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    unit = np.divide(table, lengths, out=np.zeros_like(table), where=lengths > 0)
    sizes = (places < len(table) - 1).sum(axis=1)
    if not (sizes > 1).any():
        raise ValueError("`recommended` must have a list of at least two items. Received: none")
    totals = np.zeros((len(places), table.shape[1]))
    squares = np.zeros(len(places))
    for column in places.T:  # a place at a time, so that (users, places, width) is never in memory
        totals += unit[column]
        squares += (unit[column] ** 2).sum(axis=1)
    kept = sizes > 1
    pairs = sizes[kept] * (sizes[kept] - 1)
    similar = ((totals[kept] ** 2).sum(axis=1) - squares[kept]) / pairs
    return float(1 - similar.mean())


def personalisation(recommended: Any) -> float:
    """How different users' lists are: 1 less the mean over pairs of users of `|both lists| / places`.

    1 where no two users share an item, 0 where all have the same. It is computed from the items' counts c_i, without
    looking at pairs: `sum_i c_i (c_i - 1) / (users (users - 1))` is the mean overlap.

    Args:
        recommended: Ids, of shape (users, places), at least two users.

    Raises:
        ValueError: Fewer than two users; a list names an id twice, or is malformed.

    Example:

    >>> from mtl_zoo.recommend import personalisation
    >>> personalisation([[1, 2], [2, 3]]), personalisation([[1, 2], [2, 1]])
    (0.5, 0.0)

    Reference: Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107(10), 2010,
    https://doi.org/10.1073/pnas.1000488107
    """
    lists = checked_lists(recommended)
    users, places = lists.shape
    if users < 2:
        raise ValueError(f"`recommended` must have at least two users. Received: {users}")
    codes = Codes(recommended=lists)
    coded = codes.of(lists)
    keys = codes.keys(np.broadcast_to(np.arange(users)[:, None], lists.shape), coded)[coded >= 0]
    refuse_duplicates("recommended", keys, codes)
    counts = np.bincount(coded[coded >= 0], minlength=1).astype("float64")
    return float(1 - (counts * (counts - 1)).sum() / (users * (users - 1)) / places)


def calibration(
    recommended: Any, history: Any, items: ArrayLike, genres: ArrayLike, *, smoothing: float = 0.01
) -> float:
    """How far the genres of a user's list are from those of the user's history: 0 if their shares are the same.

        C = mean over users of sum_g p(g) ln(p(g) / q~(g)),   q~ = (1 - smoothing) q + smoothing p

    p(g) is the mean over the user's history of p(g | item), q(g) that over the list, and p(g | item) shares an item
    equally among its genres (or by the given weights). Users without a history or list with a genre are left out.

    Args:
        recommended: Ids, of shape (users, places).
        history: The ids that each user had, in the forms of `ranking_metrics`' `relevant`.
        items: The ids that have genres.
        genres: Weights >= 0 of shape (items, genres), such as a multi-hot matrix.
        smoothing: In (0, 1]; keeps the divergence finite.

    Raises:
        ValueError: An id has no row of genres; weights are negative; nobody has a history and a list.

    Example:

    >>> from mtl_zoo.recommend import calibration
    >>> calibration([[0, 1]], [[2, 3]], [0, 1, 2, 3], [[1, 0], [0, 1], [1, 0], [0, 1]])
    0.0

    Reference: Steck, Calibrated recommendations, RecSys 2018, https://doi.org/10.1145/3240323.3240372
    """
    smoothing = check.check_number("smoothing", smoothing, above=0, maximum=1)
    places, table = _vectors_in_place(recommended, items, genres)
    if (table < 0).any():
        raise ValueError("`genres` must be weights >= 0. Received: negative ones")
    sums = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)
    had = _history(history, len(places), items)
    before = np.zeros((len(places), shares.shape[1]))
    np.add.at(before, had.users, shares[pd.Index(id_array("items", items)).get_indexer(had.items)])
    after = sum((shares[column] for column in places.T), np.zeros_like(before))
    kept = (before.sum(axis=1) > 0) & (after.sum(axis=1) > 0)
    if not kept.any():
        raise ValueError("`history` must be known of a user with a list. Received: none with genres in both")
    p = before[kept] / before[kept].sum(axis=1, keepdims=True)
    q = after[kept] / after[kept].sum(axis=1, keepdims=True)
    mixed = np.where(p > 0, (1 - smoothing) * q + smoothing * p, 1.0)
    divergence = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / mixed), 0.0).sum(axis=1)
    return float(max(divergence.mean(), 0.0))


def _history(history: Any, users: int, items: Any = None) -> Pairs:
    pairs = pairs_of("history", history, users)
    if items is not None:
        refuse_unknown("history", pairs.items, id_array("items", items))
    return pairs


def popularity_lift(
    recommended: Any, history: Any, popularity: Mapping[Any, float] | pd.Series, groups: ArrayLike | None = None
) -> pd.Series:
    """How much more popular the lists are than what users had, by group of users: 0 if equally, 0.5 if by half.

        lift = (GAP(lists) - GAP(histories)) / GAP(histories)

    GAP is the mean over a group's users of the mean popularity of their items. Users without a list or a history are
    left out.

    Args:
        recommended: Ids, of shape (users, places).
        history: The ids that each user had, in the forms of `ranking_metrics`' `relevant`.
        popularity: How many training users had each item, by id; an id that is not there has 0.
        groups: The group of each user. Default: all are in one, named `"all"`.

    Returns:
        A Series by group.

    Raises:
        ValueError: Another number of users; nobody has a history and a list; the items of a group's histories have
            popularity 0.

    Example:

    >>> from mtl_zoo.recommend import popularity_lift
    >>> popularity_lift([[1], [1]], [[1], [2]], {1: 6, 2: 2}, groups=["main", "niche"]).to_dict()
    {'main': 0.0, 'niche': 2.0}

    Reference: Abdollahpouri et al., The Connection Between Popularity Bias, Calibration, and Fairness in
    Recommendation, RecSys 2020, https://doi.org/10.1145/3383313.3418487
    """
    lists, counts = checked_lists(recommended), _counts_by_id(popularity)
    rows = len(lists)
    names = np.full(rows, "all", dtype=object) if groups is None else np.asarray(groups)
    if names.shape != (rows,):
        raise ValueError(f"`groups` must have one value a user, {rows}. Received: shape {names.shape}")
    filled, had = is_filled(lists), _history(history, rows)
    sizes, lengths = filled.sum(axis=1), np.bincount(had.users, minlength=rows)
    kept = (sizes > 0) & (lengths > 0)
    if not kept.any():
        raise ValueError("`history` must be known of a user with a list. Received: none")
    after = np.where(filled, _looked_up(counts, lists), 0.0).sum(axis=1)[kept] / sizes[kept]
    before = np.bincount(had.users, weights=_looked_up(counts, had.items), minlength=rows)[kept] / lengths[kept]
    means = pd.DataFrame({"before": before, "after": after}).groupby(names[kept]).mean()
    if (means["before"] == 0).any():
        names_of = list(means.index[means["before"] == 0])
        raise ValueError(f"`popularity` must be > 0 in the histories of a group. Received: 0 in {names_of}")
    return (means["after"] / means["before"] - 1).rename("popularity_lift")


def group_lift(recommended: Any, history: Any, items: ArrayLike, groups: ArrayLike) -> pd.Series:
    """How much more of a group of items is shown than users had: the share in the lists over that in the histories.

    1 if a group (a language, a supplier, the long tail) is shown as much as it was had, 2 if twice as much. Shares are
    of all places of all lists, and of all items of all histories; a group that no history has is NaN.

    Args:
        recommended: Ids, of shape (users, places).
        history: The ids that each user had, in the forms of `ranking_metrics`' `relevant`.
        items: The ids that have a group.
        groups: Their groups, of shape (items,).

    Returns:
        A Series by group.

    Raises:
        ValueError: An id has no group; all lists or all histories are empty.

    Example:

    >>> from mtl_zoo.recommend import group_lift
    >>> group_lift([[1, 2], [1, 3]], [[1, 2], [3, 4]], [1, 2, 3, 4], ["new", "old", "old", "old"]).to_dict()
    {'new': 2.0, 'old': 0.6666666666666666}
    """
    lists, ids, names = checked_lists(recommended), id_array("items", items), np.asarray(groups)
    if names.shape != ids.shape:
        raise ValueError(f"`groups` must have one value an item, {len(ids)}. Received: shape {names.shape}")
    refuse_unknown("recommended", lists, ids)
    had, shown = _history(history, len(lists), ids), lists[is_filled(lists)]
    if not len(shown) or not len(had.items):
        raise ValueError(
            f"`history` and `recommended` must not be empty. Received: {len(had.items)} and {len(shown)} items"
        )
    index = pd.Index(ids)
    after, before = (pd.Series(names[index.get_indexer(of)]).value_counts(normalize=True) for of in (shown, had.items))
    every = np.unique(names)
    return (after.reindex(every, fill_value=0.0) / before.reindex(every)).rename("group_lift")
