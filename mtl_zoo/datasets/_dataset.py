"""What every data set is: three splits of arrays, their features and tasks, and the tables they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features.batching import Rows
from mtl_zoo.features.spec import Feature, feature_from_config
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
        raw: The same rows as a table, before encoding: ids, labels, texts. None where they are not kept.

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
    raw: Any = None

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

    def take_rows(self, rows: np.ndarray) -> Split:
        """The rows at these positions, in this order."""
        return self._at(rows)

    def _at(self, rows: Any) -> Split:
        return Split(**{field.name: _rows(getattr(self, field.name), rows) for field in dataclasses.fields(self)})


def _rows(value: Any, rows: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: array[rows] for name, array in value.items()}
    if hasattr(value, "iloc"):
        return value.iloc[rows].reset_index(drop=True)
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
        entities: What is known of users and items: by the column of the rows that holds their ids, a table with that
            column and one row for each of them.
        tables: Further tables by name, such as the edges of a graph of users.

    Example:

    >>> from mtl_zoo.datasets import load_dataset
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> [task.name for task in data.tasks], len(data.features)
    (['click', 'conversion'], 14)
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
    entities: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_table(
        cls,
        train: Any,
        validation: Any = None,
        test: Any = None,
        tasks: Any = (),
        *,
        features: Sequence[Feature | Mapping[str, Any]] = (),
        exclude: Sequence[str] = (),
        groups: Sequence[str] = (),
        time: str | None = None,
        together: str | None = None,
        folds: int | None = None,
        fold: int = 0,
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
            features: Specs for some columns, or their configs (`{"kind": "numeric", "name": "hour"}`, as a file of
                options has them); the others are chosen by `FeatureTransform.infer`.
            exclude: Columns that are no features.
            groups: Columns to group rows by, such as `user_id` for the AUC within users.
            time: A column by whose order the rows are split, and which is no feature. None: they are drawn by `seed`.
            together: A column of which no value is in two splits, such as `user_id`. None: rows are split one by one.
            folds: For cross-validation, into how many folds the rows are cut, by `time`, `together` or at random. Fold
                `fold` is tested, and a tenth of the rows that are trained on becomes the validation split. In time the
                rows are cut into `folds + 1` blocks, and what is trained on comes before what is tested.
            fold: Which fold is tested, from 0.
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
        # Options of later versions stand in results only where they are given, so that earlier rows keep their keys.
        given |= {"together": together} if together is not None else {}
        given |= {"folds": folds, "fold": fold} if folds is not None else {}
        specs = tuple(feature_from_config(dict(one)) if isinstance(one, Mapping) else one for one in features)
        given |= {"features": tuple(spec.get_config() for spec in specs)} if specs else {}
        made = dataset_from_table(
            train,
            validation,
            test,
            embedding_dim=embedding_dim,
            **{"together": None, "folds": None, "fold": 0, **given, "features": specs},
            name=name or (Path(train).name.partition(".")[0] if is_path else "table"),
        )
        files = {"validation": validation, "test": test}
        made.options = {**given, **{n: str(file) for n, file in files.items() if isinstance(file, (str, Path))}}
        made.options |= {"embedding_dim": embedding_dim}
        return made

    def __post_init__(self) -> None:
        self.tasks = fit_tasks(self.tasks, self.train.labels)

    def table(self, split: str = "train") -> Any:
        """The raw rows of a split, with what `entities` know of their users and items beside them.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Raises:
            ValueError: No such split; the data set does not keep its raw rows.
        """
        from mtl_zoo.datasets._entities import joined

        return joined(self._raw()[check.check_choice("split", split, tuple(self.splits))], self.entities)

    def with_features(self, features: Sequence[Feature], tasks: Sequence[Task] | None = None) -> Dataset:
        """The same rows and splits with other features, or other tasks, fitted anew on the training rows.

        Args:
            features: Specs for columns of `table()`, texts among them. `data.transform.specs` are those it has.
            tasks: Default: as they are.

        Raises:
            ValueError: The data set does not keep its raw rows; a feature reads a column that is not there.
        """
        from mtl_zoo.datasets._entities import fitted_splits

        wanted = self.tasks if tasks is None else tuple(tasks)
        groups = tuple(self.train.groups)
        transform, splits = fitted_splits(self._raw(), tuple(features), wanted, groups, self.entities)
        return dataclasses.replace(
            self, features=tuple(transform.features), tasks=wanted, transform=transform, **splits
        )

    def _raw(self) -> dict[str, Any]:
        raw = {name: split.raw for name, split in self.splits.items()}
        if any(table is None for table in raw.values()):
            raise ValueError(f"`raw` must be kept to read rows as a table. Received: {self!r}, which has arrays alone")
        return raw

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        tasks = ", ".join(task.name for task in self.tasks)
        return f"Dataset({self.name!r}, variant={self.variant!r}, rows: {rows}; tasks: {tasks})"
