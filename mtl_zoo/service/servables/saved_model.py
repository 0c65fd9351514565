"""A model that was exported as a SavedModel, by `export_serving` or by anything else."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.service.columns import TYPES
from mtl_zoo.service.servables._base import Servable, register_servable
from mtl_zoo.serving.columns import Column
from mtl_zoo.serving.formats.saved_model import SIGNATURE

# Types of what the transform reads; the model's own inputs are narrower.
_RAW = ("string", "int64", "float64", "bool")


@register_servable("saved_model")
class SavedModelServable(Servable):
    """The signature `serving_default` of a SavedModel, under the names of its inputs.

    Example:

    >>> from pathlib import Path
    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> from mtl_zoo.service.servables import SavedModelServable
    >>> _ = model.export("exported_shop")
    >>> sorted(SavedModelServable.load(Path("exported_shop")).columns)
    ['city']
    """

    what = "a SavedModel"

    def __init__(self, module: Any):
        if SIGNATURE not in module.signatures:
            raise ValueError(
                f"A SavedModel must have the signature {SIGNATURE!r}. Received: {sorted(module.signatures)}"
            )
        self._module = module  # owns the tables and variables of its signatures
        self._run = module.signatures[SIGNATURE]
        specs = self._run.structured_input_signature[1]
        self.columns = {}
        for name, spec in specs.items():
            dtype = spec.dtype.name
            if spec.shape.rank is None or spec.shape.rank < 1 or spec.shape[0] is not None:
                raise ValueError(f"Input {name!r} must have a first dimension of any size. Received: {spec.shape}")
            if dtype not in TYPES:
                raise ValueError(f"Input {name!r} must be of one of the types {list(TYPES)}. Received: {dtype}")
            self.columns[name] = Column(name, tuple(spec.shape[1:]), dtype, is_raw=dtype in _RAW)
        texts = sorted(name for name, spec in self._run.structured_outputs.items() if spec.dtype.name == "string")
        if texts:
            raise ValueError(
                f"A SavedModel must give numbers to be served. Received: the outputs {texts} of strings. Serve the "
                "lists of a recommender from what `Recommender.save` writes"
            )
        outputs = self._run.structured_outputs
        self.units = {name: int(spec.shape[-1] or 1) for name, spec in outputs.items()}
        self.types = {name: spec.dtype.name for name, spec in outputs.items()}

    @classmethod
    def is_in(cls, path: Path) -> bool:
        return (path / "saved_model.pb").is_file()

    @classmethod
    def load(cls, path: Path) -> SavedModelServable:
        import tensorflow as tf

        with contextlib.suppress(ImportError):  # operations of texts, if the model has any
            importlib.import_module("tensorflow_text")
        return cls(tf.saved_model.load(str(path)))

    def score(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        tensors = {name: tf.constant(arrays[name], column.dtype) for name, column in self.columns.items()}
        return {name: values.numpy() for name, values in self._run(**tensors).items()}
