"""Columns of a table, read once: the many types of pandas, pyarrow and Python become five kinds of cells."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mtl_zoo import _validation as check
from mtl_zoo.features._refusals import type_refusal

# Stands for a missing whole number, since an int64 array has no NaN.
MISSING_INTEGER = int(np.iinfo(np.int64).min)

STRING, INTEGER, FLOAT, BOOLEAN, EMPTY = "string", "integer", "float", "boolean", "empty"
DATE, BYTES, PAIRS = "date", "bytes", "pairs"  # what only features made for them read
SHOWN = {
    STRING: "strings",
    INTEGER: "whole numbers",
    FLOAT: "numbers",
    BOOLEAN: "booleans",
    EMPTY: "no value",
    DATE: "dates or times",
    BYTES: "bytes",
    PAIRS: "maps, or pairs of values and weights",
}
_WHOLE = "must hold whole numbers or strings, since its values become ids"
_WHOLE_ADVICE = "Use Numeric for measured numbers, or convert it: table[column].astype(str)"
_NESTED = (
    "Say nested=True to read the inner lists as one, or use Encoded with the shape of an array that each cell holds."
)
# Without it, pyarrow gives whole numbers with nulls as floats, which rounds ids above 2^53.
_EXACT = {
    **{
        t: pd.Int64Dtype()
        for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32())
    },
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def read_table(table: Any) -> pd.DataFrame:
    """`table` as a DataFrame with at least one row."""
    if isinstance(table, pa.Table):
        frame = table.to_pandas(types_mapper=_EXACT.get)
    elif isinstance(table, pd.DataFrame):
        frame = table
    elif isinstance(table, Mapping):
        lengths = {name: len(values) for name, values in table.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`table` must have columns of one length. Received: {lengths}")
        frame = pd.DataFrame({name: _cells_of_array(values) for name, values in table.items()})
    else:
        raise TypeError(
            "`table` must be a pandas DataFrame, a pyarrow Table or a dict of arrays. "
            f"Received: table of type {type(table).__name__}"
        )
    if len(frame) == 0:
        raise ValueError("`table` must have at least one row. Received: an empty table")
    return frame


def _cells_of_array(values: Any) -> Any:
    if isinstance(values, pd.Series):
        return values.array
    if isinstance(values, list) or isinstance(values, pd.api.extensions.ExtensionArray):
        return values
    array = np.asarray(values)
    return list(array) if array.ndim > 1 else array


def check_columns(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuses columns that the table lacks or has twice."""
    wanted = list(dict.fromkeys(columns))
    known = set(frame.columns)
    missing = [column for column in wanted if column not in known]
    if missing:
        names = [str(name) for name in frame.columns]
        similar = list(dict.fromkeys(s for column in missing for s in difflib.get_close_matches(column, names, n=2)))
        hint = f" Did you mean {similar}?" if similar else ""
        shown = names[:20] + (["..."] if len(names) > 20 else [])
        raise ValueError(f"`table` lacks {len(missing)} columns. Received without: {missing}. It has: {shown}.{hint}")
    repeated = sorted(set(frame.columns[frame.columns.duplicated()]) & set(wanted))
    if repeated:
        raise ValueError(f"`table` must have different column names. Received twice: {repeated}")


def refuse_values(column: str, rule: str, bad: np.ndarray, values: Any, advice: str = "") -> None:
    """Raises where any row is `bad`, naming the column, the count and a sample."""
    count = int(np.count_nonzero(bad))
    if count:
        sample = check.sample_values(np.asarray(values)[bad][:1000].tolist())
        raise ValueError(
            f"`{column}` {rule}. Received: {count} of {len(bad)} rows with {sample}{'. ' + advice if advice else ''}"
        )


