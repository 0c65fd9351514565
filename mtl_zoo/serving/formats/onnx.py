"""A model as one ONNX file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.serving.formats._base import Format, Read, register_format
from mtl_zoo.serving.formats._graph import beyond
from mtl_zoo.serving.formats._manifest import input_of_columns
from mtl_zoo.serving.formats._names import input_names
from mtl_zoo.serving.scoring import Scoring

OPSET = 17
# What a number of rows is called among the dimensions of inputs and outputs.
_ROWS = "rows"


@register_format("onnx")
class Onnx(Format):
    """ONNX, for onnxruntime: one file `model.onnx` with scores as its outputs, for any number of rows.

    `tf2onnx` converts the graph. Raw columns are taken where encoding them needs no strings, no lookup and no missing
    numbers: ids that are ranges.

    Example:

    >>> from mtl_zoo.serving.formats import Onnx
    >>> Onnx.name, Onnx.marker
    ('onnx', 'model.onnx')
    """

    marker = "model.onnx"
    what = "an ONNX model"

    def check(self, scoring: Scoring) -> None:
        self.need_tensorflow()
        self.need_modules("onnx", "onnx", "onnxruntime", "tf2onnx")
        without = beyond(scoring, _is_unknown) if scoring.raw else {}
        if without:
            shown = "; ".join(f"{feature} needs {', '.join(names)}" for feature, names in without.items())
            self.refuse_raw(scoring, f"which lacks what encoding these features takes: {shown}")
        if not scoring.raw:
            self.refuse_raw(scoring, "whose graph holds no operation on strings")
        self.refuse_large(scoring)

    def write(self, scoring: Scoring, folder: Path) -> dict[str, str]:
        import onnx
        import tensorflow as tf
        import tf2onnx

        columns, outputs = list(scoring.columns), list(scoring.units)
        names = input_names(columns, taken=outputs)
        whole, specs = scoring.traced(fixed_shapes=True), scoring.signature()

        def score(*tensors: Any) -> list[Any]:
            scores = whole(dict(zip(columns, tensors, strict=True)))
            return [scores[name] for name in outputs]

        given = [tf.TensorSpec(specs[c].shape, specs[c].dtype, name=f"column_{i}") for i, c in enumerate(columns)]
        with _errors_alone():
            model, _ = tf2onnx.convert.from_function(tf.function(score, autograph=False), given, opset=OPSET)
        _rename(model.graph, {f"column_{i}": names[column] for i, column in enumerate(columns)}, outputs)
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ValueError(
                f"`model` must be made of operations that ONNX has. Received: {scoring.model.name!r}, which tf2onnx "
                f"could not convert ({str(error).splitlines()[0][:300]}). Export a SavedModel"
            ) from error
        onnx.save_model(model, str(folder / self.marker))
        return names

    def read(self, folder: Path) -> Read:
        import onnxruntime

        names = input_of_columns(folder)
        session = onnxruntime.InferenceSession(str(folder / self.marker), providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        # A column that no score depends on is no input.
        taken = {given.name for given in session.get_inputs()}

        def score(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            given = {names[column]: array for column, array in arrays.items() if names.get(column) in taken}
            return dict(zip(outputs, session.run(outputs, given), strict=True))

        return score


def _is_unknown(operation: Any) -> bool:
    """Whether tf2onnx has no rule for an operation of a graph, or one that is not to be had of all runtimes."""
    from tf2onnx import handler, tfonnx  # noqa: F401  # the second enters the rules

    types = [tensor.dtype.name for tensor in (*operation.inputs, *operation.outputs)]
    # Of NaN, which is a missing number, `IsFinite` says after conversion that it is finite.
    return (
        operation.type == "IsFinite"
        or operation.type not in handler.tf_op.create_mapping(OPSET, None)
        or "string" in types
        or "resource" in types
    )


def _rename(graph: Any, inputs: Mapping[str, str], outputs: list[str]) -> None:
    """Gives a graph's inputs and outputs the names of columns and scores, and its first dimension one name."""
    import onnx

    public = {*inputs.values(), *outputs}
    new = {value.name: inputs[value.name.partition(":")[0]] for value in graph.input}

    def renamed(name: str) -> str:
        return new.get(name, f"inner/{name}" if name in public else name)

    for value in (*graph.input, *graph.initializer):
        value.name = renamed(value.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed(name) for name in names]
    # A copy under the score's name: one tensor may be two outputs, and an output may be an input.
    for value, name in zip(graph.output, outputs, strict=True):
        graph.node.append(onnx.helper.make_node("Identity", [renamed(value.name)], [name], name=f"score/{name}"))
        value.name = name
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _ROWS
    del graph.value_info[:]  # by the old names


@contextlib.contextmanager
def _errors_alone() -> Iterator[None]:
    """Keeps quiet what a conversion says of its progress."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
