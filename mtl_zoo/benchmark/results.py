"""Results as rows of a CSV file that several processes may append to."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import gzip
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

# `key` comes first, so that a line cut short still tells whose it is; `run_rows` says how many rows its run has.
COLUMNS = (
    "key",
    "run_rows",
    "dataset",
    "variant",
    "split",
    "split_rule",
    "data_version",
    "dataset_options",
    "model",
    "hyperparameters",
    "parameters",
    "parameter_match",
    "seed",
    "epochs",
    "patience",
    "best_epoch",
    "batch_size",
    "optimizer",
    "balancing",
    "balancing_spec",
    "train_seconds",
    "examples_per_second",
    "commit",
    "dirty",
    "versions",
    "hardware",
    "task",
    "metric",
    "space",
    "observed",
    "value",
    "error",
)


# Files of earlier versions lack some of these and can be read only.
_LATER_COLUMNS = ("parameter_match", "balancing_spec", "run_rows")
_NUMBERS = ("run_rows", "value", "parameters", "train_seconds", "examples_per_second", "best_epoch", "observed")
# What tells a row from all others; of two that are the same in it, the later one counts.
ROW = ["key", "split", "task", "metric", "space"]
# A spreadsheet takes a text that starts so for a formula, and runs it.
_FORMULA = re.compile(r"'*[=+\-@]")


class ResultStore:
    """A CSV file of results: the rows of a run are written at once, under a lock, and never changed after.

    Each row says how many its run has (`run_rows`), so a run that a crash cut short is not taken for finished: it is
    left out on reading, and removed by the next that is added. A text that a spreadsheet would run as a formula gets a
    `'` in front, which `read` takes away again.

    Args:
        path: The file; it and its folder are made when the first rows are written. A packed one (`.csv.gz`) can be
            read only.

    Raises:
        ValueError: The file has other columns than this version writes.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark.results import ResultStore
    >>> store = ResultStore(pathlib.Path(tempfile.mkdtemp()) / "results.csv")
    >>> store.append([{"key": "1f", "model": "mmoe", "value": 0.75}])
    >>> store.finished(), store.read()["value"].tolist()
    ({'1f'}, [0.75])
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if self.path.is_dir():
            raise ValueError(f"`path` must be a file. Received: {self.path}, a folder")

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes all rows of one run, or, if that fails, none."""
        rows = list(rows)
        if self.path.suffix == ".gz":
            raise ValueError(f"`path` is packed and can be read only. Unpack it to add rows. Received: {self.path}")
        for row in rows:
            unknown = [name for name in row if name not in COLUMNS]
            if unknown:
                raise ValueError(f"`rows` must have the columns of the file. Received: {unknown}")
        counts = Counter(row["key"] for row in rows)
        rows = [{**row, "run_rows": counts[row["key"]]} for row in rows]
        with self._locked() as file:
            file.seek(0)
            content = file.read()
            if content:
                self._check_header(content)
                _append_whole(file, _end_of_whole_runs(content), _as_csv(COLUMNS, rows))
            else:
                _append_whole(file, 0, _as_csv(COLUMNS, rows, header=True))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        # Unbuffered: the rows leave in one write.
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _check_header(self, content: bytes, older: bool = False) -> None:
        header = content.split(b"\n", 1)[0].decode(errors="replace").strip()
        names = header.split(",")
        needed = tuple(name for name in COLUMNS if name in names or not (older and name in _LATER_COLUMNS))
        if tuple(names) != needed:
            raise ValueError(
                f"`path` must be a results file with the columns {', '.join(COLUMNS)}. "
                f"Received: {self.path} with {header[:200]}"
            )

    def read(self) -> pd.DataFrame:
        """All rows of the runs that are whole; an empty table if there is no file yet."""
        content = self._content()
        if not content:
            return pd.DataFrame(columns=list(COLUMNS))
        self._check_header(content, older=True)
        text = ("key", "variant", "parameter_match", "commit", "error", "optimizer", "task", "space", "data_version")
        table = pd.read_csv(
            io.BytesIO(content[: _end_of_whole_runs(content)]),
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values={"value": ""},
        )
        table = table.reindex(columns=list(COLUMNS), fill_value="")
        for column in COLUMNS:
            if column in _NUMBERS:
                table[column] = pd.to_numeric(table[column], errors="coerce")
            elif table[column].dtype.kind not in "biuf":
                table[column] = table[column].map(lambda v: v[1:] if isinstance(v, str) and _is_escaped(v) else v)
        return table

    def _content(self) -> bytes:
        if not self.path.exists():
            return b""
        content = self.path.read_bytes()
        return gzip.decompress(content) if self.path.suffix == ".gz" else content

    def finished(self, splits: Sequence[str] = ()) -> set[str]:
        """Keys of the runs that ended without an error, and whose rows are all there.

        Args:
            splits: Of which there must be rows. Rows of the validation split alone (`mtl-zoo bench needs`) are no end
                of a run that is asked for test rows.
        """
        table = self.read()
        done = table[table["error"] == ""]
        for split in splits:
            done = done[done["key"].isin(set(done.loc[done["split"] == split, "key"]))]
        # Files of earlier versions do not say how many rows a run has.
        counts = done.groupby("key").agg(rows=("key", "size"), wanted=("run_rows", "last"))
        return set(counts.index[~(counts["rows"] < counts["wanted"].astype(float))])


def rows_by(
    table: pd.DataFrame, columns: Sequence[str], split: str, name: Callable[[Any], str]
) -> Iterator[tuple[pd.DataFrame, dict[str, str]]]:
    """For each set of values of `columns`: the rows of finished runs, each once, and the errors of the others.

    Args:
        table: What `ResultStore.read` gives.
        columns: What the runs of a group share.
        split: Of which there must be rows; those of the other splits are given too.
        name: What a run is called among the errors, from one of its rows.

    Raises:
        ValueError: There are no results of that split.
    """
    done = table[table["error"] == ""].drop_duplicates(ROW, keep="last")
    if split not in set(done["split"]):
        raise ValueError(f"`split` must have results. Received: split={split!r}. Found: {sorted(set(done['split']))}")
    for data, rows in done.groupby(list(columns), sort=False):
        same = np.logical_and.reduce([table[column] == value for column, value in zip(columns, data, strict=True)])
        tried = table[same & (table["error"] != "") & ~table["key"].isin(set(rows["key"]))]
        yield rows, {f"{name(row)}, seed {row.seed}": row.error for row in tried.itertuples()}


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Adds a row to a CSV file of these columns, which it makes if there is none; what they lack is left out."""
    row = {name: value for name, value in row.items() if name in columns}
    with open(path, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = os.fstat(file.fileno()).st_size
        _append_whole(file, end, _as_csv(columns, [row], header=end == 0))


def _append_whole(file: BinaryIO, end: int, text: str) -> None:
    """Writes at `end`, and cuts off what was there; if that fails the file ends there."""
    file.truncate(end)
    file.seek(end)
    rest = memoryview(text.encode())
    try:
        # On a disk that is nearly full a write takes a part, and only the next one fails.
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise


def _as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) if isinstance(value, str) else value for name, value in row.items()})
    return text.getvalue()


def _cell(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}" if _FORMULA.match(text) else text


def _is_escaped(text: str) -> bool:
    return text.startswith("'") and _FORMULA.match(text) is not None


def _end_of_whole_runs(content: bytes) -> int:
    """Where the last run ends that is whole: a crash may have left a part of another one behind it."""
    header, *lines = content.split(b"\n")
    torn = lines.pop() if lines else b""
    counted = header.split(b",")[1:2] == [b"run_rows"]
    if torn and not counted:
        # Earlier versions: all that tells is the key, which the whole lines of the run share.
        while lines and b"," in torn and lines[-1].split(b",")[0] == torn.split(b",")[0]:
            lines.pop()
    elif counted and lines:
        run = lines[-1].split(b",")[:2]
        rows = next((i for i, line in enumerate(reversed(lines)) if line.split(b",")[:2] != run), len(lines))
        count = int(run[1]) if len(run) == 2 and run[1].isdigit() else 0
        left = rows % count if count else rows
        lines = lines[: len(lines) - left]
    return len(header) + 1 + sum(len(line) + 1 for line in lines)
