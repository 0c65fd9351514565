"""A name to load every data set by, what is known of it without loading, and what loaders share."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.datasets._dataset import Dataset, Split
from mtl_zoo.datasets._files import Resource, find_file, search_roots
from mtl_zoo.tasks import Task


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing `verify` looked at.

    Example:

    >>> from mtl_zoo.datasets import Check
    >>> Check("rows of u.data", expected="100000", found="99999", ok=False).ok
    False
    """

    what: str
    expected: str
    found: str
    ok: bool


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A row of the registry: how to load, fetch and verify a data set.

    Args:
        name: Its name in `load_dataset`.
        loader: `loader(**options)`, with a parameter `data_dir` if it reads files.
        summary: One line.
        source, licence: Where it comes from, and on what terms.
        folders: Where under the data folder its files may lie; `fetch` writes to the first. (): it is generated.
        files: The official files, each plain or .gz; the loader may know alternatives.
        resources: What `fetch` downloads.
        login: For sets that cannot be fetched, since they are behind a login: where to get them.
        check_files: `check_files(roots) -> list[Check]`, counts that always hold.
        later: Options that are younger than the set. Results name them only where they are not the default, so that
            earlier rows keep their keys.

    Example:

    >>> from mtl_zoo.datasets import dataset_info
    >>> info = dataset_info("movielens_100k")
    >>> info.files, info.options["split"]
    (('u.data', 'u.user', 'u.item'), 'auto')
    """

    name: str
    loader: Callable[..., Dataset]
    summary: str
    source: str
    licence: str
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    resources: tuple[Resource, ...] = ()
    login: str | None = None
    check_files: Callable[[list[Path]], list[Check]] | None = None
    later: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of `load_dataset` for this set, with their defaults."""
        parameters = inspect.signature(self.loader).parameters.values()
        return {p.name: p.default for p in parameters if p.name != "data_dir"}

    @property
    def reads_files(self) -> bool:
        return bool(self.folders)

    def is_complete(self, roots: Sequence[Path]) -> bool:
        """The official files are there, whole or not; generated sets need none."""
        return all(find_file(roots, self.folders, name) for name in self.files)


_REGISTRY: Registry[DatasetInfo] = Registry("name")
# What tells a path to a table from the name of a data set.
TABLES = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".parquet", ".pq")


def register_dataset(name: str, **info: Any) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Decorator: makes a loader known to `load_dataset` and the command line. See `DatasetInfo` for the arguments.

    Example:

    >>> from mtl_zoo.datasets import register_dataset
    >>> @register_dataset("synthetic_funnel", source="generated", licence="Apache-2.0")
    ... def mine(*, embedding_dim=16, seed=0):
    ...     return None
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'synthetic_funnel', the name of synthetic_funnel
    """

    def register(loader: Callable[..., Dataset]) -> Callable[..., Dataset]:
        summary = (inspect.getdoc(loader) or name).splitlines()[0]
        _REGISTRY.add(name, DatasetInfo(name=name, loader=loader, summary=summary, **info), owner=loader)
        return loader

    return register


def is_table(name: Any) -> bool:
    """Whether what stands for a data set is the path of a table."""
    return isinstance(name, (str, Path)) and str(name).lower().endswith(TABLES)


def list_datasets() -> list[str]:
    """Names that `load_dataset` knows.

    Example:

    >>> from mtl_zoo.datasets import list_datasets
    >>> "synthetic_funnel" in list_datasets()
    True
    """
    return _REGISTRY.names()


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a data set without loading it: source, licence, files, options.

    Example:

    >>> from mtl_zoo.datasets import dataset_info
    >>> dataset_info("movielens_1m").source
    'https://grouplens.org/datasets/movielens/1m/'
    """
    return _REGISTRY[name]


