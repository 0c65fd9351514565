"""A model as a TensorFlow SavedModel that takes the columns of a table and gives scores."""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo._files import refuse_other_content, whole_folder
from mtl_zoo.layers.feature_embedding import FeatureEmbedding

SIGNATURE = "serving_default"


def export_serving(model: Any, path: str | os.PathLike, *, overwrite: bool = False) -> dict[str, str]:
    """Writes a SavedModel whose signature takes raw columns by name and gives scores by output name.

    The signature `serving_default` takes each column that a feature reads, as it stands in the table: strings, int64,
    float64 or bool tensors of shape (batch,), lists as (batch, longest). Missing is '' or NaN, and -2**63 among int64;
    lists are padded with it. It takes no label. Scores are what `predict` gives: (batch, units) float32. The function
    `score` of the loaded module takes the same as one dict, by the columns' own names.

    TensorFlow wants names that Python accepts, so a column `item id` is `item_id` in the signature.

    Args:
        model: A model made with a fitted `FeatureTransform`.
        path: The folder to write; whole or not at all.
        overwrite: Replace a SavedModel that is there.

    Returns:
        The signature's input name of each column.

    Raises:
        ValueError: The model has no transform; the backend is not TensorFlow; the folder holds something.
        OSError: The folder cannot be written.

    Example:

    >>> import pandas as pd, tensorflow as tf
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model
    >>> from mtl_zoo.export import export_serving
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "click": [0, 1, 0]})
    >>> transform = FeatureTransform(Categorical("city"), BinaryTask("click")).fit(table)
    >>> model = create_model("shared_bottom", transform, transform.tasks)
    >>> export_serving(model, "exported")
    {'city': 'city'}
    >>> loaded = tf.saved_model.load("exported")
    >>> loaded.signatures["serving_default"](city=tf.constant(["Oslo", "Bonn"]))["click"].shape
    TensorShape([2, 1])
    """
    if not _backend.is_tensorflow():
        raise ValueError(
            f"`export_serving` needs the TensorFlow backend. Received: KERAS_BACKEND={keras.backend.backend()!r}"
        )
    transform = getattr(model, "transform", None)
    if transform is None:
        raise ValueError(
            "`model` must be made with a fitted FeatureTransform, which turns raw columns into its inputs. "
            f"Received: model {getattr(model, 'name', model)!r}, made from feature specs"
        )
    folder = Path(path).absolute()
    refuse_other_content("path", folder, "saved_model.pb", "a SavedModel")
    if (folder / "saved_model.pb").exists() and not overwrite:
        raise ValueError(f"`path` holds a SavedModel; overwrite=True replaces it. Received: path={str(folder)!r}")
    try:
        with whole_folder(folder) as part:
            return _save(model, transform, part)
    except OSError as error:
        raise OSError(f"`path` must be a folder that can be written. Received: path={str(path)!r} ({error})") from error


def input_names(columns: Iterable[str]) -> dict[str, str]:
    """Names for the inputs of a signature: the columns' own, or the nearest that Python accepts."""
    names: dict[str, str] = {}
    for column in sorted(columns, key=lambda c: not _is_legal(c)):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "column"
        if _is_legal(column):
            name = column
        elif not _is_legal(name):
            name = f"column_{name}"
        number, legal = 2, name
        while legal in names.values():
            legal, number = f"{name}_{number}", number + 1
        names[column] = legal
    return names


def _is_legal(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and not keyword.iskeyword(name)


def _save(model: Any, transform: Any, folder: Path) -> dict[str, str]:
    import tensorflow as tf

    columns = transform.raw_signature()
    names = input_names(columns)
    outputs = model.outputs_info

    def scores(raw: dict[str, Any]) -> dict[str, Any]:
        logits = model(transform.encode_in_graph(raw), training=False)
        return {output.name: tf.cast(output.scores(logits[output.name]), tf.float32) for output in outputs}

    def of_inputs(**inputs: Any) -> dict[str, Any]:
        return module.score({column: inputs[names[column]] for column in columns})

    module = tf.Module(name=model.name)
    unnamed = {column: tf.TensorSpec(spec.shape, spec.dtype) for column, spec in columns.items()}
    module.score = tf.function(scores, input_signature=[unnamed])
    specs = {names[c]: tf.TensorSpec(s.shape, s.dtype, name=names[c]) for c, s in columns.items()}
    serve = tf.function(of_inputs).get_concrete_function(**specs)
    module.transform = transform.graph
    # The variables that scoring reads, once each. The model itself would bring its optimizer's state along.
    module.weights = list(serve.variables)
    # Users' encoders may hold lookup tables, which are no variables.
    embeddings = [layer for layer in model.layers if isinstance(layer, FeatureEmbedding)]
    module.encoders = [encoder for layer in embeddings for encoder in layer.encoders.values()]
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})
    return {column: names[column] for column in columns}
