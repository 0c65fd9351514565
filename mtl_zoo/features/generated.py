"""Rows that nobody saw: the column that marks them, and the refusal of them where rows judge a model."""

from __future__ import annotations

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


def refuse_generated(argument: str, table: Any) -> None:
    """Refuses a table with generated rows.

    Args:
        argument: What the user calls it.
        table: As for `is_generated`; anything that is no table is none.

    Raises:
        ValueError: There is a generated row.

    Example:

    >>> from mtl_zoo.features.generated import refuse_generated
    >>> refuse_generated("split", {"x": [1, 2]})
    """
    if isinstance(table, pd.DataFrame | pa.Table | dict):
        count = int(is_generated(table).sum())
        if count:
            raise ValueError(
                f"`{argument}` must hold no generated rows, by which no model may be judged or chosen. Received: "
                f"{count} with {GENERATED!r}. Split the real rows first, then put generated ones below training rows"
            )
