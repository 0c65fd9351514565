"""What features give a model, and the model as a function of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from mtl_zoo import _gradients
from mtl_zoo import _validation as check
from mtl_zoo._halves import traced
from mtl_zoo.features.spec import Feature
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models._biases import with_unknown
from mtl_zoo.models._data import is_table, require_transform

Arrays = dict[str, np.ndarray]


def inputs_of(model: Any, rows: Any, argument: str = "rows", verbose: int = 1) -> Arrays:
    """The model's inputs of a table, a split or a dict of arrays: checked, and of the types that the model takes.

    Raises:
        ValueError: There is no row; values that the model cannot read; a table, and the model has no transform.
    """
    given = model.scoring.table_of(getattr(rows, "inputs", rows))
    if is_table(given):
        given = require_transform(model).encode(given, verbose=verbose)
    if not isinstance(given, Mapping):
        raise ValueError(f"`{argument}` must be a table, a split or a dict of arrays. Received: {type(rows).__name__}")
    arrays = model.scoring.typed(argument, model.scoring.checked(argument, given))
    if not len(next(iter(arrays.values()))):
        raise ValueError(f"`{argument}` must have at least one row. Received: none")
    # Scores know nothing of features with `bias=True`; the model's graph has inputs for them.
    return {name: ops.convert_to_numpy(array) for name, array in with_unknown(model, arrays, False).items()}


def missing_inputs(feature: Feature, arrays: Mapping[str, Any], rows: int) -> Arrays:
    """The inputs of a feature in rows where its value is missing, in the shapes and types of `arrays`."""
    return {
        name: np.full((rows, *arrays[name].shape[1:]), spec.missing, arrays[name].dtype)
        for name, spec in feature.input_specs().items()
    }


def embeddings_of(model: Any) -> list[FeatureEmbedding]:
    """The layers of a model that make vectors of features."""
    found = [layer for layer in model.layers if isinstance(layer, FeatureEmbedding)]
    if not found:
        raise ValueError(f"`model` must be one of the zoo, with features. Received: {type(model).__name__}")
    return found


class Given:
    """A model cut behind the vectors that its features have: from those of all its embeddings to logits.

    What other layers read of inputs (which domain a row is of, how long a list is) has no vector, and stays an input of
    the upper part. So do features with `bias=True`, whose vectors no score is made of.

    Args:
        model: A model of the zoo.

    Attributes:
        owners: The feature of each vector.
        read: By feature that is read as it is, too: the names of its inputs.
    """

    def __init__(self, model: Any):
        self.model = model
        self.layers = [layer for layer in embeddings_of(model) if not all(one.bias for one in layer.features)]
        self._names = [(layer, feature.name) for layer in self.layers for feature in layer.features]
        self.owners = [name for _, name in self._names]
        self._upper, others = self._cut()
        self.read = {}
        for feature in model.features:
            own = [name for name in feature.input_specs() if name in others]
            if own:
                self.read[feature.name] = own

    def _cut(self) -> tuple[keras.Model, list[str]]:
        """The upper part, from `[vectors, inputs that other layers read]`, and the names of the latter."""
        inputs, outputs, calls = traced(self.model)
        above = [call for call in calls if call.layer not in self.layers]
        used = {id(tensor) for call in above for tensor in call.inputs}
        others = {name: tensor for name, tensor in inputs.items() if id(tensor) in used}
        starts = {n: keras.Input(x.shape[1:], dtype=x.dtype, name=f"{n}_as_it_is") for n, x in others.items()}
        values = {id(tensor): starts[name] for name, tensor in others.items()}
        vectors = []
        for call in calls:
            if call.layer in self.layers:
                specs = _Vectors(call.layer)(*call.args, **call.kwargs)
                given = {n: keras.Input(x.shape[1:], dtype=x.dtype) for n, x in specs.items()}
                made = _Assembled(call.layer)(given)
                vectors += [((call.layer, name), start) for name, start in given.items()]
            else:
                args, kwargs = keras.tree.map_structure(lambda x: values.get(id(x), x), (call.args, call.kwargs))
                made = call.layer(*args, **kwargs)
            flat = keras.tree.flatten(made)
            values.update((id(tensor), value) for tensor, value in zip(call.outputs, flat, strict=True))
        by_name = dict(vectors)
        logits = {name: values[id(tensor)] for name, tensor in outputs.items()}
        upper = keras.Model([[by_name[name] for name in self._names], starts], logits)
        return upper, list(others)

    def vectors(self, inputs: Mapping[str, Any]) -> list[np.ndarray]:
        """The vector of each owner, float32 (rows, ...)."""
        found = {layer.name: layer.vectors_of(inputs) for layer in self.layers}
        return [ops.convert_to_numpy(ops.cast(found[layer.name][name], "float32")) for layer, name in self._names]

    def others(self, inputs: Mapping[str, Any]) -> Arrays:
        """The inputs that are read as they are."""
        return {name: np.asarray(inputs[name]) for names in self.read.values() for name in names}

    def function(self, wanted: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
        """From vectors, inputs that are read as they are, and units, (rows,), to numbers, (rows,).

        Args:
            wanted: From logits, as the graph gives them, to (rows, units).
        """
        types = [keras.backend.standardize_dtype(x.dtype) for x in self._upper.input[0]]

        def call(vectors: list[Any], others: Mapping[str, Any], units: Any) -> Any:
            cast = [ops.cast(x, dtype) for x, dtype in zip(vectors, types, strict=True)]
            # Within a scope of its own, since a graph is traced when it is first called.
            with _gradients.passing():
                logits = self._upper([cast, {n: ops.convert_to_tensor(x) for n, x in others.items()}], training=False)
            numbers = ops.cast(wanted(logits), "float32")
            return ops.take_along_axis(numbers, ops.cast(units, "int32")[:, None], axis=1)[:, 0]

        return call


class _OfEmbedding(keras.layers.Layer):
    def __init__(self, embedding: FeatureEmbedding):
        super().__init__(dtype=embedding.dtype_policy, autocast=False)
        self.embedding = embedding
        self.built = True


class _Vectors(_OfEmbedding):
    """The vectors that an embedding has for its features."""

    def call(self, inputs: Mapping[str, Any]) -> Any:
        return self.embedding.vectors_of(inputs)


class _Assembled(_OfEmbedding):
    """What an embedding makes of the vectors of its features."""

    def call(self, vectors: Mapping[str, Any]) -> Any:
        return self.embedding.assemble(vectors)


def index_of(rows: Any, count: int) -> pd.Index:
    """The labels of a table's rows, or their positions."""
    return rows.index if isinstance(rows, pd.DataFrame) else pd.RangeIndex(count)


def output_of(model: Any, task: str | None) -> Any:
    """The output that an argument `task` names: by default the only one."""
    known = {output.name: output for output in model.outputs_info}
    if task is None and len(known) == 1:
        return next(iter(known.values()))
    return known[check.check_choice("task", task, tuple(known))]
