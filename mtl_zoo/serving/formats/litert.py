"""A model as one LiteRT file, which used to be called TensorFlow Lite."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.serving.formats._base import Format, Read, register_format
from mtl_zoo.serving.formats._manifest import input_of_columns
from mtl_zoo.serving.formats._names import input_names
from mtl_zoo.serving.scoring import Scoring

# Of every LiteRT file, behind the place of its root.
_IDENTIFIER = b"TFL3"
# The largest difference of a score, absolute and relative, that each type of weights may bring.
_TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}


@register_format("litert")
@dataclasses.dataclass(frozen=True)
class LiteRT(Format):
    """LiteRT, for phones and other small devices: one file `model.tflite`, whose signature takes inputs by name.

    It takes encoded inputs and gives scores, for any number of rows.

    Args:
        weights: `"float32"`; `"float16"`, half the size; or `"int8"`, a quarter: weights are rounded by tensor or
            channel, and activations on the fly ("dynamic range"). Default: "float32".
        tolerance: The largest difference of a score, absolute and relative to it, with which what was written still
            counts as written. Default: None, for 1e-5, 5e-3 and 5e-2.

    Example:

    >>> from mtl_zoo.serving.formats import LiteRT
    >>> LiteRT(weights="float16").tolerance
    0.005
    """

    weights: str = "float32"
    tolerance: float = None  # type: ignore[assignment]

    marker = "model.tflite"
    what = "a LiteRT model"

    def __post_init__(self) -> None:
        check.check_choice("weights", self.weights, tuple(_TOLERANCES))
        if self.tolerance is None:
            object.__setattr__(self, "tolerance", _TOLERANCES[self.weights])
        check.check_number("tolerance", self.tolerance, above=0)

    @classmethod
    def examples(cls) -> Sequence[Format]:
        return tuple(cls(weights) for weights in _TOLERANCES)

    def check(self, scoring: Scoring) -> None:
        self.need_tensorflow()
        self.refuse_raw(scoring, "which holds no operation on strings and no lookup")
        self.refuse_large(scoring)

    def write(self, scoring: Scoring, folder: Path) -> dict[str, str]:
        import tensorflow as tf

        names, specs = input_names(scoring.columns), scoring.signature()
        whole = scoring.traced(fixed_shapes=True)

        def score(**inputs: Any) -> Any:
            return whole({column: inputs[name] for column, name in names.items()})

        given = {names[c]: tf.TensorSpec(s.shape, s.dtype, name=names[c]) for c, s in specs.items()}
        module = tf.Module(name=scoring.model.name)
        module.weights = list(whole.variables)
        function = tf.function(score, autograph=False).get_concrete_function(**given)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        if self.weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            written = converter.convert()
        except Exception as error:  # of a private class
            raise ValueError(
                f"`model` must be made of operations that LiteRT has. Received: {scoring.model.name!r}, which could "
                f"not be converted ({_reason(error)}). Export a SavedModel"
            ) from error
        (folder / self.marker).write_bytes(written)
        return names

    def read(self, folder: Path) -> Read:
        names, content = input_of_columns(folder), (folder / self.marker).read_bytes()
        if content[4:8] != _IDENTIFIER:
            raise ValueError(f"it has {content[4:8]!r} where a LiteRT file has {_IDENTIFIER!r}")
        run = _interpreter(content).get_signature_runner()
        taken = set(run.get_input_details())

        def score(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return dict(run(**{names[c]: array for c, array in arrays.items() if names.get(c) in taken}))

        return score


def _interpreter(content: bytes) -> Any:
    """That of the package `ai-edge-litert`, or the one that TensorFlow still brings.

    It is given bytes, which it verifies; of a file that is cut short, given by its path, it ends the process.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = getattr(tf.lite, "Interpreter", None)
        if Interpreter is None:
            raise ImportError("`format` 'litert' needs the extra: pip install mtl-zoo[litert]") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TensorFlow's own will go
        return Interpreter(model_content=content)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error:" in line] or [type(error).__name__]
    return lines[0].partition("error:")[2].strip()[:300] or lines[0][:300]
