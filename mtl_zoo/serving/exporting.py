"""A model written in a form that runs without this package, compared with the model before it counts as written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo._files import DamagedFile, refuse_other_content, whole_folder
from mtl_zoo.serving.formats import FORMATS, Format, make_format
from mtl_zoo.serving.formats._base import Read
from mtl_zoo.serving.formats._manifest import MANIFEST, check_files, read_manifest, write_manifest
from mtl_zoo.serving.scoring import Scoring


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str = "saved_model",
    *,
    raw: bool | None = None,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, str]:
    """Writes a model's scores as a function of its columns, in one of the formats of `list_formats()`.

    What was written is loaded again and scores a few rows as `predict` does, before it takes its place. Beside it lies
    `exported.json`: the name, shape and type of each column that it takes, its outputs, and the SHA-256 of each file.

    Args:
        model: A model of the zoo.
        path: The folder to write; whole or not at all.
        format: Name of the format.
        raw: Whether it takes the columns of a table and encodes them with the model's transform, or the model's own
            inputs. Default: columns, if the model has a transform.
        overwrite: Replace what is there, if it is of the same format. Default: False.
        options: Those of the format, such as `weights="int8"` of `"litert"`.

    Returns:
        The name under which it takes each column.

    Raises:
        ValueError: An unknown format or option, or a format that cannot hold this model; the folder holds something.
        ImportError: A package that the format needs is not installed.
        OSError: The folder cannot be written.
        RuntimeError: What was written gives other scores than the model.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.export import export
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> export(model, "exported_ids")
    {'city': 'city'}
    """
    writer = make_format(format, options)
    raw = getattr(model, "transform", None) is not None if raw is None else raw
    scoring = Scoring(model, raw)
    writer.check(scoring)
    folder = Path(path).absolute()
    try:
        refuse_other_content("path", folder, writer.marker, writer.what)
        if (folder / writer.marker).exists() and not overwrite:
            raise ValueError(f"`path` holds {writer.what}; overwrite=True replaces it. Received: path={str(folder)!r}")
        with whole_folder(folder) as part:
            names = writer.write(scoring, part)
            write_manifest(part, format, options, scoring, names)
            compare(writer, scoring, part)
            return names
    except OSError as error:
        raise OSError(f"`path` must be a folder that can be written. Received: path={str(path)!r} ({error})") from error


def compare(writer: Format, scoring: Scoring, folder: Path) -> float:
    """The largest difference between the scores of what is written in `folder` and the model's own.

    Raises:
        ValueError: The format's own runtime cannot run what was written.
        RuntimeError: An output or a score is another one.
    """
    arrays = scoring.example()
    wanted = {name: np.asarray(scores) for name, scores in scoring(_tensors(arrays)).items()}
    try:
        found = writer.read(folder)(arrays)
    except ImportError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise ValueError(
            f"`model` must be one that the runtime of format {writer.name!r} can run. Received: "
            f"{scoring.model.name!r}, of which it says: {str(error).splitlines()[0][:300]}. Export a SavedModel"
        ) from error
    if set(found) != set(wanted):
        raise RuntimeError(f"Format {writer.name!r} wrote other outputs: {sorted(found)}. Expected: {sorted(wanted)}")
    worst = 0.0
    for name, scores in wanted.items():
        same = found[name].dtype == np.float32 and found[name].shape == scores.shape
        near = np.allclose(found[name], scores, writer.tolerance, writer.tolerance, equal_nan=True) if same else False
        if not near:
            raise RuntimeError(
                f"Format {writer.name!r} wrote a model with other scores for output {name!r}: "
                f"{found[name].tolist()}. Expected: {scores.tolist()}, float32"
            )
        worst = max(worst, float(np.max(np.abs(found[name] - scores), initial=0)))
    return worst


def load_exported(path: str | os.PathLike[str]) -> Read:
    """What `export` wrote, as a function from arrays by column to scores by output, in the format's own runtime.

    Args:
        path: The folder.

    Returns:
        A function from a dict of arrays, in the types that `exported.json` names, to a dict of float32 (rows, units).

    Raises:
        FileNotFoundError: There is no exported model.
        DamagedFile: One of its files is gone, cut short or changed since it was written. It is a ValueError.
        ImportError: A package that the format needs is not installed.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.export import export, load_exported
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> export(model, "exported_to_load", "litert")
    {'city': 'city'}
    >>> load_exported("exported_to_load")({"city": np.array([2, 3], "int32")})["click"].shape
    (2, 1)
    """
    folder = Path(path).absolute()
    found = [cls for cls in FORMATS.in_order() if (folder / cls.marker).is_file()]
    if not found and not (folder / MANIFEST).is_file():
        markers = [cls.marker for cls in FORMATS.in_order()]
        raise FileNotFoundError(
            f"`path` must hold an exported model, one of the files {markers}. Received: path={str(path)!r}"
        )
    reader = found[0] if found else None
    if (folder / MANIFEST).is_file():
        content = read_manifest(folder)
        check_files(folder, content)
        if content["kind"] not in FORMATS:
            raise DamagedFile(
                f"A file of an exported model must name a format. Received: {content['kind']!r} in "
                f"{str(folder / MANIFEST)!r}. Expected: one of {list_formats()}"
            )
        reader = FORMATS[content["kind"]]
    assert reader is not None
    try:
        return reader().read(folder)
    except (ImportError, DamagedFile):
        raise
    except Exception as error:  # each runtime has errors of its own
        raise DamagedFile(
            f"`path` must hold {reader.what} that can be loaded. Received: path={str(path)!r} "
            f"({type(error).__name__}: {str(error)[:300]})"
        ) from error


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.constant(array) for name, array in arrays.items()}


def list_formats() -> list[str]:
    """Names that `export` takes.

    Example:

    >>> from mtl_zoo.export import list_formats
    >>> list_formats()
    ['litert', 'onnx', 'saved_model']
    """
    return FORMATS.names()


def export_serving(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, str]:
    """Writes a SavedModel whose signature takes raw columns by name and gives scores by output name.

    The signature `serving_default` takes each column that a feature reads, as it stands in the table: strings, int64,
    float64 or bool tensors of shape (batch,), lists as (batch, longest). Missing is '' or NaN, and -2**63 among int64;
    lists are padded with it. A number that `predict` refuses (NaN where its feature has no policy for that, or one
    beyond 32 bits once scaled) counts as the mean: no score is NaN. It takes no label. Scores are what `predict` gives:
    (batch, units) float32. A SavedModel's signature has fixed types: those of `serving_float32` and
    `serving_float32_int32` take the narrower numbers. The function `score` of the loaded module takes any of these as
    one dict, by the columns' own names.

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
    return export(model, path, "saved_model", raw=True, overwrite=overwrite)
