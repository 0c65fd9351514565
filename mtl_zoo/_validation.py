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
    """The nearest name that `check_name` accepts, which depends on the name alone.

    Letters and digits of other scripts become their code points, and every other illegal run one underscore.

    Example:

    >>> from mtl_zoo._validation import suggest_name
    >>> suggest_name("is new?"), suggest_name("价格")
    ('is_new', 'u4ef7_u683c')
    """
    spelled = "".join(f" u{ord(c):x} " if c.isalnum() and not c.isascii() else c for c in name)
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", spelled).strip("_.-") or "unnamed"


def check_name(argument: str, name: Any, keeps: str = "column") -> str:
    """A name that can be part of a layer's; `keeps` is the argument that names the table's column in its place."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"`{argument}` must be a non-empty string. Received: {argument}={name!r}")
    if not _LEGAL_NAME.match(name):
        raise ValueError(
            f"`{argument}` may hold letters, digits, '_', '-' and '.' only, since it becomes a layer name. "
            f"Received: {argument}={name!r}. Rename it, for example to {suggest_name(name)!r}"
            f" (`{keeps}=` keeps the name that the table uses)."
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
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"`{argument}` must be a whole number >= {minimum}. Received: {argument}={value!r}")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"`{argument}` must be a whole number <= {maximum:,}. Received: {argument}={value!r}")
    return int(value)


def check_count(argument: str, value: Any, minimum: int = 1) -> int:
    """How many parts of one kind a model has. A file may ask for more than a machine can make, and would hold it up."""
    return check_int(argument, value, minimum, MAX_COUNT)


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
    units = tuple(check_int(f"{argument}[{i}]", u, maximum=MAX_UNITS) for i, u in enumerate(value))
    if not units and not allow_empty:
        raise ValueError(f"`{argument}` must hold at least one layer width. Received: {argument}={value!r}")
    return units


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
    """A few distinct offending values, for an error message: none longer than a line, and no raw bytes."""
    distinct: list[str] = []
    for value in values:
        text = shown(value)
        if text not in distinct:
            distinct.append(text)
        if len(distinct) > limit:
            break
    return f"[{', '.join(distinct[:limit])}{', ...' if len(distinct) > limit else ''}]"


def shown(value: Any, longest: int = 100) -> str:
    """A value as an error message shows it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = repr(value.tolist() if hasattr(value, "tolist") else value)
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates could not be printed
    return text if len(text) <= longest else f"{text[:longest]}..."
