"""Results as rows of a CSV file that several processes may append to."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

# `key` comes first, so that a line cut short still tells whose it is.
COLUMNS = (
    "key",
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
_LATER_COLUMNS = ("parameter_match", "balancing_spec")


class ResultStore:
    """A CSV file of results: the rows of a run are written at once, under a lock, and never changed after.

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
        with self._locked() as file:
            end = _drop_torn_run(file)
            if end == 0:
                rows_text = _as_csv([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows])
            else:
                self._check_header(file)
                rows_text = _as_csv(rows)
            file.seek(end)
            try:
                file.write(rows_text.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        # Unbuffered: the rows leave in one write.
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _check_header(self, file: BinaryIO, older: bool = False) -> None:
        file.seek(0)
        header = file.readline().decode().strip()
        names = header.split(",")
        needed = tuple(name for name in COLUMNS if name in names or not (older and name in _LATER_COLUMNS))
        if tuple(names) != needed:
            raise ValueError(
                f"`path` must be a results file with the columns {', '.join(COLUMNS)}. "
                f"Received: {self.path} with {header[:200]}"
            )

    def read(self) -> pd.DataFrame:
        """All rows; an empty table if there is no file yet."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return pd.DataFrame(columns=list(COLUMNS))
        packed = self.path.suffix == ".gz"
        with cast(BinaryIO, gzip.open(self.path)) if packed else open(self.path, "rb") as file:
            self._check_header(file, older=True)
        text = ("key", "variant", "parameter_match", "commit", "error", "optimizer", "task", "space", "data_version")
        table = pd.read_csv(self.path, dtype=dict.fromkeys(text, "str"), keep_default_na=False, na_values={"value": ""})
        for column in ("value", "parameters", "train_seconds", "examples_per_second", "best_epoch", "observed"):
            table[column] = pd.to_numeric(table[column], errors="coerce")
        return table.reindex(columns=list(COLUMNS), fill_value="")

    def finished(self) -> set[str]:
        """Keys of the runs that ended without an error."""
        table = self.read()
        return set(table.loc[table["error"] == "", "key"])


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
    done = table[table["error"] == ""].drop_duplicates(["key", "split", "task", "metric", "space"], keep="last")
    if split not in set(done["split"]):
        raise ValueError(f"`split` must have results. Received: split={split!r}. Found: {sorted(set(done['split']))}")
    for data, rows in done.groupby(list(columns), sort=False):
        same = np.logical_and.reduce([table[column] == value for column, value in zip(columns, data, strict=True)])
        tried = table[same & (table["error"] != "") & ~table["key"].isin(set(rows["key"]))]
        yield rows, {f"{name(row)}, seed {row.seed}": row.error for row in tried.itertuples()}


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Adds a row to a CSV file of these columns, which it makes if there is none; what they lack is left out."""
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _as_csv(rows: list[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    for row in rows:
        writer.writerow({name: " ".join(v.split()) if isinstance(v, str) else v for name, v in row.items()})
    return text.getvalue()


def _drop_torn_run(file: BinaryIO) -> int:
    """Cuts off a last line without an end, which a crash left, with the other rows of its run; returns the end."""
    file.seek(0)
    content = file.read()
    if not content or content.endswith(b"\n"):
        return len(content)
    *lines, torn = content.split(b"\n")
    key = torn.split(b",")[0]
    while lines and b"," in torn and lines[-1].split(b",")[0] == key:
        lines.pop()
    end = sum(len(line) + 1 for line in lines)
    file.truncate(end)
    return end
