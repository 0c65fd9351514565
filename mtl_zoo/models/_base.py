"""What every model of the zoo is: a class round a functional Keras graph that knows its features, tasks and head."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _allocator, _backend, _distribute, _keras_private
from mtl_zoo.balancing import Balancing, as_balancing
from mtl_zoo.features._plain_errors import plain_errors
from mtl_zoo.features.spec import features_from_config, features_to_config
from mtl_zoo.heads import Output, RowLosses
from mtl_zoo.heads._base import row_weight
from mtl_zoo.losses import Batch
from mtl_zoo.models import _compile, _data, _predict, _resume, _saving
from mtl_zoo.models._first_batch import FirstBatch
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.optimizers import as_optimizer
from mtl_zoo.serving import Scoring, export
from mtl_zoo.steps import Outcome, Step, as_step
from mtl_zoo.tasks import fit_tasks, fitted_like, label_names, task_from_config

# Raised when a saved config changes in a way that older code would misread.
CONFIG_FORMAT = 1


class MultiTaskModel(_keras_private.DistributedHooks, keras.Model):
    """Base of the zoo's models.

    The graph gives a dict of logits by output name; `predict` gives scores (a logit through its task's link), and so
    do metrics and exports. Everything else is Keras: `summary`, `fit`, `evaluate`, `save`, `get_layer`.

    A subclass builds its graph from a `ModelPlan` and hands over the tensors that its towers read:

        plan = ModelPlan(features, tasks, head)
        inputs = make_inputs(plan.features)
        ...
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)

    and keeps each argument as an attribute of the same name, which makes its config.

    Args:
        plan: The model's features, tasks and head.
        inputs: Dict of `keras.Input` by feature name.
        towers: Dict of (batch, width) tensors by tower name, from which the head makes the logits.
        logits: In place of `towers`, the dict of logits of a graph that has its head already.
        tower_units: Layer widths (or an `MLP`) of each tower.
        name: Keras name of the model.
    """

    independent_tasks = False

    def __init__(self, plan: ModelPlan, inputs, towers=None, *, logits=None, tower_units, name=None):
        if logits is None:
            logits = plan.head.logits(plan.tasks, towers, tower_units)
        super().__init__(inputs=inputs, outputs=logits, name=name)
        self._plan = plan
        self.tower_units = tower_units
        self._training_setup = None
        self._balancing = None
        self._step, self._given_step = as_step(None), None
        self._scoring: Scoring | None = None

    # What the model is made for.

    @property
    def features(self):
        """The feature specs, in the order given."""
        return self._plan.features

    @property
    def transform(self):
        """The fitted `FeatureTransform` that the model was made with, or None."""
        return self._plan.transform

    @property
    def tasks(self):
        """The tasks, in the order given."""
        return self._plan.tasks

    @property
    def head(self):
        return self._plan.head

    @property
    def embedding(self):
        """The `Embedding` options: how features become the vector that the model reads."""
        return self._plan.embedding

    @property
    def outputs_info(self) -> tuple[Output, ...]:
        """The outputs: name, task, and the rows that each is measured on."""
        return self._plan.outputs

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The names that `loss` and `loss_weights` accept."""
        return tuple(self.head.losses(self.tasks))

    def targets(self, labels):
        """Labels and observed rows of every output, `{name: (y (batch,), 0 or 1 (batch,))}`, from a dict of labels."""
        return self.head.targets(self.tasks, labels)

    def task_variables(self, output: str) -> list:
        """The weights that this output alone depends on: its tower, and whatever else is not shared.

        Moving statistics of normalisations are among them.
        """
        if output not in self.output:
            raise ValueError(
                f"`output` must be an output. Received: {output!r}. Expected: one of {sorted(self.output)}"
            )
        reached = {name: keras.Model(self.input, logits).weights for name, logits in self.output.items()}
        shared = {id(v) for name, variables in reached.items() if name != output for v in variables}
        return [v for v in reached[output] if id(v) not in shared]

    def fit_tasks(self, labels: Mapping[str, Any]) -> None:
        """Lets tasks that have not yet learned from training labels, such as their moments, learn from these."""
        if all(task.is_fitted for task in self.tasks):
            return
        fitted = fit_tasks([task for task in self.tasks if not task.is_fitted], labels)
        self._plan.tasks = fitted_like(self.tasks, fitted)
        self._plan.outputs = self.head.outputs(self.tasks)
        # What was traced knows the old unit.
        self.train_function = self.test_function = self.predict_function = self._scoring = None

    # The graph.

    def call(self, inputs, training=None, mask=None):
        inputs = self.select_inputs(inputs) if isinstance(inputs, dict) else inputs
        return super().call(inputs, training=training, mask=mask)

    def select_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the model's features; there may be others beside them.

        Raises:
            ValueError: A feature is missing.
        """
        _data.check_input_names(self, inputs)
        # Keras pairs a dict's values with the inputs in sorted order: an extra key would shift them.
        return {name: inputs[name] for name in self.input}

    # Training.

    def compile(
        self,
        optimizer="adam",
        loss="auto",
        loss_weights=None,
        metrics="auto",
        *,
        balancing=None,
        step=None,
        steps_per_execution=1,
        run_eagerly=False,
        jit_compile=None,
        auto_scale_loss=True,
    ):
        """Configures training. Losses, weights and metrics come from the tasks unless given.

        Args:
            optimizer: Name of an optimizer of Keras or `mtl_zoo.optimizers`, or one; `"auto"` for `LazyAdam()`, which
                touches only the rows of the batch; or `{"embeddings": ..., "dense": ...}` with a name, an optimizer or
                a learning rate each (see `SplitOptimizer`).
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
            super().compile(
                optimizer=optimizer,
                steps_per_execution=steps_per_execution,
                run_eagerly=run_eagerly,
                jit_compile=jit_compile,
                auto_scale_loss=auto_scale_loss,
            )
        self._keras_arguments = {
            "steps_per_execution": steps_per_execution,
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }

    @property
    def balancing(self) -> Balancing | None:
        """The balancing method that the model was compiled with, or None."""
        return self._balancing

    @property
    def training_step(self) -> Step:
        """The training step that the model was compiled with."""
        return self._step

    def _set_balancing(self, balancing: Any, step: Any) -> None:
        method = as_balancing(balancing)
        before, chosen = self._balancing, as_step(step, method)
        chosen.check(self, method)
        if method is not None:
            kinds = tuple(output.kind for output in self.head.losses(self.tasks).values())
            method.prepare_for(self, label_names(self.tasks), kinds)
        if before is not None:
            _keras_private.forget_layer(self, before)
        self._balancing, self._step, self._given_step = method, chosen, step

    def get_compile_config(self):
        if self._training_setup is None:
            return {}
        serialize = keras.saving.serialize_keras_object
        balancing = None if self._balancing is None else serialize(self._balancing)
        own = {"optimizer": serialize(self.optimizer), "balancing": balancing}
        if self._given_step is not None:
            own["step"] = serialize(self._given_step)
        return {**own, **self._training_setup.get_config(), **self._keras_arguments}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(dict(config)))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        own = [] if self._training_setup is None else self._training_setup.all_metrics()
        return [*super().metrics, *own]

    def row_losses(self, batch: Batch, logits: Mapping[str, Any]) -> RowLosses:
        """The batch's labels, cleaned, and every loss by row: what the objective and the metrics are made of."""
        setup = self._require_compiled()
        batch = dataclasses.replace(batch, labels=_data.labels_by_name(self, batch.labels))
        return self.head.row_losses(self.tasks, batch, logits, setup.loss_functions)

    def weigh_losses(self, rows: RowLosses) -> list[Any]:
        """The losses times their weights, in the order of `loss_names`: what balancing methods see."""
        setup = self._require_compiled()
        return [setup.loss_weights[name] * loss for name, loss in rows.means().items()]

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
        return self.outcome_of(Batch(x, y, sample_weight), y_pred, training).loss

    def outcome_of(self, batch: Batch, logits: Mapping[str, Any], training: bool = True) -> Outcome:
        """The loss of a batch, from its logits, with what it is made of."""
        rows = self.row_losses(batch, logits)
        loss = self.objective(self.weigh_losses(rows), self.other_losses(batch, logits), training)
        return Outcome(loss, logits, rows)

    def train_step(self, *arguments: Any) -> Any:
        """Takes the training step that the model was compiled with, and gives the logs; elsewhere Keras' own."""
        if not _backend.is_tensorflow():
            return super().train_step(*arguments)
        batch = Batch.of(*arguments)
        return self.log_step(batch, self.training_step.run(self, batch))

    def test_step(self, *arguments: Any) -> Any:
        if not _backend.is_tensorflow():
            return super().test_step(*arguments)
        batch = Batch.of(*arguments)
        logits = self(batch.inputs, training=False)
        return self.log_step(batch, self.outcome_of(batch, logits, training=False))

    def log_step(self, batch: Batch, outcome: Outcome) -> dict[str, Any]:
        """Enters a batch into the loss and metrics of the logs, and gives their values so far."""
        _distribute.track_loss(self, outcome.loss, batch.inputs)
        return self.update_metrics(batch, outcome.logits, outcome.rows)

    def make_train_function(self, force=False):
        if not _distribute.is_distributed(self):
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = _distribute.step_function(self, self.train_step, training=True)
        return self.train_function

    def make_test_function(self, force=False):
        if not _distribute.is_distributed(self):
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = _distribute.step_function(self, self.test_step, training=False)
        return self.test_function

    def prepare_distributed(self):
        """Keras' trainer asks for what it needs before the first batch; true under a tf.distribute strategy."""
        if _distribute.is_distributed(self):
            _distribute.build(self)
            return True
        return False

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        batch = Batch(x, y, sample_weight)
        return self.update_metrics(batch, y_pred, self.row_losses(batch, y_pred))

    def update_metrics(self, batch: Batch, logits: Mapping[str, Any], rows: RowLosses) -> dict[str, Any]:
        """Enters a batch into the losses and metrics of the logs; `rows` are its `row_losses`."""
        setup = self._require_compiled()
        for name, (values, weights) in rows.rows.items():
            setup.loss_trackers[name].update_state(values, sample_weight=weights)
        for output in self.outputs_info:
            if setup.metrics[output.name]:
                y, counts = rows.targets[output.name]
                weights = counts * row_weight(batch.weights, output.task)
                scores = output.scores(logits[output.name])
                for metric in setup.metrics[output.name]:
                    metric.update_state(y[:, None], scores, sample_weight=weights)
        return self.get_metrics_result()

    def _require_compiled(self):
        if self._training_setup is None:
            raise ValueError("`compile()` must be called before a model is trained or evaluated.")
        return self._training_setup

    def fit(self, x=None, y=None, **arguments):
        """Keras' `fit`; `x` may also be a `TableStream`, or a table (pandas, pyarrow) if the model has a transform.

        Tables, arrays and streams default to batches of 1024 rows. Arrays are checked first, those of
        `validation_data` too: missing inputs or labels, ids outside of their tables, labels that are none of their
        task's, tasks without an observed label, weights; of a `tf.data.Dataset` the first batch's inputs. A dict of raw
        columns is read as a table where it can be nothing else. A loss that turns NaN or infinite stops training with
        an error that names it, the epoch and the step; illegal labels and weights of a `tf.data.Dataset` make it so.

        `class_weight` holds a dict of weights by class for each task; rows then weigh that much more, in metrics too.
        Of Keras' callbacks, those that monitor a metric of a task know whether more of it is better.

        Raises:
            ValueError: What the checks found.
            FloatingPointError: A loss is not finite any more.
        """
        self._require_compiled()
        if _backend.is_tensorflow():
            _allocator.keep_by_default()
        x, first = self.scoring.table_of(x), FirstBatch(self)
        run = _resume.Run(self, x, y, arguments)
        with run.at_end, first.telling():
            x = first.checked("x", x)
            x, y, arguments = _data.prepare_fit(self, x, y, arguments, run)
            arguments["callbacks"] = _data.with_own_callbacks(self, arguments.get("callbacks"), run)
            with run.started(self, x), plain_errors():
                return super().fit(x, y, **arguments)

    def evaluate(self, x=None, y=None, **arguments):
        """Keras' `evaluate`; `x` may also be a table or a stream. For exact metrics by task see `mtl_zoo.evaluate`."""
        self._require_compiled()
        first = FirstBatch(self)
        x, y, arguments = _data.prepare(self, self.scoring.table_of(x), y, arguments)
        with first.telling(), plain_errors():
            return super().evaluate(first.checked("x", x), y, **arguments)

    # Scores.

    @property
    def scoring(self) -> Scoring:
        """The one way from the model's inputs to its scores, which `predict` and exports take."""
        if self._scoring is None:
            self._scoring = Scoring(self)
        return self._scoring

    def predict(self, x, **arguments) -> dict[str, np.ndarray]:
        """Scores by output, (rows, units) float32 in the order of the rows.

        On TensorFlow, arrays and tables go batch by batch through a function that is traced once for any number of
        rows, and a table is encoded piece by piece. Several replicas, eager mode and what else Keras takes (a
        `tf.data.Dataset`, a generator) are left to Keras' `predict`. Of several workers, which must all give the same
        `x`, each scores its part and has the scores of all.

        Args:
            x: A dict of arrays, a table if the model was made with a transform, or a `tf.data.Dataset`. Ids outside of
                their tables are refused. A dict of raw columns is read as a table where it can be nothing else.
            arguments: Those of Keras' `predict`; `batch_size` defaults to 4096 for arrays and tables. Callbacks see
                each batch's logits.
        """
        x = self.scoring.table_of(x)
        if _distribute.is_multi_worker(self):
            return _predict.predict_by_worker(self, x, **arguments)
        if _predict.takes(self, x):
            return _predict.predict_rows(self, x, **arguments)
        x, arguments = _predict.prepare(self, x, arguments)
        first = FirstBatch(self)
        with first.telling(), plain_errors():
            return self._as_scores(super().predict(first.checked("x", x), **arguments))

    def predict_on_batch(self, x) -> dict[str, np.ndarray]:
        """Scores of one batch, by output."""
        return self._as_scores(super().predict_on_batch(self.scoring.checked("x", x)))

    def _as_scores(self, logits: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: ops.convert_to_numpy(scores) for name, scores in self.scoring.scores_of(logits).items()}

    # Saving.

    def export(self, filepath, format="saved_model", *, raw=None, overwrite=False) -> dict[str, str]:
        """`mtl_zoo.export.export`: scores as a function of raw columns. Keras' own would give logits of encoded ids."""
        return export(self, filepath, format, raw=raw, overwrite=overwrite)

    def save(self, filepath, overwrite=True, zipped=None) -> None:
        """Keras' `save`; a file that was there stays whole until the new one takes its place.

        Args:
            filepath: Ends in `.keras`, or is a folder with `zipped=False`.
            overwrite: False refuses a file that exists. Default: True.
            zipped: Whether to write one file. Default: None, one file.

        Raises:
            ValueError: Another suffix, such as `.h5`; the file exists and `overwrite` is False.
        """
        _saving.save(super().save, filepath, overwrite, zipped)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None) -> None:
        """Keras' `save_weights`; a file that was there stays whole until the new one takes its place."""
        _saving.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def get_config(self):
        config = {
            "format": CONFIG_FORMAT,
            "name": self.name,
            "features": features_to_config(self.features),
            "tasks": [task.get_config() for task in self.tasks],
            "dtype": keras.saving.serialize_keras_object(keras.dtype_policies.get(self.dtype_policy)),
        }
        for argument in self._hyperparameters():
            value = self.head if argument == "head" else getattr(self, argument)
            config[argument] = keras.saving.serialize_keras_object(_untracked(value))
        return config

    @classmethod
    def _hyperparameters(cls):
        return [p for p in inspect.signature(cls).parameters if p not in ("features", "tasks", "name")]

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        saved = config.pop("format", 0)
        if saved > CONFIG_FORMAT:
            raise ValueError(
                f"The model file has format {saved}, written by a newer mtl_zoo; this version reads up to "
                f"{CONFIG_FORMAT}. Upgrade mtl_zoo to load it."
            )
        features = features_from_config(config.pop("features"))
        tasks = [task_from_config(task) for task in config.pop("tasks")]
        name = config.pop("name", None)
        policy = keras.saving.deserialize_keras_object(config.pop("dtype"))
        config = {argument: keras.saving.deserialize_keras_object(value) for argument, value in config.items()}
        current = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return cls(features, tasks, name=name, **config)
        finally:
            keras.config.set_dtype_policy(current)

    def save_assets(self, folder):
        if self.transform is not None:
            _data.save_transform(self.transform, folder)

    def load_assets(self, folder):
        transform = _data.load_transform(folder)
        self._plan.transform = None if transform is None else transform.frozen()
        self._scoring = None


def _untracked(value):
    """Keras wraps lists and dicts it tracks; the config holds what the user gave."""
    if isinstance(value, list | tuple):
        return tuple(_untracked(v) for v in value)
    if isinstance(value, dict):
        return {k: _untracked(v) for k, v in value.items()}
    return value
