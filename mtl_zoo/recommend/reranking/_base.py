"""A list of candidates, and what a stage that reorders it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo._types import Config

_Kind = TypeVar("_Kind", bound=type)


@dataclasses.dataclass(frozen=True)
class Candidates:
    """One user's candidates in order, best first, with what the stages of re-ranking need to know of them.

    Args:
        ids: Unique ids, of shape (n,).
        scores: Finite scores, of shape (n,). Candidates are put into the order of their scores, the larger first and
            equal ones as they come, unless `ordered`.
        columns: More of them by name, each with n rows: vectors of shape (n, width), categories, ages, uncertainty.
        ordered: Whether the candidates are already in the order that counts.

    Raises:
        ValueError: An id comes twice, scores are not finite, or a column has another number of rows.

    Example:

    >>> from mtl_zoo.recommend import Candidates
    >>> candidates = Candidates(["a", "b", "c"], [0.1, 0.9, 0.5], {"genre": ["x", "y", "x"]})
    >>> candidates.ids.tolist(), candidates.column("genre").tolist()
    (['b', 'c', 'a'], ['y', 'x', 'x'])
    """

    ids: Any
    scores: Any
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ordered: bool = False

    def __post_init__(self) -> None:
        ids, scores = np.asarray(self.ids), np.asarray(self.scores, "float64").reshape(-1)
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        lengths = {"ids": ids.shape[:1], "scores": scores.shape, **{n: v.shape[:1] for n, v in columns.items()}}
        if ids.ndim != 1 or set(lengths.values()) != {ids.shape}:
            raise ValueError(f"`ids`, `scores` and `columns` must have one number of rows. Received: {lengths}")
        if len(np.unique(ids)) != len(ids):
            twice = check.sample_values(check.duplicates(ids.tolist()))
            raise ValueError(f"`ids` must be unique. Received: {twice} twice")
        if not np.isfinite(scores).all():
            raise ValueError(f"`scores` must be finite. Received: {int((~np.isfinite(scores)).sum())} NaN or infinite")
        order = slice(None) if self.ordered else np.argsort(-scores, kind="stable")
        object.__setattr__(self, "ids", ids[order])
        object.__setattr__(self, "scores", scores[order])
        object.__setattr__(self, "columns", {name: values[order] for name, values in columns.items()})
        object.__setattr__(self, "ordered", True)

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> np.ndarray:
        """A column by name.

        Raises:
            ValueError: There is none of that name.
        """
        if name not in self.columns:
            raise ValueError(f"`columns` must hold {name!r}, which a stage reads. Received: {sorted(self.columns)}")
        return self.columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """A column of finite numbers, as float64."""
        values = np.asarray(self.column(name))
        numbers = values.astype("float64") if values.dtype.kind in "biuf" else np.array([np.nan])
        if not np.isfinite(numbers).all():
            raise ValueError(f"`columns[{name!r}]` must hold finite numbers. Received: dtype={values.dtype}, or others")
        return numbers

    def unit_vectors(self, name: str) -> np.ndarray:
        """A column of vectors, each scaled to length 1; a vector of zeros stays one."""
        vectors = self.numbers(name)
        if vectors.ndim != 2:
            raise ValueError(f"`columns[{name!r}]` must hold a vector a candidate. Received: shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

    def at(self, rows: Any) -> Candidates:
        """The candidates of some rows, in that order."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Candidates(self.ids[rows], self.scores[rows], columns, ordered=True)

    def first(self, k: int) -> Candidates:
        """The first k."""
        return self.at(slice(check.check_int("k", k)))

    def chosen_first(self, chosen: Any) -> Candidates:
        """The chosen rows in their order, and behind them all others in theirs."""
        chosen = np.asarray(chosen, "int64")
        left = np.ones(len(self), bool)
        left[chosen] = False
        return self.at(np.concatenate([chosen, np.flatnonzero(left)]))

    def rescored(self, scores: np.ndarray) -> Candidates:
        """The candidates with other scores, in the order of those."""
        return Candidates(self.ids, scores, self.columns)


