"""The rules by which a table's columns become features."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from collections.abc import Sequence as SequenceABC
from typing import Any

import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import BYTES, DATE, EMPTY, PAIRS, Column, check_columns
from mtl_zoo.features.base import FEATURES, Choice, Feature, InferRules, as_features
from mtl_zoo.features.categorical import Categorical, is_named_like_an_id
from mtl_zoo.features.generated import GENERATED
from mtl_zoo.features.numeric import ENCODINGS, Numeric

logger = logging.getLogger(__name__)

_REPORT = ["name", "column", "kind", "rule", "distinct", "missing"]


def infer_features(
    frame: pd.DataFrame,
    reserved: SequenceABC[str],
    *,
    exclude: SequenceABC[str],
    features: SequenceABC[Feature],
    numeric: SequenceABC[str] = (),
    categorical: SequenceABC[str] = (),
    rules: InferRules,
) -> tuple[tuple[Feature, ...], list[dict[str, Any]]]:
    """A spec for each column that is neither reserved nor excluded, and a note on each."""
    check.check_choice("number_encoding", rules.encoding, ENCODINGS)
    exclude = _columns_named("exclude", exclude)
    given = as_features(features) if isinstance(features, Feature) or len(features) else ()
    given += tuple(_of_kind(Numeric, n, frame, rules) for n in _columns_named("numeric", numeric))
    given += tuple(_of_kind(Categorical, n, frame, rules) for n in _columns_named("categorical", categorical))
    _check_names(frame, (*reserved, *exclude, *(feature.source for feature in given)))
    own = {feature.source for feature in given}
    both = sorted(own & set(exclude))
    if both:
        raise ValueError(f"`exclude` must not name columns that `features` reads. Received in both: {both}")
    specs = list(given)
    notes, all_differ = [], []
    taken = {feature.name for feature in given}
    for name in frame.columns:
        if name in own or name in reserved or name in exclude or name == GENERATED:
            continue
        choice = _choose(Column(name, frame[name]), _legal_name(name, taken), rules)
        feature = choice.feature
        if choice.warning:
            warnings.warn(f"`{name}` {choice.warning}", UserWarning, stacklevel=4)
        if feature is not None:
            specs.append(feature)
            taken.add(feature.name)
            if feature.is_id and choice.distinct == len(frame) and not is_named_like_an_id(name):
                all_differ.append(name)
        shown = (name, name, "left out") if feature is None else (feature.name, name, feature.kind)
        notes.append(dict(zip(_REPORT, (*shown, choice.rule, choice.distinct, choice.missing), strict=True)))
    if not specs:
        raise ValueError(f"`table` must have a column that can be a feature. Received: {[n['column'] for n in notes]}")
    renamed = {note["column"]: note["name"] for note in notes if note["column"] != note["name"]}
    if renamed:
        logger.warning("Columns whose names no layer may have are renamed: %s", renamed)
    _report(notes, all_differ, len(frame))
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


def _columns_named(argument: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`{argument}` must be names of columns. Received: {argument}={given!r}")
    return tuple(names)


def _of_kind(kind: Any, column: str, frame: pd.DataFrame, rules: InferRules) -> Feature:
    """A feature that the user asked for by the name of its column."""
    check_columns(frame, [column])
    name = _legal_name(column, set())
    source = None if name == column else column
    return kind.asked_for(Column(column, frame[column]), name, source, rules)


def _choose(column: Column, name: str, rules: InferRules) -> Choice:
    if column.kind == EMPTY:
        return Choice(None, "no value in any row", 0, len(column.series))
    if not column.is_list and column.kind not in (DATE, BYTES, PAIRS):
        cells = column.cells()
        distinct = int((cells.counts > 0).sum())
        if distinct <= 1 and not (distinct == 1 and cells.missing):
            value = check.sample_values(cells.values[cells.counts > 0])
            return Choice(None, f"constant: {value}" if distinct else "no value in any row", distinct, cells.missing)
    for kind in FEATURES.in_order():
        choice = kind.infer(column, name, rules)
        if choice is not None:
            return choice
    raise ValueError(
        f"`{column.name}` must hold what a kind of feature reads. Received: {column.shown}. Name it in `features`, or "
        "in `exclude`."
    )


def _report(notes: list[dict[str, Any]], all_differ: list[str], num_rows: int) -> None:
    """Logs the choices, and warns of columns that carry nothing or cannot be learned from."""
    logger.info("Features of %d rows:\n%s", num_rows, pd.DataFrame(notes, columns=_REPORT).to_string(index=False))
    left_out = [f"{note['column']} ({note['rule']})" for note in notes if note["kind"] == "left out"]
    if left_out:
        logger.warning("Columns left out, since they say nothing: %s", ", ".join(left_out))
    whole = [note["column"] for note in notes if note["kind"] == Numeric.kind and note["rule"].startswith("whole")]
    if whole:
        logger.warning("Whole numbers that are read as numbers; `categorical=` makes ids of them: %s", ", ".join(whole))
    if all_differ:
        logger.warning(
            "Columns where every row differs, so that an embedding learns nothing; `exclude=` leaves them out: %s",
            ", ".join(all_differ),
        )
