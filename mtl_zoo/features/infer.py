"""The rules by which a table's columns become features."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence as SequenceABC
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import BOOLEAN, EMPTY, FLOAT, SHOWN, STRING, Cells, Column, check_columns
from mtl_zoo.features.spec import Categorical, Feature, Numeric, Sequence

logger = logging.getLogger(__name__)

MOST_DISTINCT = 1000
LONGEST_LIST = 50
_ID_NAME = re.compile(r"(?:.*_)?id\Z", re.IGNORECASE)
_REPORT = ["name", "column", "kind", "rule", "distinct", "missing"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a column becomes and why; no feature if it is left out."""

    feature: Feature | None
    rule: str
    distinct: int
    missing: int


def infer_features(
    frame: pd.DataFrame,
    reserved: SequenceABC[str],
    *,
    exclude: SequenceABC[str],
    features: SequenceABC[Feature],
    embedding_dim: int,
) -> tuple[tuple[Feature, ...], list[dict[str, Any]]]:
    """A spec for each column that is neither reserved nor excluded, and a note on each."""
    check.check_int("embedding_dim", embedding_dim)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    given = (features,) if isinstance(features, Feature) else tuple(features)
    _check_names(frame, (*reserved, *exclude, *(feature.source for feature in given)))
    own = {feature.source for feature in given}
    both = sorted(own & set(exclude))
    if both:
        raise ValueError(f"`exclude` must not name columns that `features` reads. Received in both: {both}")
    specs = list(given)
    notes = []
    taken = {feature.name for feature in given}
    for name in frame.columns:
        if name in own or name in reserved or name in exclude:
            continue
        choice = _choose(Column(name, frame[name]), _legal_name(name, taken), embedding_dim)
        feature = choice.feature
        if feature is not None:
            specs.append(feature)
            taken.add(feature.name)
        shown = (name, name, "left out") if feature is None else (feature.name, name, feature.kind)
        notes.append(dict(zip(_REPORT, (*shown, choice.rule, choice.distinct, choice.missing), strict=True)))
    if not specs:
        raise ValueError(f"`table` must have a column that can be a feature. Received: {[n['column'] for n in notes]}")
    _report(notes, len(frame))
    return tuple(specs), notes


def _check_names(frame: pd.DataFrame, named: SequenceABC[str]) -> None:
    strange = [name for name in frame.columns if not isinstance(name, str) or not name]
    if strange:
        raise ValueError(f"`table` must have strings as column names. Received: {strange[:10]}")
    check_columns(frame, (*frame.columns, *named))


def _legal_name(column: str, taken: set[str]) -> str:
    try:
        name = check.check_name("name", column)
    except ValueError:
        name = check.suggest_name(column)
    legal, number = name, 2
    while legal in taken:
        legal, number = f"{name}_{number}", number + 1
    return legal


def _choose(column: Column, name: str, dim: int) -> Choice:
    source = None if name == column.name else column.name
    if column.kind == EMPTY:
        return Choice(None, "no value in any row", 0, len(column.series))
    if column.is_list:
        return _choose_list(column, name, source, dim)
    cells = column.cells()
    distinct = int((cells.counts > 0).sum())
    counts = (distinct, cells.missing)
    if distinct <= 1 and not (distinct == 1 and cells.missing):
        value = check.sample_values(cells.values[cells.counts > 0])
        return Choice(None, f"constant: {value}" if distinct else "no value in any row", *counts)
    reason = _why_categorical(column, cells, distinct)
    if reason is not None:
        return Choice(Categorical(name, column=source, dim=dim), reason, *counts)
    numbers = column.numbers()
    missing = "mean" if not np.isfinite(numbers).all() else None
    rule = f"numbers, {distinct} distinct" + ("; missing ones become the mean" if missing else "")
    return Choice(Numeric(name, column=source, missing=missing), rule, *counts)


def _why_categorical(column: Column, cells: Cells, distinct: int) -> str | None:
    """The rule that makes the column a categorical, or None."""
    if column.kind in (STRING, BOOLEAN):
        return f"{SHOWN[column.kind]}, {distinct} distinct"
    values = cells.values[cells.counts > 0].astype(np.float64)
    if column.kind == FLOAT and not ((np.floor(values) == values) & (np.abs(values) < 2.0**63)).all():
        return None
    if _ID_NAME.match(column.name):
        return f"whole numbers, named like an id, {distinct} distinct"
    if distinct <= MOST_DISTINCT:
        return f"whole numbers, {distinct} distinct"
    return None


def _choose_list(column: Column, name: str, source: str | None, dim: int) -> Choice:
    if column.kind == FLOAT:
        raise ValueError(
            f"`{column.name}` holds lists of numbers, which may be measured ones. Received: {column.shown}. Name it in "
            "`features`, as Encoded(...) with an encoder of your own, or in `exclude`."
        )
    lists = column.lists("|")
    distinct = int((lists.cells.counts > 0).sum())
    lengths = np.bincount(lists.rows, minlength=lists.num_rows)
    length = min(int(lengths.max()), LONGEST_LIST)
    rule = f"{column.shown}, up to {int(lengths.max())} values" + (
        f", the last {length} kept" if length < lengths.max() else ""
    )
    return Choice(Sequence(name, column=source, dim=dim, length=length), rule, distinct, int((lengths == 0).sum()))


def _report(notes: list[dict[str, Any]], num_rows: int) -> None:
    """Logs the choices, and warns of columns that carry nothing or cannot be learned from."""
    logger.info("Features of %d rows:\n%s", num_rows, pd.DataFrame(notes, columns=_REPORT).to_string(index=False))
    left_out = [f"{note['column']} ({note['rule']})" for note in notes if note["kind"] == "left out"]
    if left_out:
        logger.warning("Columns left out, since they say nothing: %s", ", ".join(left_out))
    all_unique = [
        note["column"]
        for note in notes
        if note["kind"] == "categorical" and note["distinct"] == num_rows and not _ID_NAME.match(note["column"])
    ]
    if all_unique:
        logger.warning(
            "Columns where every row differs, so that an embedding learns nothing; `exclude=` leaves them out: %s",
            ", ".join(all_unique),
        )
