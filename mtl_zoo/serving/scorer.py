"""Scores of one to some thousand rows at low latency: what a server calls while someone waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.serving import columns as _columns
from mtl_zoo.serving.prepared import PreparedCandidates, check_candidates
from mtl_zoo.serving.scoring import Scoring


def make_scorer(model: Any, max_batch: int = 10_000, *, raw: bool = False) -> Scorer:
    """A function from columns to scores for 1 to `max_batch` rows, compiled once for any number of them.

    Calls from several threads at once are safe. The scores are those of `model.predict`, and follow the model's weights
    if it is trained further. For serving without this package see `export_serving`.

    Args:
        model: A model of the zoo.
        max_batch: The largest number of rows of a call; a larger one is refused. Default: 10000.
        raw: Whether the scorer takes the columns of a table, and encodes them with the model's transform in the same
            compiled function, instead of encoded arrays. Default: False.

    Raises:
        ValueError: `max_batch` < 1; `raw` without a transform; the backend is not TensorFlow.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, Numeric, create_model
    >>> from mtl_zoo.export import make_scorer
    >>> features = [Categorical("user_id", size=9), Categorical("item_id", size=9), Numeric("price")]
    >>> scorer = make_scorer(create_model("shared_bottom", features, [BinaryTask("click")]))
    >>> scorer({"user_id": np.array([2, 2]), "item_id": np.array([3, 4]), "price": np.ones(2)})["click"].shape
    (2, 1)
    >>> scorer.rank({"user_id": 2}, {"item_id": np.array([3, 4, 5]), "price": np.ones(3)})["click"].shape
    (3, 1)
    """
    if not _backend.is_tensorflow():
        raise ValueError(
            f"`make_scorer` needs the TensorFlow backend. Received: KERAS_BACKEND={keras.backend.backend()!r}"
        )
    check.check_int("max_batch", max_batch)
    if raw and model.transform is None:
        raise ValueError(
            "`raw` must be False unless the model was made with a fitted FeatureTransform, which encodes raw columns. "
            f"Received: raw={raw!r}, model {model.name!r}"
        )
    return Scorer(Scoring(model, raw), max_batch)


class Scorer:
    """What `make_scorer` returns: columns -> scores, (rows, units) float32 by output.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, create_model, make_scorer
    >>> scorer = make_scorer(create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")]))
    >>> scorer({"city": np.array([2, 3, 4])})["click"].shape
    (3, 1)
    """

    def __init__(self, scoring: Scoring, max_batch: int):
        self.max_batch = max_batch
        self._scoring = scoring
        # The first call pays for the trace and for TensorFlow's own preparations.
        self(scoring.example(1))

    def take_over(self, model: Any) -> None:
        """Scores with another model from now on, such as `model.extended(transform)` after a day of training.

        It is prepared first, while calls are answered by the old model; calls that have begun end with the old one.

        Args:
            model: A model of the zoo with the same columns and outputs.

        Raises:
            ValueError: It takes other columns, gives other outputs, or has no transform where raw columns are scored.
        """
        new = Scoring(model, self.raw)
        for what, old, now in (
            ("columns", _forms(self._scoring), _forms(new)),
            ("outputs", self._scoring.units, new.units),
        ):
            if old != now:
                raise ValueError(f"`model` must have the {what} of the scorer's model, {old}. Received: {now}")
        _as_numpy(new.compiled()(new.example(1)))
        self._scoring = new

    @property
    def raw(self) -> bool:
        """Whether it takes the columns of a table."""
        return self._scoring.raw

    def __call__(self, x: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Scores of each row.

        Args:
            x: Arrays of one length by feature; if `raw`, by column, of the types and with the missing values of
                `FeatureTransform.raw_signature` (its `raw_arrays` makes them from a table). Others are ignored.

        Raises:
            ValueError: A column is missing, not of its type or shape, or holds what its feature cannot read; the
                lengths differ; more than `max_batch` rows.
        """
        scoring = self._scoring  # one, whatever takes over meanwhile
        arrays = _columns.read_arrays("x", x, scoring.columns)
        self._check_size("x", arrays)
        return _as_numpy(scoring.compiled()(arrays, check=("", "x")))

    def rank(self, user: Mapping[str, Any], candidates: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Scores of one user with each candidate, in the order of the candidates.

        A user's columns are encoded once and repeated inside the compiled function, which is traced at the first call
        with a given set of the user's columns.

        Args:
            user: A value (or an array of one row) for each of the user's columns.
            candidates: Arrays of one length for the other columns.

        Raises:
            ValueError: What a call refuses; a column is given twice; `candidates` has none.
        """
        _columns.check_by_name("user", user)
        _columns.check_by_name("candidates", candidates)
        both = sorted(set(user) & set(candidates))
        if both:
            raise ValueError(f"`user` and `candidates` must not share a column. Received in both: {both}")
        scoring = self._scoring
        columns = scoring.columns
        of_user = {name: column for name, column in columns.items() if name in user}
        others = {name: column for name, column in columns.items() if name not in user}
        if not others:
            raise ValueError("`candidates` must hold a column of the model. Received: every column in `user`")
        row = {name: _columns.as_row(column, user[name]) for name, column in of_user.items()}
        arrays = _columns.read_arrays("candidates", candidates, others)
        self._check_size("candidates", arrays)
        compiled = scoring.compiled(once=of_user)
        return _as_numpy(compiled(arrays, _columns.read_arrays("user", row, of_user), check=("user", "candidates")))

    def prepare(self, candidates: Mapping[str, Any]) -> PreparedCandidates:
        """Candidates that come again and again, with what the model makes of them before a user is known.

        `scorer.prepare(items).rank(user, rows)` gives what `rank` gives of those rows, and costs less: a catalogue is
        read once, and its part of the first products is kept, some kilobytes a candidate.

        Args:
            candidates: Arrays of one length, of any number of rows, for some of the columns. The others are the
                user's, and come with each request.

        Raises:
            ValueError: What a call refuses; `candidates` has none of the columns, or all.
        """
        scoring = self._scoring
        theirs, of_user = check_candidates(scoring.columns, candidates)
        arrays = _columns.read_arrays("candidates", candidates, theirs)
        if not _columns.count_rows("candidates", arrays):
            raise ValueError("`candidates` must have at least one row. Received: 0 rows")
        for name, column in theirs.items():
            column.check_values(f"candidates[{name!r}]", arrays[name])
        return PreparedCandidates(scoring, arrays, of_user)

    def _check_size(self, argument: str, arrays: Mapping[str, np.ndarray]) -> None:
        rows = _columns.count_rows(argument, arrays)
        if rows > self.max_batch:
            raise ValueError(
                f"`{argument}` must have at most max_batch={self.max_batch} rows; `predict` takes any number. "
                f"Received: {rows} rows"
            )


def _forms(scoring: Scoring) -> dict[str, tuple[Any, ...]]:
    """What a row's columns must be; how many ids there are may differ."""
    return {name: (column.shape, column.dtype) for name, column in scoring.columns.items()}


def _as_numpy(scores: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in scores.items()}
