"""Files of a stream: which ones there are, and the parts that each is read in."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import BOOLEAN, FLOAT, INTEGER, STRING

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv")
# What reading a damaged file may raise; UnicodeDecodeError comes with text whose bytes were changed.
UNREADABLE = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)
CSV_BLOCK_BYTES = 4 << 20
_PAGE_BUFFER_BYTES = 1 << 16
_ARROW_TYPES = {STRING: pa.string(), INTEGER: pa.int64(), FLOAT: pa.float64(), BOOLEAN: pa.bool_()}


class CorruptFile(ValueError):
    """A part of a file that cannot be read."""


class Source(Protocol):
    """A file in parts: the row groups of a Parquet file, or blocks of lines of a CSV file."""

    path: str
    part_name: str
    rows: tuple[int, ...]

    def types(self) -> Mapping[str, str]:
        """Kind of values by column, of the columns that are read."""

    def read(self, part: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of a part, in order, at most `max_rows` at a time."""


def find_files(paths: Any) -> list[str]:
    """The files that a path, a folder, a glob or a list of these stands for."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise ValueError("`paths` must name at least one file. Received: paths=[]")
    files = [file for path in given for file in _expand(path)]
    repeated = check.duplicates([os.path.realpath(file) for file in files])
    if repeated:
        raise ValueError(f"`paths` must name each file once. Received twice: {check.sample_values(repeated)}")
    return files


def _expand(path: Any) -> list[str]:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`paths` must be paths of files or folders. Received: {path!r}")
    name = os.fspath(path)
    if os.path.isdir(name):
        found = sorted(str(file) for file in Path(name).rglob("*") if _is_data(file, Path(name)))
        kinds = {Path(file).suffix.lower() for file in found}
        if not found:
            raise FileNotFoundError(f"`paths` must hold files {SUFFIXES}. Received: folder {name!r} without any")
        if len({_is_parquet(kind) for kind in kinds}) > 1:
            raise ValueError(
                f"`paths` must say which files of a folder to read if it holds several kinds. Received: {name!r} "
                f"with {sorted(kinds)}. Use a glob, for example {os.path.join(name, '*' + min(kinds))!r}"
            )
        return found
    if os.path.exists(name):
        found = [name]
    else:
        found = sorted(glob.glob(name, recursive=True))
        if not found:
            raise FileNotFoundError(f"`paths` must name files that exist. Received: {name!r}")
    for file in found:
        check.check_choice("suffix of " + file, Path(file).suffix.lower(), SUFFIXES)
    return found


def _is_data(file: Path, folder: Path) -> bool:
    """Spark and others write side files whose names start so."""
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()


def _is_parquet(suffix: str) -> bool:
    return suffix in (".parquet", ".pq")


def open_source(path: str, columns: Mapping[str, Sequence[str]], dictionaries: Sequence[str]) -> Source:
    """The file at `path`.

    Args:
        path: A file that exists.
        columns: The columns to read, and the kinds of values that a CSV file's text may stand for, the first that fits.
        dictionaries: String columns to read each distinct value of once.
    """
    if _is_parquet(Path(path).suffix.lower()):
        return ParquetSource(path, list(columns), dictionaries)
    return CsvSource(path, columns)


def check_columns(path: str, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in names]
    if missing:
        shown = [*names[:20], *(["..."] if len(names) > 20 else [])]
        raise ValueError(f"`{path}` lacks {len(missing)} columns. Received without: {missing}. It has: {shown}")
    repeated = sorted(set(check.duplicates(names)) & set(wanted))
    if repeated:
        raise ValueError(f"`{path}` must have different column names. Received twice: {repeated}")


class ParquetSource:
    """A Parquet file, row group by row group, in threads of ours and without reading a group at once."""

    part_name = "row group"

    def __init__(self, path: str, columns: Sequence[str], dictionaries: Sequence[str]):
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self._metadata, schema = file.metadata, file.schema_arrow
        except UNREADABLE as error:
            raise CorruptFile(
                f"`paths` must hold files that can be read. Received: {path!r}, which is no whole Parquet file: {error}"
            ) from error
        check_columns(path, schema.names, columns)
        self._columns = list(columns)
        self._schema = pa.schema([schema.field(name) for name in columns])
        self._dictionaries = [name for name in dictionaries if _is_text(self._schema.field(name).type)]
        self.rows = tuple(self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups))

    def types(self) -> dict[str, str]:
        return {field.name: type_family(field.type) for field in self._schema}

    def read(self, part: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        # `pre_buffer` would hold the whole row group; a buffer size makes the reader go page by page.
        with pq.ParquetFile(
            self.path,
            metadata=self._metadata,
            read_dictionary=self._dictionaries,
            buffer_size=_PAGE_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            yield from file.iter_batches(max_rows, row_groups=[part], columns=self._columns, use_threads=False)


class CsvSource:
    """A CSV file with a header, in blocks of whole lines found by one pass over its bytes."""

    part_name = "block"

    def __init__(self, path: str, columns: Mapping[str, Sequence[str]]):
        self.path = path
        self._parse = pa_csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
        self._blocks, self.rows, header = index_lines(path)
        try:
            table = self._read_csv(header, pa_csv.ReadOptions(use_threads=False), pa_csv.ConvertOptions())
            self._names = table.column_names
        except UNREADABLE as error:
            raise CorruptFile(
                f"`paths` must hold files that can be read. Received: {path!r}, whose first line is no header of a CSV "
                f"file: {error}"
            ) from error
        check_columns(path, self._names, list(columns))
        self._convert = self._options(self._fitting_types(columns))

    def _options(self, types: Mapping[str, pa.DataType]) -> pa_csv.ConvertOptions:
        return pa_csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            # As pandas reads them.
            null_values=[*pa_csv.ConvertOptions().null_values, "<NA>", "None"],
            strings_can_be_null=True,
        )

    def _fitting_types(self, columns: Mapping[str, Sequence[str]]) -> dict[str, pa.DataType]:
        """One type for each column and for the whole file; where several may do, the first block decides."""
        several = {name: kinds for name, kinds in columns.items() if len(kinds) > 1}
        inferred = self._inferred(list(several)) if several else {}
        kinds_found = {name: [kind for kind in kinds if kind == inferred.get(name)] for name, kinds in several.items()}
        return {name: _ARROW_TYPES[(kinds_found.get(name) or kinds)[0]] for name, kinds in columns.items()}

    def _inferred(self, columns: list[str]) -> dict[str, str]:
        """What the text of the first block that can be read looks like, by column."""
        for part in range(len(self._blocks)):
            try:
                schema = self._parsed(part, pa_csv.ConvertOptions(include_columns=columns)).schema
            except UNREADABLE:
                continue  # named when its rows are read
            return {field.name: _csv_kind(field.type) for field in schema}
        return {}

    def types(self) -> dict[str, str]:
        return {name: type_family(dtype) for name, dtype in self._convert.column_types.items()}

    def _read_csv(self, data: bytes, read: pa_csv.ReadOptions, convert: pa_csv.ConvertOptions) -> pa.Table:
        return pa_csv.read_csv(pa.BufferReader(data), read, self._parse, convert)

    def _parsed(self, part: int, convert: pa_csv.ConvertOptions) -> pa.Table:
        start, size = self._blocks[part]
        with open(self.path, "rb") as file:
            file.seek(start)
            data = file.read(size)
        read = pa_csv.ReadOptions(use_threads=False, column_names=self._names, block_size=size + 1)
        return self._read_csv(data, read, convert)

    def read(self, part: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        table = self._parsed(part, self._convert)
        if len(table) != self.rows[part]:
            raise pa.ArrowInvalid(
                f"{self.rows[part]} lines hold {len(table)} rows; values with line breaks are not read from CSV files, "
                "write them as Parquet"
            )
        yield from table.to_batches(max_rows)


def index_lines(path: str) -> tuple[list[tuple[int, int]], tuple[int, ...], bytes]:
    """Blocks of whole lines as (start, bytes), the lines in each that are not empty, and the header line."""
    blocks, rows = [], []
    with open(path, "rb") as file:
        header = file.readline()
        start, rest = file.tell(), b""
        while True:
            data = file.read(CSV_BLOCK_BYTES)
            text = rest + data
            end = len(text) if not data else text.rfind(b"\n") + 1
            if end:
                blocks.append((start, end))
                rows.append(_count_lines(text[:end]))
                start += end
            rest = text[end:]
            if not data:
                break
    full = [(block, count) for block, count in zip(blocks, rows, strict=True) if count]
    return [block for block, _ in full], tuple(count for _, count in full), header


def _count_lines(text: bytes) -> int:
    values = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(values == 10)
    if not len(ends) or ends[-1] != len(values) - 1:
        ends = np.append(ends, len(values))
    lengths = np.diff(ends, prepend=-1) - 1
    only_return = (lengths == 1) & (values[np.maximum(ends - 1, 0)] == 13)
    return int(np.count_nonzero((lengths > 0) & ~only_return))


def type_family(dtype: pa.DataType) -> str:
    """What a column's values are, whatever their width: files may differ in that."""
    types = pa.types
    if types.is_dictionary(dtype):
        return type_family(dtype.value_type)
    if types.is_null(dtype):
        return "nothing"
    if _is_text(dtype):
        return "strings"
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_boolean(dtype):
        return "numbers"
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        return f"lists of {type_family(dtype.value_type)}"
    return str(dtype)


def _is_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def _csv_kind(dtype: pa.DataType) -> str:
    if pa.types.is_boolean(dtype):
        return BOOLEAN
    return INTEGER if pa.types.is_integer(dtype) else FLOAT
