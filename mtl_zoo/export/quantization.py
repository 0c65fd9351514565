from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo.layers._tables import as_int8


@dataclasses.dataclass(frozen=True)
class Quantized:
    """What `quantize` makes.

    Args:
        model: The model with int8 tables.
        bytes_before: What the weights of the model that was given take, in bytes.
        bytes_after: What its own take.
        largest_difference: Of a score, by output, on the rows that `quantize` was given.

    Example:

    >>> from mtl_zoo.export import Quantized
    >>> found = Quantized(None, 4000, 1250, {"click": 1e-4})
    >>> found.bytes_after / found.bytes_before
    0.3125
    """

    model: Any
    bytes_before: int
    bytes_after: int
    largest_difference: dict[str, float]


def quantize(model: Any, x: Any = None) -> Quantized:
    """A model with its embedding tables in int8, a quarter of the size, and everything else as it is.

    Each row `x_i` of a table has a scale of its own:

        s_i = max_j |x_ij| / 127,   q_ij = round(x_ij / s_i),   and read is   s_i q_ij

    which differs from `x_ij` by at most `s_i / 2`. A row takes its width and 4 bytes, in place of 4 bytes times its
    width. What reads a table reads it so: the model, its scorer, `save` and load, and each export, which holds
    int8 rows, too. The tables are not trained any more; the model that was given stays as it is.

    Args:
        model: A model of the zoo.
        x: Rows on which scores are compared: what `predict` takes. Default: None, for a few made-up ones.

    Returns:
        `Quantized`: the model, sizes, and the largest difference of a score by output.

    Raises:
        ValueError: The model has no float32 table.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.export import quantize
    >>> model = create_model("shared_bottom", [Categorical("city", size=998, dim=16)], [BinaryTask("click")])
    >>> found = quantize(model)
    >>> (found.bytes_before - found.bytes_after) / 1000  # of 1,000 rows: 64 bytes each, then 20
    44.0
    """
    tables = _tables(model)
    if not tables or any(_backend.row_scales(table) is not None for table in tables.values()):
        held = "int8 tables" if tables else "no embedding table"
        raise ValueError(f"`model` must have float32 embedding tables. Received: {model.name!r}, with {held}")
    made = model.remade(embedding=dataclasses.replace(model.embedding, table_dtype="int8"))
    for path, table in _tables(made).items():
        rows, scales = as_int8(keras.ops.convert_to_numpy(tables[path]))
        table.assign(rows)
        _backend.row_scales(table).assign(scales)
    for theirs, ours in zip(_others(made), _others(model), strict=True):
        theirs.assign(keras.ops.copy(ours))  # on JAX the two would hold one buffer, which either gives away
    given = model.scoring.example(16) if x is None else x
    before, after = model.predict(given, verbose=0), made.predict(given, verbose=0)
    differences = {name: float(np.abs(after[name] - scores).max(initial=0)) for name, scores in before.items()}
    return Quantized(made, _backend.bytes_of(model.weights), _backend.bytes_of(made.weights), differences)


def _tables(model: Any) -> dict[str, Any]:
    return {variable.path: variable for variable in model.weights if _backend.is_table(variable)}


def _others(model: Any) -> list[Any]:
    scales = {id(_backend.row_scales(table)) for table in _tables(model).values()}
    return [v for v in model.weights if not _backend.is_table(v) and id(v) not in scales]
