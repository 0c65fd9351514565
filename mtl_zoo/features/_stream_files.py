"""Files of a stream, and the parts that each is read in."""

from __future__ import annotations

import codecs
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import BOOLEAN, BYTES, DATE, FLOAT, INTEGER, STRING
from mtl_zoo.features._states import may_lack
from mtl_zoo.features._stream_find import COMPRESSIONS, is_parquet, partitions_of, suffix_of
from mtl_zoo.features._times import ZONED
from mtl_zoo.features.generated import GENERATED

# What reading a damaged file may raise; UnicodeDecodeError comes with text whose bytes were changed.
UNREADABLE = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)
CSV_BLOCK_BYTES = 4 << 20
_PAGE_BUFFER_BYTES = 1 << 16
# Blocks that are tried for one whose columns' types can be told.
_MOST_TRIED = 100
_ARROW_TYPES = {
    **{STRING: pa.string(), INTEGER: pa.int64(), FLOAT: pa.float64(), BOOLEAN: pa.bool_(), BYTES: pa.binary()},
    **{DATE: pa.timestamp("us"), ZONED: pa.timestamp("us", "UTC")},
}


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


@dataclasses.dataclass(frozen=True)
class CsvOptions:
    """How the text of CSV files is read.

    Args:
        encoding: Name of a Python codec.
        null_values: Texts that stand for a missing value, beside the usual ones.
    """

    encoding: str = "utf8"
    null_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            has_bytes = "\n".encode(self.encoding) == b"\n"
            codecs.lookup(self.encoding)
        except (LookupError, TypeError):
            has_bytes = False
        if not has_bytes:
            raise ValueError(
                "`encoding` must be the name of a codec that writes a line break as one byte. "
                f"Received: encoding={self.encoding!r}. Expected: for example 'utf8', 'latin1' or 'gbk'"
            )
        if isinstance(self.null_values, str) or not all(isinstance(value, str) for value in self.null_values):
            raise ValueError(f"`null_values` must be a list of texts. Received: null_values={self.null_values!r}")


def open_source(
    path: str,
    columns: Mapping[str, Sequence[str]],
    dictionaries: Sequence[str],
    csv: CsvOptions = CsvOptions(),
    absent: Sequence[Sequence[str]] = (),
) -> Source:
    """The file at `path`.

    Args:
        path: A file that exists.
        columns: The columns to read, and the kinds of values that a CSV file's text may stand for, the first that fits.
        dictionaries: String columns to read each distinct value of once.
        csv: How the text of a CSV file is read.
        absent: Groups of columns that a file may lack.
    """
    constants = _constants(path, columns)
    if is_parquet(suffix_of(path)):
        return ParquetSource(path, list(columns), dictionaries, constants, absent)
    return CsvSource(path, columns, csv, constants, absent)


def _constants(path: str, columns: Mapping[str, Sequence[str]]) -> dict[str, pa.Scalar]:
    """The wanted columns that the folders' names may give."""
    found = {}
    for name, text in partitions_of(path).items():
        if name in columns:
            for kind in columns[name]:
                try:
                    value = None if text is None else pa.scalar(text).cast(_ARROW_TYPES[kind])
                    found[name] = pa.scalar(None, _ARROW_TYPES[kind]) if value is None else value
                    break
                except pa.ArrowInvalid:
                    continue
            else:
                raise ValueError(
                    f"`{name}` must hold values of one kind in all files. Received: {path!r}, whose folder gives "
                    f"{text!r}. Expected: {' or '.join(columns[name])}"
                )
    return found


def _with_constants(batch: pa.RecordBatch, constants: Mapping[str, pa.Scalar]) -> pa.RecordBatch:
    for name, value in constants.items():
        batch = batch.append_column(name, pa.repeat(value, len(batch)))
    return batch


