"""Candidates that stay the same from user to user: what a model makes of them alone is kept."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._once import Kept
from mtl_zoo.serving import columns as _columns
from mtl_zoo.serving.columns import Packing
from mtl_zoo.serving.scoring import Scoring

# Rows that are prepared at once.
_AT_ONCE = 4096
# Numbers of a weight, or rows of a table, that tell whether it is another one by now.
_SAMPLED = 32


class Preparation:
    """What a model makes of rows before they meet a user, kept in memory, for as long as its weights are the same.

    Args:
        model: A model of the zoo.
        rows: Tensors by input of the model, a row a candidate.
        anybody: Tensors of the other inputs, one row; whose does not matter.
        watched: The weights that scores are made of. Default: the model's; `compile` may later add some of a balancing
            method, or take them away.

    Example:

    >>> import tensorflow as tf
    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.serving.prepared import Preparation
    >>> features = [Categorical("user_id", size=9, dim=4), Categorical("item_id", size=9, dim=4)]
    >>> model = create_model("shared_bottom", features, [BinaryTask("click")], bottom_units=(8,))
    >>> kept = Preparation(model, {"item_id": tf.range(2, 9)}, {"user_id": tf.constant([2])})
    >>> [tensor.shape.as_list() for tensor in kept.state.found]
    [[7, 4], [7, 8]]
    """

    def __init__(
        self, model: Any, rows: Mapping[str, Any], anybody: Mapping[str, Any], watched: Sequence[Any] | None = None
    ) -> None:
        self._model, self._rows, self._anybody = model, rows, anybody
        self._watched = list(model.weights if watched is None else watched)
        self.state = self._prepared()

    @property
    def bytes(self) -> int:
        """What is kept takes, with the rows."""
        held = [*self._rows.values(), *self.state.found]
        return sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in held)

    def sampled_weights(self) -> Any:
        """Some numbers of each weight, side by side: training changes them."""
        import tensorflow as tf

        return tf.concat([_sample(weight) for weight in self._watched], axis=0)

    def has_changed(self, sampled: Any, state: PreparedState) -> bool:
        """Whether the model has other weights than those of a state.

        Args:
            sampled: Whether `sampled_weights` differ, a tensor of one boolean.
            state: What was read.
        """
        # A step may change a few rows of a large table, of which none is sampled.
        return bool(sampled.numpy()) or self._model.steps_taken != state.steps

    def refresh(self) -> None:
        """Prepares the rows anew, with the weights that the model has now."""
        self.state = self._prepared()

    def _prepared(self) -> PreparedState:
        import tensorflow as tf

        def prepare(rows: Any) -> Any:
            kept = Kept()
            self._model.scoring.logits_once(self._anybody, rows, kept)
            return kept.found

        specs = {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in self._rows.items()}
        function = tf.function(prepare, input_signature=[specs], autograph=False).get_concrete_function()
        weights, steps, count = self.sampled_weights(), self._model.steps_taken, len(next(iter(self._rows.values())))
        parts = [
            function({name: tensor[start : start + _AT_ONCE] for name, tensor in self._rows.items()})
            for start in range(0, count, _AT_ONCE)
        ]
        return PreparedState([tf.concat(pieces, axis=0) for pieces in zip(*parts, strict=True)], weights, steps)


class PreparedState(NamedTuple):
    """What is kept of rows; a sample of the weights that it was made with, and the steps of training by then."""

    found: list[Any]
    weights: Any
    steps: int


def _sample(weight: Any) -> Any:
    import tensorflow as tf

    # Reading a table would copy it, once rows of it were written.
    is_table = _backend.is_table(weight)
    count = weight.shape[0] if is_table else math.prod(weight.shape)
    at = tf.range(0, count, max(1, count // _SAMPLED))
    numbers = _backend.local_part(weight.value) if is_table else tf.reshape(weight.value, [-1])
    sampled = tf.cast(tf.reshape(tf.gather(numbers, at), [-1]), "float32")
    return tf.bitcast(sampled, "int32")  # NaN is another number than itself


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
        import tensorflow as tf

        self._scoring, self._lock = scoring, threading.Lock()
        self._of_user = of_user
        self._packing = Packing(of_user)
        self._count = len(next(iter(arrays.values())))
        self._rows = self._encoded(arrays)
        anybody = {name: tf.constant(column.example(1)) for name, column in of_user.items()}
        self._kept = Preparation(scoring.model, self._rows, scoring.encode(anybody))
        self._compiled: dict[bool, Any] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """What is kept of the candidates takes."""
        return self._kept.bytes

    def _encoded(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The candidates' inputs of the model."""
        import tensorflow as tf

        packing = Packing({n: c for n, c in self._scoring.columns.items() if n not in self._of_user})
        encode = tf.function(
            lambda tensors: self._scoring.encode(packing.unpack(tensors)),
            input_signature=[packing.specs()],
            autograph=False,
        )
        return encode.get_concrete_function()(packing.pack(arrays))

    def rank(self, user: Mapping[str, Any], rows: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scores of one user with each candidate, (candidates, units) float32 by output.

        Args:
            user: A value (or an array of one row) for each of the columns that the candidates do not have.
            rows: Which of the candidates, by their place, in any order. Default: all.

        Raises:
            ValueError: A column is missing, holds what the model cannot read, or is one that the candidates have; a
                place that is none; the model's weights have changed since the candidates were prepared.
        """
        _columns.check_by_name("user", user)
        both = sorted(name for name in user if name in self._scoring.columns and name not in self._of_user)
        if both:
            raise ValueError(f"`user` must not hold columns of the prepared candidates. Received in both: {both}")
        row = {name: _columns.as_row(column, user[name]) for name, column in self._of_user.items() if name in user}
        arrays = _columns.read_arrays("user", row, self._of_user)
        packed = self._packing.pack(arrays, lambda c: c.check_values(f"user[{c.name!r}]", arrays[c.name]))
        at = [] if rows is None else [self._checked(rows)]
        scores, sampled = self._function(bool(at))(packed, *at)
        if self._kept.has_changed(sampled, self._kept.state):
            raise ValueError(
                "`prepare` must be called again: the model's weights have changed since the candidates were prepared. "
                "Received: other weights, by training or `set_weights`"
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
            rows = {name: choose(tensor) for name, tensor in self._rows.items()}
            found, weights, _ = self._kept.state
            logits = self._scoring.logits_once(single, rows, Kept([choose(tensor) for tensor in found]))
            sampled = tf.reduce_any(tf.not_equal(self._kept.sampled_weights(), weights))
            return self._scoring.scores_of(logits), sampled

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
        ValueError: Candidates are no dict or table; they have none of the model's columns, or all.
    """
    _columns.check_by_name("candidates", candidates)
    theirs = {name: column for name, column in columns.items() if name in candidates}
    others = {name: column for name, column in columns.items() if name not in candidates}
    if not theirs or not others:
        which = "all" if theirs else "none"
        raise ValueError(
            "`candidates` must hold some of the model's columns, and leave those of the user. "
            f"Received: {which} of {check.sample_values(columns)}"
        )
    return theirs, others
