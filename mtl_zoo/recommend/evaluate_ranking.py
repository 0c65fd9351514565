"""Any recommender's lists for the users of a split, judged task by task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.recommend import list_metrics
from mtl_zoo.recommend._ids import (
    EMPTY,
    Codes,
    checked_cuts,
    checked_lists,
    compacted,
    id_array,
    is_filled,
    refuse_unknown,
    table_of,
)
from mtl_zoo.recommend.ranking_metrics import COLUMNS, RankingResult, ranking_metrics

SAMPLED = (
    "metrics on sampled candidates need not order recommenders as the exact ones do, not even in expectation (Krichene "
    "and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020, https://doi.org/10.1145/3394486.3403226)"
)


def evaluate_ranking(
    recommend: Callable[..., Any],
    split: Any,
    *,
    k: int | Sequence[int] = (5, 10, 20),
    tasks: Sequence[str] | Mapping[str, float],
    user: str = "user_id",
    item: str = "item_id",
    train: Any = None,
    catalogue: Any = None,
    graded: bool = False,
    gain: str = "exponential",
    candidates: str | int = "full",
    seed: int = 0,
) -> RankingResult:
    """Judges a recommender by the lists it gives to the users of a split: by task, and as lists.

    An item is relevant to a user for a task where a row of the split has a label of that task above its threshold. The
    metrics of `ranking_metrics` follow, for each task, over the users that it has relevant items for. Rows of the task
    `""` are about the lists of all users of the split: `coverage`, `gini`, `novelty` and `personalisation`.

    Args:
        recommend: A function from an array of users, shape (users,), to ids of items, best first, of shape (users,
            at least the largest k); places at a list's end that it cannot fill hold -1 (None among strings). It is
            called once. With sampled candidates it is called with a second argument, ids of shape (users, m), of which
            it ranks those that are no empty places.
        split: The rows to judge by: a table, or a `mtl_zoo.datasets.Split` with its ids in `groups` or `inputs`.
        k: One cut-off or several.
        tasks: Columns of labels; with thresholds above which a label is relevant as a mapping, such as
            `{"rating": 3.5}`. Default thresholds: 0. NaN is not observed, and not relevant.
        user, item: The columns of ids.
        train: Rows of training, in the forms of `split`. What a user has there is seen: it is taken out of the lists
            and of what is relevant. Its counts of users are the popularity that novelty needs.
        catalogue: All ids of items. Default: those of `train` and `split`.
        graded: Whether labels are gains, for the NDCG; with several rows of one user and item the largest counts.
        gain: `"exponential"` or `"linear"`, as in `ranking_metrics`.
        candidates: `"full"`: the recommender chooses from the whole catalogue. A number: for each user, so many items
            drawn from the catalogue (without those that are seen or relevant), and the relevant ones. The table says
            which, and sampled ones warn: they can order recommenders differently.
        seed: Of sampled candidates.

    Returns:
        A `RankingResult`, whose `by_user` has the users' ids.

    Raises:
        ValueError: A column is missing; what `recommend` returns has another shape, names an id twice, an id that is
            not in the catalogue or, with sampled candidates, not among them; no task has a relevant item.

    Example:

    >>> import numpy as np, pandas as pd
    >>> from mtl_zoo.recommend import evaluate_ranking
    >>> test = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 11, 12], "click": [1, 0, 1]})
    >>> popular = lambda users: np.tile([10, 11, 12], (len(users), 1))
    >>> result = evaluate_ranking(popular, test, k=2, tasks=["click"])
    >>> result.value("recall@2")
    0.5

    Reference: Krichene and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020,
    https://doi.org/10.1145/3394486.3403226
    """
    check.check_choice("graded", graded, (False, True))
    cuts, thresholds = checked_cuts(k), _thresholds(tasks)
    rows = table_of(split, [user, item, *thresholds], "split")
    before = None if train is None else table_of(train, [user, item], "train").drop_duplicates()
    users = np.unique(id_array(user, rows[user].to_numpy()))
    parts = [rows[item], *([] if before is None else [before[item]])]
    known = pd.unique(pd.concat(parts)) if catalogue is None else catalogue
    ids = id_array("catalogue", known)
    positives = {name: _positives(rows, user, item, name, limit) for name, limit in thresholds.items()}
    seen = None if before is None else _arrays(before, users, user, item)
    said, asked = "full", None
    if candidates != "full":
        asked = _sampled(candidates, users, ids, positives.values(), before, user, item, seed)
        said = f"sampled: {candidates}"
        warnings.warn(f"`candidates={candidates}`: {SAMPLED}", stacklevel=2)
    lists = checked_lists(recommend(users) if asked is None else recommend(users, asked))
    if len(lists) != len(users):
        raise ValueError(f"`recommend` must return one list a user, {len(users)}. Received: {len(lists)}")
    refuse_unknown("recommend", lists, ids)
    if asked is not None:
        _refuse_others(lists, asked)
    results = []
    for name, table in positives.items():
        if not len(table):
            raise ValueError(
                f"`tasks` must each have a relevant item. Received: {name!r}, which has none above {thresholds[name]:g}"
            )
        results.append(
            ranking_metrics(
                lists,
                _arrays(table, users, user, item),
                k=cuts,
                gains=_arrays(table, users, user, name) if graded else None,
                gain=gain,
                seen=seen,
                users=users,
                task=name,
                candidates=said,
            )
        )
    shown = lists if seen is None else _without_seen(lists, seen)
    lines = [_of_lists(shown[:, :cut], ids, before, (user, item), cut, said) for cut in cuts]
    table = pd.concat([*(result.table for result in results), *lines], ignore_index=True)
    return RankingResult(table, pd.concat([result.by_user for result in results], ignore_index=True))


def _thresholds(tasks: Any) -> dict[str, float]:
    if isinstance(tasks, str) or not len(tasks):
        raise ValueError(
            f"`tasks` must be a list of columns of labels, or a mapping to thresholds. Received: {tasks!r}"
        )
    given = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 0.0)
    return {name: check.check_number(f"tasks[{name!r}]", limit) for name, limit in given.items()}


def _positives(rows: pd.DataFrame, user: str, item: str, task: str, limit: float) -> pd.DataFrame:
    """Users, items and labels above the limit, each pair once."""
    kept = rows.loc[rows[task].astype("float64") > limit, [user, item, task]]
    return kept.groupby([user, item], as_index=False, sort=True)[[task]].max()


def _arrays(table: pd.DataFrame, users: np.ndarray, user: str, column: str) -> list[np.ndarray]:
    """The values of a column, an array for each of the users."""
    places = pd.Index(users).get_indexer(table[user])
    kept = places >= 0
    order = np.argsort(places[kept], kind="stable")
    values = table[column].to_numpy()[kept][order]
    return np.split(values, np.cumsum(np.bincount(places[kept], minlength=len(users)))[:-1])


def _without_seen(lists: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """The lists without what each user has seen; those behind move up."""
    keep = np.array([~np.isin(row, had) for row, had in zip(lists, seen, strict=True)])
    if lists.dtype.kind in "iu":
        return compacted(lists, keep)
    order = np.argsort(~keep, axis=1, kind="stable")
    moved = np.take_along_axis(lists, order, axis=1)
    moved[~np.take_along_axis(keep, order, axis=1)] = None
    return moved


def _sampled(
    count: Any,
    users: np.ndarray,
    catalogue: np.ndarray,
    positives: Any,
    before: pd.DataFrame | None,
    user: str,
    item: str,
    seed: int,
) -> np.ndarray:
    """For each user the relevant items that were not seen, then drawn ones; shuffled, empty places at the end."""
    count = check.check_int("candidates", count)
    wanted = pd.concat([table[[user, item]] for table in positives]).drop_duplicates()
    relevant = _arrays(wanted, users, user, item)
    seen = [catalogue[:0]] * len(users) if before is None else _arrays(before, users, user, item)
    rng, rows = np.random.default_rng(seed), []
    for mine, had in zip(relevant, seen, strict=True):
        free = catalogue[~np.isin(catalogue, np.concatenate([mine, had]))]
        drawn = rng.choice(free, size=min(count, len(free)), replace=False)
        rows.append(rng.permutation(np.concatenate([mine[~np.isin(mine, had)], drawn])))
    width = max(map(len, rows))
    empty: Any = EMPTY if catalogue.dtype.kind in "iu" else None
    found = np.full((len(rows), max(width, 1)), empty, dtype=catalogue.dtype)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def _refuse_others(lists: np.ndarray, asked: np.ndarray) -> None:
    codes = Codes(recommend=lists, candidates=asked)
    coded, allowed = codes.of(lists), codes.of(asked)
    rows = np.arange(len(lists))[:, None]
    known = codes.keys(rows, allowed)[allowed >= 0]
    other = is_filled(lists) & ~np.isin(codes.keys(rows, coded), known)
    if other.any():
        raise ValueError(
            f"`recommend` must choose from each user's candidates. Received: {int(other.sum())} other ids, "
            f"{codes.names(coded[other])}"
        )


def _of_lists(
    lists: np.ndarray, catalogue: np.ndarray, before: pd.DataFrame | None, columns: tuple[str, str], cut: int, said: str
) -> pd.DataFrame:
    """Rows about the lists as such."""
    user, item = columns
    values = {
        "coverage": list_metrics.catalogue_coverage(lists, catalogue),
        "gini": list_metrics.gini(lists, catalogue),
    }
    if before is not None:
        values["novelty"] = list_metrics.novelty(lists, before[item].value_counts(), before[user].nunique())
    if len(lists) > 1:
        values["personalisation"] = list_metrics.personalisation(lists)
    rows = [("", metric, cut, said, len(lists), 0, value, "") for metric, value in values.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))
