"""Checks shared by everything that takes user input. Each raises one error that names the thing."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Collection, Iterable, Sequence, Sized
from typing import Any

# Most parts of one kind in a model (experts, levels, layers of a stack), and the most units of a layer.
MAX_COUNT, MAX_UNITS = 4096, 1 << 20
_LEGAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


def suggest_name(name: str) -> str:
    """The nearest name that `check_name` accepts: every illegal run of characters becomes one underscore."""
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_.-") or "unnamed"


def check_name(argument: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"`{argument}` must be a non-empty string. Received: {argument}={name!r}")
    if not _LEGAL_NAME.match(name):
        raise ValueError(
            f"`{argument}` may hold letters, digits, '_', '-' and '.' only, since it becomes a layer name. "
            f"Received: {argument}={name!r}. Rename it, for example to {suggest_name(name)!r}"
            " (`column=` keeps the name that the table uses)."
        )
    return name


def check_choice(argument: str, value: Any, choices: Collection[Any]) -> Any:
    if value not in choices:
        raise ValueError(
            f"`{argument}` must be one of the known values. Received: {argument}={value!r}. "
            f"Expected: one of {', '.join(repr(choice) for choice in choices)}"
        )
    return value


def check_int(argument: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int or value < minimum or (maximum is not None and value > maximum):
        rule = f">= {minimum}" + ("" if maximum is None else f" and <= {maximum}")
        raise ValueError(f"`{argument}` must be a whole number {rule}. Received: {argument}={value!r}")
    return int(value)


def check_count(argument: str, value: Any, minimum: int = 1) -> int:
    """How many parts of one kind a model has. A file may ask for more than a machine can make, and would hold it up."""
    return check_int(argument, value, minimum, _told(MAX_COUNT, value))


def check_number(
    argument: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite number in [minimum, maximum] and, strictly, in (above, below)."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(float(value))
    if not is_number or not (minimum <= value <= maximum and above < value < below):
        bounds = [
            text
            for text, bound in (
                (f">= {minimum}", minimum),
                (f"<= {maximum}", maximum),
                (f"> {above}", above),
                (f"< {below}", below),
            )
            if math.isfinite(bound)
        ]
        rule = " and ".join(["a finite number", *bounds])
        raise ValueError(f"`{argument}` must be {rule}. Received: {argument}={value!r}")
    return float(value)


def check_units(argument: str, value: Any, *, allow_empty: bool = False) -> tuple[int, ...]:
    """Layer widths as a tuple; a single whole number is one layer."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = (value,)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"`{argument}` must be a list of layer widths. Received: {argument}={value!r}")
    if isinstance(value, Sized) and len(value) > MAX_COUNT:
        raise ValueError(f"`{argument}` must hold at most {MAX_COUNT} layer widths. Received: {len(value)}")
    units = tuple(check_int(f"{argument}[{i}]", u, maximum=_told(MAX_UNITS, u)) for i, u in enumerate(value))
    if not units and not allow_empty:
        raise ValueError(f"`{argument}` must hold at least one layer width. Received: {argument}={value!r}")
    return units


def _told(maximum: int, value: Any) -> int | None:
    """A limit that is so far off is told to those alone who pass it."""
    return maximum if isinstance(value, numbers.Integral) and int(value) > maximum else None


def duplicates(values: Iterable[Any]) -> list[Any]:
    """The values that came before, each time they come again."""
    seen: set[Any] = set()
    repeated = []
    for value in values:
        if value in seen:
            repeated.append(value)
        seen.add(value)
    return repeated


def check_unique_names(what: str, names: Sequence[str]) -> None:
    repeated = duplicates(names)
    if repeated:
        raise ValueError(f"`{what}` must have different names. Received twice: {sorted(set(repeated))}")


def sample_values(values: Iterable[Any], limit: int = 5) -> str:
    """A few distinct offending values, for an error message."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
        if len(distinct) > limit:
            break
    shown = ", ".join(repr(getattr(v, "item", lambda v=v: v)()) for v in distinct[:limit])
    return f"[{shown}{', ...' if len(distinct) > limit else ''}]"
