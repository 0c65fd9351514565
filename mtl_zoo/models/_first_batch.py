"""Batches that Keras draws itself: the first of them is checked as whole arrays are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtl_zoo import _backend
from mtl_zoo.serving.columns import checked_arrays


class FirstBatch:
    """Looks at the first batch of each `tf.data.Dataset` that goes through `checked`, when it is drawn.

    To look at it beforehand would open an iterator more, which moves on the order of a shuffled data set.
    """

    def __init__(self, model: Any):
        # The functions of a data set live as long as TensorFlow does, and must not keep the model with them.
        self._columns = dict(model.scoring.columns)
        self._features = model.features
        self._alone = model.distribute_strategy.num_replicas_in_sync == 1 if _backend.is_tensorflow() else False
        self._refused: list[ValueError] = []

    def checked(self, argument: str, data: Any) -> Any:
        """The same batches; anything but a data set of dicts on one device is given back as it is."""
        if not self._alone:
            return data
        import tensorflow as tf

        if not isinstance(data, tf.data.Dataset) or not self._holds_inputs(data.element_spec):
            return data
        if getattr(data, "encoded_features", None) == self._features:
            return data  # a stream has checked every row of it
        self._refuse_text(argument, data.element_spec)
        columns, refused, names = self._columns, self._refused, list(self._columns)

        def look(*tensors: Any) -> None:
            arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            try:
                checked_arrays(argument, arrays, columns)
            except ValueError as error:
                refused.append(error)
                raise

        def look_at_first(number: Any, batch: Any) -> Any:
            inputs = batch[0] if isinstance(batch, tuple) else batch

            def now() -> Any:
                with tf.control_dependencies([tf.py_function(look, [inputs[name] for name in names], [])]):
                    return tf.constant(True)

            with tf.control_dependencies([tf.cond(number == 0, now, lambda: tf.constant(True))]):
                # Weights may be None.
                return tf.nest.map_structure(lambda part: None if part is None else tf.identity(part), batch)

        return data.enumerate().map(look_at_first)

    def _holds_inputs(self, spec: Any) -> bool:
        import tensorflow as tf

        inputs = spec[0] if isinstance(spec, tuple) and spec else spec
        if not isinstance(inputs, Mapping):
            return False
        return all(isinstance(inputs.get(name), tf.TensorSpec) for name in self._columns)

    def _refuse_text(self, argument: str, spec: Any) -> None:
        """TensorFlow refuses strings when it plans a step, before it draws a batch."""
        inputs = spec[0] if isinstance(spec, tuple) else spec
        for name, column in self._columns.items():
            if inputs[name].dtype.name == "string" and column.dtype != "string":
                column.check_values(f"{argument}[{name!r}]", np.array([""]))

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Within it a refused batch is an error of its own, and not one of TensorFlow's graph."""
        try:
            yield
        except Exception:
            if self._refused:
                raise self._refused[0] from None
            raise
