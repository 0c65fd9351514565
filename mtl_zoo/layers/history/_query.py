from __future__ import annotations

from mtl_zoo._types import Shape


def check_query(rows: Shape, query: Shape | None) -> None:
    """Refuses a candidate whose vector cannot be compared with those of a history."""
    if query is None or len(query) != 2 or query[-1] != rows[-1]:
        raise ValueError(
            "`query` must be a feature whose vector is as wide as those of the history; features that share a table by "
            f"`key` are. Received: width {rows[-1]} of the history, shape {query} of the query"
        )
