"""What a balancing method does while a model trains, for reports and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.balancing.engine.probe import GradientProbe
from mtl_zoo.evaluation.balancing_report import (
    ON_BATCHES,
    Interval,
    interval_between,
    read_state,
    tables_of,
)
from mtl_zoo.evaluation.evaluate import as_split
from mtl_zoo.tasks import label_names
from mtl_zoo.training.gate_callback import write_scalars


class BalancingLogger(keras.callbacks.Callback):
    """Reads what the model's balancing method did, every so many steps; `balancing_report` makes tables of it.

    Methods keep sums over all steps, so that a reading tells of every step since the last one. A reading fetches a few
    numbers from the device; the steps between pay nothing. It also works without a method (all weights are 1).

    Methods of losses never see the gradient of one task alone. With `split` each reading measures norms and cosines on
    the next `batch_size` rows of it, going round: a forward pass and a backward pass for each task, about
    `(1 + T) / (2 every)` of the time of training. Methods of gradients need no split.

    The scalars are `balancing/weight/<loss>`, `balancing/norm/<loss>`, `balancing/share/<loss>`,
    `balancing/cosine/<loss>/<other>`, `balancing/conflict_rate/<loss>/<other>` and `balancing/seconds_per_step`.
    The step is the optimizer's, so that a training that goes on continues the lines.

    Args:
        every: Steps from one reading to the next. The rest of a training that does not divide is read at its end.
        log_dir: Folder of the event file for TensorBoard. None: none is written.
        split: Rows for the gradients of methods of losses: a split with labels, or a table if the model has a
            transform. TensorFlow and one replica only.
        batch_size: Rows of the split that a reading looks at.
        timed: So many times the gradients of one batch of `split` are timed after training, as the plain sum's and as
            the model's method finds them, in turn. 0: never, since both must be traced first.

    Attributes:
        intervals: What each reading found.
        gradient_seconds: With `timed`, the two medians.

    Raises:
        ValueError: `every` or `batch_size` < 1; `timed` < 0, or without a split; when training starts, a split without
            rows, on another backend than TensorFlow or with several replicas, or for a model whose losses share no
            dense weights.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import BalancingLogger
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> model.compile("adam", balancing="pcgrad")
    >>> logger = BalancingLogger(every=5)
    >>> _ = model.fit(data.train.take(8000).batches(1000), verbose=0, callbacks=[logger])
    >>> [(interval.step, interval.steps) for interval in logger.intervals]
    [(5, 5), (8, 3)]
    """

    def __init__(
        self,
        every: int = 100,
        log_dir: str | Path | None = None,
        split: Any = None,
        batch_size: int = 1024,
        timed: int = 0,
    ):
        super().__init__()
        self.every = check.check_int("every", every)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.split = split
        self.batch_size = check.check_int("batch_size", batch_size)
        self.timed = check.check_int("timed", timed, minimum=0)
        if self.timed and split is None:
            raise ValueError(f"`timed` needs a split, whose rows are timed. Received: timed={timed}, split=None")
        self.intervals: list[Interval] = []
        self.gradient_seconds: tuple[float, float] | None = None
        self.method = "none"
        self.loss_names: tuple[str, ...] = ()
        self.gradients_of: str | None = None
        self._rows: Any = None
        self._probe: Any = None
        self._since: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        balancing = model.balancing
        self.intervals, self.gradient_seconds = [], None
        self.method = "none" if balancing is None else balancing.method_name
        self.loss_names = model.loss_names
        self.gradients_of = None if balancing is None else balancing.gradients_of
        self._rows, self._probe = None, None
        if self.split is not None:
            self._probe, self._rows = _probe_of(model), _rows_of(model, self.split)
            if self.gradients_of is None:
                self.gradients_of = ON_BATCHES
                self._probe.gram(*self._batch(0))  # traced here, and refused if it must be
        self._writer = None
        if self.log_dir is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._last_step = self._optimizer_step()
        # Batches of this training, by the count of `fit`: all so far, those that were read, those before this epoch.
        self._done, self._read, self._before_epoch = 0, 0, 0
        self._state = read_state(balancing)
        self._seconds, self._since = 0.0, None

    # The clock runs while steps are taken, and stands while other callbacks and validation have their turn.

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before_epoch = self._done
        self._since = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._stop_clock()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._stop_clock()

    def _stop_clock(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Nothing of the device is touched here, save in a reading.
        self._done = self._before_epoch + batch + 1
        if self._done // self.every > self._read // self.every:
            self._log()
            self._since = time.perf_counter()

    def on_train_end(self, logs: Any = None) -> None:
        if self._done > self._read:
            self._log()
        if self.timed and self.model.balancing is not None:
            self.gradient_seconds = self._probe.seconds(*self._batch(0), rounds=self.timed)
        if self._writer is not None:
            self._writer.close()

    def _log(self) -> None:
        model = self.model
        state = read_state(model.balancing)  # waits for the steps: they end here
        self._stop_clock()
        started = time.perf_counter()
        on_batch = self.gradients_of == ON_BATCHES
        gram = self._probe.gram(*self._batch(len(self.intervals))) if on_batch else None
        step = self._optimizer_step()
        interval = interval_between(
            self._state,
            state,
            model.balancing,
            step=step,
            steps=step - self._last_step,
            seconds=self._seconds,
            logger_seconds=time.perf_counter() - started,
            gram=gram,
            losses=len(self.loss_names),
        )
        self.intervals.append(interval)
        if self._writer is not None:
            write_scalars(self._writer, interval.step, scalars_of(interval, self.loss_names))
        self._state, self._last_step, self._read, self._seconds = state, step, self._done, 0.0

    def _optimizer_step(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _batch(self, number: int) -> tuple[Any, Any, Any]:
        """The rows of one reading: the split's, `batch_size` at a time, from the start again after the last."""
        import tensorflow as tf

        count = len(next(iter(self._rows[0].values())))
        first = number * self.batch_size % count
        at = np.arange(first, first + min(self.batch_size, count)) % count
        inputs, labels, weights = self._rows

        def rows(columns: Any) -> Any:
            return tf.nest.map_structure(lambda column: tf.constant(np.asarray(column)[at]), columns)

        return rows(inputs), rows(labels), None if weights is None else rows(weights)