@dataclasses.dataclass(frozen=True)
class Cells:
    """A column's values, each distinct one once: `values[codes]`, with code -1 where missing."""

    column: str
    kind: str
    codes: np.ndarray
    values: np.ndarray

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many cells hold each of `values`."""
        return np.bincount(self.codes + 1, minlength=len(self.values) + 1)[1:]

    @property
    def missing(self) -> int:
        return int(np.count_nonzero(self.codes < 0))

    def whole_numbers(self) -> np.ndarray:
        """The distinct values as int64; 1.0 is 1, and 1.5 is refused."""
        if self.kind != FLOAT:
            return self.values.astype(np.int64)
        whole = (np.floor(self.values) == self.values) & (np.abs(self.values) < 2.0**63)
        self.refuse(_WHOLE, ~whole, _WHOLE_ADVICE)
        return self.values.astype(np.int64)

    def as_text(self) -> np.ndarray:
        """The distinct values as strings; whole numbers in their decimal form, however they are stored."""
        if self.kind in (STRING, EMPTY):
            return self.values
        return np.array([str(value) for value in self.whole_numbers().tolist()], dtype=object)

    def refuse(self, rule: str, bad_values: np.ndarray, advice: str = "") -> None:
        """Raises where a cell holds one of the values marked in `bad_values`."""
        if bad_values.any():
            at = np.append(bad_values, False)[self.codes]
            refuse_values(self.column, rule, at, np.append(self.values.astype(object), [None])[self.codes], advice)


@dataclasses.dataclass(frozen=True)
class Lists:
    """A column of lists: the values of all its lists in one row of cells, and the row that each stands in."""

    cells: Cells
    rows: np.ndarray
    num_rows: int


class Column:
    """One column of a table: its kind of values, and the readings that features ask for."""

    kind: str

    def __init__(self, name: str, series: pd.Series):
        if isinstance(series.dtype, pd.SparseDtype):
            series = pd.Series(np.asarray(series))
        self.name, self.series = name, series
        self.categories: Column | None = None
        if isinstance(series.dtype, pd.CategoricalDtype):
            self.categories = Column(name, pd.Series(series.cat.categories))
            if self.categories.kind in (DATE, BYTES):
                self.series, self.categories = series.astype(series.cat.categories.dtype), None
        self.is_list = self.is_nested = False
        self.kind = self._find_kind()
        if self.is_list:
            self._array = self._read_array()
            self.kind = self._element_kind()

    @property
    def array(self) -> Any:
        """Its lists as an Arrow array."""
        return self._array

    @property
    def shown(self) -> str:
        if self.is_nested:
            return "lists of lists"
        return f"lists of {SHOWN[self.kind]}" if self.is_list else SHOWN[self.kind]

    def _find_kind(self) -> str:
        series, dtype, types = self.series, self.series.dtype, pd.api.types
        if self.categories is not None:
            return EMPTY if series.isna().all() else self.categories.kind
        arrow = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
        if arrow is not None and pa.types.is_decimal(arrow):
            raise ValueError(self._type_refusal("decimal"))
        if types.is_bool_dtype(dtype):
            kind = BOOLEAN
        elif types.is_integer_dtype(dtype):
            kind = INTEGER
        elif types.is_float_dtype(dtype):
            kind = FLOAT
        elif isinstance(dtype, pd.StringDtype) or (arrow is not None and _is_text(arrow)):
            kind = STRING
        elif arrow is not None and _is_list(arrow):
            self.is_list, kind = True, EMPTY
        elif dtype.kind == "O" and isinstance(dtype, np.dtype):
            kind = self._kind_of_objects()
        elif dtype.kind == "M" or (arrow is not None and pa.types.is_date(arrow)):
            kind = DATE
        elif arrow is not None and (pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow)):
            kind = BYTES
        elif arrow is not None and pa.types.is_null(arrow):
            return EMPTY
        elif arrow is not None and pa.types.is_map(arrow):
            kind = PAIRS
        else:
            raise ValueError(self._type_refusal(str(dtype).split("[")[0]))
        if kind != EMPTY and not self.is_list and bool(series.isna().all()):
            return EMPTY
        return kind

    def _kind_of_objects(self) -> str:
        inferred = pd.api.types.infer_dtype(self.series, skipna=True)
        known = {"string": STRING, "integer": INTEGER, "boolean": BOOLEAN, "empty": EMPTY}
        known |= {"floating": FLOAT, "mixed-integer-float": FLOAT, "bytes": BYTES}
        known |= dict.fromkeys(("date", "datetime", "datetime64"), DATE)
        if inferred in known:
            return known[inferred]
        first = next((cell for cell in self.series if not pd.api.types.is_scalar(cell) or pd.notna(cell)), None)
        if isinstance(first, dict):
            return PAIRS
        if isinstance(first, (list, tuple, np.ndarray)):
            if _holds_pairs(self.series):
                return PAIRS
            self.is_list = True
            return EMPTY
        raise ValueError(self._type_refusal(inferred))

    def _type_refusal(self, what: str) -> str:
        return type_refusal(self.name, self.series, what)

    # Readings

    def refuse_special(self) -> None:
        """Refuses what only features made for it can read: dates, bytes, pairs."""
        if self.kind in (DATE, BYTES, PAIRS):
            raise ValueError(self._type_refusal(self.kind))

    def cells(self) -> Cells:
        """Its distinct values and where they stand."""
        self.refuse_special()
        if self.is_list:
            advice = _NESTED if self.is_nested else "Use Sequence, or Categorical with multi_hot=True."
            raise ValueError(
                f"`{self.name}` holds lists, which a feature with one value a row cannot read. Received: {self.shown}. "
                f"{advice}"
            )
        if self.categories is not None:
            inner = self.categories.cells()
            codes = np.append(inner.codes, -1)[self.series.cat.codes.to_numpy()]
            return Cells(self.name, self.kind, codes, inner.values)
        if self.kind == EMPTY:
            return Cells(self.name, EMPTY, np.full(len(self.series), -1), np.array([], dtype=object))
        if self.kind == STRING:
            codes, found = pd.factorize(self.series)
            return _without(Cells(self.name, STRING, codes, np.asarray(found, dtype=object)), "")
        if self.kind == FLOAT:
            codes, values = pd.factorize(self._floats())
            return Cells(self.name, FLOAT, codes, values)
        codes, values = pd.factorize(self._integers())
        return _without(Cells(self.name, self.kind, codes, values), MISSING_INTEGER)

    def integers(self) -> np.ndarray | None:
        """Its values as int64, MISSING_INTEGER where there is none; None if it does not hold one integer a row."""
        is_plain = self.kind == INTEGER and not self.is_list and self.categories is None
        return self._integers() if is_plain else None

    def numbers(self) -> np.ndarray:
        """Its values as float64, NaN where missing."""
        self.refuse_special()
        if self.is_list or self.kind == STRING:
            advice = "" if self.is_list else " Convert it with pandas.to_numeric(table[column]), or use Categorical."
            raise ValueError(f"`{self.name}` must hold numbers. Received: {self.shown}{self._few()}.{advice}")
        if self.categories is not None:
            cells = self.cells()
            return np.append(cells.values.astype(np.float64), np.nan)[cells.codes]
        if self.kind == EMPTY:
            return np.full(len(self.series), np.nan)
        if self.kind == FLOAT:
            return self._floats()
        integers = self._integers()
        return np.where(integers == MISSING_INTEGER, np.nan, integers.astype(np.float64))

    def lists(self, separator: str) -> Lists:
        """Its lists, or the lists that its strings hold between separators; missing values left out."""
        self.refuse_special()
        if self.kind == EMPTY:
            none = np.array([], dtype=np.int64)
            return Lists(Cells(self.name, EMPTY, none, np.array([], dtype=object)), none, len(self.series))
        if self.is_nested:
            raise ValueError(f"`{self.name}` must hold lists of single values. Received: {self.shown}. {_NESTED}")
        if self.is_list:
            array = self._array
        elif self.kind == STRING:
            text = self.series.astype(object).where(self.series.notna(), None)
            array = pc.split_pattern(pa.array(text, type=pa.large_string(), from_pandas=True), pattern=separator)
        else:
            raise ValueError(
                f"`{self.name}` must hold lists, or strings with values between separators. Received: {self.shown}"
                f"{self._few()}."
            )
        flat = pd.Series(pc.list_flatten(array), dtype=pd.ArrowDtype(array.type.value_type))
        cells = Column(self.name, flat).cells()
        keep = cells.codes >= 0
        rows = np.asarray(pc.list_parent_indices(array), dtype=np.int64)[keep]
        return Lists(dataclasses.replace(cells, codes=cells.codes[keep]), rows, len(self.series))

    def _few(self) -> str:
        return f", {check.sample_values(self.series.dropna().iloc[:6])}"

    def _floats(self) -> np.ndarray:
        series = self.series.astype("Float64") if self.series.dtype == object else self.series
        return series.to_numpy(dtype=np.float64, na_value=np.nan)

    def _integers(self) -> np.ndarray:
        series = self.series
        if self.kind == BOOLEAN and isinstance(series.dtype, pd.ArrowDtype):
            series = series.astype("boolean")
        elif series.dtype == object:
            try:
                series = series.astype("boolean" if self.kind == BOOLEAN else "Int64")
            except (OverflowError, TypeError, ValueError) as error:
                raise ValueError(self._too_large()) from error
        if pd.api.types.is_unsigned_integer_dtype(series.dtype) and series.max() > np.iinfo(np.int64).max:
            raise ValueError(self._too_large())
        if isinstance(series.dtype, np.dtype):
            return series.to_numpy().astype(np.int64, copy=False)
        if isinstance(series.dtype, pd.ArrowDtype):
            # Those of 8 to 32 bits have no room for what stands for a missing one.
            series = series.astype(pd.ArrowDtype(pa.int64()))
        return series.to_numpy(dtype=np.int64, na_value=MISSING_INTEGER)

    def _too_large(self) -> str:
        largest = max(self.series.dropna().map(int), key=abs)
        return (
            f"`{self.name}` must hold whole numbers below 2^63. Received: {largest}. "
            "Convert it to strings: table[column].astype(str)."
        )

    def _read_array(self) -> Any:
        try:
            array = pa.array(self.series, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ValueError(self._mixed_lists()) from error
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        return array

    def _mixed_lists(self) -> str:
        names: dict[str, int] = {}
        for cell in self.series:
            for value in cell if isinstance(cell, (list, tuple, np.ndarray)) else [cell]:
                names[type(value).__name__] = names.get(type(value).__name__, 0) + 1
        return f"`{self.name}` must hold lists of values of one type. Received: {names}"

    def _element_kind(self) -> str:
        element = self._array.type.value_type
        if pa.types.is_null(element):
            return EMPTY
        if _is_list(element):
            self.is_nested = True
            return FLOAT  # a matrix a row; only an Encoded feature reads it
        return Column(self.name, pd.Series(pc.list_flatten(self._array), dtype=pd.ArrowDtype(element))).kind


def _holds_pairs(series: pd.Series) -> bool:
    """Whether lists hold tuples of a value and a number of another type; Arrow has no such lists."""
    item = next((cell[0] for cell in series if isinstance(cell, (list, tuple, np.ndarray)) and len(cell)), None)
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    return isinstance(item, tuple) or isinstance(item[0], str) != isinstance(item[1], str)


def _is_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def _is_list(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)


def _without(cells: Cells, value: Any) -> Cells:
    """`cells` with `value` counted as missing."""
    at = np.flatnonzero(cells.values == value)
    if not len(at):
        return cells
    gone = int(at[0])
    codes = np.where(cells.codes == gone, -1, cells.codes - (cells.codes > gone))
    return dataclasses.replace(cells, codes=codes, values=np.delete(cells.values, gone))
