"""From rows to scores: the one way on which every score leaves a model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _backend
from mtl_zoo._once import Kept, computed_once
from mtl_zoo.features._columns import read_table
from mtl_zoo.serving import columns as _columns
from mtl_zoo.serving.columns import Column, Packing

Arrays = Mapping[str, np.ndarray]


class Scoring:
    """A model as a function from columns to scores: float32 (rows, units) by output.

    It knows the columns, checks and packs arrays of them, encodes raw ones in the graph, and runs the model.
    `predict`, the scorer and every exported format are made of it. Its scores follow the model's weights.

    Args:
        model: A model of the zoo.
        raw: Whether it takes the columns of a table, and encodes them with the model's transform, instead of the
            model's own inputs. Default: False.

    Raises:
        ValueError: `raw` for a model without a transform.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.serving import Scoring
    >>> scoring = Scoring(create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")]))
    >>> scoring({"city": np.array([2, 3], "int32")})["click"].shape
    TensorShape([2, 1])
    """

    def __init__(self, model: Any, raw: bool = False):
        self.model = model
        self.raw = bool(raw)
        transform = getattr(model, "transform", None)
        if self.raw and transform is None:
            raise ValueError(
                "`model` must be made with a fitted FeatureTransform, which turns raw columns into its inputs. "
                f"Received: raw=True, model {getattr(model, 'name', model)!r}, made from feature specs"
            )
        self.columns: dict[str, Column] = (
            _columns.raw_columns(transform) if self.raw else _columns.encoded_columns(model)
        )
        self._compiled: dict[tuple[frozenset[str], bool, Any], CompiledScoring] = {}
        self._lock = threading.Lock()

    @property
    def units(self) -> dict[str, int]:
        """How many scores a row has, by output."""
        return {output.name: output.units for output in self.model.outputs_info}

    # Arrays.

    def shaped(self, argument: str, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Arrays of the columns' shapes and of one length, in the types in which they came."""
        return _columns.shaped_arrays(argument, given, self.columns)

    def checked(self, argument: str, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Like `shaped`; values that the model cannot read are refused: ids outside of their tables, NaN."""
        return _columns.checked_arrays(argument, given, self.columns)

    def typed(self, argument: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """The arrays in the types of the columns."""
        return {name: self.columns[name].typed(f"{argument}[{name!r}]", array) for name, array in arrays.items()}

    def table_of(self, x: Any) -> Any:
        """`x`, or the table that it is if it is a dict of raw columns and nothing else.

        That is certain where all columns of the model's transform are there, and an input of the model is not, or
        holds strings where the input takes numbers.
        """
        transform = self.model.transform
        if transform is None or self.raw or not isinstance(x, Mapping):
            return x
        if not all(column in x for column in transform.columns):
            return x
        named = all(name in x for name in self.columns)
        if named and not any(c.dtype != "string" and _holds_text(x[name]) for name, c in self.columns.items()):
            return x
        return read_table(dict(x))

    # Tensors.

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Scores by output of tensors by column; inside a graph or outside of one."""
        return self.scores_of(self.logits_of(self.encode(tensors)))

    def encode(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The model's inputs from tensors by column. Columns may be left out with the inputs that read them."""
        if not self.raw:
            return dict(tensors)
        if not tensors:
            return {}
        import tensorflow as tf

        transform = self.model.transform
        # The transform wants every column: one row stands in for those that are left out.
        others = {
            name: tf.zeros([1, *(size or 1 for size in column.shape)], column.dtype)
            for name, column in self.columns.items()
            if name not in tensors
        }
        encoded = transform.encode_in_graph({**tensors, **others})
        # A bias feature may read a column that another one reads as well.
        read = [f for f in transform.features if not f.bias and transform.column_of(f) in tensors]
        return {name: _finite(encoded[name]) for feature in read for name in feature.input_specs()}

    def logits_of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The model's logits, by the names of its graph's outputs."""
        return self.model(dict(inputs), training=False)

    def logits_once(self, single: Mapping[str, Any], rows: Mapping[str, Any], kept: Kept | None = None) -> Any:
        """The logits of one user with many rows: what the user's inputs give is computed once. TensorFlow only.

        Args:
            single: The user's inputs, one row.
            rows: The other inputs, a row a candidate.
            kept: Keeps or has what layers make of the rows alone.
        """
        import tensorflow as tf

        count = tf.shape(next(iter(rows.values())))[0]
        names = _columns.encoded_names(self.model)
        with computed_once(single, count, kept=kept) as once:
            return self.logits_of({n: rows[n] if n in rows else once.repeated(single[n]) for n in names})

    def scores_of(self, logits: Mapping[str, Any]) -> dict[str, Any]:
        """float32 scores by output; logits that only losses read are left out."""
        corrected = self.model.corrected(logits)
        return {o.name: keras.ops.cast(o.scores(corrected[o.name]), "float32") for o in self.model.outputs_info}

    # Compiled.

    def compiled(self, once: Collection[str] = (), logits: bool = False) -> CompiledScoring:
        """The function that is traced once for any number of rows. TensorFlow only.

        Args:
            once: Columns that come with one row, which is encoded once and repeated for all rows of the others.
            logits: Whether it gives (logits, scores), not scores alone.
        """
        outputs = self.model.outputs_info
        # Outputs are others once `fit` has found the unit of a label, and corrections where rows were sampled or scores
        # calibrated: what was traced before knows the old ones.
        state = (id(outputs), self.model.corrections.key)
        key = (frozenset(once), logits, state)
        found = self._compiled.get(key)
        if found is None:
            with self._lock:
                found = self._compiled.get(key)
                if found is None:
                    self._compiled = {k: v for k, v in self._compiled.items() if k[2] == state}
                    found = self._compiled[key] = CompiledScoring(self, key[0], logits)
        return found

    def signature(self) -> dict[str, Any]:
        """A `tf.TensorSpec` by column."""
        import tensorflow as tf

        return {name: tf.TensorSpec((None, *c.shape), c.dtype, name=name) for name, c in self.columns.items()}

    def traced(self, fixed_shapes: bool = False) -> Any:
        """The whole of it, from one dict of tensors by column, as a concrete function. TensorFlow only.

        Args:
            fixed_shapes: Whether no size of a tensor, the number of rows aside, may depend on what the columns hold:
                what other runtimes than TensorFlow's ask for. Lists take more memory then.
        """
        import tensorflow as tf

        # Autograph would rewrite sources in which it finds nothing to do.
        function = tf.function(self, autograph=False)
        with _backend.fixed_shapes() if fixed_shapes else contextlib.nullcontext():
            return function.get_concrete_function(self.signature())

    def lookup_tables(self) -> list[Any]:
        """What it reads that is no variable: tables of the transform, and of users' encoders. TensorFlow only."""
        import tensorflow as tf

        roots: list[Any] = list(_layers_within(self.model, set()))
        roots += [self.model.transform.graph] if self.raw else []
        parts = {id(part): part for root in roots for part in tf.train.TrackableView(root).descendants()}
        return [part for part in parts.values() if isinstance(part, tf.saved_model.experimental.TrackableResource)]

    def example(self, rows: int = 3) -> dict[str, np.ndarray]:
        """A few rows that any such model can score, to try a compiled or exported form on."""
        return {name: column.example(rows) for name, column in self.columns.items()}


class CompiledScoring:
    """What `Scoring.compiled` gives: typed arrays by column -> tensors by output."""

    def __init__(self, scoring: Scoring, once: Collection[str], logits: bool):
        import tensorflow as tf

        self._once = {name: column for name, column in scoring.columns.items() if name in once}
        self._rows = {name: column for name, column in scoring.columns.items() if name not in once}
        packed_once, packed_rows = Packing(self._once), Packing(self._rows)

        def run(once_tensors: list[Any], row_tensors: list[Any]) -> Any:
            single = scoring.encode(packed_once.unpack(once_tensors))
            rows = scoring.encode(packed_rows.unpack(row_tensors))
            found = scoring.logits_once(single, rows)
            scores = scoring.scores_of(found)
            return (found, scores) if logits else scores

        function = tf.function(run, input_signature=[packed_once.specs(), packed_rows.specs()], autograph=False)
        self._run = function.get_concrete_function()
        self._packed_once, self._packed_rows = packed_once, packed_rows

    def __call__(self, arrays: Arrays, once: Arrays | None = None, check: tuple[str, str] | None = None) -> Any:
        """Scores of the rows.

        Args:
            arrays: Typed arrays of the columns.
            once: One row of each column that was named so.
            check: Names of the arguments that `once` and `arrays` came in, if their values are to be checked.
        """
        once = {} if once is None else once

        def pack(packing: Packing, given: Arrays, argument: str | None) -> list[Any]:
            if argument is None:
                return packing.pack(given)
            return packing.pack(given, lambda c: c.check_values(f"{argument}[{c.name!r}]", given[c.name]))

        of_once, of_rows = (None, None) if check is None else check
        return self._run(pack(self._packed_once, once, of_once), pack(self._packed_rows, arrays, of_rows))


def _layers_within(layer: Any, seen: set[int]) -> Iterator[Any]:
    """A layer's own layers at any depth. TensorFlow does not see those that it holds by name."""
    for value in vars(layer).values():
        held = list(value.values()) if isinstance(value, Mapping) else value
        for part in held if isinstance(held, list | tuple) else [held]:
            if isinstance(part, keras.layers.Layer) and id(part) not in seen:
                seen.add(id(part))
                yield part
                yield from _layers_within(part, seen)


def _finite(tensor: Any) -> Any:
    """A graph cannot refuse a number: one that is not finite, once scaled, counts as 0, which is the mean."""
    import tensorflow as tf

    if not tensor.dtype.is_floating:
        return tensor
    return tf.where(tf.math.is_finite(tensor), tensor, tf.zeros_like(tensor))


def _holds_text(values: Any) -> bool:
    kind = getattr(values, "dtype", None)
    if isinstance(values, pd.Series) or not isinstance(kind, np.dtype):
        values = np.asarray(values)
    return values.dtype.kind in "US" or (
        values.dtype.kind == "O" and any(isinstance(value, str) for value in values.ravel()[:100])
    )
