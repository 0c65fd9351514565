"""What every model of the zoo is: a class round a functional Keras graph that knows its features, tasks and head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _distribute
from mtl_zoo.features._plain_errors import plain_errors
from mtl_zoo.features.sources import JointSources
from mtl_zoo.models import _data, _predict, _retrieval, _unlabelled
from mtl_zoo.models._biases import with_unknown
from mtl_zoo.models._configured import CONFIG_FORMAT
from mtl_zoo.models._first_batch import FirstBatch
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._training import TrainableModel

__all__ = ["CONFIG_FORMAT", "MultiTaskModel"]


class MultiTaskModel(TrainableModel):
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

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, SharedBottom
    >>> from mtl_zoo.models import MultiTaskModel
    >>> model = SharedBottom([Categorical("user_id", size=9)], [BinaryTask("click")])
    >>> isinstance(model, MultiTaskModel), sorted(model.predict({"user_id": [2, 3]}, verbose=0))
    (True, ['click'])
    """

    independent_tasks = False

    def __init__(
        self,
        plan: ModelPlan,
        inputs: Mapping[str, Any],
        towers: Mapping[str, Any] | None = None,
        *,
        logits: Mapping[str, Any] | None = None,
        tower_units: Any,
        name: str | None = None,
    ) -> None:
        if logits is None:
            logits = plan.logits(inputs, towers or {}, tower_units)
        if any(task.compares_sides and task.name not in logits for task in plan.tasks):
            logits = {**logits, **_retrieval.pair_logits(plan, inputs)}
        super().__init__(plan, inputs, logits, tower_units, name)
        self._objectives = _unlabelled.objectives_of(self, inputs, towers)

    # The graph.

    def __call__(self, inputs: Any, *arguments: Any, **options: Any) -> Any:
        # Keras looks for every input before `call`.
        if isinstance(inputs, dict):
            inputs = with_unknown(self, inputs, bool(options.get("training")))
        return super().__call__(inputs, *arguments, **options)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> dict[str, Any]:
        inputs = self.select_inputs(inputs, bool(training)) if isinstance(inputs, dict) else inputs
        logits = self.graph(inputs, training, mask)
        # The graph gives outputs alone: in training, tasks without a label have passes of their own.
        return _unlabelled.with_objectives(self, inputs, logits) if training and self._objectives else logits

    def graph(self, inputs: Any, training: bool | None = None, mask: Any = None) -> dict[str, Any]:
        """The logits of the outputs alone, in training too."""
        return super().call(inputs, training=training, mask=mask)

    def select_inputs(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Those of the model's features; there may be others beside them.

        Args:
            inputs: Tensors by name. Those of features with `bias=True` may be left out where nothing is trained.
            training: Whether the model is trained on them.

        Raises:
            ValueError: A feature is missing.
        """
        inputs = with_unknown(self, inputs, training)
        _data.check_input_names(self, inputs)
        # Keras pairs a dict's values with the inputs in sorted order: an extra key would shift them.
        return {name: inputs[name] for name in self.input}

    # Scores.

    def predict(self, x: Any, **arguments: Any) -> dict[str, np.ndarray]:
        """Scores by output, (rows, units) float32 in the order of the rows.

        On TensorFlow, arrays and tables go batch by batch through a function that is traced once for any number of
        rows, and a table is encoded piece by piece. Several replicas, eager mode and what else Keras takes (a
        `tf.data.Dataset`, a generator) are left to Keras' `predict`. Of several workers, which must all give the same
        `x`, each scores its part and has the scores of all.

        Args:
            x: A dict of arrays, a table (or `JointSources` of tables, one below the other) if the model was made with a
                transform, or a `tf.data.Dataset`. Ids outside of their tables are refused. A dict of raw columns is
                read as a table where it can be nothing else.
            arguments: Those of Keras' `predict`; `batch_size` defaults to 4096 for arrays and tables. Callbacks see
                each batch's logits.
        """
        x = x.table() if isinstance(x, JointSources) else self.scoring.table_of(x)
        if _distribute.is_multi_worker(self):
            return _predict.predict_by_worker(self, x, **arguments)
        if _predict.takes(self, x):
            return _predict.predict_rows(self, x, **arguments)
        x, arguments = _predict.prepare(self, x, arguments)
        first = FirstBatch(self)
        with first.telling(), plain_errors():
            return self._as_scores(super().predict(first.checked("x", x), **arguments))

    def predict_on_batch(self, x: Any) -> dict[str, np.ndarray]:
        """Scores of one batch, by output."""
        return self._as_scores(super().predict_on_batch(self.scoring.checked("x", x)))

    # Vectors of each side, for models with a task that retrieves.

    def user_vectors(self, x: Any, task: str | None = None, batch_size: int = 4096) -> np.ndarray:
        """Vectors of users, to ask an index of items with.

        Args:
            x: A table with the columns of the features with `side="user"`, if the model was made with a transform, or a
                dict of their arrays.
            task: Name of the `RetrievalTask`. Default: the only one.
            batch_size: Rows at once.

        Returns:
            (rows, width) float32, each of length 1.

        Raises:
            ValueError: The model has no such task; a feature is missing, or has values that the model cannot read.
        """
        return _retrieval.side_vectors(self, "user", x, task, batch_size)

    def item_vectors(self, x: Any, task: str | None = None, batch_size: int = 4096) -> np.ndarray:
        """Vectors of items, for an index: `index.build(items["item_id"], model.item_vectors(items))`.

        Args:
            x: A table with the columns of the features with `side="item"`, or a dict of their arrays.
            task, batch_size: As in `user_vectors`.

        Returns:
            (rows, width) float32, each of length 1.

        Raises:
            ValueError: As in `user_vectors`.
        """
        return _retrieval.side_vectors(self, "item", x, task, batch_size)

    def side_tower(self, side: str, task: str | None = None) -> keras.Model:
        """The functional model from a dict of one side's inputs to its vectors; it shares this model's weights.

        Args:
            side: `"user"` or `"item"`.
            task: Name of the `RetrievalTask`. Default: the only one.

        Raises:
            ValueError: The model has no such task; `side` is another one.
        """
        return _retrieval.side_tower(self, side, task)

    def _as_scores(self, logits: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: ops.convert_to_numpy(scores) for name, scores in self.scoring.scores_of(logits).items()}
