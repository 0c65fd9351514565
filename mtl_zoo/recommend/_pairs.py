"""Scores of pairs of users and items whose inputs are encoded apart, each once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo._once import Kept, computed_once
from mtl_zoo.serving.columns import encoded_columns
from mtl_zoo.serving.prepared import Preparation

Arrays = Mapping[str, np.ndarray]


class PairScores:
    """A model as a function from inputs of users, inputs of items and pairs of both to scores by column.

    It is traced once for any number of users, items and pairs, and again where the model's outputs have changed. An
    output with one score a row is a column of its name; one with several is `name.0`, `name.1` and so on.

    Args:
        model: A model of the zoo.
        of_user: The names of the inputs that come with a user; the others come with an item.
    """

    def __init__(self, model: Any, of_user: frozenset[str]):
        self.model = model
        self.inputs = encoded_columns(model)
        self._of_user = of_user
        self._lock = threading.Lock()
        self._compiled: dict[bool, tuple[Any, Any]] = {}
        self._weights = list(model.weights)

    @property
    def columns(self) -> dict[str, tuple[str, int]]:
        """The output and the unit of each column."""
        found = {}
        for output in self.model.outputs_info:
            for unit in range(output.units):
                found[output.name if output.units == 1 else f"{output.name}.{unit}"] = (output.name, unit)
        return found

    def typed(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Encoded arrays in the shapes and types of the model's inputs."""
        found = {}
        for name, array in arrays.items():
            column = self.inputs[name]
            found[name] = column.typed(name, column.shaped(name, array))
        return found

    def prepared(self, items: Mapping[str, Any]) -> Preparation:
        """What the model makes of items before it knows a user, of typed arrays or tensors by input."""
        import tensorflow as tf

        anybody = {name: tf.constant(self.inputs[name].example(1)) for name in self.inputs if name in self._of_user}
        return Preparation(self.model, _tensors(items), anybody, self._weights)

    def __call__(
        self,
        users: Mapping[str, Any],
        items: Mapping[str, Any],
        user_rows: np.ndarray,
        item_rows: np.ndarray,
        prepared: Preparation | None = None,
    ) -> dict[str, np.ndarray]:
        """float32 scores of pairs, by column.

        Args:
            users: Typed arrays or tensors by input, a row a user.
            items: The same of items.
            user_rows, item_rows: The user's and the item's row of each pair.
            prepared: Of these items. Where the model's weights have changed since, it is made anew.
        """
        import tensorflow as tf

        given = (_tensors(users), _tensors(items), tf.constant(user_rows, "int32"), tf.constant(item_rows, "int32"))
        if prepared is None:
            scores, _ = self._function(None)(*given)
        else:
            state = prepared.state
            scores, sampled = self._function(prepared)(*given, state.found, state.weights)
            if prepared.has_changed(sampled, state):
                prepared.refresh()
                scores, _ = self._function(prepared)(*given, prepared.state.found, prepared.state.weights)
        arrays = {name: values.numpy() for name, values in scores.items()}
        return {column: arrays[name][:, unit] for column, (name, unit) in self.columns.items()}

    def in_graph(
        self, users: Any, items: Any, user_rows: Any, item_rows: Any, found: Sequence[Any] | None = None
    ) -> dict[str, Any]:
        """What a call gives, of tensors; `found` is what was kept of the items."""
        import tensorflow as tf

        inputs = {
            name: tf.gather(users[name], user_rows) if name in self._of_user else tf.gather(items[name], item_rows)
            for name in self.inputs
        }
        for name, column in self.inputs.items():
            inputs[name] = tf.ensure_shape(inputs[name], (None, *column.shape))
        scoring = self.model.scoring
        of_user = {name: tensor for name, tensor in users.items() if name in self._of_user}
        kept = None if found is None else Kept([tf.gather(tensor, item_rows) for tensor in found])
        with computed_once(of_user, users=user_rows, kept=kept):
            logits = scoring.logits_of(inputs)
        return scoring.scores_of(logits)

    def _function(self, prepared: Preparation | None) -> Any:
        key = prepared is not None
        scoring, compiled = self._compiled.get(key, (None, None))
        # The model makes another one where its outputs or its corrections change.
        if scoring is self.model.scoring:
            return compiled
        import tensorflow as tf

        def plain(*given: Any) -> Any:
            return self.in_graph(*given), tf.constant(False)

        kept: Any = prepared

        def from_kept(users: Any, items: Any, user_rows: Any, item_rows: Any, found: Any, weights: Any) -> Any:
            sampled = tf.reduce_any(tf.not_equal(kept.sampled_weights(), weights))
            return self.in_graph(users, items, user_rows, item_rows, found), sampled

        with self._lock:
            specs = {name: tf.TensorSpec((None, *c.shape), c.dtype) for name, c in self.inputs.items()}
            users = {name: spec for name, spec in specs.items() if name in self._of_user}
            items = {name: spec for name, spec in specs.items() if name not in self._of_user}
            rows = tf.TensorSpec((None,), "int32")
            signature = [users, items, rows, rows]
            if prepared is not None:
                found, weights, _ = prepared.state
                signature.append([tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in found])
                signature.append(tf.TensorSpec(weights.shape, weights.dtype))
            function = tf.function(from_kept if key else plain, input_signature=signature, autograph=False)
            self._compiled[key] = (self.model.scoring, function.get_concrete_function())
            return self._compiled[key][1]


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
