"""Batches of several sources: rows of tables in memory and of streams, mixed as an epoch says."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._types import SOURCE_INPUT
from mtl_zoo.features._held import HeldRows, HeldStream, label_places, mixed
from mtl_zoo.features._mixing import Mixture, seed_of_source
from mtl_zoo.features._stream_encode import layout_of
from mtl_zoo.features.batching import Layout, batch_runs
from mtl_zoo.features.sampling import NegativeSampling
from mtl_zoo.features.transform import FeatureTransform


class JointStream:
    """The batches of `JointSources` for one transform; each row says which source it is from.

    Args:
        joint: The `JointSources`.
        transform: A fitted transform.
        required: Names of tasks that must have labels in some source.

    Raises:
        ValueError: A required task that no source has labels for; a source that cannot be encoded, named.
    """

    def __init__(self, joint: Any, transform: FeatureTransform, required: Collection[str] = ()):
        self.joint, self.transform, self._required = joint, transform, tuple(required)
        self.names: tuple[str, ...] = joint.names
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.tasks: dict[str, tuple[str, ...]] = joint.tasks_by_source(transform.tasks)
        self._base = layout_of(transform, labels=True)
        self._layout = _with_source(self._base)
        self._held = [self._hold(name, source) for name, source in joint.sources.items()]
        self._check_labels()

    @property
    def rows(self) -> int:
        """All rows, each once."""
        return len(self.joint)

    def _hold(self, name: str, source: Any) -> HeldRows | HeldStream:
        unread = [task.name for task in self.transform.tasks if task.name not in self.tasks[name]]
        try:
            if not source.is_stream:
                return HeldRows.of(source.data, self.transform, self._base, {self.joint.column: name}, unread)
            if source.data.transform.features != self.transform.features or not source.data.labels:
                raise ValueError("`data` must be a stream with labels, made with the transform of the model.")
            self.transform.refuse_other_ids(source.data.transform, "data")
            return HeldStream(source.data.with_constant(self.joint.column, name), self._base, unread)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} (source {name!r})") from error

    def _check_labels(self) -> None:
        """Refuses tasks whose labels are missing in all rows of all sources."""
        held = dict(zip(self.names, self._held, strict=True))
        for task in [task for task in self.transform.tasks if task.name in self._required]:
            having = [name for name in self.names if task.name in self.tasks[name]]
            if not having:
                raise ValueError(
                    f"`tasks` must each have labels in some source. Received: task {task.name!r}, whose label "
                    f"{task.label_column!r} is in none. The sources have: {self.tasks}"
                )
            (place,) = label_places(self._base, [task.name])
            if not any(held[name].observed(place) for name in having):
                raise ValueError(
                    f"`{task.label_column}`, the label of task {task.name!r}, must be observed in some row of some "
                    f"source. Received: all missing, in {having}"
                )

    def numbered(self, names: Sequence[str]) -> JointStream:
        """The same, with the numbers that another stream gives to sources of the same names.

        Raises:
            ValueError: A source that the other does not have.
        """
        unknown = [name for name in self.names if name not in names]
        if unknown:
            raise ValueError(
                f"`validation_data` must hold sources that the model is trained on. Received unknown: {unknown}. "
                f"Expected: names among {list(names)}"
            )
        self.numbers = {name: list(names).index(name) for name in self.names}
        return self

    def sampled(self, sampling: NegativeSampling) -> JointStream:
        """The same without a share of the negative rows of the sources that have the task.

        Raises:
            ValueError: No such task; what `NegativeSampling` and `TableStream.sampled` refuse.
        """
        task, joint = sampling.task_among(self.transform.tasks), copy.copy(self.joint)
        joint.sources = {name: copy.copy(source) for name, source in joint.sources.items()}
        for name, source in joint.sources.items():
            if task.name in self.tasks[name]:
                data = source.data
                source.data = data.sampled(sampling) if source.is_stream else sampling.sample(data, task)
        return JointStream(joint, self.transform, self._required)

    def known_by(self) -> dict[str, Any]:
        """What the data of a run are known by, beside the size of its batches, as plain values."""
        return {"sizes": self.joint.sizes, "mixing": self.joint.options.get_config()}

    def release(self) -> None:
        """Lets go of the rows: TensorFlow keeps generators of batches, and what they hold."""
        self._held.clear()

    def batches(
        self,
        batch_size: int = 1024,
        shuffle: bool = False,
        seed: int | None = None,
        *,
        epoch: int | Callable[[], int] = 0,
        start: int = 0,
    ) -> Any:
        """A `tf.data.Dataset` of `(inputs, labels)` or `(inputs, labels, weights)`, dicts by name.

        Args:
            batch_size: Rows a batch.
            shuffle: Mixed as the sources' options say. Without it every row comes once, the sources evenly spread.
            seed: Of the orders. None: drawn from NumPy's global generator.
            epoch: Number of the first epoch, or a function that gives the number of each when it begins.
            start: Batches of the first epoch to leave out, to go on within it.

        Raises:
            ValueError: `start` is not within an epoch, or `epoch` has too few steps for the sources.
        """
        batch_size = check.check_int("batch_size", batch_size)
        if shuffle and seed is None:
            seed = np.random.randint(2**31)
        options, sizes = self.joint.options, self.joint.sizes
        counts = options.counts(sizes, batch_size) if shuffle else list(sizes.values())
        mixture = Mixture(counts, batch_size, options.alternating and shuffle, seed if shuffle else None)
        num_batches = -(-mixture.rows // batch_size)
        first_epoch = 0 if callable(epoch) else check.check_int("epoch", epoch, minimum=0)
        if check.check_int("start", start, minimum=0) >= num_batches:
            raise ValueError(f"`start` must be below the {num_batches} batches of an epoch. Received: start={start}")
        epochs, held = itertools.count(first_epoch), self._held

        def one_epoch() -> Iterator[tuple[np.ndarray, ...]]:
            number = epoch() if callable(epoch) else next(epochs)
            begin = start if number == first_epoch else 0
            runs = list(batch_runs(range(begin, num_batches), mixture.rows, batch_size))
            if held:  # else `fit` is over, and what is read ahead of its steps is for nobody
                yield from self._runs(mixture, number, seed if shuffle else None, runs)

        all_full = mixture.rows % batch_size == 0
        known = None if start else num_batches
        data = self._layout.dataset(one_epoch, batch_size, all_full=all_full, num_batches=known)
        data.encoded_features = self.transform.features  # a model of these need not look at the rows again
        return data

    def _runs(
        self, mixture: Mixture, epoch: int, seed: int | None, runs: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        draws = mixture.draws(epoch)
        of_row = mixture.sources(draws)
        begin = runs[0][0]
        readers = [
            held.reader(
                epoch,
                mixture.counts[number],
                draws[of_row == number] - mixture.first(number),
                int(np.count_nonzero(of_row[:begin] == number)),
                seed_of_source(seed, number),
            )
            for number, held in enumerate(self._held)
        ]
        numbers = np.array(list(self.numbers.values()), "int32")
        try:
            for start, stop in runs:
                of_run = of_row[start:stop]
                yield (*mixed(readers, of_run), numbers[of_run])
        finally:
            for reader in readers:
                reader.close()


def _with_source(base: Layout) -> Layout:
    """The layout with one more input, which travels alone and last: the number of each row's source."""
    import tensorflow as tf

    count = len(base.specs)
    numbered = tf.nest.pack_sequence_as(base.parts, list(range(count)))
    numbered[0] = {**numbered[0], SOURCE_INPUT: count}
    order = tf.nest.flatten(numbered)
    specs = [*base.specs, (np.dtype("int32"), ())]
    place = {leaf: position for position, leaf in enumerate(order)}
    groups = [[place[leaf] for leaf in group] for group in [*base.groups, [count]]]
    return Layout(numbered, [specs[leaf] for leaf in order], groups)
