"""What a model of the zoo is made of, and how it is named, configured, saved and loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo import _keras_private
from mtl_zoo.features.entities import EntityTable
from mtl_zoo.features.spec import Feature, features_from_config, features_to_config
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.heads import Head, Output
from mtl_zoo.models import _data, _extending, _saving
from mtl_zoo.models._adaptation import Adaptation
from mtl_zoo.models._corrections import Corrections
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._saving import PathLike
from mtl_zoo.options import Embedding
from mtl_zoo.serving import Scoring, export
from mtl_zoo.tasks import Task, fit_tasks, fitted_like, task_from_config

# Raised when a saved config changes in a way that older code would misread.
CONFIG_FORMAT = 2


class ConfiguredModel(_keras_private.CloneHook, keras.Model):
    """A functional model that knows its features, tasks and head, and can be made again from its config.

    Args:
        plan: The model's features, tasks and head.
        inputs: Dict of `keras.Input` by feature name.
        logits: Dict of tensors by output name.
        tower_units: Layer widths (or an `MLP`) of each tower.
        name: Keras name of the model. Default: that of the catalogue.
    """

    # The name in the catalogue, which `register_model` sets.
    model_name = ""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        known = inspect.signature(cls.__init__).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        unknown = [option for option in options if option not in known]
        if unknown and not anything:
            expected = [name for name in known if name not in ("self", "features", "tasks", "name")]
            raise TypeError(f"`{unknown[0]}` is not an argument of {cls.__name__}. Expected: one of {expected}")
        return super().__new__(cls, *arguments, **options)

    def __init__(self, plan: ModelPlan, inputs: Any, logits: Any, tower_units: Any, name: str | None) -> None:
        try:
            super().__init__(inputs=inputs, outputs=logits, name=name or self._default_name())
        except ValueError as error:
            taken = [name for name in inputs if f'"{name}" is used' in str(error)]
            if not taken:
                raise
            raise ValueError(
                f"`features` must not be named like a layer of the model. Received: {taken[0]!r}. Rename it, for "
                f"example to {taken[0] + '_'!r}; `column=` keeps the name of its column."
            ) from error
        self._plan = plan
        self.tower_units = tower_units
        self._scoring: Scoring | None = None
        self._corrections = Corrections()
        self._adaptation = Adaptation()
        # What the rows are known by that `fit` was last given: `calibrate` warns of them.
        self.trained_rows: str | None = None

    @classmethod
    def _default_name(cls) -> str | None:
        """The catalogue's name, numbered from the second on."""
        if not cls.model_name:
            return None
        number = keras.backend.get_uid(cls.model_name)
        return cls.model_name if number == 1 else f"{cls.model_name}_{number - 1}"

    @property
    def features(self) -> tuple[Feature, ...]:
        """The feature specs, in the order given."""
        return self._plan.features

    @property
    def transform(self) -> FeatureTransform | None:
        """The fitted `FeatureTransform` that the model was made with, or None."""
        return self._plan.transform

    def update_entities(self, entities: EntityTable | Sequence[EntityTable]) -> None:
        """Gives the model's transform other entity tables: what is known of items and users now. Nothing is trained.

        Tables that come from now on, `save`, new scorers and exports know the new entities; a scorer or a SavedModel
        that was made before keeps those that it was made with.

        Args:
            entities: New tables in place of those of the same names, see `FeatureTransform.with_entities`.

        Raises:
            ValueError: The model has no transform; what `FeatureTransform.with_entities` refuses.
        """
        if self.transform is None:
            raise ValueError(
                "`entities` need a transform that reads them. Received: a model made from feature specs, without one"
            )
        self.take_transform(self.transform.with_entities(entities))

    def take_transform(self, transform: FeatureTransform | None) -> None:
        """Gives the model a transform with the ids that its tables have rows for; a frozen copy of it stays."""
        self._plan.transform = None if transform is None else transform.frozen()
        self._scoring = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order given."""
        return self._plan.tasks

    @property
    def labelled_tasks(self) -> tuple[Task, ...]:
        """Those of the tasks that have a label and outputs."""
        return tuple(task for task in self.tasks if task.is_labelled)

    @property
    def head(self) -> Head:
        """What turns the towers into logits."""
        return self._plan.head

    @property
    def embedding(self) -> Embedding:
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

    def targets(self, labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
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
        self.forget_traces()

    def forget_traces(self) -> None:
        """What was traced knows the old units and corrections."""
        self.train_function = self.test_function = self.predict_function = self._scoring = None

    @property
    def corrections(self) -> Corrections:
        """What happens to logits before they become scores: sampling undone, calibrations."""
        return self._corrections

    def set_corrections(self, corrections: Corrections) -> None:
        """Gives the model other corrections of its scores; `fit(sampling=...)` and `calibrate` do."""
        self._corrections = corrections
        self.forget_traces()

    @property
    def adaptation(self) -> Adaptation:
        """What does not train, and the low-rank updates that train in its place; see `transfer`."""
        return self._adaptation

    def set_adaptation(self, adaptation: Adaptation) -> int:
        """Freezes parts of a model that was just made, as `transfer` does; how many kernels have low-rank updates."""
        self._adaptation = adaptation
        return adaptation.apply(self)

    def corrected(self, logits: Mapping[str, Any]) -> dict[str, Any]:
        """The logits that scores are made of, from those that the graph gives."""
        return self._corrections.apply(self.outputs_info, self.tasks, logits)

    @property
    def scoring(self) -> Scoring:
        """The one way from the model's inputs to its scores, which `predict` and exports take."""
        if self._scoring is None:
            self._scoring = Scoring(self)
        return self._scoring

    # Saving.

    def export(
        self,
        filepath: PathLike,
        format: str = "saved_model",
        *,
        raw: bool | None = None,
        overwrite: bool = False,
        **options: Any,
    ) -> dict[str, str]:
        """`mtl_zoo.export.export`: scores as a function of raw columns. Keras' own would give logits of encoded ids."""
        return export(self, filepath, format, raw=raw, overwrite=overwrite, **options)

    def save(self, filepath: PathLike, overwrite: bool = True, zipped: bool | None = None) -> None:
        """Keras' `save`; a file that was there stays whole until the new one takes its place.

        Args:
            filepath: Ends in `.keras`, or is a folder with `zipped=False`.
            overwrite: False refuses a file that exists. Default: True.
            zipped: Whether to write one file. Default: None, one file.

        Raises:
            ValueError: Another suffix, such as `.h5`; the file exists and `overwrite` is False.
        """
        _saving.save(super().save, filepath, overwrite, zipped)

    def save_weights(self, filepath: PathLike, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Keras' `save_weights`; a file that was there stays whole until the new one takes its place."""
        _saving.save_weights(super().save_weights, filepath, overwrite, max_shard_size)

    def get_config(self) -> dict[str, Any]:
        config = {
            "format": CONFIG_FORMAT,
            "name": self.name,
            "features": features_to_config(self.features),
            "tasks": [task.get_config() for task in self.tasks],
            "dtype": keras.saving.serialize_keras_object(keras.dtype_policies.get(self.dtype_policy)),
        }
        for argument in self._hyperparameters():
            value = self._plan.given_head if argument == "head" else getattr(self, argument)
            config[argument] = keras.saving.serialize_keras_object(_untracked(value))
        if self._adaptation:
            config["adaptation"] = self._adaptation.get_config()
        return {**config, "corrections": self._corrections.get_config()} if self._corrections else config

    @classmethod
    def _hyperparameters(cls) -> list[str]:
        return [p for p in inspect.signature(cls).parameters if p not in ("features", "tasks", "name")]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        saved = config.pop("format", 0)
        if saved > CONFIG_FORMAT:
            raise ValueError(
                f"The model file has format {saved}, written by a newer mtl_zoo; this version reads up to "
                f"{CONFIG_FORMAT}. Upgrade mtl_zoo to load it."
            )
        features = features_from_config(config.pop("features"))
        tasks = [task_from_config(task) for task in config.pop("tasks")]
        name, corrections = config.pop("name", None), Corrections.from_config(config.pop("corrections", None))
        adaptation = Adaptation.from_config(config.pop("adaptation", None))
        policy = keras.saving.deserialize_keras_object(config.pop("dtype"))
        config = {argument: keras.saving.deserialize_keras_object(value) for argument, value in config.items()}
        config = cls.upgrade_arguments(config, saved)
        current = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            make: Any = cls  # a model of the catalogue, whose arguments are its own
            made = make(features, tasks, name=name, **config)
            made.set_corrections(corrections)
            made.set_adaptation(adaptation)
            return made
        finally:
            keras.config.set_dtype_policy(current)

    @classmethod
    def upgrade_arguments(cls, arguments: dict[str, Any], saved: int) -> dict[str, Any]:
        """The arguments with which a file of the format `saved` is the model that it was. By default they stay."""
        return arguments

    def save_assets(self, folder: str) -> None:
        if self.transform is not None:
            _data.save_transform(self.transform, folder)

    def load_assets(self, folder: str) -> None:
        self.take_transform(_data.load_transform(folder))

    # What Keras offers for any model, and ours must refuse or do otherwise.

    def clone(self) -> Any:
        """A model of the same class, arguments, features and transform, with weights of its own and not trained.

        If this one is compiled, the clone is, in the same way.
        """
        made = self.remade()
        made.set_corrections(Corrections())  # they were of weights that it does not have
        if self.compiled:
            made.compile_from_config(self.get_compile_config())
        return made

    def extended(self, transform: FeatureTransform, rows: str = "initializer") -> Any:
        """A new model that goes on with a transform which knows more ids; this one stays as it is.

        It has the same class, arguments, weights and corrections of scores and, if this one is compiled, the same
        losses, balancing method and optimizer, with their state. Tables have more rows: those of ids that were there
        are the same bit by bit, and so are their slots (moments) in the optimizer, so scores of rows without new values
        are the same. Scorers and exports that were made of this model keep serving it; make them anew, or hand a scorer
        the new model (`Scorer.take_over`).

        Args:
            transform: What `extend` made of this model's transform, once or several times.
            rows: Where the rows of new ids start, those of reused ids too: `"initializer"`, as in a new model;
                `"mean"` of the rows of the values that were known; `"unknown"`, the row of unknown values, by which
                they were scored until now. Their slots start as in a new optimizer.

        Raises:
            ValueError: The model has no transform; `transform` gives a value that the model knows another id (it was
                fitted again), or has other features or tasks; weights outside of tables depend on the number of ids;
                its tables are int8.

        Example:

        >>> import pandas as pd
        >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
        >>> monday = FeatureTransform(Categorical("item"), BinaryTask("click")).fit({"item": [1, 2], "click": [0, 1]})
        >>> model = SharedBottom(monday, bottom_units=(4,))
        >>> tuesday = model.extended(model.transform.extend({"item": [2, 3]}), rows="mean")
        >>> [m.features[0].num_ids for m in (model, tuesday)]
        [4, 5]
        >>> x = pd.DataFrame({"item": [1, 2]})
        >>> bool((model.predict(x, verbose=0)["click"] == tuesday.predict(x, verbose=0)["click"]).all())
        True
        """
        return _extending.extended(self, transform, rows)

    def remade(self, **arguments: Any) -> Any:
        """A model like this one with some of its arguments changed: not compiled, with weights of its own.

        What a model on a backbone has no argument for is its backbone's.
        """
        inner = {name: value for name, value in arguments.items() if name not in self._hyperparameters()}
        if inner:
            options = _untracked(getattr(self, "backbone_options", None)) or {}
            arguments = {name: value for name, value in arguments.items() if name not in inner}
            arguments["backbone_options"] = {**options, **inner}
        changed = {name: keras.saving.serialize_keras_object(value) for name, value in arguments.items()}
        made = type(self).from_config({**self.get_config(), **changed})
        made._plan.transform = self.transform
        return made

    def refuse_clone(self) -> None:
        raise ValueError(
            "`model` must be cloned by `model.clone()`: keras.models.clone_model would give a plain model of Keras, "
            f"without features, tasks and transform. Received: a {type(self).__name__}"
        )

    def quantize(self, mode: Any = None, config: Any = None, filters: Any = None, **options: Any) -> None:
        """Refused: Keras would quantize its own Dense layers, and neither tables nor experts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "`quantize` must not be called on a model of the zoo: Keras leaves embedding tables and experts, which are "
            "most of the weights, as they are. `mtl_zoo.export.quantize(model)` makes a model with int8 tables. "
            f"Received: mode={mode!r}, config={config!r}, filters={filters!r}, {options}"
        )


def _untracked(value: Any) -> Any:
    """Keras wraps lists and dicts it tracks; the config holds what the user gave."""
    if isinstance(value, list | tuple):
        return tuple(_untracked(v) for v in value)
    if isinstance(value, dict):
        return {k: _untracked(v) for k, v in value.items()}
    return value
