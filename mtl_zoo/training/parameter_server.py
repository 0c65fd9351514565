"""Training with tables that lie on parameter servers: asynchronous steps, handed out by a chief."""

from __future__ import annotations

import collections
import logging
import math
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _distribute, _keras_private
from mtl_zoo import _validation as check
from mtl_zoo.evaluation import evaluate
from mtl_zoo.losses.batch import Batch
from mtl_zoo.models import MultiTaskModel, _data, _resume

_log = logging.getLogger(__name__)

# Of a process that serves: with as many as a small machine has cores, steps could wait for each other for ever.
_FEWEST_THREADS = 8
# A server that holds so much more than an equal share is worth a warning, if the tables are large at all.
_SHARE_ALLOWED, _BYTES_OF_LARGE = 1.1, 64e6


class SideEvaluation(NamedTuple):
    """Exact metrics that were measured while training went on.

    Args:
        epoch: The epoch, from 0, in which the evaluation began.
        step: Steps since the start of the run that were done when it began.
        table: What `mtl_zoo.evaluate` gives.

    Example:

    >>> from mtl_zoo.training import SideEvaluation
    >>> SideEvaluation._fields
    ('epoch', 'step', 'table')
    """

    epoch: int
    step: int
    table: pd.DataFrame


class ParameterServerTrainer:
    """Trains a model of the zoo whose weights lie on parameter servers.

    Every process of a cluster runs the same script, with its place in `TF_CONFIG` (a chief, workers, servers), as
    `mtl-zoo launch --workers N --ps M` starts them. In a worker or a server the constructor serves for ever; in the
    chief it makes the model and returns. Variables are dealt to the servers in turn, so a large table needs
    `embedding=Embedding(shards=M)` or a multiple of it, and its optimizer's slots lie beside its rows. A worker pulls
    the rows of its batch and the other weights, and pushes gradients; the servers update what they hold, by row.

    Steps are asynchronous: a worker's gradients may be of weights that others have moved since, each step's losses are
    means over its own batch, and two runs differ. The chief reads the input and hands each batch to the next free
    worker, so that within a run every row of an epoch is trained once, whatever the workers' speeds; a batch whose
    worker is lost goes to another. With `Checkpoints` at most the steps since the last one, and those that were handed
    out but not finished, are done again after a restart.

    Args:
        make_model: Makes and compiles the model; called in the strategy's scope.
        ahead: How many batches are handed out for each worker before the oldest must be finished.
        resolver: A `tf.distribute` cluster resolver. Default: that of `TF_CONFIG`.

    Attributes:
        model: The model, on the chief. `predict` and `mtl_zoo.evaluate` of it read from the servers.
        strategy: Its `tf.distribute.ParameterServerStrategy`.
        evaluations: A `SideEvaluation` for each time that `fit` measured the validation data.

    Raises:
        ValueError: The cluster lacks a chief, workers or servers; `make_model` does not give a compiled model made in
            the scope, or one compiled with what cannot work here (`jit_compile`, `run_eagerly`, accumulated gradients,
            several steps an execution); `ahead` < 1.

    Example, a script for `mtl-zoo launch --workers 3 --ps 2 -- python train.py`:

        def make_model():
            model = mtl_zoo.create_model("mmoe", features, tasks, embedding=mtl_zoo.Embedding(shards=2))
            model.compile("auto")
            return model

        trainer = ParameterServerTrainer(make_model)
        trainer.fit(x, y, batch_size=1024, epochs=3, callbacks=[Checkpoints("/shared/run", every_steps=1000)])
        trainer.model.save("model.keras")

    Reference: Li et al., OSDI 2014, "Scaling Distributed Machine Learning with the Parameter Server".
    """

    def __init__(self, make_model: Callable[[], MultiTaskModel], *, ahead: int = 2, resolver: Any = None):
        import tensorflow as tf

        self.ahead = check.check_int("ahead", ahead)
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver() if resolver is None else resolver
        _check_cluster(resolver)
        # Otherwise a call to a process that is gone waits for its return instead of failing.
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
        if resolver.task_type in ("worker", "ps"):
            _serve(resolver)
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self._workers, self._servers = (len(resolver.cluster_spec().job_tasks(job)) for job in ("worker", "ps"))
        with self.strategy.scope():
            self.model = make_model()
        _check_model(self.model, self.strategy)
        _distribute.build(self.model)
        for counter in _counters(self.model):
            _keras_private.add_in_place(counter)
        self.evaluations: list[SideEvaluation] = []
        self._warn_if_uneven()

    def server_bytes(self) -> list[int]:
        """Bytes of the weights, and of the optimizer's, that each server holds."""
        found = [0] * self._servers
        variables = {id(v): v for v in (*self.model.variables, *self.model.optimizer.variables)}
        for variable in variables.values():
            found[_server_of(variable)] += math.prod(variable.shape) * np.dtype(str(variable.dtype)).itemsize
        return found

    def _warn_if_uneven(self) -> None:
        held = self.server_bytes()
        if max(held) > _BYTES_OF_LARGE and max(held) * len(held) > _SHARE_ALLOWED * sum(held):
            _log.warning(
                "The servers hold %s MB: give `embedding=Embedding(shards=%d)`, or a multiple, to split tables evenly.",
                ", ".join(f"{size / 1e6:.0f}" for size in held),
                len(held),
            )

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        epochs: int = 1,
        initial_epoch: int = 0,
        shuffle: bool = True,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_every: int | None = None,
        callbacks: Any = None,
        verbose: Any = 0,
    ) -> keras.callbacks.History:
        """Trains; what a call of the model's own `fit` takes, as far as it makes sense here.

        Validation goes on beside training, on the chief's own device: callbacks see no figures of it. An evaluation
        that is due while another runs is left out, save the one at the end, for which `fit` waits.

        Args:
            x, y, batch_size, epochs, initial_epoch, shuffle, sample_weight, callbacks, verbose: As in Keras' `fit`;
                `x` is a dict of arrays, a table, or a `tf.data.Dataset`. `batch_size` is that of one worker's step.
                Callbacks run on the chief, at the end of each step in the order in which batches were handed out;
                `logs` of a step hold the mean `loss` of the epoch so far, those of an epoch everything.
            validation_data: What `mtl_zoo.evaluate` takes: a split, or a table.
            validation_every: Steps from one evaluation to the next. Default: the end of every epoch.

        Returns:
            Keras' `History`.

        Raises:
            ValueError: What the model's `fit` refuses; `x` is none of these.
            FloatingPointError: A loss is not finite any more.
        """
        import tensorflow as tf

        model = self.model
        if validation_every is not None:
            check.check_int("validation_every", validation_every)
        arguments = {"batch_size": batch_size, "sample_weight": sample_weight, "callbacks": callbacks}
        arguments["verbose"] = verbose
        arguments = {name: value for name, value in arguments.items() if value is not None}
        if _data.holds_rows(x):
            arguments["shuffle"] = shuffle
        run = _resume.Run(model, x, y, arguments | {"initial_epoch": initial_epoch})
        first = max(initial_epoch, run.first_epoch)
        data, _, arguments = _data.prepare_fit(model, x, y, arguments, run)
        if not isinstance(data, tf.data.Dataset):
            raise ValueError(f"`x` must be a dict of arrays, a table or a tf.data.Dataset. Received: x={x!r}")
        steps = int(data.cardinality())
        history = keras.callbacks.History()
        own = _data.with_own_callbacks(model, _as_list(arguments.get("callbacks")), run)
        shown = {"verbose": verbose, "epochs": epochs, "steps": steps if steps >= 0 else None}
        listeners = keras.callbacks.CallbackList([*own, history], add_progbar=verbose != 0, model=model, **shown)
        beside = _Beside(model, validation_data, validation_every, self.evaluations)
        step = _Step(self, data.element_spec)
        # Where checkpoints look for the metrics of the epoch so far.
        model.train_function = step
        model.stop_training = False
        with _data.telling_failures(listeners):
            listeners.on_train_begin()
            left_out = run.begin()
            try:
                for epoch in range(first, epochs):
                    self._epoch(step, data.skip(left_out) if left_out else data, listeners, beside, epoch)
                    left_out = 0
                    if model.stop_training:
                        break
            finally:
                model.train_function = None
                run.at_end.close()
            beside.wait()
            listeners.on_train_end()
        return history

    def _epoch(self, step: Any, data: Any, listeners: Any, beside: Any, epoch: int) -> None:
        waiting: collections.deque = collections.deque()
        self.model.reset_metrics()
        listeners.on_epoch_begin(epoch)
        step.metric_totals = [keras.ops.convert_to_numpy(v) for v in _distribute.metric_variables(self.model)]

        def finish(number: int, remote: Any) -> None:
            step.add(remote.fetch())
            listeners.on_train_batch_end(number, step.batch_logs())
            beside.step_ended(epoch)

        for number, batch in enumerate(data):
            if len(waiting) >= self.ahead * self._workers:
                finish(*waiting.popleft())
            if self.model.stop_training:
                break
            listeners.on_train_batch_begin(number)
            waiting.append((number, self._coordinator.schedule(step.function, args=(batch,))))
        while waiting:
            finish(*waiting.popleft())
        listeners.on_epoch_end(epoch, {name: float(value) for name, value in step.logs().items()})
        beside.epoch_ended(epoch)


