"""A model as a TensorFlow SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.serving.formats._base import Format, Read, register_format
from mtl_zoo.serving.formats._names import input_names
from mtl_zoo.serving.scoring import Scoring

SIGNATURE = "serving_default"
# The other width in which numbers may come.
_OTHER_WIDTH = {"int64": "int32", "int32": "int64", "float64": "float32", "float32": "float64"}


@register_format("saved_model")
class SavedModel(Format):
    """TensorFlow's own format: signatures for TensorFlow Serving, and a function `score` for Python.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.export import export
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> export(model, "as_saved_model", "saved_model")
    {'city': 'city'}
    """

    marker = "saved_model.pb"
    what = "a SavedModel"

    def check(self, scoring: Scoring) -> None:
        self.need_tensorflow()

    def write(self, scoring: Scoring, folder: Path) -> dict[str, str]:
        import tensorflow as tf

        names, columns = input_names(scoring.columns), scoring.signature()
        # Traced once; all that follows only calls it.
        whole = scoring.traced()

        def score(tensors: Mapping[str, Any]) -> dict[str, Any]:
            return whole({name: cast_number(tensor, columns[name].dtype) for name, tensor in tensors.items()})

        def of_inputs(**inputs: Any) -> dict[str, Any]:
            return score({column: inputs[name] for column, name in names.items()})

        module = tf.Module(name=scoring.model.name)
        module.score = tf.function(score, autograph=False)
        signatures = {}
        for signature, types in widths({name: spec.dtype.name for name, spec in columns.items()}).items():
            given = {name: tf.TensorSpec(spec.shape, types[name]) for name, spec in columns.items()}
            module.score.get_concrete_function(given)
            named = {names[c]: tf.TensorSpec(s.shape, s.dtype, name=names[c]) for c, s in given.items()}
            signatures[signature] = tf.function(of_inputs, autograph=False).get_concrete_function(**named)
        # The variables that scoring reads, once each. The model itself would bring its optimizer's state along, and an
        # encoder its weights a second time.
        module.weights = list(whole.variables)
        module.tables = scoring.lookup_tables()
        try:
            tf.saved_model.save(module, str(folder), signatures=signatures)
        except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
            raise OSError(str(error)) from error
        return {column: names[column] for column in scoring.columns}

    def read(self, folder: Path) -> Read:
        import tensorflow as tf

        module = tf.saved_model.load(str(folder))

        def score(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            scores = module.score({name: tf.constant(array) for name, array in arrays.items()})
            return {name: values.numpy() for name, values in scores.items()}

        return score


def widths(types: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Types of the columns by signature: their own, then floats of the other width, then whole numbers as well."""
    found = {SIGNATURE: dict(types)}
    changed: dict[str, str] = {}
    for kind in ("float", "int"):
        given = sorted({dtype for dtype in types.values() if dtype.startswith(kind) and dtype in _OTHER_WIDTH})
        if given:
            changed = {dtype: _OTHER_WIDTH[dtype] for dtype in given} | changed
            name = "_".join(["serving", *sorted(changed.values())])
            found[name] = {column: changed.get(dtype, dtype) for column, dtype in types.items()}
    return found


def cast_number(tensor: Any, dtype: Any) -> Any:
    """A tensor in the type of its column; too large a whole number stays one that no table holds."""
    import tensorflow as tf

    if tensor.dtype == tf.int64 and dtype == tf.int32:
        # A wider number would wrap round to the id of something else; what no table holds is unknown.
        tensor = tf.clip_by_value(tensor, tf.int32.min, tf.int32.max)
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)
