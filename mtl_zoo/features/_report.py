"""What a transform tells of itself: its features, and what was in no vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mtl_zoo.features._states import Unseen
from mtl_zoo.features.base import Feature, Summary

logger = logging.getLogger(__name__)


def describe(
    features: Sequence[Feature], summaries: Mapping[str, Summary], notes: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """A row for each feature, and one for each column that `infer` left out."""
    by_name = {note["name"]: note for note in notes}
    rows = []
    for feature in features:
        note = by_name.get(feature.name, {})
        summary = summaries.get(feature.name)
        counts = (summary.distinct, summary.missing) if summary else (note.get("distinct"), note.get("missing"))
        rule = note.get("rule") or feature.rule
        rows.append((feature.name, feature.source, feature.kind, rule, *counts))
    left_out = [n for n in notes if n["kind"] == "left out"]
    rows += [(n["name"], n["column"], n["kind"], n["rule"], n["distinct"], n["missing"]) for n in left_out]
    frame = pd.DataFrame(rows, columns=["name", "column", "kind", "rule", "distinct", "missing"])
    return frame.astype({c: "Int64" if frame[c].isna().any() else "int64" for c in ("distinct", "missing")})


def add_unseen(found: dict[str, Unseen], new: Mapping[str, Unseen], share: float) -> None:
    """Adds what a piece of a table held to what was found before; `share` is the piece's share of the rows."""
    for name, piece in new.items():
        before = found.get(name, Unseen(0, 0.0, piece.values))
        found[name] = Unseen(before.count + piece.count, before.share + piece.share * share, before.values)


def log_unseen(unseen: Mapping[str, Unseen], where: str = "") -> None:
    """A warning of values that were in no vocabulary, if there are any."""
    if unseen:
        found = "; ".join(
            f"{name}: {u.count} values ({u.share:.2%}), for example {list(u.values)}" for name, u in unseen.items()
        )
        entities = ", ids of no entity as missing" if any(name.endswith(".entity") for name in unseen) else ""
        logger.warning("Values that are in no vocabulary count as unknown (id 1)%s. %s%s", entities, where, found)
