"""Checkpoints of a training run, from which it goes on to the weights that it would have had."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import random
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from mtl_zoo import _distribute, _keras_private
from mtl_zoo import _validation as check
from mtl_zoo._files import DamagedFile, intact, parse_json, remove_leftovers, whole_file

_log = logging.getLogger(__name__)

# Raised when the layout changes in a way that older code would misread.
FORMAT = 1
_NAME = re.compile(r"step-(\d{12})\.ckpt")
_BAD = ".bad"
_WHAT = "a checkpoint"
_HEADER = {"position": dict, "shapes": list, "metrics": int, "numpy": list, "python": list}
# What a checkpoint takes beside the numbers: names and headers of the arrays.
_OVERHEAD_BYTES = 1 << 20


class Position(NamedTuple):
    """Where in a run a checkpoint was written.

    Args:
        epoch: Epochs that are done.
        step: Batches of the next epoch that are done.
        total: Steps since the start of the run.
        seed: What the order of the rows is drawn from.
    """

    epoch: int
    step: int
    total: int
    seed: int


class Checkpoints(keras.callbacks.Callback):
    """Writes checkpoints while a model of the zoo trains; the same `fit` in a new process goes on from the last one.

    A checkpoint holds the weights, the optimizer's and the balancing method's state, the metrics of the epoch, the
    random state, and the position in the input. Training that goes on sees the batches that it would have seen, and
    ends with the weights of training that was not interrupted: exactly for arrays, whose order is drawn for each epoch
    from one seed; for a `tf.data.Dataset` if its order does not depend on the epochs before. Start the epochs of a
    `TableStream` at `epoch`. When a run has ended its last checkpoint stays, and `fit` on it trains no more.

    Under tf.distribute the chief alone writes, and all workers must see the folder. A checkpoint appears under its name
    only when it is whole. One that was cut short or changed afterwards is recognised by its checksums and renamed
    (`.bad`), and the one before it is used. When writing fails in the middle of a run, the run goes on, with a warning,
    and the last one stays.

    A checkpoint also knows the data and the batches of its run: their number of rows, names, types and a sample of
    their values. A `tf.data.Dataset` is known by the number and the types of its batches alone.

    The state of other callbacks (patience, the best epoch) is not kept.

    Args:
        folder: Where the checkpoints lie; one folder for each run.
        every_steps: Steps from one checkpoint to the next. With `steps_per_execution` or accumulated gradients it is
            written after the execution, or update, that the step falls into.
        every_minutes: Minutes from one checkpoint to the next. With neither, one is written after every epoch.
        keep: How many to keep.

    Attributes:
        epoch: The epoch, from 0, that the next `fit` begins in.
        resumed_from: The `Position` that `fit` went on from, or None.

    Raises:
        ValueError: `every_steps` or `keep` < 1; `every_minutes` <= 0; when training starts, a model, optimizer, data
            or size of batches that the checkpoint was not written for, or `steps_per_epoch` or `validation_split`.
        OSError: When training starts: the folder cannot be written, or its disk has no room for a checkpoint.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import Checkpoints
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> def train(epochs):
    ...     model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    ...     model.compile("adam")
    ...     checkpoints = Checkpoints("run", every_steps=5)
    ...     model.fit(data.train.inputs, data.train.labels, epochs=epochs, verbose=0, callbacks=[checkpoints])
    ...     return checkpoints.resumed_from
    >>> train(epochs=1)
    >>> train(epochs=2).epoch
    1
    """

    def __init__(
        self,
        folder: str | Path,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
    ):
        super().__init__()
        self.folder = Path(folder)
        self.every_steps = None if every_steps is None else check.check_int("every_steps", every_steps)
        self.every_minutes = (
            None if every_minutes is None else check.check_number("every_minutes", every_minutes, above=0)
        )
        self.keep = check.check_int("keep", keep)
        self.resumed_from: Position | None = None
        self._saved_metrics: list[np.ndarray] = []
        self._data: dict[str, Any] = {}

    @property
    def epoch(self) -> int:
        found = _newest(self.folder)
        return 0 if found is None else _position(_read_header(found)).epoch

    # What `fit` of a model asks for before training.

    def resume(self, model: Any, seed: int, data: dict[str, Any]) -> Position:
        """Puts the model into the state of the last checkpoint that is whole; where to go on, or the very start.

        Args:
            model: What is trained.
            seed: Of the order of the rows, for a run that begins.
            data: What the rows and batches of this run are known by, as plain values.
        """
        self._data = data
        chief = _distribute.worker_index(model) == 0
        if chief:
            self._check_folder(model)
        newest = _newest(self.folder) if chief else None
        if chief:
            _set_aside(self.folder, newest)
        total = _distribute.same_on_all_workers(model, -1 if newest is None else _total(newest))
        if total < 0:
            self.resumed_from = None
            return Position(0, 0, 0, _distribute.same_on_all_workers(model, seed))
        path = self.folder / _name(total)
        if not path.exists():
            raise OSError(
                f"`folder` must be one that all workers see. Received: folder={str(self.folder)!r}, which has no "
                f"{path.name} on worker {_distribute.worker_index(model)}"
            )
        self.resumed_from = position = self._restore(model, path)
        _log.warning("training goes on from %s: epoch %d, step %d", path, position.epoch + 1, position.step)
        return position

    def _check_folder(self, model: Any) -> None:
        needed = sum(_num_bytes(v) for v in _state(model)) + _OVERHEAD_BYTES
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder)
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(b"0")
        except OSError as error:
            raise OSError(
                f"`folder` must be a folder that can be written. Received: folder={str(self.folder)!r}: {error}"
            ) from error
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                f"`folder` must be on a disk with room for a checkpoint of {needed:,} bytes. "
                f"Received: folder={str(self.folder)!r} with {free:,} bytes free"
            )

    def _restore(self, model: Any, path: Path) -> Position:
        variables = _state(model)
        header = _read_header(path)
        _check_header(header, path, variables, self._data)
        with intact(path, _WHAT), zipfile.ZipFile(path) as archive:
            for number, variable in enumerate(variables):
                variable.assign(_read_array(archive, f"{number}.npy"))
            self._saved_metrics = [_read_array(archive, f"metric-{i}.npy") for i in range(header["metrics"])]
            np.random.set_state(("MT19937", _read_array(archive, "numpy.npy"), *header["numpy"]))
            random.setstate((header["python"][0], tuple(header["python"][1]), header["python"][2]))
            return _position(header)

    # What Keras calls.

    def begin(self, position: Position) -> None:
        """Tells where the run that follows begins."""
        self._start, self._epoch = position, position.epoch
        self._done = position.total  # steps of the epochs, and of this one's part, that are done
        self._at_epoch_start = position.total - position.step
        self._saved, self._time = position.total, time.monotonic()
        self._is_due = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._at_epoch_start = self._done
        self._offset = 0
        if epoch == self._start.epoch and self._start.step:
            self._offset = self._start.step
            self._at_epoch_start -= self._offset
            # Keras has just reset them.
            for variable, value in zip(_distribute.metric_variables(self.model), self._saved_metrics, strict=False):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._offset + batch + 1
        self._done = self._at_epoch_start + min(step, self.params["steps"])
        # At the end of an epoch the callback's other method is a better place.
        if step < self.params["steps"]:
            self._save_if(self._is_time(), Position(self._epoch, step, self._done, self._start.seed), logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        is_last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        every_epoch = self.every_steps is None and self.every_minutes is None
        self._save_if(
            is_last or every_epoch or self._is_time(), Position(epoch + 1, 0, self._done, self._start.seed), logs
        )

    def _is_time(self) -> bool:
        if self.every_steps is not None and self._done // self.every_steps > self._saved // self.every_steps:
            return True
        return self.every_minutes is not None and time.monotonic() - self._time >= 60 * self.every_minutes

    def _save_if(self, is_due: bool, position: Any, logs: Any) -> None:
        # Gradients that wait for others are not in a checkpoint.
        self._is_due |= is_due
        if self._is_due and not _keras_private.has_waiting_gradients(self.model.optimizer):
            self._is_due = False
            self._save(position, logs)

    def _save(self, position: Any, logs: Any) -> None:
        self._saved, self._time = position.total, time.monotonic()
        if _distribute.worker_index(self.model) != 0:
            return
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        path = self.folder / _name(position.total)
        try:
            _write(path, self.model, position, self._data)
        except OSError as error:
            _log.warning("no checkpoint at step %d: %s; the last one stays", position.total, error)
            return
        for old in _checkpoints(self.folder)[: -self.keep]:
            with contextlib.suppress(OSError):
                old.unlink()


def _name(total: int) -> str:
    return f"step-{total:012d}.ckpt"


def _total(path: Path) -> int:
    return int(_NAME.fullmatch(path.name).group(1))  # type: ignore[union-attr]


def _checkpoints(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    return sorted(path for path in folder.glob("step-*.ckpt") if _NAME.fullmatch(path.name))


def _newest(folder: Path) -> Path | None:
    """The newest one whose checksums are right."""
    for path in reversed(_checkpoints(folder)):
        fault = _fault(path)
        if fault is None:
            return path
        _log.warning("%s is not whole (%s); the one before it is used", path, fault)
    return None


def _set_aside(folder: Path, newest: Path | None) -> None:
    """Renames those after the newest whole one: counted among the last ones they would crowd out what is whole."""
    for path in _checkpoints(folder):
        if newest is None or _total(path) > _total(newest):
            with contextlib.suppress(OSError):
                path.replace(path.with_name(path.name + _BAD))


def _fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            return f"wrong checksum of {bad}"
        _read_header(path)
    # A damaged archive may also say that it is encrypted, or packed by a method that there is not.
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error) as error:
        return str(error)
    return None


def _read_header(path: Path) -> dict[str, Any]:
    with intact(path, _WHAT), zipfile.ZipFile(path) as archive:
        data = archive.read("header.json")
    header = parse_json(data, path, _WHAT, {"format": int})
    if header["format"] <= FORMAT:
        parse_json(data, path, _WHAT, _HEADER)
        _position(header)
    return header


def _position(header: dict[str, Any]) -> Position:
    position = header["position"]
    wrong = [name for name in Position._fields if type(position.get(name)) is not int]
    if wrong:
        raise DamagedFile(f"A checkpoint must say its position. Received: without {wrong}")
    return Position(*(position[name] for name in Position._fields))


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _state(model: Any) -> list[Any]:
    """Variables of a run, metrics aside: weights, seeds, balancing, optimizer."""
    left_out = {id(v) for v in _distribute.metric_variables(model)}
    found = {id(v): v for v in (*model.variables, *model.optimizer.variables)}
    return [variable for key, variable in found.items() if key not in left_out]


def _num_bytes(variable: Any) -> int:
    return math.prod(variable.shape) * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize


def _shapes(variables: Any) -> list[list[int]]:
    return [list(variable.shape) for variable in variables]


def _check_header(header: dict[str, Any], path: Path, variables: list[Any], data: dict[str, Any]) -> None:
    if header["format"] > FORMAT:
        raise ValueError(
            f"{path} has format {header['format']}, written by a newer mtl_zoo; this version reads up to {FORMAT}."
        )
    if header["shapes"] != _shapes(variables):
        raise ValueError(
            f"`folder` must hold checkpoints of this model and optimizer, or none. Received: {path}, with "
            f"{len(header['shapes'])} variables of other shapes than the {len(variables)} of this run"
        )
    # Those of version 0.1.0 do not say what they were trained on, nor later ones by which transform.
    before = header.get("data", data)
    data = {name: value for name, value in data.items() if name != "transform" or name in before}
    names = [name for name in (*before, *data) if before.get(name) != data.get(name)]
    if names:
        raise ValueError(
            "`folder` must hold checkpoints of a run on the same data in the same batches, or none. "
            f"Received: {path}, with {_shown(before, names)}; this run has {_shown(data, names)}"
        )


def _shown(data: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name}={data.get(name)!r}" for name in dict.fromkeys(names))


def _remove_leftovers(folder: Path) -> None:
    """Removes checkpoints that a killed process was writing, and nothing else."""
    remove_leftovers(folder, _NAME.pattern)
    for part in folder.glob("*.part"):
        # As version 0.1.0 named them.
        if _NAME.fullmatch(part.stem) and part.is_file():
            part.unlink()


def _write(path: Path, model: Any, position: Position, data: dict[str, Any]) -> None:
    """Writes a checkpoint beside its place, and puts it there when the disk has it."""
    variables, metrics = _state(model), _distribute.metric_totals(model)
    _, keys, *rest = np.random.get_state()
    header = {
        "format": FORMAT,
        "position": position._asdict(),
        "shapes": _shapes(variables),
        "metrics": len(metrics),
        "numpy": rest,
        "python": random.getstate(),
        "data": data,
    }
    with whole_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("header.json", json.dumps(header))
        for number, variable in enumerate(variables):
            _write_array(archive, f"{number}.npy", keras.ops.convert_to_numpy(variable))
        for number, value in enumerate(metrics):
            _write_array(archive, f"metric-{number}.npy", value)
        _write_array(archive, "numpy.npy", keys)


def _write_array(archive: Any, name: str, array: Any) -> None:
    with archive.open(name, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
