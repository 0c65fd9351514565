"""Vocabularies that later tables extend: new values get new ids, and the ids of old ones never move."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo._files import name_within

NUMBERS = ("keep", "refit")


@dataclasses.dataclass(frozen=True)
class GrowthRules:
    """How `FeatureTransform.extend` takes up a table; see there."""

    min_count: int | None = None
    evict_after: int | None = None
    numbers: str = "keep"

    def __post_init__(self) -> None:
        for argument in ("min_count", "evict_after"):
            if getattr(self, argument) is not None:
                check.check_int(argument, getattr(self, argument))
        check.check_choice("numbers", self.numbers, NUMBERS)


@dataclasses.dataclass(frozen=True)
class Growth:
    """What a table changed in what a feature has learned.

    Args:
        rule: What the kind did: `"grows"`, `"stays"`, `"refitted"`, or `"fixed"` where it was told to stay.
        ids: Rows of its table now; None without one.
        new: Values that have an id now, and had none.
        reused: Those of them whose id was one of an evicted value.
        evicted: Values that have lost their id.
        waiting: Values that have been seen less than `min_count` times, or for which `max_ids` leaves no room.
        unknown: The share of the table's cells whose value had no id before.
    """

    rule: str = "stays"
    ids: int | None = None
    new: int = 0
    reused: int = 0
    evicted: int = 0
    waiting: int = 0
    unknown: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """What a list of values must remember to be extended.

    Args:
        root: A hash of the values as they were fitted: two lists with another root have nothing to do with each other.
        extension: How many tables have extended it.
        seen: int32, of each id from 2 on the number of the table that held its value last, 0 being that of `fit`.
        waiting: Values without an id that may get one.
        counts: int64, how often each of `waiting` has been seen.
        waiting_seen: int32, as `seen`, of `waiting`.
    """

    root: str
    extension: int
    seen: np.ndarray
    waiting: np.ndarray
    counts: np.ndarray
    waiting_seen: np.ndarray

    @classmethod
    def of_fit(cls, values: np.ndarray) -> History:
        """That of values which nothing has extended yet."""
        none = np.zeros(0, np.int32)
        return cls(root_of(values), 0, np.zeros(len(values), np.int32), values[:0], none.astype(np.int64), none)

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        """Writes it, and gives what `read` needs to know."""
        is_text = self.waiting.dtype == object
        values = pa.array(self.waiting, type=pa.large_string() if is_text else pa.int64())
        waiting = pa.table({"value": values, "count": self.counts, "seen": self.waiting_seen})
        kept = {"seen": f"{stem}_seen.parquet", "waiting": f"{stem}_waiting.parquet"}
        pq.write_table(pa.table({"seen": self.seen}), folder / kept["seen"], write_page_checksum=True)
        pq.write_table(waiting, folder / kept["waiting"], write_page_checksum=True)
        return {"root": self.root, "extension": self.extension, **kept}

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> History:
        """What `write` wrote."""
        seen, waiting = (
            pq.read_table(name_within(folder, config[name], "a transform"), page_checksum_verification=True)
            for name in ("seen", "waiting")
        )
        is_text = not pa.types.is_integer(waiting["value"].type)
        return cls(
            str(config["root"]),
            int(config["extension"]),
            np.asarray(seen["seen"], np.int32),
            np.asarray(waiting["value"].to_pandas(), dtype=object if is_text else np.int64),
            np.asarray(waiting["count"], np.int64),
            np.asarray(waiting["seen"], np.int32),
        )


def root_of(values: np.ndarray) -> str:
    """A hash of a list of values."""
    digest = hashlib.sha256(f"{values.dtype.kind} {len(values)}".encode())
    digest.update("\0".join(map(str, values.tolist())).encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def counted(parts: Sequence[tuple[np.ndarray, np.ndarray]], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The different values that occur in several lists of values and counts, and how often each does."""
    if not parts:
        return np.zeros(0, dtype), np.zeros(0, np.int64)
    codes, distinct = pd.factorize(np.concatenate([values for values, _ in parts]))
    counts = np.zeros(len(distinct), np.int64)
    np.add.at(counts, codes, np.concatenate([counts for _, counts in parts]).astype(np.int64))
    return np.asarray(distinct, dtype)[counts > 0], counts[counts > 0]


def most_frequent_first(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The order of different values: by how often they occur, equally frequent ones in their own order."""
    table = pa.table({"value": pa.array(values), "count": counts, "at": np.arange(len(values))})
    return np.asarray(table.sort_by([("count", "descending"), ("value", "ascending")])["at"])


def grown(
    values: np.ndarray,
    free: np.ndarray,
    history: History,
    found: tuple[np.ndarray, np.ndarray],
    at: np.ndarray,
    rules: GrowthRules,
    max_ids: int | None,
) -> tuple[np.ndarray, History, Growth]:
    """The values after another table: (values in the order of their ids, their history, what changed).

    Args:
        values: In the order of their ids; where `free`, whatever.
        free: Which ids stand for no value.
        history: Of the values.
        found: The table's different values and how often each occurs.
        at: The position in `values` of each that was found; -1 of others.
        rules: `min_count` must be given.
        max_ids: The most values that may have an id.

    Values that were found often enough, earlier tables counted, take the ids of evicted ones in their order, the most
    frequent first, and then new ids.
    """
    now = history.extension + 1
    seen = history.seen.copy()
    seen[at[at >= 0]] = now
    evicted = np.zeros(len(values), bool) if rules.evict_after is None else ~free & (now - seen >= rules.evict_after)
    free = free | evicted

    names, counts, last = _counted(history, found[0][at < 0], found[1][at < 0], now)
    if rules.evict_after is not None:
        recent = now - last < rules.evict_after
        names, counts, last = names[recent], counts[recent], last[recent]
    order = most_frequent_first(names, counts)
    taken = order[counts[order] >= (rules.min_count or 1)]
    room = len(taken) if max_ids is None else max(max_ids - int((~free).sum()), 0)
    taken = taken[:room]
    places = np.flatnonzero(free)[: len(taken)]
    reused, appended = taken[: len(places)], taken[len(places) :]

    after, after_seen = values.copy(), seen
    after[evicted] = _nothing(values)
    after[places], after_seen[places] = names[reused], last[reused]
    after = np.concatenate([after, names[appended]])
    after_seen = np.concatenate([after_seen, last[appended]])
    waits = np.ones(len(names), bool)
    waits[taken] = False
    kept = History(history.root, now, after_seen, names[waits], counts[waits], last[waits])
    growth = Growth("grows", None, len(taken), len(reused), int(evicted.sum()), int(waits.sum()))
    return after, kept, growth


def _counted(
    history: History, values: np.ndarray, counts: np.ndarray, now: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values without an id, of earlier tables and of this one: each once, its count, and when it was seen last."""
    codes, names = pd.factorize(np.concatenate([history.waiting, values]))
    of_each = np.concatenate([history.counts, counts.astype(np.int64)])
    total = np.zeros(len(names), np.int64)
    np.add.at(total, codes, of_each)
    last = np.zeros(len(names), np.int32)
    np.maximum.at(last, codes, np.concatenate([history.waiting_seen, np.full(len(values), now, np.int32)]))
    return np.asarray(names, dtype=history.waiting.dtype), total, last


def _nothing(values: np.ndarray) -> Any:
    """What an id without a value holds: the missing value, which no id from 2 on stands for."""
    return "" if values.dtype == object else np.iinfo(np.int64).min