def check_columns(
    path: str, names: Sequence[str], wanted: Sequence[str], absent: Sequence[Sequence[str]] = ()
) -> list[str]:
    """The wanted columns that are there; refuses a file that lacks others than those of a group of `absent`."""
    if GENERATED in names:
        raise ValueError(
            f"`{path}` must hold no generated rows, which nobody could tell from others in a stream. Received a column "
            f"{GENERATED!r}. Train on both: JointSources({{'real': stream, 'generated': table}})"
        )
    lacking = [column for column in wanted if column not in names]
    excused = may_lack(lacking, absent)
    missing = [column for column in lacking if column not in excused]
    if missing:
        shown = [*names[:20], *(["..."] if len(names) > 20 else [])]
        raise ValueError(f"`{path}` lacks {len(missing)} columns. Received without: {missing}. It has: {shown}")
    repeated = sorted(set(check.duplicates(names)) & set(wanted))
    if repeated:
        raise ValueError(f"`{path}` must have different column names. Received twice: {repeated}")
    return [column for column in wanted if column in names]


class ParquetSource:
    """A Parquet file, row group by row group, in threads of ours and without reading a group at once."""

    part_name = "row group"

    def __init__(
        self,
        path: str,
        columns: Sequence[str],
        dictionaries: Sequence[str],
        constants: Mapping[str, pa.Scalar],
        absent: Sequence[Sequence[str]] = (),
    ):
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self._metadata, schema = file.metadata, file.schema_arrow
        except UNREADABLE as error:
            raise CorruptFile(
                f"`paths` must hold files that can be read. Received: {path!r}, which is no whole Parquet file: {error}"
            ) from error
        # What a file says of itself comes before what its folder does.
        self._constants = {name: value for name, value in constants.items() if name not in schema.names}
        columns = [name for name in columns if name not in self._constants]
        columns = check_columns(path, schema.names, columns, absent)
        self._columns = columns
        self._schema = pa.schema([schema.field(name) for name in columns])
        self._dictionaries = [
            name for name in dictionaries if name in columns and _is_text(self._schema.field(name).type)
        ]
        self.rows = tuple(self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups))

    def types(self) -> dict[str, str]:
        own = {field.name: type_family(field.type) for field in self._schema}
        return own | {name: type_family(value.type) for name, value in self._constants.items()}

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
            for batch in file.iter_batches(max_rows, row_groups=[part], columns=self._columns, use_threads=False):
                yield _with_constants(_without_decimals(batch), self._constants)


