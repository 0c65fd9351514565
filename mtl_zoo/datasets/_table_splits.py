"""How the rows of a user's table come into splits: at random, in time, by groups that stay whole, once or in folds."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._splits import NAMES, cold_split

_SHARES = (0.8, 0.1, 0.1)
# Share of a fold's other rows that becomes validation rows.
_VALIDATION = 0.1
_FEWEST = 30

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def split_table(
    table: pd.DataFrame, *, time: str | None, together: str | None, seed: int, folds: int | None, fold: int
) -> tuple[dict[str, pd.DataFrame], str]:
    """The rows of each split, and the rule in one sentence.

    Args:
        table: All rows.
        time: A column by whose order rows are split: what is tested comes after what is trained on.
        together: A column of which no value is in two splits.
        seed: Of what is drawn.
        folds: None for parts of 80, 10 and 10 %; or into how many folds the rows are cut, of which one is tested.
        fold: Which one, from 0.

    Raises:
        ValueError: If there are too few rows or values, or the columns contradict each other.
    """
    if len(table) < _FEWEST:
        raise ValueError(f"`train` must have at least {_FEWEST} rows to be split. Received: {len(table)} rows")
    if time is not None and together is not None:
        raise ValueError(
            f"`together` must be None where `time` says the split. Received: time={time!r}, together={together!r}"
        )
    if folds is None:
        parts, rule = _once(table, time, together, seed)
    else:
        check.check_int("folds", folds, minimum=2, maximum=len(table) // 4)
        check.check_int("fold", fold, minimum=0, maximum=folds - 1)
        parts, rule = _fold(table, time, together, seed, folds, fold)
    # Within a part rows keep their order, unless time gives them another.
    parts = parts if time is not None else tuple(np.sort(part) for part in parts)  # type: ignore[assignment]
    return {name: table.iloc[rows].reset_index(drop=True) for name, rows in zip(NAMES, parts, strict=True)}, rule


def _once(table: pd.DataFrame, time: str | None, together: str | None, seed: int) -> tuple[Parts, str]:
    shares = ", ".join(f"{share:.0%} {name}" for share, name in zip(_SHARES, NAMES, strict=True))
    if together is not None:
        values = table[_checked(table, "together", together)]
        # Rows without a value have nothing in common: each is a group of its own.
        part = cold_split(values.astype("str").where(values.notna(), values.index.astype("str") + " (missing)"), seed)
        train, validation, test = (np.flatnonzero(part == i) for i in range(3))
        return (train, validation, test), f"values of {together!r} drawn at random, seed {seed}: {shares}"
    order, rule = _order(table, time, seed)
    train, validation, test = np.split(order, [round(len(table) * share) for share in np.cumsum(_SHARES[:-1])])
    return (train, validation, test), f"{rule}: {shares}"


def _fold(
    table: pd.DataFrame, time: str | None, together: str | None, seed: int, folds: int, fold: int
) -> tuple[Parts, str]:
    """One fold is tested, and a tenth of the other rows chooses the epoch."""
    rng = np.random.default_rng([seed, fold])
    if together is not None:
        codes = pd.factorize(table[_checked(table, "together", together)], use_na_sentinel=False)[0]
        count = int(codes.max()) + 1
        if count < 2 * folds:
            raise ValueError(
                f"`together` must have at least {2 * folds} different values for {folds} folds. Received: {count} of "
                f"{together!r}"
            )
        of_group = np.random.default_rng(seed).permutation(count) % folds
        others = np.flatnonzero(of_group != fold)
        chosen = rng.permutation(others)[: max(round(_VALIDATION * len(others)), 1)]
        is_test, is_validation = of_group[codes] == fold, np.isin(codes, chosen)
        rows = tuple(np.flatnonzero(mask) for mask in (~is_test & ~is_validation, is_validation, is_test))
        return rows, f"{folds} folds, values of {together!r} drawn at random, seed {seed}"  # type: ignore[return-value]
    order, rule = _order(table, time, seed)
    if time is not None:
        blocks = np.array_split(order, folds + 1)
        before, test = np.concatenate(blocks[: fold + 1]), blocks[fold + 1]
        rule = f"{folds} folds forward in time, {rule}: each is tested after all that comes before it"
    else:
        blocks = np.array_split(order, folds)
        before, test = rng.permutation(np.concatenate(blocks[:fold] + blocks[fold + 1 :])), blocks[fold]
        rule = f"{folds} folds, {rule}"
    cut = len(before) - max(round(_VALIDATION * len(before)), 1)
    return (before[:cut], before[cut:], test), rule


def _order(table: pd.DataFrame, time: str | None, seed: int) -> tuple[np.ndarray, str]:
    if time is None:
        return np.random.default_rng(seed).permutation(len(table)), f"rows drawn at random, seed {seed}"
    times = table[_checked(table, "time", time)]
    if times.isna().any():
        raise ValueError(f"`time` must be known of every row. Received: {int(times.isna().sum())} missing in {time!r}")
    return np.argsort(times.to_numpy(), kind="stable"), f"rows in the order of {time!r}"


def _checked(table: pd.DataFrame, argument: str, column: Any) -> Any:
    check_column(argument, column, table)
    return column


def check_column(argument: str, column: Any, table: pd.DataFrame) -> None:
    """Refuses a name that no column has, with those that there are."""
    if column not in table.columns:
        shown = ", ".join(map(repr, list(table.columns)[:30]))
        close = difflib.get_close_matches(str(column), list(map(str, table.columns)), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"`{argument}` must name columns of the table. Received: {column!r}{hint}. Expected: any of {shown}"
        )
