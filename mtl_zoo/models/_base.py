"""What every model of the zoo is: a class round a functional Keras graph that knows its features, tasks and head."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _allocator, _backend, _distribute, _keras_private
from mtl_zoo.balancing import LossBalancing, as_balancing
from mtl_zoo.balancing._cut import current_crossing
from mtl_zoo.balancing._facts import prepare_for
from mtl_zoo.balancing._step import balanced_train_step, reevaluating_train_step
from mtl_zoo.features._plain_errors import plain_errors
from mtl_zoo.features.serialization import features_from_config, features_to_config
from mtl_zoo.heads import Output
from mtl_zoo.heads._base import row_weight
from mtl_zoo.models import _compile, _data, _predict, _resume
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.optimizers import as_optimizer
from mtl_zoo.tasks import label_names, task_from_config

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
        self._row_function = None  # made by the first `predict`

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

    # The graph.

    def call(self, inputs, training=None, mask=None):
        if isinstance(inputs, dict):
            _data.check_input_names(self, inputs)
            # Keras pairs a dict's values with the inputs in sorted order: an extra key would shift them.
            inputs = {feature.name: inputs[feature.name] for feature in self.features}
        crossing = current_crossing()
        if crossing is not None:
            return crossing.cut.run(self, inputs, crossing)
        return super().call(inputs, training=training, mask=mask)

    # Training.

    def compile(
        self,
        optimizer="adam",
        loss="auto",
        loss_weights=None,
        metrics="auto",
        *,
        balancing=None,
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
            self._set_balancing(balancing)
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
    def balancing(self):
        """The balancing method that the model was compiled with, or None."""
        return self._balancing

    def _set_balancing(self, balancing):
        method = as_balancing(balancing)
        if method is not None:
            _compile.check_balancing(method)
            kinds = tuple(output.kind for output in self.head.losses(self.tasks).values())
            prepare_for(method, self, kinds, label_names(self.tasks))
        if self._balancing is not None:
            _keras_private.forget_layer(self, self._balancing)
        self._balancing = method

    def get_compile_config(self):
        if self._training_setup is None:
            return {}
        serialize = keras.saving.serialize_keras_object
        balancing = None if self._balancing is None else serialize(self._balancing)
        own = {"optimizer": serialize(self.optimizer), "balancing": balancing}
        return {**own, **self._training_setup.get_config(), **self._keras_arguments}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(dict(config)))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        own = [] if self._training_setup is None else self._training_setup.all_metrics()
        return [*super().metrics, *own]

    def task_losses(self, labels, logits, weights=None) -> dict[str, Any]:
        """Every loss by name, unweighted: a scalar over the observed rows of the global batch."""
        setup = self._require_compiled()
        return self.head.task_losses(self.tasks, labels, logits, weights, setup.loss_functions)

    def loss_parts(self, labels, logits, weights=None):
        """The losses times their weights, in the order of `loss_names`, and the sum of what belongs to no task.

        The latter are the head's penalties, and the regularisers and penalties that layers added.
        """
        labels = _data.labels_by_name(self, labels)
        losses = self.weighted_losses(labels, logits, weights)
        rest = sum(self.head.penalties(self.tasks, labels, logits, weights).values())
        # Keras' own part, without a compiled loss, is the sum of what layers added, scaled for distribution.
        rest = rest + super().compute_loss() if self.losses else rest
        return losses, rest

    def weighted_losses(self, labels, logits, weights=None) -> list:
        """The losses times their weights, in the order of `loss_names`: what balancing methods see."""
        setup = self._require_compiled()
        losses = self.task_losses(_data.labels_by_name(self, labels), logits, weights)
        return [setup.loss_weights[name] * loss for name, loss in losses.items()]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum of `task_losses`, balanced in training, plus what belongs to no task."""
        del x
        losses, rest = self.loss_parts(y, y_pred, sample_weight)
        if training and isinstance(self.balancing, LossBalancing):
            return self.balancing.objective(ops.stack(losses)) + rest
        return sum(losses) + rest

    def train_step(self, *arguments):
        """Keras' step, or that of a method that needs more of a batch than one pass."""
        if self.balancing is not None and self.balancing.own_step:
            return balanced_train_step(self, *arguments)
        if isinstance(self.balancing, LossBalancing) and self.balancing.reevaluates:
            return reevaluating_train_step(self, self._plain_train_step, *arguments)
        return self._plain_train_step(*arguments)

    def _plain_train_step(self, *arguments):
        if _distribute.is_distributed(self):
            return _distribute.train_step(self, *arguments)
        return super().train_step(*arguments)

    def test_step(self, *arguments):
        if _distribute.is_distributed(self):
            return _distribute.test_step(self, *arguments)
        return super().test_step(*arguments)

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

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        del x
        with _distribute.metric_updates():
            return self._update_metrics(y, y_pred, sample_weight)

    def _update_metrics(self, y, y_pred, sample_weight):
        setup = self._require_compiled()
        labels = _data.labels_by_name(self, y)
        rows = self.head.loss_rows(self.tasks, labels, y_pred, sample_weight, setup.loss_functions)
        for name, (values, weights) in rows.items():
            setup.loss_trackers[name].update_state(values, sample_weight=weights)
        targets = self.targets(labels)
        for output in self.outputs_info:
            if setup.metrics[output.name]:
                labels_of_output, counts = targets[output.name]
                weights = counts * row_weight(sample_weight, output.task)
                scores = output.scores(y_pred[output.name])
                for metric in setup.metrics[output.name]:
                    metric.update_state(labels_of_output[:, None], scores, sample_weight=weights)
        return self.get_metrics_result()

    def _require_compiled(self):
        if self._training_setup is None:
            raise ValueError("`compile()` must be called before a model is trained or evaluated.")
        return self._training_setup

    def fit(self, x=None, y=None, **arguments):
        """Keras' `fit`; `x` may also be a table (pandas, pyarrow) if the model was made with a transform.

        Tables and arrays default to batches of 1024 rows. Arrays are checked first: missing inputs or labels, labels
        outside {0, 1}, tasks without an observed label. A loss that turns NaN or infinite stops training with an
        error that names it, the epoch and the step.

        Raises:
            ValueError: What the checks found.
            FloatingPointError: A loss is not finite any more.
        """
        self._require_compiled()
        if _backend.is_tensorflow():
            _allocator.keep_by_default()
        run = _resume.Run(self, x, y, arguments)
        with run.at_end:
            x, y, arguments = _data.prepare_fit(self, x, y, arguments, run)
            arguments["callbacks"] = _data.with_own_callbacks(self, arguments.get("callbacks"), run)
            with run.started(self, x), plain_errors():
                return super().fit(x, y, **arguments)

    def evaluate(self, x=None, y=None, **arguments):
        """Keras' `evaluate`; `x` may also be a table. For exact metrics by task see `mtl_zoo.evaluate`."""
        self._require_compiled()
        x, y, arguments = _data.prepare(self, x, y, arguments)
        with plain_errors():
            return super().evaluate(x, y, **arguments)

    def predict(self, x, **arguments) -> dict[str, np.ndarray]:
        """Scores by output, (rows, units) float32 in the order of the rows.

        On TensorFlow, arrays and tables go batch by batch through a function that is traced once for any number of
        rows, and a table is encoded piece by piece. Several replicas, eager mode and what else Keras takes (a
        `tf.data.Dataset`, a generator) are left to Keras' `predict`. Of several workers, which must all give the same
        `x`, each scores its part and has the scores of all.

        Args:
            x: A dict of arrays, a table if the model was made with a transform, or a `tf.data.Dataset`.
            arguments: Those of Keras' `predict`; `batch_size` defaults to 4096 for arrays and tables. Callbacks see
                each batch's logits.
        """
        if _distribute.is_multi_worker(self):
            return _predict.predict_by_worker(self, x, **arguments)
        if _predict.takes(self, x):
            return _predict.predict_rows(self, x, **arguments)
        x, arguments = _data.prepare_predict(self, x, arguments)
        with plain_errors():
            return self._as_scores(super().predict(x, **arguments))

    def predict_on_batch(self, x):
        """Scores of one batch, by output."""
        return self._as_scores(super().predict_on_batch(x))

    def _as_scores(self, logits):
        return {o.name: keras.ops.convert_to_numpy(o.scores(logits[o.name])) for o in self.outputs_info}

    # Saving.

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
        self._plan.transform = _data.load_transform(folder)


def _untracked(value):
    """Keras wraps lists and dicts it tracks; the config holds what the user gave."""
    if isinstance(value, list | tuple):
        return tuple(_untracked(v) for v in value)
    if isinstance(value, dict):
        return {k: _untracked(v) for k, v in value.items()}
    return value