def _as_list(given: Any) -> list:
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


class _Step:
    """The training step that workers run, and the metrics of the steps that are done."""

    def __init__(self, trainer: ParameterServerTrainer, spec: Any):
        import tensorflow as tf

        model, strategy = trainer.model, trainer.strategy
        self._model = model
        variables = _distribute.metric_variables(model)
        self._shapes = [tuple(variable.shape) for variable in variables]
        self._types = [np.dtype(str(variable.dtype)) for variable in variables]
        self.metric_totals: list[np.ndarray] = []

        @tf.autograph.experimental.do_not_convert
        def of_replica(batch: Any) -> Any:
            rows = Batch.of(batch)
            outcome = model.training_step.run(model, rows)
            added = _distribute.additions_to_metrics(model, lambda: model.log_step(rows, outcome))
            # One vector: each tensor that is fetched costs a call over the network.
            return tf.concat([tf.reshape(tf.cast(value, tf.float64), [-1]) for value in added], 0)

        self.function = tf.function(
            lambda batch: strategy.run(of_replica, args=(batch,)), input_signature=[spec], autograph=False
        )

    def add(self, increments: np.ndarray) -> None:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = zip(self.metric_totals, np.split(increments, ends), self._shapes, self._types, strict=True)
        self.metric_totals = [(total + part.reshape(shape)).astype(kind) for total, part, shape, kind in parts]

    def logs(self) -> dict[str, Any]:
        return _distribute.logs_of(self._model, self.metric_totals)

    def batch_logs(self) -> dict[str, Any]:
        """The mean loss alone, since all metrics would take the chief longer than handing out a batch."""
        total, count = self.metric_totals[:2]
        loss = float(total) / max(float(count), 1e-12)
        return {"loss": loss} if math.isfinite(loss) else {name: float(v) for name, v in self.logs().items()}