def load_dataset(name: str, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """Loads a data set by name, or a table of your own by its path.

    Args:
        name: One of `list_datasets()`, or the path of a `.csv` or `.parquet` file.
        data_dir: Folder with the data sets' folders. Default: `$MTL_ZOO_DATA`, then the cache folder that
            `mtl-zoo data fetch` writes to. Generated sets need none.
        **options: Those of the loader, such as `variant` or `size`; all take `embedding_dim` and `seed`. Of a table
            those of `Dataset.from_table`.

    Raises:
        ValueError: No such data set, or the files do not have the rows and labels that they should have.
        TypeError: No such option.
        FileNotFoundError: The files are not there; says where it looked and how to fetch them.

    Example:

    >>> from mtl_zoo.datasets import load_dataset
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> len(data.train), [task.name for task in data.tasks]
    (20000, ['click', 'conversion'])
    """
    info = None if is_table(name) else dataset_info(name)
    known = (
        [p for p in inspect.signature(Dataset.from_table).parameters if p != "train"] if info is None else info.options
    )
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"`load_dataset` takes only the options of {name!r}. Received: {', '.join(unknown)}. "
            f"Expected: any of {', '.join(known)}"
        )
    if info is None:
        return Dataset.from_table(name, **options)
    with _where_to_get(info):
        data = info.loader(**options, **({"data_dir": data_dir} if info.reads_files else {}))
    given = {**info.options, **options}
    data.options = {n: v for n, v in given.items() if n not in info.later or v != info.options[n]}
    return data


@contextlib.contextmanager
def _where_to_get(info: DatasetInfo) -> Iterator[None]:
    """Files that are not there are an error that says where they come from, and on what terms."""
    try:
        yield
    except FileNotFoundError as error:
        how = f" {info.login}" if info.login else ""
        raise FileNotFoundError(f"{error}.{how} Source: {info.source}. Licence: {info.licence}.") from error


def verify_dataset(name: str, data_dir: str | Path | None = None) -> list[Check]:
    """Checks a data set's files: sha256 where one is known, row and label counts always.

    Returns:
        One `Check` for each thing looked at.

    Raises:
        FileNotFoundError: The files are not there.

    Example:

    >>> from mtl_zoo.datasets import verify_dataset
    >>> [check.ok for check in verify_dataset("synthetic_funnel")]
    [True]
    """
    info = dataset_info(name)
    if info.check_files is None:
        data = info.loader(**({"size": "small"} if "size" in info.options else {}))
        return [Check("generator", "generates", repr(data), True)]
    with _where_to_get(info):
        return info.check_files(search_roots(data_dir))


def fitted_dataset(
    *,
    tables: Mapping[str, Any],
    features: tuple,
    tasks: tuple[Task, ...],
    group_columns: tuple[str, ...] = (),
    entities: Mapping[str, Any] | None = None,
    further: Mapping[str, Any] | None = None,
    keep_raw: bool = False,
    **fields: Any,
) -> Dataset:
    """A `Dataset` from one DataFrame a split: the transform is fitted on `tables["train"]` only.

    Args:
        tables: The rows of each split.
        features, tasks: Specs; features read columns of the rows and of `entities`.
        group_columns: Columns to group rows by.
        entities: `Dataset.entities`.
        further: `Dataset.tables`.
        keep_raw: Keep the rows, for `Dataset.table` and `Dataset.with_features`.
        **fields: Of `Dataset`.
    """
    from mtl_zoo.datasets._entities import fitted_splits

    transform, splits = fitted_splits(tables, features, tasks, group_columns, entities or {}, keep_raw)
    return Dataset(
        features=tuple(transform.features),
        tasks=tasks,
        transform=transform,
        entities=dict(entities or {}),
        tables=dict(further or {}),
        **splits,
        **fields,
    )


def options_version(generator: int, options: Mapping[str, Any]) -> str:
    """Version of generated data: the generator's number and a hash of everything the rows depend on."""
    text = json.dumps(dict(options), sort_keys=True, default=list)
    return f"{generator}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def consecutive_splits(counts: Sequence[int], **parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`train`, `validation` and `test` of so many rows each, one after the other, from the arrays of all rows.

    Args:
        counts: Rows of each.
        **parts: Arguments of `Split`: arrays by name.
    """
    end, splits = 0, dict[str, Any]()
    for name, count in zip(("train", "validation", "test"), counts, strict=True):
        rows, end = slice(end, end + count), end + count
        splits[name] = Split(
            **{part: {n: array[rows] for n, array in arrays.items()} for part, arrays in parts.items()}
        )
    return splits


def shares(n: int, *parts: float) -> list[slice]:
    """`n` rows cut into consecutive slices with these shares; the last takes what rounding leaves."""
    ends = [round(n * end) for end in np.cumsum(parts[:-1])] + [n]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
