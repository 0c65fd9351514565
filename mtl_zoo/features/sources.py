"""Several sources of rows for one model: tables or streams with other rows, other tasks and partly other features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import read_table
from mtl_zoo.features._joint import JointStream
from mtl_zoo.features._mixing import as_mixing
from mtl_zoo.features._several import SeveralTables, below_each_other
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.tasks import Task

ALL = "all"


class Source:
    """One of several sources: a table or a stream, and what it has labels for.

    Args:
        data: A table (pandas, pyarrow, a dict of columns), or a `TableStream`.
        tasks: Names of the tasks (or tasks) that it is trained on; other label columns of it are not read, save those
            that are the sample space of one of these. Default: None, every task whose label it has.

    Raises:
        ValueError: The table has no row, or `tasks` names nothing.

    Example:

    >>> from mtl_zoo import Source
    >>> Source({"user": [1, 2], "like": [0, 1]}, tasks=["like"]).rows
    2
    """

    def __init__(self, data: Any, tasks: str | Task | Sequence[str | Task] | None = None):
        self.data: Any = data if isinstance(data, TableStream) else read_table(data)
        given = (tasks,) if isinstance(tasks, str | Task) else tasks
        self.tasks = None if given is None else tuple(t.name if isinstance(t, Task) else t for t in given)
        if self.tasks is not None:
            if not self.tasks or not all(isinstance(name, str) for name in self.tasks):
                raise ValueError(f"`tasks` must name at least one task. Received: tasks={tasks!r}")
            check.check_unique_names("tasks", self.tasks)

    @property
    def is_stream(self) -> bool:
        """Whether its rows are read from files batch by batch."""
        return isinstance(self.data, TableStream)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.data.rows if self.is_stream else len(self.data)

    def __repr__(self) -> str:
        return f"Source({self.rows:,} rows, tasks={self.tasks})"


class JointSources(SeveralTables):
    """Several sources that one model is trained on together: `model.fit(JointSources({...}))`.

    The sources have rows of their own, and partly other features and tasks. What a source lacks is missing in its rows:
    a feature as its kind has it (id 0, the mean with an indicator, zeros), a label as not observed, a weight as 1. One
    transform is fitted over all, `FeatureTransform(features, tasks).fit(sources)`, so that equal ids are one id; it
    then encodes a table of any one source alone.

    With `n_s` the rows of source s, an epoch holds `c_s` of them, each source being drawn from without replacement,
    pass after pass:

        share_s = n_s^(1/T) / sum_r n_r^(1/T),   or the given ratio;      c_s = n_k share_s / share_k

    where k is the largest source, or the smallest. By default (T = 1) an epoch is every row once, and training the same
    as on the tables below one another with labels that are missing. The order of the rows depends on the seed and the
    number of the epoch alone, so that `Checkpoints` go on where a run was.

    `fit` logs each loss and metric by source, too: `<source>_<task>_loss`, `<source>_<task>_auc`. `validation_data`,
    `ExactValidation` and `evaluate` take such sources as well, of which they see every row once.

    Args:
        sources: By name, each a `Source`, a table or a stream. A stream must be made with the model's transform.
        mixing: `"proportional"` to the sources' sizes, or a dict with a ratio for each source.
        temperature: T above: 1 is proportional to size, larger is nearer to equal shares.
        alternating: Whether a batch holds rows of one source, the sources taking turns at random; the shares are those
            of whole batches. Default: False, rows of all sources in each batch.
        epoch: `"largest"`: an epoch ends when the rows of the largest source were all seen; `"smallest"`: those of the
            smallest; or a number of steps.
        column: Name of a column with each row's source, which a feature may read:
            `Categorical("domain", column="source")` is the domain of a model of several domains. A table that is
            encoded alone may lack it; it is then missing.

    Raises:
        ValueError: No source, or one without rows; a name that cannot be part of a log's; a table that has `column`
            already; options that do not fit; when a transform is fitted, a column that no source has, or that holds
            strings in one and numbers in another; when a model is fitted, a task that no source has labels for.
        TypeError: A source is neither a table nor a stream.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, JointSources, RegressionTask, create_model
    >>> ratings = {"user": [1, 2, 2, 3], "film": [7, 7, 8, 9], "like": [1, 0, 1, 1]}
    >>> reviews = {"user": [3, 4], "words": ["good plot", "too long"], "stars": [4.0, 2.0]}
    >>> sources = JointSources({"ratings": ratings, "reviews": reviews})
    >>> features = [Categorical("user"), Categorical("film")]
    >>> transform = FeatureTransform(features, [BinaryTask("like"), RegressionTask("stars")]).fit(sources)
    >>> transform.encode(reviews)["film"].tolist()
    [0, 0]
    >>> model = create_model("shared_bottom", transform, bottom_units=(4,))
    >>> model.compile("adam")
    >>> history = model.fit(sources, batch_size=4, verbose=0).history
    >>> sorted(name for name in history if name.startswith("reviews"))
    ['reviews_stars_loss', 'reviews_stars_rmse']
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        *,
        mixing: str | Mapping[str, float] = "proportional",
        temperature: float = 1.0,
        alternating: bool = False,
        epoch: str | int = "largest",
        column: str = "source",
    ):
        if not isinstance(sources, Mapping) or not sources:
            raise ValueError(f"`sources` must be a dict of sources by name. Received: sources={sources!r}")
        self.sources = {check.check_name("sources", name): _as_source(name, s) for name, s in sources.items()}
        if ALL in self.sources:
            raise ValueError(f"`sources` must not hold one named {ALL!r}, which stands for all of them.")
        if not isinstance(column, str) or not column:
            raise ValueError(f"`column` must name a column. Received: column={column!r}")
        self.column = column
        with_it = [n for n, s in self.sources.items() if not s.is_stream and column in s.data.columns]
        if with_it:
            raise ValueError(
                f"`column` must be a name that no table has a column of. Received: column={column!r}, which "
                f"{with_it} have. Give another, such as column='from_source'"
            )
        self.mixing, self.temperature, self.alternating, self.epoch = mixing, temperature, alternating, epoch
        self.options = as_mixing(mixing, temperature, alternating, epoch, tuple(self.sources))

    @property
    def names(self) -> tuple[str, ...]:
        """The sources' names, in their order."""
        return tuple(self.sources)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows by source."""
        return {name: source.rows for name, source in self.sources.items()}

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def rows_of_epoch(self, batch_size: int = 1024) -> dict[str, int]:
        """How many rows of each source an epoch holds.

        Args:
            batch_size: Rows a batch, for epochs of so many steps and for alternating batches.

        Example:

        >>> from mtl_zoo import JointSources
        >>> tables = {"ratings": {"user": range(90)}, "reviews": {"user": range(10)}}
        >>> JointSources(tables, temperature=2).rows_of_epoch()
        {'ratings': 90, 'reviews': 30}
        >>> JointSources(tables, mixing={"ratings": 1, "reviews": 1}, epoch=5).rows_of_epoch(batch_size=8)
        {'ratings': 20, 'reviews': 20}
        """
        batch_size = check.check_int("batch_size", batch_size)
        return dict(zip(self.names, self.options.counts(self.sizes, batch_size), strict=True))

    def frames(self) -> dict[str, pd.DataFrame]:
        streams = [name for name, source in self.sources.items() if source.is_stream]
        if streams:
            raise ValueError(
                f"`sources` must be tables where all rows are needed at once. Received: streams {streams}. Fit a "
                "transform on tables with a sample of their rows"
            )
        return {name: source.data for name, source in self.sources.items()}

    def table(self, fills: Mapping[str, float | None] | None = None) -> pd.DataFrame:
        """All rows in one table, one source below the other, NA where a source lacks a column, and `column`.

        Args:
            fills: What stands for some columns where a source lacks them, in place of NA.

        Raises:
            ValueError: A source is a stream, or a column holds other kinds of values in another source.

        Example:

        >>> from mtl_zoo import JointSources
        >>> JointSources({"a": {"user": [1], "age": [30]}, "b": {"user": [2]}}).table()["age"].tolist()
        [30, <NA>]
        """
        frames = self.frames()
        columns = dict.fromkeys(column for frame in frames.values() for column in frame.columns)
        given = {column: (fills or {}).get(column) for column in columns}
        return below_each_other(frames, {**given, self.column: None}, self.column)

    def bound(self, transform: FeatureTransform, required: Collection[str] = ()) -> JointStream:
        """The sources as arrays that a fitted transform makes of them, and their batches.

        Args:
            transform: A fitted transform.
            required: Names of tasks that must have labels in some source.
        """
        return JointStream(self, transform, required)

    def tasks_by_source(self, tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
        """The names of the tasks that each source has labels of.

        Args:
            tasks: All tasks.

        Raises:
            ValueError: A source names a task that there is not, or whose label it lacks.

        Example:

        >>> from mtl_zoo import BinaryTask, JointSources
        >>> sources = JointSources({"a": {"user": [1], "like": [1]}, "b": {"user": [2], "buy": [0]}})
        >>> sources.tasks_by_source([BinaryTask("like"), BinaryTask("buy")])
        {'a': ('like',), 'b': ('buy',)}
        """
        return {name: _tasks_of(name, source, tasks) for name, source in self.sources.items()}

    def __repr__(self) -> str:
        return f"JointSources({self.sizes}, epoch={self.epoch!r})"


def _as_source(name: str, given: Any) -> Source:
    if isinstance(given, Source):
        return given
    try:
        return Source(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (source {name!r})") from error


def _tasks_of(name: str, source: Source, tasks: Sequence[Task]) -> tuple[str, ...]:
    columns = set(source.data.columns)
    having = [task.name for task in tasks if task.label_column in columns]
    wrong = [task for task in source.tasks or () if task not in having]
    if wrong:
        raise ValueError(
            f"`tasks` of source {name!r} must name tasks whose labels it has. Received: {wrong}, which it does not. "
            f"Expected: names among {having}"
        )
    wanted = having if source.tasks is None else source.tasks
    spaces = {task.sample_space for task in tasks if task.name in wanted}
    return tuple(t.name for t in tasks if t.name in wanted or (t.name in having and t.label_column in spaces))
