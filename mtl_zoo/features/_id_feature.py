"""What features share whose values become ids that look up rows of an embedding table: `Categorical` and `Sequence`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Hashable, Iterable
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._files import name_within
from mtl_zoo.features import vocabularies
from mtl_zoo.features._columns import FLOAT, STRING, Cells, Column, Lists
from mtl_zoo.features._growth import Growth, GrowthRules
from mtl_zoo.features._id_vocabularies import checked_range, given, learned
from mtl_zoo.features._nested import nested_lists
from mtl_zoo.features._states import ColumnType, Unseen, unseen_of
from mtl_zoo.features._weighted import WeightedLists, as_texts, read_weighted, split_in_graph, warn_of_weights
from mtl_zoo.features.base import Feature, Summary
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, MOST_IDS, InputSpec, Rows
from mtl_zoo.features.vocabularies import Hashed, Vocabulary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class IdFeature(Feature):
    """A feature whose values become ids that look up rows of an embedding table."""

    dim: int = dataclasses.field(default=16, kw_only=True)
    vocabulary: tuple[Any, ...] | None = dataclasses.field(default=None, kw_only=True, repr=False)
    size: int | None = dataclasses.field(default=None, kw_only=True)
    hash_buckets: int | None = dataclasses.field(default=None, kw_only=True)
    min_count: int = dataclasses.field(default=1, kw_only=True)
    max_ids: int | None = dataclasses.field(default=None, kw_only=True)
    key: str | None = dataclasses.field(default=None, kw_only=True)
    pretrained: np.ndarray | None = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)
    trainable: bool = dataclasses.field(default=True, kw_only=True)
    num_ids: int | None = dataclasses.field(default=None, kw_only=True)
    unknown_rate: float = dataclasses.field(default=0.0, kw_only=True)

    grows: ClassVar[tuple[str, ...]] = ("num_ids", "size")
    # What splits a string into values, in kinds that hold lists.
    separator: ClassVar[str]
    length: ClassVar[int | None]
    # Whether its values have weights, which are a second input.
    weights: ClassVar[bool] = False
    # Whether a cell holds lists of lists, whose values are read one after the other.
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim is not None or not self.borrows:
            check.check_int("dim", self.dim)
        check.check_int("min_count", self.min_count)
        given = [name for name in ("vocabulary", "size", "hash_buckets") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"`vocabulary`, `size` and `hash_buckets` exclude each other. Received: {given}")
        if self.max_ids is not None:
            check.check_int("max_ids", self.max_ids)
            if given:
                raise ValueError(
                    f"`max_ids` bounds a vocabulary that is learned, and `{given[0]}` gives one. "
                    f"Received: max_ids={self.max_ids!r} for feature {self.name!r}"
                )
        if self.vocabulary is not None:
            self._check_vocabulary()
        for name in ("size", "hash_buckets"):
            if getattr(self, name) is not None:
                check.check_int(name, getattr(self, name), maximum=MOST_IDS)
        if self.nested and (self.weights or not self.holds_lists):
            raise ValueError(f"`nested` needs lists of values without weights. Received: nested={self.nested!r}")
        if self.key is not None:
            check.check_name("key", self.key)
        object.__setattr__(
            self, "unknown_rate", check.check_number("unknown_rate", self.unknown_rate, minimum=0, below=1)
        )
        if self.num_ids is None:
            object.__setattr__(self, "num_ids", self._known_ids())
        elif self._known_ids() not in (None, self.num_ids):
            raise ValueError(
                f"`num_ids` must be {self._known_ids()} for this feature. Received: num_ids={self.num_ids!r}"
            )
        if self.pretrained is not None:
            object.__setattr__(self, "pretrained", self._checked_matrix(self.pretrained))

    def _check_vocabulary(self) -> None:
        if isinstance(self.vocabulary, str) or not isinstance(self.vocabulary, Iterable):
            raise ValueError(f"`vocabulary` must be a list of values. Received: vocabulary={self.vocabulary!r}")
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        odd = [value for value in self.vocabulary if not isinstance(value, Hashable)]
        if odd:
            raise ValueError(f"`vocabulary` must hold strings or whole numbers. Received: {check.sample_values(odd)}")
        repeated = check.duplicates(self.vocabulary)
        if repeated or not self.vocabulary:
            raise ValueError(
                f"`vocabulary` must hold different values, at least one. Received {len(repeated)} twice: "
                f"{check.sample_values(repeated)}"
            )

    def _checked_matrix(self, pretrained: Any) -> np.ndarray:
        matrix = np.asarray(pretrained, dtype="float32")
        if matrix.ndim != 2 or not np.isfinite(matrix).all():
            raise ValueError(f"`pretrained` must be a finite (values, dim) matrix. Received: shape {matrix.shape}")
        if matrix.shape[1] != self.dim:
            raise ValueError(f"`dim` must be the width of `pretrained`, {matrix.shape[1]}. Received: dim={self.dim}")
        if self.num_ids is None or matrix.shape[0] != self.num_ids - FIRST_ID:
            raise ValueError(
                "`pretrained` needs one row a value, in the order of `vocabulary` or `size`. "
                f"Received: {matrix.shape[0]} rows, num_ids={self.num_ids!r} for feature {self.name!r}"
            )
        return matrix

    def _known_ids(self) -> int | None:
        if self.vocabulary is not None:
            return FIRST_ID + len(self.vocabulary)
        size = self.size if self.size is not None else self.hash_buckets
        return None if size is None else FIRST_ID + size

    @property
    def table(self) -> str:
        """Name of the embedding table: features with the same `key` share one."""
        return self.key or self.name

    @property
    def holds_lists(self) -> bool:
        """Whether a cell holds several values."""
        raise NotImplementedError

    @property
    def rule(self) -> str:
        if self.vocabulary is not None:
            return f"vocabulary of {len(self.vocabulary)}"
        if self.size is not None:
            return f"size={self.size}"
        if self.hash_buckets is not None:
            return f"hash_buckets={self.hash_buckets}"
        bound = "" if self.max_ids is None else f", max_ids={self.max_ids}"
        nested = ", lists of lists as one" if self.nested else ""
        return f"learned vocabulary, min_count={self.min_count}{bound}{nested}"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("num_ids",) if self.num_ids is None else ()

    def input_specs(self) -> dict[str, InputSpec]:
        specs = {self.name: InputSpec(self.shape, "int32")}
        return {**specs, f"{self.name}.weights": InputSpec(self.shape, "float32")} if self.weights else specs

    def embed(self) -> Rows:
        return Rows(
            self.table,
            self.num_ids or 0,
            self.dim,
            trainable=self.trainable,
            pretrained=self.pretrained,
            pooling=self.pooling,
            weights=self.weights,
            unknown_rate=self.unknown_rate,
        )

    @property
    def pooling(self) -> str | None:
        return "sum"

    @property
    def share_key(self) -> tuple[str, str]:
        return ("table", self.table)

    def check_shares_with(self, first: Any) -> None:
        for argument in ("dim", "num_ids", "trainable"):
            self._refuse_difference(first, argument)

    # From a table.

    @property
    def state_key(self) -> tuple[str, str]:
        return (Vocabulary.family, self.table)

    def read(self, column: Column) -> Cells | Lists:
        if self.weights:
            return read_weighted(column, self.separator)
        if self.nested:
            return nested_lists(column, self.separator)
        return column.lists(self.separator) if self.holds_lists else column.cells()

    def fit(self, sharing: SequenceABC[tuple[Any, Cells | Lists]]) -> Vocabulary:
        """The vocabulary of the features that share one table, given or learned from what they read."""
        features = [feature for feature, _ in sharing]
        cells = [_cells_of(reading) for _, reading in sharing]
        self._check_alike(features)
        for feature, read_cells in zip(features, cells, strict=True):
            if not (read_cells.codes >= 0).any():
                raise ValueError(
                    f"`{read_cells.column}` must hold a value to fit feature {feature.name!r}. "
                    f"Received: {len(read_cells.codes)} rows, all missing"
                )
            if read_cells.kind == FLOAT:
                read_cells.whole_numbers()  # refuses the others
            if feature.holds_lists and not feature.weights and read_cells.kind == STRING:
                warn_of_weights(read_cells)
        if self.hash_buckets is not None:
            return Hashed(self.hash_buckets)
        if self.size is not None:
            return checked_range(self.size, features, cells)
        is_text = any(read_cells.kind == STRING for read_cells in cells)
        if self.vocabulary is not None:
            return given(features, cells, is_text)
        return learned(cells, is_text, self.min_count, self.max_ids)

    def extended(
        self, state: Vocabulary, sharing: SequenceABC[tuple[Any, Cells | Lists]], rules: GrowthRules
    ) -> tuple[Vocabulary, Growth]:
        """A learned vocabulary grows; one that is given, a range and hash buckets stay."""
        cells = [_cells_of(reading) for _, reading in sharing]
        unknown = [unseen_of(c, state.ids(c)) for c in cells]
        rows = sum(len(c.codes) for c in cells)
        share = sum(u.count for u in unknown if u) / max(rows, 1)
        if not self.is_learned:
            return state, Growth("stays", unknown=share)
        own = dataclasses.replace(rules, min_count=rules.min_count or self.min_count)
        grown, growth = state.extended(cells, own, self.max_ids)  # type: ignore[attr-defined]
        return grown, dataclasses.replace(growth, unknown=share)

    @property
    def is_learned(self) -> bool:
        """Whether `fit` learns which values are known."""
        return self.vocabulary is self.size is self.hash_buckets is None

    def _check_alike(self, features: SequenceABC[IdFeature]) -> None:
        for other in features[1:]:
            for argument in ("vocabulary", "size", "hash_buckets", "min_count", "max_ids"):
                if getattr(self, argument) != getattr(other, argument):
                    raise ValueError(
                        f"`{argument}` must be the same for features that share the table {self.table!r}. "
                        f"Received: different ones for {self.name!r} and {other.name!r}"
                    )

    def sized(self, state: Vocabulary, reading: Cells | Lists) -> Feature:
        return dataclasses.replace(self, num_ids=state.num_ids)

    def resized(self, state: Vocabulary, sizes: dict[str, Any]) -> Feature:
        return dataclasses.replace(self, num_ids=state.num_ids, **sizes)

    def summarize(self, reading: Cells | Lists) -> Summary:
        distinct = int((_cells_of(reading).counts > 0).sum())
        if isinstance(reading, Lists):
            return Summary(distinct, reading.num_rows - int(np.count_nonzero(np.bincount(reading.rows))))
        return Summary(distinct, reading.missing)

    def encode(
        self, state: Vocabulary, column: Column, fitted: ColumnType
    ) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """Ids (n,), or (n, length) for lists, and what was not in the vocabulary."""
        if not self.holds_lists:
            # Most columns hold numbers that are all known: finding the distinct ones first would take ten times as
            # long.
            numbers = column.integers()
            ids = None if numbers is None else state.ids_of_numbers(numbers)
            if ids is not None:
                return {self.name: ids}, None
        reading = self.read(column)
        cells = _cells_of(reading)
        known = state.ids(cells)
        ids = np.append(known, MISSING_ID).astype(np.int32)[cells.codes]
        weights: dict[str, np.ndarray] = {}
        if isinstance(reading, WeightedLists):
            padded = self._padded(reading.weights, reading.rows, reading.num_rows)
            weights = {f"{self.name}.weights": padded}
        if isinstance(reading, Lists):
            ids = self._padded(ids, reading.rows, reading.num_rows)
        return {self.name: ids, **weights}, unseen_of(cells, known)

    def values(self, state: Vocabulary | None) -> tuple[Any, ...] | None:
        return self.vocabulary if state is None else state.given()

    def _padded(self, ids: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
        """(rows, length), padded right with 0, from the ids or weights of all lists and the row that each stands in."""
        if not self.weights:
            rows, ids = self._kept(rows, ids)
        counts = np.bincount(rows, minlength=num_rows)
        positions = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
        length = self.length or 0
        positions = positions - self._skipped(counts, length)[rows]
        keep = (positions >= 0) & (positions < length)
        padded = np.zeros((num_rows, length), dtype=ids.dtype)
        padded[rows[keep], positions[keep]] = ids[keep]
        return padded

    def _kept(self, rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of all lists that count."""
        return rows, ids

    def _skipped(self, counts: np.ndarray, length: int) -> np.ndarray:
        """How many values of each list are left out at its front."""
        return np.zeros_like(counts)

    def encode_in_graph(self, lookup: Any, raw: Any) -> dict[str, Any]:
        if not self.holds_lists:
            return {self.name: vocabularies.look_up(lookup, raw)}
        import tensorflow as tf

        rows, values, num_rows = self._flat(raw)
        if self.weights:
            values, weights = split_in_graph(values)
        ids = vocabularies.look_up(lookup, values)
        keep = ids != MISSING_ID
        rows, kept = rows[keep], {self.name: ids[keep]}
        if self.weights:
            kept[f"{self.name}.weights"] = weights[keep]
        else:
            rows, kept[self.name] = self._kept_in_graph(rows, kept[self.name], lookup.num_ids)
        lists = {n: self._cut_in_graph(tf.RaggedTensor.from_value_rowids(x, rows, num_rows)) for n, x in kept.items()}
        return {name: x.to_tensor(0, shape=(None, self.length)) for name, x in lists.items()}

    def _flat(self, raw: Any) -> tuple[Any, Any, Any]:
        """Lists, or strings split at the separator, as (row of each value, values, number of rows)."""
        import tensorflow as tf

        if raw.shape.rank == 1:
            lists = tf.strings.split(raw, self.separator)
            return lists.value_rowids(), lists.values, lists.nrows()
        shape = tf.shape(raw, out_type=tf.int64)
        return tf.repeat(tf.range(shape[0]), shape[1]), tf.reshape(raw, [-1]), shape[0]

    def _kept_in_graph(self, rows: Any, ids: Any, num_ids: int) -> tuple[Any, Any]:
        return rows, ids

    def _cut_in_graph(self, lists: Any) -> Any:
        return lists[:, : self.length]

    def raw_form(self) -> InputSpec | None:
        meaning = "values of lists of lists" if self.nested else "values and weights"
        return InputSpec((), "string", meaning=meaning) if self.nested or self.weights else None

    def raw_array(self, column: Column) -> np.ndarray:
        return as_texts(self.read(column), self.separator)  # type: ignore[arg-type]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        """Sizes only: a fitted vocabulary lives in the transform, and a pretrained matrix in the weights."""
        config = {**super().get_config(), "vocabulary": None, "pretrained": None}
        if not self.unknown_rate:
            del config["unknown_rate"]  # what 0.1.0 wrote
        for argument in ("weights", "nested", "bias"):
            if not getattr(self, argument):
                config.pop(argument, None)
        return config

    def write_arrays(self, folder: Path, stem: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if self.vocabulary is not None:
            kept["vocabulary_given"] = True  # it stands in the transform's state
        if self.pretrained is not None:
            kept["pretrained"] = f"{stem}.npy"
            np.save(folder / kept["pretrained"], self.pretrained, allow_pickle=False)
        return kept

    def read_arrays(self, folder: Path, kept: dict[str, Any], state: Vocabulary) -> Feature:
        changes: dict[str, Any] = {}
        if kept.get("vocabulary_given"):
            changes["vocabulary"] = state.given()
        if "pretrained" in kept:
            changes["pretrained"] = np.load(name_within(folder, kept["pretrained"], "a transform"), allow_pickle=False)
        return dataclasses.replace(self, **changes) if changes else self


def _cells_of(reading: Cells | Lists) -> Cells:
    return reading.cells if isinstance(reading, Lists) else reading
