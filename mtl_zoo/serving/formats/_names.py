"""How what is exported names the columns that it takes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable


def input_names(columns: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Names for the inputs of a signature: the columns' own, or the nearest that Python accepts and nothing has.

    Args:
        columns: The columns.
        taken: Names that no input may have.
    """
    names: dict[str, str] = {}
    taken = set(taken)
    for column in sorted(columns, key=lambda c: not _is_legal(c)):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "column"
        if _is_legal(column):
            name = column
        elif not _is_legal(name):
            name = f"column_{name}"
        number, legal = 2, name
        while legal in taken or legal in names.values():
            legal, number = f"{name}_{number}", number + 1
        names[column] = legal
    return names


def _is_legal(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and not keyword.iskeyword(name)