class Stage:
    """A step of re-ranking: from candidates in order to the same candidates in another.

    Example:

    >>> from mtl_zoo.recommend import Candidates, Stage, rerank
    >>> class LastFirst(Stage):
    ...     def __call__(self, candidates, k, rng):
    ...         return candidates.chosen_first([len(candidates) - 1])
    >>> rerank(Candidates([1, 2, 3], [3, 2, 1]), LastFirst(), k=2).ids.tolist()
    [3, 1]
    """

    kind: ClassVar[str] = ""
    # Whether it trades scores for diversity, as `with_diversity` sets.
    diversifies: ClassVar[bool] = False

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        """All candidates, of which the first k are those that the stage chose.

        Args:
            candidates: In order.
            k: How many places count.
            rng: What a stage draws from, if it draws.
        """
        raise NotImplementedError

    def with_diversity(self, diversity: float) -> Stage:
        """The stage with another trade-off, if it `diversifies`: 0 for scores alone, 1 for diversity alone."""
        return self

    def get_config(self) -> Config:
        """The stage as plain values, which JSON can hold; `stage_from_config` makes it again.

        Raises:
            ValueError: Its class is not registered.
        """
        if not self.kind or not dataclasses.is_dataclass(self):
            raise ValueError(
                f"`rerank` must be stages of registered kinds to be saved, {STAGES.names()}. Received: {self!r}"
            )
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


STAGES: Registry[type[Stage]] = Registry("stage")


def register_stage(kind: str) -> Callable[[_Kind], _Kind]:
    """Enters a stage, a dataclass of plain values, under the name by which saved recommenders know it.

    Args:
        kind: The name; taken once.

    Raises:
        ValueError: The name is taken, or illegal.

    Example:

    >>> from mtl_zoo.recommend import MMR, stage_from_config
    >>> stage_from_config(MMR("vector", trade_off=0.5).get_config())
    MMR(vectors='vector', trade_off=0.5)
    """
    return STAGES.register(kind, keep_as="kind")


def stage_from_config(config: Mapping[str, Any]) -> Stage:
    """A stage from what its `get_config` returned.

    Args:
        config: `kind` and the arguments of that kind.

    Raises:
        ValueError: An unknown kind, or arguments that it does not have.

    Example:

    >>> from mtl_zoo.recommend import CategoryCap, stage_from_config
    >>> stage_from_config(CategoryCap("genre", most=2).get_config())
    CategoryCap(column='genre', most=2, window=None, fill=True)
    """
    arguments = dict(config)
    cls = STAGES[arguments.pop("kind", None)]
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not set(arguments) <= known:
        raise ValueError(f"`config` must have arguments of {cls.__name__}. Received: {sorted(set(arguments) - known)}")
    return cls(**arguments)


def rerank(
    candidates: Candidates, *stages: Stage | Callable[[Candidates, int, np.random.Generator], Candidates], k: int,
    seed: int = 0,
) -> Candidates:  # fmt: skip
    """Reorders candidates by one stage after the other, and returns the first k.

    A stage that chooses puts what it chose first and all others behind, in their order, so that a later stage has
    something to put in a place that it clears. So boosts and exploration come before diversity, caps after it.

    Args:
        candidates: One user's.
        *stages: Such as `Freshness`, `Boost`, `Thompson`, `MMR`, `DPP`, `CategoryCap`, `EpsilonGreedy`; or functions
            like them, from candidates, k and a generator to candidates.
        k: Length of the list.
        seed: Of the stages that draw: the same seed gives the same list. Take another for each request, so that not
            everyone is shown the same.

    Raises:
        ValueError: `k` is not a whole number >= 1; a stage lacks a column.

    Example:

    >>> from mtl_zoo.recommend import MMR, Candidates, CategoryCap, rerank
    >>> candidates = Candidates(
    ...     ["a", "b", "c", "d"], [0.9, 0.8, 0.7, 0.2],
    ...     {"vector": [[1, 0], [1, 0.1], [0, 1], [1, 1]], "genre": ["x", "x", "y", "y"]})
    >>> rerank(candidates, MMR("vector", trade_off=0.5), CategoryCap("genre", most=1), k=2).ids.tolist()
    ['a', 'c']
    """
    k = check.check_int("k", k)
    rng = np.random.default_rng(seed)
    for stage in stages:
        candidates = stage(candidates, k, rng)
    return candidates.first(k)
