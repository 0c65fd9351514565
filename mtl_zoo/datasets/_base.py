"""What every data set is: three splits of arrays, the features and tasks they belong to, and a name to load them by."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo.datasets._files import Resource, find_file, search_roots
from mtl_zoo.features.batching import Rows
from mtl_zoo.features.spec import Feature
from mtl_zoo.tasks import Task, fit_tasks


@dataclasses.dataclass
class Split(Rows):
    """The rows of one split, as arrays.

    Args:
        inputs: Arrays by feature name, as the models take them.
        labels: float32 arrays by task name (and by sample-space column); NaN is "not observed".
        weights: None, one float32 array for all tasks, or a dict by task name.
        groups: Raw columns to group rows by, such as `user_id` for GAUC.
        truth: Synthetic data only: the true probability or expectation by output name.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.datasets import Split
    >>> split = Split(inputs={"x": np.arange(5)}, labels={"y": np.zeros(5, "float32")})
    >>> len(split), len(split.take(3))
    (5, 3)
    """

    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    weights: np.ndarray | dict[str, np.ndarray] | None = None
    groups: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    truth: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def take(self, n: int) -> Split:
        """The first `n` rows."""
        check.check_int("n", n)
        return self._at(slice(n))

    def sample(self, n: int, seed: int = 0) -> Split:
        """`n` rows drawn without replacement, in the order they have here."""
        check.check_int("n", n)
        if n > len(self):
            raise ValueError(f"`n` must be at most the number of rows, {len(self)}. Received: n={n}")
        return self._at(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))

    def _at(self, rows: Any) -> Split:
        return Split(**{field.name: _rows(getattr(self, field.name), rows) for field in dataclasses.fields(self)})


def _rows(value: Any, rows: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: array[rows] for name, array in value.items()}
    return value[rows]


@dataclasses.dataclass
class Dataset:
    """A data set, ready for models: splits, features and tasks, and how it was made.

    Args:
        name, variant: Which data set, and which form of it.
        version: Hash of the files it was read from, or of the generator and its options.
        features: Feature specs, fitted on the training split.
        tasks: Task specs.
        train, validation, test: The splits.
        split_rule: One sentence: how rows came into the splits.
        transform: The fitted `FeatureTransform`; None for synthetic data, which is born encoded.
        notes: What a reader of results on it must know.
        options: What it was loaded with, defaults included; rows of results repeat it.
    """

    name: str
    variant: str
    version: str
    features: tuple
    tasks: tuple[Task, ...]
    train: Split
    validation: Split
    test: Split
    split_rule: str
    transform: Any = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_table(
        cls,
        train: Any,
        validation: Any = None,
        test: Any = None,
        tasks: Any = (),
        *,
        features: Sequence[Feature] = (),
        exclude: Sequence[str] = (),
        groups: Sequence[str] = (),
        time: str | None = None,
        seed: int = 0,
        embedding_dim: int = 16,
        name: str | None = None,
    ) -> Dataset:
        """A data set from tables of your own.

        Args:
            train: A DataFrame, or the path of a `.csv` (packed or not) or `.parquet` file.
            validation, test: The same, both or neither. Without them a tenth of the rows of `train` each.
            tasks: What to predict: tasks, names of label columns, or `{name: kind}` with the kinds `"binary"`,
                `"multiclass"` and `"regression"`, or `{name: {"kind": ..., keywords of the task}}`. Of a bare name
                labels 0 and 1 make a binary task, other numbers a regression, strings classes.
            features: Specs for some columns; the others are chosen by `FeatureTransform.infer`.
            exclude: Columns that are no features.
            groups: Columns to group rows by, such as `user_id` for the AUC within users.
            time: A column by whose order the rows are split, and which is no feature. None: they are drawn by `seed`.
            seed: Of the split.
            embedding_dim: Width of the embeddings.
            name: What results call it. Default: the file's name, or `"table"`.

        Raises:
            ValueError: A file that is not there or broken; a column that no table has; labels of no kind.

        Example:

        >>> import pandas as pd
        >>> from mtl_zoo.datasets import Dataset
        >>> table = pd.DataFrame({"city": ["Rome", "Oslo"] * 50, "price": range(100), "click": [0, 0, 0, 1] * 25})
        >>> Dataset.from_table(table, tasks=["click"])
        Dataset('table', variant='table', rows: train 80, validation 10, test 10; tasks: click)
        """
        from mtl_zoo.datasets._table import dataset_from_table

        is_path = isinstance(train, (str, Path))
        given = {"tasks": tasks, "exclude": exclude, "groups": groups, "time": time, "seed": seed}
        made = dataset_from_table(
            train,
            validation,
            test,
            features=features,
            embedding_dim=embedding_dim,
            name=name or (Path(train).name.partition(".")[0] if is_path else "table"),
            **given,
        )
        files = {"validation": validation, "test": test}
        made.options = {**given, **{n: str(file) for n, file in files.items() if isinstance(file, (str, Path))}}
        made.options |= {"embedding_dim": embedding_dim}
        return made

    def __post_init__(self) -> None:
        self.tasks = fit_tasks(self.tasks, self.train.labels)

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        tasks = ", ".join(task.name for task in self.tasks)
        return f"Dataset({self.name!r}, variant={self.variant!r}, rows: {rows}; tasks: {tasks})"


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing `verify` looked at."""

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
        login: For sets behind a login: where to get them.
        check_files: `check_files(roots) -> list[Check]`, counts that always hold.
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
    """Decorator: makes a loader known to `load_dataset` and the command line. See `DatasetInfo` for the arguments."""

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
    """What is known of a data set without loading it: source, licence, files, options."""
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
    data = info.loader(**options, **({"data_dir": data_dir} if info.reads_files else {}))
    data.options = {**info.options, **options}
    return data


def verify_dataset(name: str, data_dir: str | Path | None = None) -> list[Check]:
    """Checks a data set's files: sha256 where one is known, row and label counts always.

    Returns:
        One `Check` for each thing looked at.

    Raises:
        FileNotFoundError: The files are not there.
    """
    info = dataset_info(name)
    if info.check_files is None:
        data = info.loader(**({"size": "small"} if "size" in info.options else {}))
        return [Check("generator", "generates", repr(data), True)]
    return info.check_files(search_roots(data_dir))


def fitted_dataset(
    *,
    tables: Mapping[str, Any],
    features: tuple,
    tasks: tuple[Task, ...],
    group_columns: tuple[str, ...] = (),
    **fields: Any,
) -> Dataset:
    """A `Dataset` from one DataFrame a split: the transform is fitted on `tables["train"]` only."""
    from mtl_zoo.features.transform import FeatureTransform

    transform = FeatureTransform(features, tasks).fit(tables["train"])
    splits = {
        name: Split(
            inputs=transform.encode(table),
            labels=transform.encode_labels(table),
            weights=transform.encode_weights(table),
            groups={column: table[column].to_numpy() for column in group_columns},
        )
        for name, table in tables.items()
    }
    return Dataset(
        features=tuple(transform.features),
        tasks=tasks,
        transform=transform,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
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
