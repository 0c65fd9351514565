"""Rows that nobody saw: the column that marks them, and the refusal of them where rows judge a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

GENERATED = "mtl_zoo_generated"


def is_generated(table: Any) -> np.ndarray:
    """Which rows of a table were generated, (rows,) booleans.

    Args:
        table: A pandas DataFrame, a pyarrow Table or a dict of arrays. Without the column `mtl_zoo_generated` all of
            its rows are real, and so are those where it is missing, of tables below which generated rows were put.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.features.generated import is_generated
    >>> real, made = pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [3], "mtl_zoo_generated": [True]})
    >>> is_generated(pd.concat([real, made])).tolist()
    [False, False, True]
    """
    names = table.column_names if isinstance(table, pa.Table) else list(table)
    if GENERATED not in names:
        return np.zeros(len(table) if isinstance(table, pd.DataFrame | pa.Table) else 0, bool)
    column = table[GENERATED].to_pandas() if isinstance(table, pa.Table) else pd.Series(table[GENERATED])
    return column.astype("boolean").fillna(False).to_numpy(bool)


def marked(table: Any) -> dict[str, np.ndarray]:
    """The column by its name, as labels have it: 1 where a row was generated; nothing where none was.

    Args:
        table: As for `is_generated`.

    Example:

    >>> from mtl_zoo.features.generated import marked
    >>> marked({"mtl_zoo_generated": [True, None]})["mtl_zoo_generated"].tolist(), marked({"x": [1]})
    ([1.0, 0.0], {})
    """
    made = is_generated(table)
    return {GENERATED: made.astype("float32")} if made.any() else {}


def refuse_generated(argument: str, table: Any) -> None:
    """Refuses a table with generated rows.

    Args:
        argument: What the user calls it.
        table: As for `is_generated`, or labels that `encode_labels` gave; anything that is no table is none. Of a
            `tf.data.Dataset` it is enough that its labels have the column.

    Raises:
        ValueError: There is a generated row.

    Example:

    >>> from mtl_zoo.features.generated import refuse_generated
    >>> refuse_generated("split", {"x": [1, 2]})
    """
    made = ""
    if isinstance(table, pd.DataFrame | pa.Table | Mapping):
        count = int(is_generated(table).sum())
        made = f"{count} with" if count else ""
    elif isinstance(spec := getattr(table, "element_spec", None), tuple):
        made = "batches with" if any(isinstance(part, Mapping) and GENERATED in part for part in spec[:2]) else ""
    if made:
        raise ValueError(
            f"`{argument}` must hold no generated rows, by which no model may be judged or chosen. Received: "
            f"{made} {GENERATED!r}. Split the real rows first, then put generated ones below training rows"
        )
