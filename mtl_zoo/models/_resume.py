"""Training that goes on where a checkpoint was written: what `fit` does for `mtl_zoo.training.Checkpoints`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend, _distribute
from mtl_zoo.features.cache import transform_hash
from mtl_zoo.models import _data
from mtl_zoo.models._fingerprint import fingerprint


class Epoch:
    """The number of an epoch, from 0. It knows nothing else: TensorFlow keeps the generators of batches, which ask it,
    and would keep the model with them."""

    number = 0

    def __call__(self) -> int:
        return self.number


class Run:
    """One call of `fit`: where it starts, and which epoch's batches are to come.

    Attributes:
        seed: What the order of the rows is drawn from: one number on all workers, and for all of an interrupted run.
        epoch: Which epoch is about to begin, or has begun.
        at_end: What is to be called when the call is over.
    """

    def __init__(self, model: Any, x: Any, y: Any, arguments: dict[str, Any]):
        self._checkpoints = _find(arguments.get("callbacks"))
        first = arguments.get("initial_epoch", 0)
        self.seed, self.epoch = 0, Epoch()
        self._position: Any = None
        self.at_end = contextlib.ExitStack()
        if _data.holds_rows(x) or _data.is_stream(x):
            self.seed = _distribute.same_on_all_workers(model, np.random.randint(2**31))
        if self._checkpoints is not None:
            _refuse(x, arguments)
            _distribute.build(model)
            self._position = self._checkpoints.resume(model, self.seed, _data_of_run(model, x, y, arguments))
            self.seed = self._position.seed
            arguments["initial_epoch"] = max(first, self._position.epoch)
        self.callback = _EpochNumber(self.epoch, first)

    @property
    def first_epoch(self) -> int:
        """The epoch, from 0, that training which was interrupted goes on in."""
        return 0 if self._position is None else self._position.epoch

    def begin(self) -> int:
        """Tells the checkpoints that training begins; how many steps of its first epoch are done already."""
        if self._checkpoints is None:
            return 0
        self._checkpoints.begin(self._position)
        return self._position.step

    @contextlib.contextmanager
    def started(self, model: Any, data: Any) -> Iterator[None]:
        """Within it `fit` leaves out the steps that are done."""
        done = self.begin()
        if not done:
            yield
            return
        model.make_train_function()
        whole = model.train_function
        batches = int(data.cardinality())
        model.train_function = _LeavesOut(whole, done, batches, model.steps_per_execution)
        try:
            with warnings.catch_warnings():
                # Keras expects an epoch's number of batches of the one that is resumed, too.
                warnings.filterwarnings("ignore", "Your input ran out of data")
                yield
        finally:
            model.train_function = whole


class _LeavesOut:
    """A train function that takes some batches from the first iterator, before it trains on the others.

    Args:
        function: The train function.
        done: Batches to leave out.
        batches: Batches of an epoch.
        per_call: Those that `function` takes at once.
    """

    def __init__(self, function: Any, done: int, batches: Any, per_call: int) -> None:
        self._function, self._done = function, done
        self._calls = -(-(batches - done) // per_call)

    def __call__(self, iterator: Any) -> Any:
        if self._calls == 0:
            self._calls = -1
            # Not by running out of data in a step, which moves the seeds of dropout on.
            raise StopIteration
        if self._done:
            iterator = iter(iterator)
            for _ in range(self._done):
                next(iterator)
            self._done = 0
        self._calls -= 1
        return self._function(iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class _EpochNumber(keras.callbacks.Callback):
    """Notes which epoch begins."""

    def __init__(self, epoch: Any, first: int) -> None:
        super().__init__()
        self._epoch, self._first = epoch, first

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # Keras may open an iterator that it never uses: the order of the rows must not count those.
        self._epoch.number = epoch - self._first


def _find(callbacks: Any) -> Any:
    given = getattr(callbacks, "callbacks", callbacks)
    given = [] if given is None else given if isinstance(given, list | tuple) else [given]
    found = [callback for callback in given if hasattr(callback, "resume")]
    if len(found) > 1:
        folders = [str(callback.folder) for callback in found]
        raise ValueError(f"`callbacks` must hold one Checkpoints at most. Received: {len(found)}, of {folders}")
    return found[0] if found else None


def _data_of_run(model: Any, x: Any, y: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    batch_size = _data.batch_size(arguments, _data.TRAIN_BATCH_SIZE)
    known = fingerprint(x, y, arguments.get("sample_weight"), batch_size, arguments.get("shuffle", True))
    if (_data.is_table(x) or _data.is_stream(x)) and model.transform is not None:
        known["transform"] = transform_hash(model.transform)  # the same rows are other ids by another one
    return known


def _refuse(x: Any, arguments: dict[str, Any]) -> None:
    if not _backend.is_tensorflow():
        raise ValueError(
            "`callbacks` may hold Checkpoints on TensorFlow only: elsewhere Keras orders the rows itself. "
            f"Received: Checkpoints on the {keras.backend.backend()!r} backend"
        )
    ours = _data.holds_rows(x) or _data.is_stream(x)
    if not ours and int(x.cardinality() if hasattr(x, "cardinality") else -1) < 0:
        raise ValueError(
            "`x` must be arrays, a table or a tf.data.Dataset with a known number of batches with Checkpoints (see "
            f"`tf.data.experimental.assert_cardinality`). Received: x={x!r}"
        )
    reasons = {
        "steps_per_epoch": "an epoch must be the whole of the data, so that the position in it is known",
        "validation_split": "Keras shuffles what it splits itself. Give `validation_data`",
    }
    for name, reason in reasons.items():
        if arguments.get(name):
            raise ValueError(f"`{name}` must be None with Checkpoints: {reason}. Received: {name}={arguments[name]!r}")
