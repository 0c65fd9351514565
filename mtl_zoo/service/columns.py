"""From JSON to the columns of a model, and from its scores to JSON, in the shapes of TensorFlow Serving's REST API.

A request is `{"instances": [row, ...]}` or `{"inputs": {column: values}}`; of a model with one column, rows may be
plain values and `inputs` a list. `context` holds columns that are the same in all rows: one user, many candidates.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._states import MISSING
from mtl_zoo.service.body import kind_of
from mtl_zoo.service.errors import bad_input
from mtl_zoo.serving.columns import Column, Columns

SIGNATURE = "serving_default"
_KEYS = ("signature_name", "instances", "inputs", "context")
# What values a column takes, by its type: Python's types of JSON, and the words for them.
TYPES: dict[str, tuple[set[type], str]] = {
    "string": ({str, dict}, "a string"),
    "bool": ({bool}, "true or false"),
    "int32": ({int}, "a whole number"),
    "int64": ({int}, "a whole number"),
    "float32": ({int, float}, "a number"),
    "float64": ({int, float}, "a number"),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to be scored.

    Args:
        arrays: Typed and checked, by column.
        count: How many rows.
        by_row: Whether the answer goes by row.
    """

    arrays: dict[str, np.ndarray]
    count: int
    by_row: bool = True

    @property
    def values(self) -> int:
        """Values of all columns, padding included."""
        return sum(array.size for array in self.arrays.values())


