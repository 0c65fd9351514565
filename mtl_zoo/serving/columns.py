"""The columns that a model is scored with: names, shapes and types of a row, and what an array must be to be one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check

# What `np.asarray` of a raw column may hold, by the type that the transform reads.
_RAW_KINDS = {"string": "OUS", "int64": "iu", "float64": "fiub", "bool": "b"}


@dataclasses.dataclass(frozen=True)
class Column:
    """One array of a model's inputs, or one column of the tables that it was trained on.

    Args:
        name: The input's name, or the column's.
        shape: Shape of a row; None where any size will do.
        dtype: Type of the tensor that the graph takes.
        num_ids: Of an input that holds ids, the rows of its table.
        is_raw: Whether it is a column of a table, which the graph encodes.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    num_ids: int | None = None
    is_raw: bool = False

    @functools.cached_property
    def array_type(self) -> np.dtype[Any]:
        """The type of an array that is taken as it is."""
        return np.dtype(object if self.dtype == "string" else self.dtype)

    def shaped(self, argument: str, values: Any) -> np.ndarray:
        """An array of (rows, *shape). As Keras does: a column may be (rows, 1), and a width of 1 may be left out."""
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
        if array.ndim == 1 and not self.shape:
            return array
        dimensions = 1 + len(self.shape)
        if array.ndim == dimensions + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        elif array.ndim == dimensions - 1 and self.shape and self.shape[-1] == 1:
            array = array[..., None]
        sizes = zip(array.shape[1:], self.shape, strict=False)
        if array.ndim != dimensions or any(wanted not in (None, size) for size, wanted in sizes):
            shape = ", ".join(["rows", *("any" if size is None else str(size) for size in self.shape)])
            raise ValueError(f"`{argument}` must have the shape ({shape}). Received: shape {np.shape(values)}")
        return array

    def check_values(self, argument: str, array: np.ndarray) -> None:
        """Refuses ids outside of their table and numbers that are not finite, in one pass that copies nothing."""
        if self.is_raw or self.dtype == "string":
            return
        self._check_kind(argument, array)
        target = np.dtype(self.dtype)
        if not array.size or array.dtype.kind == "b" or target.kind not in "iuf":
            return
        lowest, highest = array.min(), array.max()
        if self.num_ids is not None:
            least, greatest, rule = 0, self.num_ids - 1, f"ids of its table of {self.num_ids} rows"
        else:
            limits: Any = np.finfo(target) if target.kind == "f" else np.iinfo(target)
            least, greatest, rule = limits.min, limits.max, f"finite numbers that fit in {self.dtype}"
        # Written so that NaN, which is then lowest and highest, is wrong.
        if not (lowest >= least and highest <= greatest):
            self._refuse(argument, rule, array, ~((array >= least) & (array <= greatest)))
        if target.kind != "f" and array.dtype.kind == "f" and (array != np.floor(array)).any():
            self._refuse(argument, "whole numbers", array, array != np.floor(array))

    def _check_kind(self, argument: str, array: np.ndarray) -> None:
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"`{argument}` must be numbers, of a type that becomes {self.dtype}. Received: dtype {array.dtype}, "
                f"sample {check.sample_values(array.ravel()[:1000].tolist())}{_RAW_ADVICE}"
            )

    def _refuse(self, argument: str, rule: str, array: np.ndarray, wrong: np.ndarray) -> None:
        raise ValueError(
            f"`{argument}` must be {rule}. Received: {int(wrong.sum()):,} of {array.size:,} are not, "
            f"for example {check.sample_values(array[wrong][:1000])}{_RAW_ADVICE}"
        )

    def typed(self, argument: str, array: np.ndarray) -> np.ndarray:
        """The array in the column's type; values that `check_values` has passed keep their value."""
        if self.is_raw and self.dtype in _RAW_KINDS:
            if array.dtype.kind not in _RAW_KINDS[self.dtype]:
                raise ValueError(
                    f"`{argument}` must be {self.dtype}, as in the training table. Received: dtype {array.dtype}; "
                    "`transform.raw_arrays(table)` gives the columns of a table in their types"
                )
        elif self.dtype != "string":
            self._check_kind(argument, array)
        return array if self.dtype == "string" or array.dtype == self.array_type else array.astype(self.dtype)

    def example(self, rows: int) -> np.ndarray:
        """Values that any such column may hold: an empty string, zeros, False, or the first ids of a table."""
        shape = (rows, *(1 if size is None else size for size in self.shape))
        if self.dtype == "string":
            return np.full(shape, "", object)
        values = np.zeros(shape, self.dtype)
        if self.num_ids is not None:
            values.ravel()[:] = np.arange(values.size) % self.num_ids
        elif self.dtype != "bool":
            values.ravel()[:] = np.arange(values.size) % 7
        return values


