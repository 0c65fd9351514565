"""Time zones and the parts of a date, by whole numbers alone: the same lines for arrays and TensorFlow tensors."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import zoneinfo
from typing import Any

import numpy as np

SECOND, DAY = 1_000_000, 86_400  # microseconds, seconds
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# Microseconds of 0001-01-01 and of the end of 9999-12-31, as Python's dates go.
FIRST, LAST = -62_135_596_800 * SECOND, 253_402_300_800 * SECOND - 1
_ZONE_YEARS = (1900, 2100)


@dataclasses.dataclass(frozen=True)
class Zone:
    """A time zone as a table: before `starts[0]` its offset is `offsets[0]`, from `starts[i]` on `offsets[i + 1]`.

    Args:
        starts: Seconds since 1970 in UTC at which the offset changes, from 1900 to 2100.
        offsets: Seconds that local time is ahead of UTC.
    """

    starts: tuple[int, ...]
    offsets: tuple[int, ...]

    def to_utc(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Seconds in UTC of seconds of local time, and whether there is such a local time.

        Of a time that comes twice, when clocks are put back, the first is taken.
        """
        starts, offsets = np.array(self.starts, np.int64), np.array(self.offsets, np.int64)
        at = np.searchsorted(starts + offsets[:-1], local, side="right")
        exists = np.append(np.iinfo(np.int64).min, starts + offsets[1:])[at] <= local
        return local - offsets[at], exists


UTC = Zone((), (0,))


@functools.lru_cache(maxsize=64)
def zone_named(name: str) -> Zone:
    """The table of a zone of the IANA data base.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise ValueError(
            f"`timezone` must be the name of a time zone, such as 'Europe/Rome'. Received: timezone={name!r}"
        ) from error

    def offset(second: int) -> int:
        moment = (_EPOCH + datetime.timedelta(seconds=second)).astimezone(zone)
        return int(moment.utcoffset().total_seconds())  # type: ignore[union-attr]

    first, last = (int((datetime.datetime(year, 1, 1) - datetime.datetime(1970, 1, 1)).days) for year in _ZONE_YEARS)
    starts, offsets = [], [offset(first * DAY)]
    for day in range(first, last):
        after = offset((day + 1) * DAY)
        if after == offsets[-1]:
            continue
        low, high = day * DAY, (day + 1) * DAY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        starts.append(high)
        offsets.append(after)
    return Zone(tuple(starts), tuple(offsets))


def calendar_parts(local: Any) -> dict[str, Any]:
    """`year`, `month` (0 is January), `day` (0 is the first), `weekday` (0 is Monday) and `hour`.

    Args:
        local: Seconds of local time since 1970, an int64 array or tensor.

    Reference: Hinnant, "chrono-compatible low-level date algorithms", 2013, `civil_from_days`.
    """
    days = local // DAY
    shifted = days + 719_468  # days since 0000-03-01
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    from_march = (5 * of_year + 2) // 153
    after_december = from_march // 10
    return {
        "year": year_of_era + era * 400 + after_december,
        "month": from_march + 2 - 12 * after_december,
        "day": of_year - (153 * from_march + 2) // 5,
        "weekday": (days + 3) % 7,
        "hour": local % DAY // 3_600,
    }
