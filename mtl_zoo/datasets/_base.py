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
from mtl_zoo.datasets._files import Resource, find_file, search_roots
from mtl_zoo.features.batching import Rows
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


_REGISTRY: dict[str, DatasetInfo] = {}


def register_dataset(name: str, **info: Any) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Decorator: makes a loader known to `load_dataset` and the command line. See `DatasetInfo` for the arguments."""
    check.check_name("name", name)

    def register(loader: Callable[..., Dataset]) -> Callable[..., Dataset]:
        if name in _REGISTRY:
            raise ValueError(f"`name` must be new to the registry. Received: name={name!r}, registered before")
        summary = (inspect.getdoc(loader) or name).splitlines()[0]
        _REGISTRY[name] = DatasetInfo(name=name, loader=loader, summary=summary, **info)
        return loader

    return register


def list_datasets() -> list[str]:
    """Names that `load_dataset` knows.

    Example:

    >>> from mtl_zoo.datasets import list_datasets
    >>> "synthetic_funnel" in list_datasets()
    True
    """
    return sorted(_REGISTRY)


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a data set without loading it: source, licence, files, options."""
    return _REGISTRY[check.check_choice("name", name, list_datasets())]


def load_dataset(name: str, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """Loads a data set by name.

    Args:
        name: One of `list_datasets()`.
        data_dir: Folder with the data sets' folders. Default: `$MTL_ZOO_DATA`, then the cache folder that
            `mtl-zoo data fetch` writes to. Generated sets need none.
        **options: Those of the loader, such as `variant` or `size`; all take `embedding_dim` and `seed`.

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
    info = dataset_info(name)
    unknown = [option for option in options if option not in info.options]
    if unknown:
        raise TypeError(
            f"`load_dataset` takes only the options of {name!r}. Received: {', '.join(unknown)}. "
            f"Expected: any of {', '.join(info.options)}"
        )
    if info.reads_files:
        options["data_dir"] = data_dir
    return info.loader(**options)


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


def shares(n: int, *parts: float) -> list[slice]:
    """`n` rows cut into consecutive slices with these shares; the last takes what rounding leaves."""
    ends = [round(n * end) for end in np.cumsum(parts[:-1])] + [n]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
