"""Negative down-sampling: which rows of a table or a stream stay, by their position alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _validation as check
from mtl_zoo.features import _labels
from mtl_zoo.features._columns import Column, check_columns, read_table
from mtl_zoo.features._stream_files import Source
from mtl_zoo.features._stream_read import Part
from mtl_zoo.tasks import Task

Keep = Callable[[Any, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class NegativeSampling:
    """Training on all rows with label 1 and on a share of those with label 0, with the scores put right afterwards.

    A row whose label of `task` is 0 (and, if the task has a sample space, in it) stays with the chance `rate`; all
    others stay. With `p` the probability of the label among all rows, a model of the rows that stay learns

        p' = p / (p + rate (1 - p)),   so that   logit p = logit p' + log(rate)

    which is He's `q = p' / (p' + (1 - p') / rate)`. `model.fit(..., sampling=...)` drops the rows, and the model keeps
    the correction: `predict`, `evaluate`, `save`, scorers and exports give `p`.

    Whether a row stays depends on `seed` and on its position in the table or the files: every epoch, and training that
    is resumed, sees the same rows.

    What the other tasks learn is only right where it does not depend on which rows were dropped:

    * a task whose sample space is `task`'s label (conversions given a click) has all of its rows, and no correction;
    * the output of both from end to end (`click_and_conversion`), on all impressions, is corrected too: its probability
      is that of the rows that stayed times their share, `Z = rate / (1 - (1 - rate) p')`;
    * any other task is refused by name: its labels may go with those that were dropped.

    Args:
        task: Name of the binary task whose negative rows are dropped.
        rate: The share of its negative rows that stays, in (0, 1].
        seed: Of the rows that stay.

    Raises:
        ValueError: A number is out of range.

    Example:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, NegativeSampling
    >>> table = pd.DataFrame({"click": np.arange(1000) % 100 == 0})
    >>> kept = NegativeSampling("click", rate=0.1).sample(table, BinaryTask("click"))
    >>> int(kept["click"].sum()), len(kept) < 150
    (10, True)

    Reference: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 6.3.
    """

    task: str
    rate: float = dataclasses.field(kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) or not self.task:
            raise ValueError(f"`task` must be the name of a task. Received: task={self.task!r}")
        check.check_number("rate", self.rate, above=0, maximum=1)
        check.check_int("seed", self.seed, minimum=0)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def is_like(self, other: Any) -> bool:
        """Whether another sampling gives scores the same correction; seeds may differ."""
        return isinstance(other, NegativeSampling) and (self.task, self.rate) == (other.task, other.rate)

    @property
    def rates(self) -> tuple[float, ...]:
        """How often a row comes that stops at each step of a funnel, against one that passes all."""
        return (self.rate,)

    def steps(self, tasks: Task | Sequence[Task]) -> tuple[Task, ...]:
        """The steps of a funnel whose labels decide how often a row comes: the task whose rows are dropped."""
        return (self.task_among(tasks),)

    def task_among(self, tasks: Task | Sequence[Task]) -> Task:
        """The task whose rows are dropped.

        Raises:
            ValueError: There is none of that name, or its labels are no events.
        """
        tasks = (tasks,) if isinstance(tasks, Task) else tasks
        found = {task.name: task for task in tasks if task.is_event}
        if self.task not in found:
            raise ValueError(
                f"`task` must name a task with labels 0 and 1. Received: task={self.task!r}. Expected: one of "
                f"{list(found)}"
            )
        return found[self.task]

    def kept(self, task: Task, labels: Mapping[str, Any], first_row: int = 0) -> np.ndarray:
        """Which rows stay, (rows,) booleans.

        Args:
            task: The task whose rows are dropped.
            labels: Its labels by name, with its sample space.
            first_row: Position of the first row.
        """
        negative = np.asarray(labels[task.name], "float64").reshape(-1) == 0
        if task.sample_space is not None:
            negative &= np.asarray(labels[task.sample_space], "float64").reshape(-1) == 1
        return ~negative | (_uniform(self.seed, first_row, len(negative)) < self.rate)

    def kept_of_table(self, table: Any, task: Task, first_row: int = 0) -> np.ndarray:
        """Which rows of a table stay."""
        return self.kept(task, labels_of_steps(table, [task]), first_row)

    def sample(self, table: Any, tasks: Task | Sequence[Task]) -> Any:
        """The rows of a table that stay, in their order.

        Args:
            table: A pandas DataFrame, a pyarrow Table or a dict of arrays.
            tasks: The tasks, among them the one whose rows are dropped.

        Raises:
            ValueError: No such task; its column is missing, or holds what is no label.
        """
        keep = self.kept_of_table(table, self.task_among(tasks))
        if isinstance(table, pd.DataFrame):
            return table[keep]
        if isinstance(table, pa.Table):
            return table.filter(pa.array(keep))
        return {name: np.asarray(values)[keep] for name, values in table.items()}


def labels_of_steps(table: Any, steps: Sequence[Task]) -> dict[str, np.ndarray]:
    """The labels of a funnel's steps in a table, and the sample space of the first by name."""
    frame, space = read_table(table), steps[0].sample_space
    labels = _labels.read_labels(frame, [dataclasses.replace(task, sample_space=None) for task in steps], whole=False)
    if space is not None:
        # It may be another task's label, and not observed: the row is then outside.
        check_columns(frame, [space])
        labels[space] = Column(space, frame[space]).numbers()
    return labels


def _uniform(seed: int, first: int, rows: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on the seed and the position alone: SplitMix64 of both."""
    with np.errstate(over="ignore"):
        start = np.random.SeedSequence(seed).generate_state(1, "uint64")[0]
        z = (np.arange(first, first + rows, dtype="uint64") + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


class SampledSource:
    """A file of which only some rows are read.

    Args:
        source: The file.
        keep: Which rows stay, (rows,) booleans from a table and the position of its first row.
        first_rows: Position in the stream of the first row of each part.
        rows: How many rows of each part stay.
    """

    def __init__(
        self,
        source: Source,
        keep: Keep,
        first_rows: Mapping[int, int],
        rows: Mapping[int, int],
    ):
        self.path, self.part_name = source.path, source.part_name
        self.rows = tuple(rows.get(part, 0) for part in range(len(source.rows)))
        self._source, self._keep, self._first_rows = source, keep, first_rows

    def types(self) -> Mapping[str, str]:
        return self._source.types()

    def read(self, part: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        start = self._first_rows[part]
        for batch in self._source.read(part, max_rows):
            stays = self._keep(pa.Table.from_batches([batch]), start)
            start += len(batch)
            if stays.any():
                yield batch.filter(pa.array(stays))


def sampled_parts(parts: Sequence[Part], labels: Any, keep: Keep) -> list[Part]:
    """The parts of a stream with the rows that stay. The labels of all rows are read once, to count them.

    Args:
        parts: Those of the stream.
        labels: From the path of a file to a source that reads the columns of labels.
        keep: Which rows stay.
    """
    first_rows: dict[str, dict[int, int]] = {}
    rows: dict[str, dict[int, int]] = {}
    position, opened = 0, dict[str, Source]()
    for part in parts:
        path = part.source.path
        source = opened.setdefault(path, labels(path)) if path not in opened else opened[path]
        first_rows.setdefault(path, {})[part.index] = start = position
        count = 0
        for batch in source.read(part.index, max(part.rows, 1)):
            count += int(keep(pa.Table.from_batches([batch]), start).sum())
            start += len(batch)
        rows.setdefault(path, {})[part.index] = count
        position += part.rows
    made = {
        part.source.path: SampledSource(part.source, keep, first_rows[part.source.path], rows[part.source.path])
        for part in parts
    }
    starts: dict[str, int] = dict.fromkeys(made, 0)
    found = []
    for part in parts:
        source = made[part.source.path]
        found.append(Part(source, part.index, starts[part.source.path]))
        starts[part.source.path] += source.rows[part.index]
    return found
