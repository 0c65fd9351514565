"""Candidates that stay the same from user to user: what a model makes of them alone is kept."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._once import Kept, computed_once
from mtl_zoo.serving import columns as _columns
from mtl_zoo.serving.columns import Packing
from mtl_zoo.serving.scoring import Scoring

# Rows of candidates that are prepared at once.
_AT_ONCE = 4096
# Numbers of a weight, or rows of a table, that tell whether it is another one by now.
_SAMPLED = 32


class PreparedCandidates:
    """Candidates of `Scorer.prepare`, a catalogue for instance, of which a user is ranked against all or some.

    What can be computed of a candidate before a user is known is kept in memory: the vectors of its features, and its
    part of the first products of experts, bottoms and gates, `v W_v` of `x W = u W_u + v W_v`. For a request only
    the user's part and what comes after is left. `bytes` says what is kept takes, the candidates' own columns included.

    The scores are those of `Scorer.rank`. They belong to the weights at the time of `prepare`: after training they are
    refused, and the candidates must be prepared again. So they must after a few numbers of a weight were written by
    hand, which is not always seen. A scorer that takes over another model leaves them with the one they have.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, create_model, make_scorer
    >>> features = [Categorical("user_id", size=9), Categorical("item_id", size=9)]
    >>> scorer = make_scorer(create_model("shared_bottom", features, [BinaryTask("click")]))
    >>> shop = scorer.prepare({"item_id": np.arange(2, 9)})
    >>> len(shop), shop.rank({"user_id": 3})["click"].shape, shop.rank({"user_id": 3}, rows=[4, 0])["click"].shape
    (7, (7, 1), (2, 1))
    """

    def __init__(self, scoring: Scoring, arrays: Mapping[str, np.ndarray], of_user: _columns.Columns):
        self._scoring, self._lock = scoring, threading.Lock()
        self._of_user = of_user
        self._packing = Packing(of_user)
        self._order = list(_columns.encoded_columns(scoring.model))
        self._count = len(next(iter(arrays.values())))
        self._inputs, self._found = self._prepared(arrays)
        # Those that scores are made of: `compile` may add weights of a balancing method, or take them away.
        self._watched = list(scoring.model.weights)
        self._weights, self._steps = self._sampled_weights(), self._steps_taken()
        held = [*self._inputs.values(), *self._found]
        self.bytes = sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in held)
        self._compiled: dict[bool, Any] = {}

    def __len__(self) -> int:
        return self._count

    def _prepared(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[Any]]:
        """The candidates' inputs, and what is kept of them."""
        import tensorflow as tf

        scoring = self._scoring
        packing = Packing({n: c for n, c in scoring.columns.items() if n not in self._of_user})
        anybody = {name: tf.constant(column.example(1)) for name, column in self._of_user.items()}

        def prepare(row_tensors: list[Any]) -> Any:
            rows, single = scoring.encode(packing.unpack(row_tensors)), scoring.encode(anybody)
            kept = Kept()
            self._logits(single, rows, kept)
            return rows, kept.found

        function = tf.function(prepare, input_signature=[packing.specs()], autograph=False)
        parts = [
            function(packing.pack({name: array[start : start + _AT_ONCE] for name, array in arrays.items()}))
            for start in range(0, self._count, _AT_ONCE)
        ]
        inputs = {name: tf.concat([part[0][name] for part in parts], axis=0) for name in parts[0][0]}
        found = [tf.concat(pieces, axis=0) for pieces in zip(*(part[1] for part in parts), strict=True)]
        return inputs, found

    def _sampled_weights(self) -> Any:
        """Some numbers of each weight, side by side: training changes them."""
        import tensorflow as tf

        def sample(weight: Any) -> Any:
            # Reading a table would copy it, once rows of it were written.
            is_table = _backend.is_table(weight)
            count = weight.shape[0] if is_table else math.prod(weight.shape)
            at = tf.range(0, count, max(1, count // _SAMPLED))
            numbers = _backend.local_part(weight.value) if is_table else tf.reshape(weight.value, [-1])
            return tf.cast(tf.reshape(tf.gather(numbers, at), [-1]), "float32")

        return tf.concat([sample(weight) for weight in self._watched], axis=0)

    def _steps_taken(self) -> int:
        """Steps of the model's optimizer: one may change a few rows of a large table, and nothing else."""
        optimizer = getattr(self._scoring.model, "optimizer", None)
        return 0 if optimizer is None else int(optimizer.iterations.numpy())

    def _logits(self, single: Mapping[str, Any], rows: Mapping[str, Any], kept: Kept) -> Any:
        import tensorflow as tf

        count = tf.shape(next(iter(rows.values())))[0]
        with computed_once(single, count, kept=kept) as once:
            inputs = {n: rows[n] if n in rows else once.repeated(single[n]) for n in self._order}
            return self._scoring.logits_of(inputs)

    def rank(self, user: Mapping[str, Any], rows: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scores of one user with each candidate, (candidates, units) float32 by output.

        Args:
            user: A value (or an array of one row) for each of the columns that the candidates do not have.
            rows: Which of the candidates, by their place, in any order. Default: all.

        Raises:
            ValueError: A column is missing, holds what the model cannot read, or is one that the candidates have; a
                place that is none; the model's weights have changed since the candidates were prepared.
        """
        both = sorted(name for name in user if name in self._scoring.columns and name not in self._of_user)
        if both:
            raise ValueError(f"`user` must not hold columns of the prepared candidates. Received in both: {both}")
        row = {name: _columns.as_row(column, user[name]) for name, column in self._of_user.items() if name in user}
        arrays = _columns.read_arrays("user", row, self._of_user)
        packed = self._packing.pack(arrays, lambda c: c.check_values(f"user[{c.name!r}]", arrays[c.name]))
        at = [] if rows is None else [self._checked(rows)]
        scores, has_changed = self._function(bool(at))(packed, *at)
        # An optimizer that has taken none is a new one.
        if has_changed.numpy() or self._steps_taken() not in (0, self._steps):
            raise ValueError(
                "`prepare` must be called again: the model's weights have changed since the candidates were prepared. "
                "Received: a model that was trained meanwhile"
            )
        return {name: values.numpy() for name, values in scores.items()}

    def _checked(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        at = np.asarray(rows)
        if at.ndim != 1 or not (np.issubdtype(at.dtype, np.integer) or not at.size):
            raise ValueError(f"`rows` must be whole numbers, (candidates,). Received: shape {at.shape}, {at.dtype}")
        if at.size and not 0 <= at.min() <= at.max() < self._count:
            raise ValueError(
                f"`rows` must be places of candidates, 0 to {self._count - 1}. Received: {at.min()} to {at.max()}"
            )
        return at.astype("int32")

    def _function(self, some: bool) -> Any:
        """The compiled function of all candidates, or of some."""
        with self._lock:
            if some not in self._compiled:
                self._compiled[some] = self._trace(some)
            return self._compiled[some]

    def _trace(self, some: bool) -> Any:
        import tensorflow as tf

        def rank(user_tensors: list[Any], choose: Callable[[Any], Any]) -> Any:
            single = self._scoring.encode(self._packing.unpack(user_tensors))
            rows = {name: choose(tensor) for name, tensor in self._inputs.items()}
            logits = self._logits(single, rows, Kept([choose(tensor) for tensor in self._found]))
            has_changed = tf.reduce_any(tf.not_equal(self._sampled_weights(), self._weights))
            return self._scoring.scores_of(logits), has_changed

        def rank_all(user_tensors: list[Any]) -> Any:
            return rank(user_tensors, lambda tensor: tensor)

        def rank_some(user_tensors: list[Any], at: Any) -> Any:
            return rank(user_tensors, lambda tensor: tf.gather(tensor, at))

        signature = [self._packing.specs(), *([tf.TensorSpec((None,), "int32")] if some else [])]
        function = tf.function(rank_some if some else rank_all, input_signature=signature, autograph=False)
        return function.get_concrete_function()


def check_candidates(columns: _columns.Columns, candidates: Mapping[str, Any]) -> tuple[Any, Any]:
    """The columns that candidates have, and those that a user must have.

    Raises:
        ValueError: Candidates have none of the model's columns, or all.
    """
    theirs = {name: column for name, column in columns.items() if name in candidates}
    others = {name: column for name, column in columns.items() if name not in candidates}
    if not theirs or not others:
        which = "all" if theirs else "none"
        raise ValueError(
            "`candidates` must hold some of the model's columns, and leave those of the user. "
            f"Received: {which} of {check.sample_values(columns)}"
        )
    return theirs, others
