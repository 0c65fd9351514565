"""Scores of a model that first adapts to a few rows of the user at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._files import refuse_other_content, whole_folder
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.losses import Batch
from mtl_zoo.models import MultiTaskModel
from mtl_zoo.serving import Scoring
from mtl_zoo.steps.episodes import ADAPTS, EpisodeStep, adapt, adapted_variables, call_with
from mtl_zoo.tasks import label_names


class FewShotScorer:
    """From a user's labelled rows and candidates to the candidates' scores, with weights adapted to those rows.

        theta_u = theta - rate * d L(support; theta) / d theta                       (`inner_steps` times)
        scores = f(candidates; theta_u)

    The model keeps its weights. Without support rows the scores are the model's own. What adapts, and how, is by
    default what the model was trained with: the options of its step `"maml"` or `"reptile"`. For a model that was
    trained otherwise the same is plain fine-tuning. Support rows are all of a user's, also for a model that was trained
    with `fit(sampling=...)`. Calibrations map the scores after it. TensorFlow only.

    Args:
        model: A compiled model of the zoo: its losses are what it adapts by.
        inner_rate: Step size. Default: None, the training step's own.
        inner_steps: How many. Default: None, the training step's own.
        adapts: `"dense"` or `"towers"`, see `MAML`. Default: None, the training step's own.

    Raises:
        ValueError: A model that is not compiled; an option that is None for a model with another training step.
        TypeError: `model` is no model of the zoo.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.export import FewShotScorer
    >>> model = create_model("shared_bottom", [Numeric("price")], [BinaryTask("click")])
    >>> model.compile("adam", step="maml")
    >>> scorer = FewShotScorer(model)
    >>> seen, clicks = {"price": np.ones(2)}, {"click": np.array([1, 0])}
    >>> scorer({"price": np.zeros(3)}, seen, clicks)["click"].shape
    (3, 1)
    """

    def __init__(
        self,
        model: Any,
        inner_rate: float | None = None,
        inner_steps: int | None = None,
        adapts: str | None = None,
    ) -> None:
        if not isinstance(model, MultiTaskModel):
            raise TypeError(f"`model` must be a model of the zoo. Received: {type(model).__name__}")
        if not _backend.is_tensorflow():
            raise ValueError("`FewShotScorer` needs the TensorFlow backend.")
        if not model.compiled:
            raise ValueError("`model` must be compiled: its losses are what it adapts by. Received: one that is not")
        step = model.training_step
        given = {"inner_rate": inner_rate, "inner_steps": inner_steps, "adapts": adapts}
        missing = [name for name, value in given.items() if value is None]
        if missing and not isinstance(step, EpisodeStep):
            raise ValueError(
                f"`{missing[0]}` must be given for a model whose training step does not adapt. Received: "
                f"{missing[0]}=None, step={step.step_name!r}"
            )
        found = {name: getattr(step, name) if value is None else value for name, value in given.items()}
        self.model = model
        self.inner_rate = check.check_number("inner_rate", found["inner_rate"], minimum=0)
        self.inner_steps = check.check_count("inner_steps", found["inner_steps"])
        self.adapts = check.check_choice("adapts", found["adapts"], ADAPTS)
        self._variables = adapted_variables(model, self.adapts)
        self._compiled: tuple[Any, Any] = (None, None)

    def __call__(self, candidates: Any, support: Any = None, labels: Any = None) -> dict[str, np.ndarray]:
        """Scores of the candidates, (rows, units) float32 by output.

        Args:
            candidates: A table, if the model has a transform, or a dict of arrays by feature.
            support: The user's rows, in the same form; a table holds their labels too. Default: None, no rows.
            labels: For arrays, a dict of labels by task; NaN where not observed.

        Raises:
            ValueError: What `predict` and `fit` refuse of such rows; labels beside a table, or none beside arrays.
        """
        import tensorflow as tf

        x = self._inputs("candidates", candidates)
        if support is None:
            support, labels = {name: array[:0] for name, array in x.items()}, self._no_labels()
        else:
            support, labels = self._rows(support, labels)
        as_tensors = [{n: tf.constant(a) for n, a in part.items()} for part in (support, labels, x)]
        return {name: scores.numpy() for name, scores in self._function()(*as_tensors).items()}

    def export(self, path: str | os.PathLike[str], overwrite: bool = False) -> dict[str, str]:
        """Writes it as a SavedModel that needs TensorFlow alone, and reads it back before it takes its place.

        Its function `score(candidates, support, labels)` takes dicts of tensors; its signature takes their columns one
        by one, as `candidates_<column>`, `support_<column>` and `label_<task>`. Columns are those of a table if the
        model has a transform, or else the model's inputs. No support rows are tensors of no rows.

        Args:
            path: The folder to write; whole or not at all.
            overwrite: Replace a SavedModel that is there. Default: False.

        Returns:
            The name in the signature by column: `"candidates.city"`, `"support.city"`, `"label.click"`.

        Raises:
            ValueError: The folder holds something.
            RuntimeError: What was written gives other scores.
        """
        import tensorflow as tf

        from mtl_zoo.serving.formats.saved_model import input_names

        folder = Path(path).absolute()
        marker, what = "saved_model.pb", "a SavedModel"
        refuse_other_content("path", folder, marker, what)
        if (folder / marker).exists() and not overwrite:
            raise ValueError(f"`path` holds {what}; overwrite=True replaces it. Received: path={str(folder)!r}")
        scoring = Scoring(self.model, raw=self.model.transform is not None)
        columns = scoring.signature()
        labels = self._label_specs()

        def score(candidates: Any, support: Any, labels: Any) -> Any:
            return self._scores(scoring.encode(support), labels, scoring.encode(candidates))

        specs = {"candidates": columns, "support": columns, "label": labels}
        flat = {f"{part}.{name}": spec for part, given in specs.items() for name, spec in given.items()}
        names = input_names(flat)
        module = tf.Module(name=self.model.name)
        module.score = tf.function(score, autograph=False)
        whole = module.score.get_concrete_function(columns, columns, labels)

        def of_inputs(**given: Any) -> Any:
            parts = {part: {n: given[names[f"{part}.{n}"]] for n in of} for part, of in specs.items()}
            return module.score(parts["candidates"], parts["support"], parts["label"])

        signature = {names[name]: tf.TensorSpec(spec.shape, spec.dtype, names[name]) for name, spec in flat.items()}
        served = tf.function(of_inputs, autograph=False).get_concrete_function(**signature)
        module.weights, module.tables = list(whole.variables), scoring.lookup_tables()
        with whole_folder(folder) as part:
            tf.saved_model.save(module, str(part), signatures={"serving_default": served})
            self._compare(tf.saved_model.load(str(part)), score, scoring)
        return names

    def _compare(self, loaded: Any, score: Any, scoring: Scoring) -> None:
        import tensorflow as tf

        rows = {name: tf.constant(array) for name, array in scoring.example(3).items()}
        labels = {name: tf.zeros(3) for name in label_names(self.model.tasks)}
        wanted, found = score(rows, rows, labels), loaded.score(rows, rows, labels)
        for name, scores in wanted.items():
            if not np.allclose(found[name], scores, 1e-4, 1e-5, equal_nan=True):
                raise RuntimeError(f"What was written gives other scores for output {name!r}")

    def _function(self) -> Any:
        """Traced once for any number of rows, and again where scores were calibrated meanwhile."""
        import tensorflow as tf

        key = self.model.corrections.key
        if self._compiled[1] is None or self._compiled[0] != key:
            columns = self.model.scoring.signature()
            signature = [columns, self._label_specs(), columns]
            self._compiled = key, tf.function(self._scores, input_signature=signature, autograph=False)
        return self._compiled[1]

    def _label_specs(self) -> dict[str, Any]:
        import tensorflow as tf

        return {name: tf.TensorSpec((None,), tf.float32, name) for name in label_names(self.model.tasks)}

    def _scores(self, support: Any, labels: Any, candidates: Any) -> dict[str, Any]:
        rows = Batch(self.model.select_inputs(support), labels)
        values = adapt(self.model, self._variables, rows, self.inner_rate, self.inner_steps, training=False)
        x = self.model.select_inputs(candidates)
        return self.model.scoring.scores_of(call_with(self.model, self._variables, values, x, training=False))

    def _inputs(self, argument: str, given: Any) -> dict[str, np.ndarray]:
        given = self.model.scoring.table_of(given)
        if not isinstance(given, Mapping):
            given = self._transform(argument).encode(given)
        scoring = self.model.scoring
        return scoring.typed(argument, scoring.checked(argument, given))

    def _transform(self, argument: str) -> FeatureTransform:
        if self.model.transform is None:
            raise ValueError(f"`{argument}` must be a dict of arrays: the model has no transform for tables.")
        return self.model.transform

    def _rows(self, support: Any, labels: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = self.model.scoring.table_of(support)
        if isinstance(table, Mapping) == (labels is None):
            raise ValueError(
                "`labels` must be given with arrays, and not with a table, whose columns they are. Received: "
                f"{type(support).__name__}, labels={'None' if labels is None else 'given'}"
            )
        if labels is None:
            labels = self._transform("support").encode_labels(table, whole=False)
        x, names = self._inputs("support", table), label_names(self.model.tasks)
        missing = [name for name in names if name not in labels]
        if missing:
            raise ValueError(f"`labels` must hold the label of every task. Missing: {missing}")
        y = {name: np.asarray(labels[name], "float32").reshape(-1) for name in names}
        lengths = {"support": len(next(iter(x.values()))), **{name: len(values) for name, values in y.items()}}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`support` and `labels` must have the same number of rows. Received: {lengths}")
        return x, y

    def _no_labels(self) -> dict[str, np.ndarray]:
        return {name: np.zeros(0, "float32") for name in label_names(self.model.tasks)}