def scalars_of(interval: Interval, names: tuple[str, ...]) -> dict[str, float]:
    """What is finite of an interval, by TensorBoard tag."""
    losses, pairs, times = tables_of([interval], names)
    found = {
        f"balancing/{c}/{row.loss}": getattr(row, c) for row in losses.itertuples() for c in ("weight", "norm", "share")
    }
    for row in pairs.itertuples():
        for column in ("cosine", "conflict_rate"):
            found[f"balancing/{column}/{row.loss}/{row.other}"] = getattr(row, column)
    found["balancing/seconds_per_step"] = times["seconds_per_step"].iloc[0]
    return {tag: float(value) for tag, value in found.items() if np.isfinite(value)}


def _probe_of(model: Any) -> Any:
    if not _backend.is_tensorflow():
        raise ValueError(
            f"`split` must be None on the {keras.backend.backend()!r} backend: gradients by task need TensorFlow. "
            "Received: a split"
        )
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "`split` must be None with several replicas. "
            f"Received: a split, {model.distribute_strategy.num_replicas_in_sync} replicas"
        )
    return GradientProbe(model)


def _rows_of(model: Any, split: Any) -> tuple[Mapping[str, Any], Mapping[str, Any], Any]:
    """Inputs, labels and weights."""
    split = as_split(model, split, verbose=0)
    inputs = {feature.name: split.inputs[feature.name] for feature in model.features}
    return inputs, {name: split.labels[name] for name in label_names(model.tasks)}, split.weights