_RAW_ADVICE = (
    ". Are these raw columns? A model that was made with a fitted FeatureTransform encodes them if they come as a "
    "DataFrame"
)

Columns = Mapping[str, Column]


def encoded_columns(model: Any) -> dict[str, Column]:
    """The model's inputs that scores are made of, in the order of its features."""
    columns = {}
    for feature in model.features:
        for name in _encoded_names(feature):
            tensor = model.input[name]
            num_ids = getattr(feature.embed(), "num_ids", None)
            is_ids = tensor.dtype == "int32"
            columns[name] = Column(name, tuple(tensor.shape[1:]), tensor.dtype, num_ids if is_ids else None)
    return columns


def encoded_names(model: Any) -> list[str]:
    """The names of `encoded_columns`, which also a graph that is being traced may ask for: no layer is made."""
    return [name for feature in model.features for name in _encoded_names(feature)]


def _encoded_names(feature: Any) -> list[str]:
    return [] if feature.bias else list(feature.input_specs())


def raw_columns(transform: Any) -> dict[str, Column]:
    """The columns of a table that the model's transform reads, in the types that its graph form takes."""
    specs = transform.raw_signature()
    return {c: Column(c, tuple(spec.shape[1:]), spec.dtype.name, is_raw=True) for c, spec in specs.items()}


def check_by_name(argument: str, given: Any) -> None:
    """Refuses what has no columns by name: it must be a dict, a table, or what can be read like one."""
    if not (hasattr(given, "keys") and hasattr(given, "__getitem__")):
        raise ValueError(f"`{argument}` must be a dict of arrays by column, or a table. Received: {check.shown(given)}")


def check_names(argument: str, given: Collection[str], columns: Columns) -> None:
    """Refuses what leaves a column out."""
    check_by_name(argument, given)
    missing = [name for name in columns if name not in given]
    if missing:
        what = "column" if all(column.is_raw for column in columns.values()) else "feature"
        raise ValueError(
            f"`{argument}` must hold every {what} of the model. Missing: {missing}. Received: {sorted(given)}"
        )


def count_rows(argument: str, arrays: Mapping[str, np.ndarray]) -> int:
    """The number of rows, which must be the same in all arrays."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"`{argument}` must hold arrays of one length. Received: {lengths}")
    return next(iter(lengths.values()))


def shaped_arrays(argument: str, given: Mapping[str, Any], columns: Columns) -> dict[str, np.ndarray]:
    """An array for each column, of its shape and of one length, in the types in which they came."""
    check_names(argument, given, columns)
    arrays = {name: column.shaped(f"{argument}[{name!r}]", given[name]) for name, column in columns.items()}
    if arrays:
        count_rows(argument, arrays)
    return arrays


def checked_arrays(argument: str, given: Mapping[str, Any], columns: Columns) -> dict[str, np.ndarray]:
    """`shaped_arrays` whose values may be scored."""
    arrays = shaped_arrays(argument, given, columns)
    for name, column in columns.items():
        column.check_values(f"{argument}[{name!r}]", arrays[name])
    return arrays


def read_arrays(argument: str, given: Mapping[str, Any], columns: Columns) -> dict[str, np.ndarray]:
    """Typed arrays. Their values are checked when they are packed, but for those that another type would change."""
    check_names(argument, given, columns)
    arrays = {}
    for name, column in columns.items():
        label = f"{argument}[{name!r}]"
        array = column.shaped(label, given[name])
        if array.dtype != column.array_type:
            column.check_values(label, array)
            array = column.typed(label, array)
        arrays[name] = array
    return arrays


def as_row(column: Column, value: Any) -> np.ndarray:
    """One row of a user's column, given as its value or as an array of one row."""
    array = np.asarray(value)
    array = array[None] if array.ndim == len(column.shape) else array
    if array.ndim == 0 or len(array) != 1:
        raise ValueError(f"`user[{column.name!r}]` must be one row. Received: shape {np.shape(value)}")
    return array