def read_rows(given: Mapping[str, Any], columns: Columns, max_rows: int, max_values: int) -> Rows:
    """The rows of a `:predict` request.

    Raises:
        RequestError: 400, which names the column.
    """
    known_keys("The body", given, _KEYS)
    signature = given.get("signature_name", SIGNATURE)
    if signature not in ("", SIGNATURE):
        raise bad_input(f"`signature_name` must be {SIGNATURE!r}. Received: {kind_of(signature)}")
    if ("instances" in given) == ("inputs" in given):
        raise bad_input("The body must hold either `instances` or `inputs`.")
    by_row = "instances" in given
    context = given.get("context", {})
    if not isinstance(context, dict):
        raise bad_input(f"`context` must be an object. Received: {kind_of(context)}")
    known_keys("`context`", context, columns)
    wanted = {name: column for name, column in columns.items() if name not in context}
    if not wanted:
        raise bad_input(f"`{'instances' if by_row else 'inputs'}` must hold a column of the model.")
    lists = _by_row(given["instances"], wanted, max_rows) if by_row else _by_column(given["inputs"], wanted)
    counts = {name: len(values) for name, values in lists.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise bad_input(f"`inputs` must hold lists of one length. Received: {check.shown(counts, 1000)}")
    if not 1 <= count <= max_rows:
        raise bad_input(f"A request must have 1 to {max_rows} rows. Received: {count}")
    room = Room(max_values)
    argument = "instances" if by_row else "inputs"
    arrays = {}
    for name, column in columns.items():
        if name in lists:
            arrays[name] = to_array(f"`{argument}`, column {name!r}", lists[name], column, room)
        else:
            row = to_array(f"`context`, column {name!r}", [context[name]], column, room)
            room.take(row.size * (count - 1))
            arrays[name] = np.repeat(row, count, axis=0)
    return Rows(arrays, count, by_row)


def known_keys(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses keys that are not known."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise bad_input(f"{what} must not hold other keys than {list(known)}. Received: {check.sample_values(unknown)}")


def _by_row(instances: Any, columns: Columns, max_rows: int) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise bad_input(f"`instances` must be a list of one row or more. Received: {kind_of(instances)}")
    if len(instances) > max_rows:
        raise bad_input(f"A request must have 1 to {max_rows} rows. Received: {len(instances)}")
    names = columns.keys()
    if len(columns) == 1 and not any(isinstance(row, dict) and row.keys() == names for row in instances):
        return {next(iter(columns)): instances}
    for place, row in enumerate(instances):
        if not isinstance(row, dict):
            raise bad_input(f"`instances[{place}]` must be an object with columns. Received: {kind_of(row)}")
        if row.keys() != names:
            _same_columns(f"`instances[{place}]`", row, columns)
    return {name: [row[name] for row in instances] for name in columns}


def _by_column(inputs: Any, columns: Columns) -> dict[str, list[Any]]:
    if isinstance(inputs, list) and len(columns) == 1:
        inputs = {next(iter(columns)): inputs}
    if not isinstance(inputs, dict):
        raise bad_input(f"`inputs` must be an object of columns. Received: {kind_of(inputs)}")
    _same_columns("`inputs`", inputs, columns)
    for name, values in inputs.items():
        if not isinstance(values, list):
            raise bad_input(f"`inputs`, column {name!r} must be a list. Received: {kind_of(values)}")
    return {name: inputs[name] for name in columns}


def _same_columns(what: str, given: Mapping[str, Any], columns: Columns) -> None:
    missing = [name for name in columns if name not in given]
    if missing:
        raise bad_input(f"{what} must hold every column of the model. Missing: {missing}")
    known_keys(what, given, columns)


class Room:
    """How many values a request may still hold: a short body can ask for much padding."""

    def __init__(self, values: int):
        self._limit = self._left = values

    def take(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise bad_input(f"A request must hold at most {self._limit} values, padding included.")


def to_array(label: str, values: list[Any], column: Column, room: Room) -> np.ndarray:
    """A row for each of the values, in the column's type."""
    array = _nested(label, values, column, column.shape, room)
    try:
        column.check_values("x", array)
        return column.typed("x", array)
    except ValueError as error:
        # What is cut off is advice for who trained the model.
        raise bad_input(str(error).split(". Are these raw columns?")[0].replace("`x`", label, 1)) from None


def _nested(label: str, values: Sequence[Any], column: Column, shape: tuple[int | None, ...], room: Room) -> np.ndarray:
    """(values, *shape): lists of one level after the other; those of an open size are padded as missing."""
    if not shape:
        room.take(len(values))
        return _flat(label, values, column)
    lists: list[list[Any]] = []
    for value in values:
        if isinstance(value, list):
            lists.append(value)
        elif value is None and column.is_raw:
            lists.append([])
        else:
            raise bad_input(f"{label} must hold a list in each row. Received: {kind_of(value)}")
    counts = np.array([len(one) for one in lists])
    width = int(max(counts.max(initial=0), 1)) if shape[0] is None else shape[0]
    wrong = counts[(counts != width) & ~((counts == 0) & column.is_raw)] if shape[0] is not None else counts[:0]
    if len(wrong):
        raise bad_input(f"{label} must hold lists of {width} values. Received: one of {wrong[0]}")
    inner = _nested(label, list(itertools.chain.from_iterable(lists)), column, shape[1:], room)
    if (counts == width).all():
        return inner.reshape(len(lists), width, *inner.shape[1:])
    missing = _missing(label, column)
    whole = (len(lists), width, *inner.shape[1:])
    room.take(math.prod(whole) - inner.size)
    padded = np.full(whole, missing, inner.dtype)
    padded[np.arange(width) < counts[:, None]] = inner
    return padded


def _missing(label: str, column: Column) -> Any:
    if not column.is_raw or column.dtype not in MISSING:
        raise bad_input(f"{label} must not be missing, and hold lists of one length.")
    return b"" if column.dtype == "string" else MISSING[column.dtype]


def _flat(label: str, values: Sequence[Any], column: Column) -> np.ndarray:
    allowed, words = TYPES[column.dtype]
    kinds = set(map(type, values))
    if type(None) in kinds:
        missing = _missing(label, column)
        values = [missing if value is None else value for value in values]
        kinds.discard(type(None))
    if not kinds <= allowed:
        wrong = next(value for value in values if type(value) not in allowed and not isinstance(value, bytes))
        raise bad_input(f"{label} must hold {words} in each row. Received: {kind_of(wrong)}")
    if column.dtype == "string":
        array = np.empty(len(values), object)
        array[:] = [value if isinstance(value, bytes) else _bytes(label, value) for value in values]
        return array
    wide: Any = {"int32": np.int64, "float32": np.float64}.get(column.dtype, column.dtype)
    try:
        array = np.array(values, wide)
    except OverflowError:
        raise bad_input(f"{label} must hold numbers that fit in {np.dtype(wide).name}.") from None
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise bad_input(f"{label} must hold finite numbers. Received: one that is not")
    return array


def _bytes(label: str, value: Any) -> bytes:
    """A string as UTF-8, or `{"b64": "..."}`, which stands for bytes."""
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if value.keys() != {"b64"} or not isinstance(value["b64"], str):
            raise bad_input(f'{label} must hold a string, or {{"b64": bytes in base64}}. Received: an object')
        return base64.b64decode(value["b64"], validate=True)
    except UnicodeEncodeError:
        raise bad_input(f"{label} must hold Unicode. Received: half of a surrogate pair") from None
    except (binascii.Error, ValueError):
        raise bad_input(f'{label}: "b64" must be base64.') from None


def answer(scores: Mapping[str, np.ndarray], by_row: bool) -> dict[str, Any]:
    """The body of the response: `predictions` by row, or `outputs` by name. One output stands without its name."""
    lists = {name: array.tolist() for name, array in scores.items()}
    if by_row:
        if len(lists) == 1:
            return {"predictions": next(iter(lists.values()))}
        return {"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}
    return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}


def merged(parts: Sequence[Mapping[str, np.ndarray]], columns: Columns) -> dict[str, np.ndarray]:
    """The rows of several requests under each other; lists are padded to one width."""
    if len(parts) == 1:
        return dict(parts[0])
    found = {}
    for name, column in columns.items():
        arrays = [part[name] for part in parts]
        width = merged_shape(arrays)
        if any(array.shape[1:] != width for array in arrays):
            arrays = [_padded(array, width, column) for array in arrays]
        found[name] = np.concatenate(arrays)
    return found


def merged_shape(arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The shape of a row that holds a row of each of the arrays."""
    return tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))


def merged_values(parts: Sequence[Mapping[str, np.ndarray]]) -> int:
    """How many values `merged` would hold."""
    total = 0
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        total += sum(len(array) for array in arrays) * math.prod(merged_shape(arrays))
    return total


def _padded(array: np.ndarray, shape: tuple[int, ...], column: Column) -> np.ndarray:
    whole = np.full((len(array), *shape), b"" if column.dtype == "string" else MISSING[column.dtype], array.dtype)
    whole[(slice(None), *(slice(size) for size in array.shape[1:]))] = array
    return whole
