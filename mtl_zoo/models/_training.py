"""How models of the zoo are trained: what Keras' `compile`, `fit` and `evaluate` become here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _allocator, _backend, _distribute, _keras_private, _pages
from mtl_zoo.balancing import Balancing, as_balancing
from mtl_zoo.features._joint import JointStream
from mtl_zoo.features._plain_errors import plain_errors
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.heads import RowLosses
from mtl_zoo.heads._base import row_weight
from mtl_zoo.losses import Batch, TaskLoss
from mtl_zoo.models import _compile, _data, _resume, _sampling
from mtl_zoo.models._call_step import call_step
from mtl_zoo.models._checks import check_labels
from mtl_zoo.models._configured import ConfiguredModel
from mtl_zoo.models._first_batch import FirstBatch
from mtl_zoo.optimizers import as_optimizer, updates_rows
from mtl_zoo.steps import Outcome, Step, as_step
from mtl_zoo.tasks import label_names


class TrainableModel(_keras_private.DistributedHooks, ConfiguredModel):
    """Training: losses and metrics of the tasks, a balancing method, a training step, checks of what goes in."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._training_setup: _compile.TrainingSetup | None = None
        self._balancing: Balancing | None = None
        self._step = as_step(None)
        self._given_step: str | Step | None = None
        self._pull: Any = None
        self._steps_before = 0
        self.train_function: Any = None
        self.test_function: Any = None

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = "auto",
        loss_weights: Mapping[str, float] | None = None,
        metrics: Any = "auto",
        *,
        balancing: str | Balancing | None = None,
        step: str | Step | None = None,
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
        jit_compile: bool | str | None = None,
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training. Losses, weights and metrics come from the tasks unless given.

        Args:
            optimizer: Name of an optimizer of Keras or `mtl_zoo.optimizers`, or one; `"auto"` for `LazyAdam()`, which
                touches only the rows of the batch; or `{"embeddings": ..., "dense": ...}` with a name, an optimizer or
                a learning rate each, and `"encoders"` for pretrained models (see `SplitOptimizer`).
            loss: `"auto"`, one loss for all, or a dict by loss name (`loss_names`): a name, a Keras loss that takes
                logits, or a function `(y (batch, 1), logits (batch, units)) -> (batch,)`.
            loss_weights: None for the tasks' own, or a dict of numbers by loss name.
            metrics: `"auto"` for the tasks' own, None, or a dict by output name of lists of names or Keras metrics,
                which see scores, observed rows and sample weights.
            balancing: How the losses, times their weights, are balanced at every step: None for their sum, a name of
                `list_balancing()`, or a method of `mtl_zoo.balancing`.
            step: What a training step does: a name of `mtl_zoo.steps.list_steps()` or a `Step`. Default: what the
                balancing method asks for, and a plain step without one.
            steps_per_execution, run_eagerly, auto_scale_loss: As in Keras.
            jit_compile: Default: False on TensorFlow, where XLA would read whole embedding tables; Keras' `"auto"`
                elsewhere.

        Raises:
            ValueError: A name that is no loss or output of this model, or one that was forgotten; a loss that takes
                no logits; an unknown balancing, or on another backend than TensorFlow one that has a step of its own.
        """
        if jit_compile is None:
            jit_compile = False if _backend.is_tensorflow() else "auto"
        with _backend.scope_of(self):
            scale_loss = auto_scale_loss and self.dtype_policy.name == "mixed_float16"
            optimizer = as_optimizer(optimizer, scale_loss=scale_loss)
            _distribute.check_compile(self, optimizer, jit_compile)
            self._training_setup = _compile.TrainingSetup(self, loss, loss_weights, metrics)
            self._set_balancing(balancing, step)
            steps = self.steps_taken
            super().compile(
                optimizer=optimizer,
                steps_per_execution=steps_per_execution,
                run_eagerly=run_eagerly,
                jit_compile=jit_compile,
                auto_scale_loss=auto_scale_loss,
            )
        self._steps_before += steps - self.steps_taken
        self._keras_arguments = {
            "steps_per_execution": steps_per_execution,
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }

    @contextlib.contextmanager
    def other_losses_within(self, change: Callable[[str, TaskLoss], Any]) -> Iterator[None]:
        """Trains with other losses in the block, and with those of `compile` after it; optimizer and rest stay.

        Args:
            change: What a loss is in the block, from its name and what it was: as `compile(loss=...)` takes it.
        """
        setup = self._require_compiled()
        losses = {name: change(name, loss) for name, loss in setup.loss_functions.items()}
        inside = _compile.TrainingSetup(self, losses, setup.loss_weights, setup.given_metrics)
        inside.get_config = setup.get_config  # type: ignore[method-assign]  # of a model that is saved meanwhile
        self._training_setup = inside
        self.forget_traces()
        try:
            yield
        finally:
            self._training_setup = setup
            self.forget_traces()

    @property
    def balancing(self) -> Balancing | None:
        """The balancing method that the model was compiled with, or None."""
        return self._balancing

    @property
    def training_step(self) -> Step:
        """The training step that the model was compiled with."""
        return self._step

    @property
    def steps_taken(self) -> int:
        """How many updates training made, over every `compile`; gradients that are added up first are one."""
        optimizer = getattr(self, "optimizer", None)
        return self._steps_before + (0 if optimizer is None else int(optimizer.iterations.numpy()))

    def _set_balancing(self, balancing: str | Balancing | None, step: str | Step | None) -> None:
        method = as_balancing(balancing)
        before, chosen = self._balancing, as_step(step, method)
        chosen.check(self, method)
        if method is not None:
            kinds = tuple(output.kind for output in self.head.losses(self.tasks).values())
            method.prepare_for(self, label_names(self.tasks), kinds)
        if before is not None:
            _keras_private.forget_layer(self, before)
        self._balancing, self._step, self._given_step = method, chosen, step

    def get_compile_config(self) -> dict[str, Any]:
        if self._training_setup is None:
            return {}
        serialize = keras.saving.serialize_keras_object
        balancing = None if self._balancing is None else serialize(self._balancing)
        own = {"optimizer": serialize(self.optimizer), "balancing": balancing}
        if self._given_step is not None:
            own["step"] = serialize(self._given_step)
        return {**own, **self._training_setup.get_config(), **self._keras_arguments}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(dict(config)))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.Metric]:
        own = [] if self._training_setup is None else self._training_setup.all_metrics()
        return [*super().metrics, *own]

    # Losses.

    def row_losses(self, batch: Batch, logits: Mapping[str, Any]) -> RowLosses:
        """The batch's labels, cleaned, and every loss by row: what the objective and the metrics are made of."""
        setup = self._require_compiled()
        batch = dataclasses.replace(batch, labels=_data.labels_by_name(self, batch.labels))
        return self.head.row_losses(self.tasks, batch, logits, setup.loss_functions)

    def weigh_losses(self, rows: RowLosses, local: bool = False) -> list[Any]:
        """The losses times their weights, in the order of `loss_names`: what balancing methods see.

        They are means over the global batch, or over these rows alone if `local`.
        """
        setup = self._require_compiled()
        return [setup.loss_weights[name] * loss for name, loss in rows.means(local).items()]

    def other_losses(self, batch: Batch, logits: Mapping[str, Any]) -> Any:
        """The sum of what belongs to no task: the head's penalties, and what layers added; 0 if there is nothing."""
        labels = _data.labels_by_name(self, batch.labels)
        rest = sum(self.head.penalties(self.tasks, labels, logits, batch.weights).values())
        # Keras' own part, without a compiled loss, is the sum of what layers added, scaled for distribution.
        return rest + super().compute_loss() if self.losses else rest

    def objective(self, losses: list[Any], rest: Any, training: bool = True) -> Any:
        """The sum of the weighted losses, balanced in training, and of what belongs to no task."""
        if training and self.balancing is not None:
            return self.balancing.objective(ops.stack(losses)) + rest
        return sum(losses) + rest

    def task_losses(self, labels: Any, logits: Mapping[str, Any], weights: Any = None) -> dict[str, Any]:
        """Every loss by name, unweighted: a scalar over the observed rows of the global batch."""
        return self.row_losses(Batch(None, labels, weights), logits).means()

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The weighted sum of `task_losses`, balanced in training, plus what belongs to no task."""
        return self.outcome_of(Batch.of((x, y, sample_weight)), y_pred, training).loss

    def outcome_of(self, batch: Batch, logits: Mapping[str, Any], training: bool = True) -> Outcome:
        """The loss of a batch, from its logits, with what it is made of."""
        # Rows that are trained on may be sampled; others are not, and their losses are those of the scores.
        known = logits if training else {**logits, **self.corrected(logits)}
        rows = self.row_losses(batch, known)
        loss = self.objective(self.weigh_losses(rows), self.other_losses(batch, known), training)
        return Outcome(loss, logits, rows, _backend.sum_over_replicas(loss))

    # Steps.

    def train_step(self, *arguments: Any) -> Any:
        """Takes the training step that the model was compiled with, and gives the logs; elsewhere Keras' own."""
        if not _backend.is_tensorflow():
            by_row = keras.backend.backend() == "jax" and updates_rows(self.optimizer)
            return self.training_step.run_state(self, *arguments) if by_row else super().train_step(*arguments)
        batch = Batch.of(*arguments)
        return self.log_step(batch, self.training_step.run(self, batch))

    def test_step(self, *arguments: Any) -> Any:
        if not _backend.is_tensorflow():
            return super().test_step(*arguments)
        batch = Batch.of(*arguments)
        logits = self(batch.inputs, training=False)
        return self.log_step(batch, self.outcome_of(batch, logits, training=False))

    def anchored(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """The gradients of the trainable weights, with those of the `anchor` that `fit` was given."""
        return gradients if self._pull is None else self._pull.added_to(gradients, self.trainable_variables)

    @contextlib.contextmanager
    def _held_by(self, anchor: Any) -> Iterator[None]:
        """Within it, steps hold the weights to what they are now."""
        if anchor is None:
            yield
            return
        if not hasattr(anchor, "at"):
            raise TypeError(f"`anchor` must be None, an L2ToPrevious or an EWC. Received: anchor={anchor!r}")
        self._pull, self.train_function = anchor.at(self), None
        try:
            yield
        finally:
            self._pull = self.train_function = None

    def log_step(self, batch: Batch, outcome: Outcome) -> dict[str, Any]:
        """Enters a batch into the loss and metrics of the logs, and gives their values so far."""
        _keras_private.track_loss(self, outcome.total, batch.inputs)
        return self.update_metrics(batch, outcome.logits, outcome.rows)

    def make_train_function(self, force: bool = False) -> Any:
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = self._step_function(self.train_step, self.train_function, training=True)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._step_function(self.test_step, self.test_function, training=False)
        return self.test_function

    def _step_function(self, step: Callable[[Any], Any], keras_own: Any, training: bool) -> Any:
        """What the trainer calls for each step: Keras' own function, unless there is a reason for another."""
        if _distribute.is_distributed(self):
            return _distribute.step_function(self, step, training=training)
        return call_step(self, step, keras_own) if self._calls_step() else keras_own

    def _calls_step(self) -> bool:
        return _backend.is_tensorflow() and not self.run_eagerly and self.steps_per_execution == 1

    def prepare_distributed(self) -> bool:
        """Keras' trainer asks for what it needs before the first batch; true under a tf.distribute strategy."""
        if _distribute.is_distributed(self):
            _distribute.build(self)
            return True
        return False

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        batch = Batch.of((x, y, sample_weight))
        return self.update_metrics(batch, y_pred, self.row_losses(batch, y_pred))

    def update_metrics(self, batch: Batch, logits: Mapping[str, Any], rows: RowLosses) -> dict[str, Any]:
        """Enters a batch into the losses and metrics of the logs; `rows` are its `row_losses`."""
        setup, corrected = self._require_compiled(), self.corrected(logits)
        outputs = {}
        for output in self.outputs_info:
            if setup.meters.metrics[output.name]:
                y, counts = rows.targets[output.name]
                weights = counts * row_weight(batch.weights, output.task)
                outputs[output.name] = (y, output.scores(corrected[output.name]), weights)
        setup.meters.update(rows.rows | rows.measures, outputs)
        setup.sees_unlabelled = len(rows.rows) == len(self.loss_names)
        setup.sees_sources = batch.source is not None
        if setup.sees_sources:
            for number, meters in enumerate(setup.by_source.values()):
                meters.update(rows.rows, outputs, ops.cast(ops.equal(batch.source, number), "float32"))
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        hidden = set() if self._training_setup is None else self._training_setup.hidden_logs()
        return {name: value for name, value in super().get_metrics_result().items() if name not in hidden}

    def _measure_by_source(self, tasks: Mapping[str, Any]) -> None:
        """Logs of several sources beside those of all rows; none if `tasks` is empty."""
        with _backend.scope_of(self):
            if self._require_compiled().measure_by_source(tasks):
                self.train_function = self.test_function = None

    def log_names(self) -> dict[str, tuple[str, str]]:
        """What `fit` logs of losses and outputs: (its loss or output, the metric) by the name of the log."""
        return self._require_compiled().log_names()

    def _require_compiled(self) -> _compile.TrainingSetup:
        if self._training_setup is None:
            raise ValueError("`compile()` must be called before a model is trained or evaluated.")
        return self._training_setup

    # What users call.

    def fit(self, x: Any = None, y: Any = None, *, anchor: Any = None, **arguments: Any) -> keras.callbacks.History:
        """Keras' `fit`; `x` may also be a `TableStream`, or a table or `JointSources` if the model has a transform.

        Tables, arrays and streams default to batches of 1024 rows. Arrays are checked first, those of
        `validation_data` too: missing inputs or labels, ids outside of their tables, labels that are none of their
        task's, tasks without an observed label, weights; of a `tf.data.Dataset` the first batch's inputs. A dict of raw
        columns is read as a table where it can be nothing else. A loss that turns NaN or infinite stops training with
        an error that names it, the epoch and the step; illegal labels and weights of a `tf.data.Dataset` make it so.

        `class_weight` holds a dict of weights by class for each task; rows then weigh that much more, in metrics too.
        `sampling`, a `NegativeSampling`, drops a share of the training rows with label 0, and a `BalancedBatches` makes
        each batch hold a share of rows with label 1; scores are corrected for it.
        `anchor`, such as `mtl_zoo.continual.L2ToPrevious`, holds weights to what they are when training begins.
        Of Keras' callbacks, those that monitor a metric of a task know whether more of it is better.

        Raises:
            ValueError: What the checks found.
            FloatingPointError: A loss is not finite any more.
        """
        self._require_compiled()
        if _backend.is_tensorflow():
            _allocator.keep_by_default()
        with self._held_by(anchor):
            return self._fit(x, y, arguments)

    def _fit(self, x: Any, y: Any, arguments: dict[str, Any]) -> keras.callbacks.History:
        x, first = _data.bound(self, self.scoring.table_of(x)), FirstBatch(self)
        self._measure_by_source(x.tasks if isinstance(x, JointStream) else {})
        x, y, arguments = _sampling.prepare(self, x, y, arguments)
        run = _resume.Run(self, x, y, arguments)
        with run.at_end, first.telling():
            x = first.checked("x", x)
            x, y, arguments = _data.prepare_fit(self, x, y, arguments, run)
            arguments["callbacks"] = _data.with_own_callbacks(self, arguments.get("callbacks"), run)
            self._lay_out_tables()
            with run.started(self, x), plain_errors(), _data.telling_failures(arguments["callbacks"]):
                return super().fit(x, y, **arguments)

    def _lay_out_tables(self) -> None:
        """Large pages for large tables, and for what a loaded optimizer holds of them."""
        tables = [weight for weight in self.weights if _backend.is_table(weight)]
        if not updates_rows(self.optimizer) or not _pages.are_large(tables):
            return
        # Within the first step, where Keras builds it, an optimizer's slots have no memory yet.
        _distribute.build(self)
        with _backend.scope_of(self):
            for variable in (*tables, *self.optimizer.variables):
                _pages.use_huge_pages(variable)

    def evaluate(self, x: Any = None, y: Any = None, **arguments: Any) -> Any:
        """Keras' `evaluate`; `x` may also be a table or a stream. For exact metrics by task see `mtl_zoo.evaluate`."""
        self._require_compiled()
        x, first = _data.bound(self, self.scoring.table_of(x), whole=False), FirstBatch(self)
        refuse_generated("x", x)
        refuse_generated("y", y)
        if isinstance(x, JointStream):
            self._measure_by_source(x.tasks)
        x, y, arguments = _data.prepare(self, x, y, arguments)
        with first.telling(), plain_errors():
            return super().evaluate(first.checked("x", x), y, **arguments)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Keras' `train_on_batch`, with the checks that `fit` has; `x` may also be a table."""
        x, y, sample_weight = self._check_batch(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Keras' `test_on_batch`, with the checks that `evaluate` has; `x` may also be a table."""
        refuse_generated("x", x)
        refuse_generated("y", y)
        x, y, sample_weight = self._check_batch(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict)

    def _check_batch(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any, Any]:
        self._require_compiled()
        x = self.scoring.table_of(x)
        if _data.is_table(x):
            return _data.encode_table(self, x, verbose=0)
        if isinstance(x, Mapping):
            self.scoring.checked("x", x)
            y = _data.labels_by_name(self, y)
            check_labels(self, y, whole=False)
        return x, y, weights