def _without_decimals(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Decimals as the numbers that features read: whole ones exactly, or with an error that says where."""
    for place, field in enumerate(batch.schema):
        if pa.types.is_decimal(field.type):
            target = pa.int64() if field.type.scale <= 0 else pa.float64()
            batch = batch.set_column(place, field.name, batch.column(place).cast(target))
    return batch


class CsvSource:
    """A CSV file with a header, in blocks of whole lines found by one pass over its bytes.

    A compressed one is read from its start, so it is one part, of which a block at a time is in memory.
    """

    part_name = "block"

    def __init__(
        self,
        path: str,
        columns: Mapping[str, Sequence[str]],
        csv: CsvOptions = CsvOptions(),
        constants: Mapping[str, pa.Scalar] | None = None,
        absent: Sequence[Sequence[str]] = (),
    ):
        self.path, self._csv = path, csv
        suffix = suffix_of(path)
        self._compression = next((way for end, way in COMPRESSIONS.items() if suffix.endswith(end)), None)
        self._parse = pa_csv.ParseOptions(delimiter="\t" if suffix.startswith(".tsv") else ",")
        try:
            with self._open() as file:
                self._blocks, self._lines, header = index_lines(file)
            read = pa_csv.ReadOptions(use_threads=False, encoding=csv.encoding)
            self._names = self._read_csv(header, read, pa_csv.ConvertOptions()).column_names
        except UNREADABLE as error:
            raise CorruptFile(
                f"`paths` must hold files that can be read. Received: {path!r}, whose first line is no header of a CSV "
                f"file: {error}"
            ) from error
        self.rows = self._lines if self._compression is None else (sum(self._lines),)
        self._constants = {name: v for name, v in (constants or {}).items() if name not in self._names}
        columns = {name: kinds for name, kinds in columns.items() if name not in self._constants}
        there = check_columns(path, self._names, list(columns), absent)
        columns = {name: columns[name] for name in there}
        self._convert = self._options(self._fitting_types(columns))

    def _open(self) -> BinaryIO:
        if self._compression is None:
            return open(self.path, "rb")
        return io.BufferedReader(pa.input_stream(self.path, compression=self._compression))

    def _options(self, types: Mapping[str, pa.DataType]) -> pa_csv.ConvertOptions:
        return pa_csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            # As pandas reads them.
            null_values=[*pa_csv.ConvertOptions().null_values, "<NA>", "None", *self._csv.null_values],
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
        for number, data in enumerate(self._texts()):
            try:
                schema = self._parsed(data, pa_csv.ConvertOptions(include_columns=columns)).schema
            except UNREADABLE:
                if number < _MOST_TRIED:
                    continue
                break  # named when its rows are read
            return {field.name: _csv_kind(field.type) for field in schema}
        return {}

    def types(self) -> dict[str, str]:
        own = {name: type_family(dtype) for name, dtype in self._convert.column_types.items()}
        return own | {name: type_family(value.type) for name, value in self._constants.items()}

    def _read_csv(self, data: bytes, read: pa_csv.ReadOptions, convert: pa_csv.ConvertOptions) -> pa.Table:
        return pa_csv.read_csv(pa.BufferReader(data), read, self._parse, convert)

    def _texts(self, first: int = 0) -> Iterator[bytes]:
        """The text of each block, from number `first` on."""
        with self._open() as file:
            position = 0
            for start, size in self._blocks[first:]:
                # Between blocks lie the header and empty lines.
                file.seek(start) if self._compression is None else file.read(start - position)
                data = file.read(size)
                if len(data) < size:
                    raise EOFError("it ends early")
                yield data
                position = start + size

    def _parsed(self, data: bytes, convert: pa_csv.ConvertOptions) -> pa.Table:
        read = pa_csv.ReadOptions(
            use_threads=False, column_names=self._names, block_size=len(data) + 1, encoding=self._csv.encoding
        )
        return self._read_csv(data, read, convert)

    def read(self, part: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        texts = self._texts(part)
        blocks = self._lines[part : part + 1] if self._compression is None else self._lines
        for rows, data in zip(blocks, texts, strict=False):
            table = self._parsed(data, self._convert)
            if len(table) != rows:
                raise pa.ArrowInvalid(
                    f"{rows} lines hold {len(table)} rows; values with line breaks are not read from CSV files, "
                    "write them as Parquet"
                )
            for batch in table.to_batches(max_rows):
                yield _with_constants(batch, self._constants)


def index_lines(file: BinaryIO) -> tuple[list[tuple[int, int]], tuple[int, ...], bytes]:
    """Blocks of whole lines as (start, bytes), the lines in each that are not empty, and the header line."""
    blocks, rows = [], []
    header = file.readline()
    start, rest = len(header), b""
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
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_boolean(dtype) or types.is_decimal(dtype):
        return "numbers"
    if types.is_timestamp(dtype) or types.is_date(dtype):
        return "dates" if getattr(dtype, "tz", None) is None else "dates with a zone"
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        return f"lists of {type_family(dtype.value_type)}"
    return str(dtype)


def _is_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def _csv_kind(dtype: pa.DataType) -> str:
    if pa.types.is_boolean(dtype):
        return BOOLEAN
    if pa.types.is_timestamp(dtype) or pa.types.is_date(dtype):
        return DATE if getattr(dtype, "tz", None) is None else ZONED
    return INTEGER if pa.types.is_integer(dtype) else FLOAT