class _Beside:
    """Evaluations on the chief while the workers train on."""

    def __init__(self, model: Any, data: Any, every: Any, found: list) -> None:
        self._model, self._data, self._every, self._found = model, data, every, found
        self._done, self._epoch, self._measured = 0, 0, -1
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def step_ended(self, epoch: int) -> None:
        self._done, self._epoch = self._done + 1, epoch
        if self._every and self._done % self._every == 0:
            self._begin()

    def epoch_ended(self, epoch: int) -> None:
        if not self._every:
            self._begin()

    def _begin(self) -> None:
        if self._data is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._raise()
        self._measured = self._done
        self._thread = threading.Thread(target=self._evaluate, args=(self._epoch, self._done), daemon=True)
        self._thread.start()

    def _evaluate(self, epoch: int, done: Any) -> None:
        try:
            self._found.append(SideEvaluation(epoch, done, evaluate(self._model, self._data)))
        except BaseException as error:  # raised in the thread that trains
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Ends with an evaluation of the weights that training ended with."""
        if self._thread is not None:
            self._thread.join()
        if self._measured != self._done:
            self._begin()
            if self._thread is not None:
                self._thread.join()
        self._raise()


def _serve(resolver: Any) -> None:
    """Serves until the process is ended."""
    import tensorflow as tf

    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        protocol=resolver.rpc_layer or "grpc",
        # A step waits in some of them for what other processes send.
        config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(_FEWEST_THREADS, os.cpu_count() or 1)),
    )
    _log.info("%s %d serves", resolver.task_type, resolver.task_id)
    server.join()


def _check_cluster(resolver: Any) -> None:
    jobs = resolver.cluster_spec().as_dict()
    if not {"chief", "worker", "ps"} <= set(jobs) or len(jobs.get("chief", ())) != 1:
        raise ValueError(
            "`TF_CONFIG` must describe a cluster of one chief, workers and parameter servers (`mtl-zoo launch "
            f"--workers N --ps M` makes one). Received: {jobs}. Expected: tasks of the types 'chief', 'worker' and 'ps'"
        )


def _check_model(model: Any, strategy: Any) -> None:
    if not isinstance(model, MultiTaskModel):
        raise ValueError(f"`make_model` must give a model of the zoo. Received: {type(model).__name__}")
    if model.distribute_strategy is not strategy:
        raise ValueError(
            "`make_model` must make the model when it is called, so that its weights lie on the servers. "
            f"Received: {model.name!r}, made outside of the strategy's scope"
        )
    if not model.compiled:
        raise ValueError(f"`make_model` must compile the model. Received: {model.name!r}, not compiled")
    if model.run_eagerly or model.steps_per_execution > 1:
        raise ValueError(
            "`run_eagerly` must be False and `steps_per_execution` 1 with parameter servers: each step is handed to "
            f"whichever worker is free. Received: run_eagerly={model.run_eagerly}, "
            f"steps_per_execution={model.steps_per_execution}"
        )


def _counters(model: Any) -> list[keras.Variable]:
    """What counts steps: schedules and bias corrections follow it."""
    optimizer = model.optimizer
    parts = [getattr(optimizer, name, None) for name in ("embeddings", "dense", "encoders", "inner_optimizer")]
    counters = [part.iterations for part in (optimizer, *parts) if part is not None]
    return counters if model.balancing is None else [*counters, model.balancing.step]


def _server_of(variable: Any) -> int:
    import tensorflow as tf

    device = (variable.value if isinstance(variable, keras.Variable) else variable).device
    return int(tf.DeviceSpec.from_string(device).task)