class Packing:
    """How columns travel: those of one type with one value a row as the rows of one matrix, others alone.

    A call then hands over a tensor or two, instead of one for each column.
    """

    def __init__(self, columns: Columns):
        groups: dict[Any, list[Column]] = {}
        for column in columns.values():
            groups.setdefault((column.name, column.dtype) if column.shape else column.dtype, []).append(column)
        self._groups = list(groups.values())
        self._bounds = [_bounds(group) for group in self._groups]

    def specs(self) -> list[Any]:
        """A `tf.TensorSpec` for each tensor that travels."""
        import tensorflow as tf

        found = []
        for group in self._groups:
            first = group[0]
            found.append(tf.TensorSpec((None, *first.shape) if first.shape else (len(group), None), first.dtype))
        return found

    def pack(self, arrays: Mapping[str, np.ndarray], refuse: Callable[[Column], None] | None = None) -> list[Any]:
        """The tensors of typed arrays.

        Args:
            refuse: If given, values are checked, all those of a matrix at once, and it is called with the first column
                that holds a wrong one.
        """
        import tensorflow as tf

        packed = []
        for group, bounds in zip(self._groups, self._bounds, strict=True):
            array = arrays[group[0].name] if group[0].shape else _stack(group, arrays)
            if refuse is not None and bounds is not None and array.size:
                _check_matrix(group, bounds, array, refuse)
            try:
                packed.append(tf.constant(array, group[0].dtype))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Columns {[column.name for column in group]} must hold {group[0].dtype} alone; a missing string "
                    f"is ''. Received: {error}"
                ) from error
        return packed

    def unpack(self, packed: Collection[Any]) -> dict[str, Any]:
        """Tensors by column, in a graph."""
        import tensorflow as tf

        found: dict[str, Any] = {}
        for group, tensor in zip(self._groups, packed, strict=True):
            tensors = [tensor] if group[0].shape else tf.unstack(tensor)
            found |= {column.name: t for column, t in zip(group, tensors, strict=True)}
        return found


def _stack(group: list[Column], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        return np.stack([arrays[column.name] for column in group])
    except (TypeError, ValueError) as error:
        names = [column.name for column in group]
        raise ValueError(f"Columns {names} must hold {group[0].dtype} alone. Received: {error}") from error


def _bounds(group: list[Column]) -> tuple[np.ndarray, np.ndarray] | None:
    """The least and the greatest value of each column of a matrix, or None where any will do."""
    if group[0].is_raw or group[0].dtype not in ("int32", "float32"):
        return None
    limits = np.iinfo("int32") if group[0].dtype == "int32" else np.finfo("float32")
    least = [limits.min if column.num_ids is None else 0 for column in group]
    greatest = [limits.max if column.num_ids is None else column.num_ids - 1 for column in group]
    return np.array(least, group[0].dtype), np.array(greatest, group[0].dtype)


def _check_matrix(
    group: list[Column], bounds: tuple[np.ndarray, np.ndarray], array: np.ndarray, refuse: Callable[[Column], None]
) -> None:
    rows = array.reshape(len(group), -1)
    least, greatest = bounds
    # Written so that NaN is wrong.
    fits = (rows.min(axis=1) >= least) & (rows.max(axis=1) <= greatest)
    if not fits.all():
        refuse(group[int(np.argmin(fits))])
