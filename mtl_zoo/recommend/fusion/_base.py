"""What a fusion of tasks' scores is, and the registry of its kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo._types import Config, Tensor
from mtl_zoo.recommend.fusion._math import Math, NumpyMath, TensorflowMath

# Draws a number: its name, the smallest, the largest, and whether it is drawn on a logarithmic scale.
Suggest = Callable[..., float]
_Kind = TypeVar("_Kind", bound=type)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fusion:
    """Scores of several tasks as one score to rank by. Each kind extends it and gives `fuse` and `tasks`.

    Called with arrays it computes in float64; `in_graph` does the same on tensors. The last axis of the scores is a
    list of candidates, of shape (candidates,) or (users, candidates); with `groups`, one value a row, the rows of a
    group are a list. Columns of shape (rows, 1), as models give them, are read as (rows,).

    Args:
        floors: A smallest score by task. A candidate that is under one comes behind all of its list that are not: its
            score is lowered by 1.5 times the range of the list's. Default: none.

    Example:

    >>> import dataclasses
    >>> from mtl_zoo.recommend import Fusion
    >>> @dataclasses.dataclass(frozen=True)
    ... class Harmonic(Fusion):
    ...     names: tuple[str, ...]
    ...     def tasks(self):
    ...         return self.names
    ...     def fuse(self, math, scores):
    ...         return len(self.names) / sum(1 / scores[name] for name in self.names)
    >>> Harmonic(("click", "like"))({"click": [0.5, 0.2], "like": [0.25, 0.2]}).round(3).tolist()
    [0.333, 0.2]
    """

    kind: ClassVar[str] = ""
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "floors", checked_numbers("floors", self.floors, allow_empty=True))

    def tasks(self) -> tuple[str, ...]:
        """The tasks whose scores are read, floors aside."""
        raise NotImplementedError

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        """The fused score, floors aside, in the given arithmetic."""
        raise NotImplementedError

    @classmethod
    def suggested(cls, suggest: Suggest, typical: Mapping[str, float]) -> Fusion:
        """A fusion with parameters that `suggest(name, low, high, log=False)` draws.

        Args:
            suggest: Draws one number.
            typical: The mean score by task.
        """
        raise ValueError(f"`fusion` must be a kind that can be searched. Received: {cls.kind!r}")

    def __call__(self, scores: Mapping[str, Any], groups: Any = None) -> np.ndarray:
        """The fused scores of arrays.

        Args:
            scores: Finite scores by task, all of one shape; others than those that are read are left alone.
            groups: One value a row, where lists are not an axis.

        Raises:
            ValueError: A task has no scores; they are not finite, or of several shapes; fused scores are not finite.
        """
        arrays = self._checked(scores, groups)
        with np.errstate(all="ignore"):
            math = NumpyMath(None if groups is None else np.asarray(groups).reshape(-1))
            fused = self._with_floors(math, np.asarray(self.fuse(math, arrays), "float64"), arrays)
        first = next(iter(arrays.values()))
        fused = np.broadcast_to(fused, first.shape).copy()
        if not np.isfinite(fused).all():
            raise ValueError(
                f"`scores` must have finite fused scores. Received: {int((~np.isfinite(fused)).sum())} NaN or infinite "
                f"ones of {fused.size} from {self!r}"
            )
        return fused

    def in_graph(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The fused scores of tensors, whose last axis is a list; NaN and infinities are not looked for.

        Args:
            scores: Scores by task, all of one shape.

        Raises:
            ValueError: A task has no scores.
        """
        import tensorflow as tf

        self._refuse_missing(scores)
        tensors = {name: tf.convert_to_tensor(scores[name]) for name in self._reads()}
        is_column = next(iter(tensors.values())).shape[1:] == [1]
        tensors = {name: tf.reshape(x, [-1]) if is_column else x for name, x in tensors.items()}
        math, first = TensorflowMath(), next(iter(tensors.values()))
        fused = tf.cast(tf.broadcast_to(self.fuse(math, tensors), tf.shape(first)), first.dtype)
        return self._with_floors(math, fused, tensors)

    def _reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.tasks(), *self.floors]))

    def _refuse_missing(self, scores: Mapping[str, Any]) -> None:
        missing = [name for name in self._reads() if name not in scores]
        if missing:
            raise ValueError(f"`scores` must hold those of {missing}. Received: {sorted(scores)}")

    def _checked(self, scores: Mapping[str, Any], groups: Any) -> dict[str, np.ndarray]:
        self._refuse_missing(scores)
        arrays = {name: column(scores[name]) for name in self._reads()}
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) > 1 or not all(len(shape) in (1, 2) for shape in shapes.values()):
            raise ValueError(f"`scores` must have one shape, (candidates,) or (users, candidates). Received: {shapes}")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                bad = int((~np.isfinite(array)).sum())
                raise ValueError(f"`scores` must be finite. Received: {bad} NaN or infinite for {name!r}")
        first = next(iter(shapes.values()))
        if groups is not None and first != np.asarray(groups).reshape(-1).shape:
            raise ValueError(f"`groups` must have one value a row. Received: {np.size(groups)} for scores of {first}")
        return arrays

    def _with_floors(self, math: Math, fused: Any, scores: Mapping[str, Any]) -> Any:
        if not self.floors:
            return fused
        behind = fused * 0
        for name, floor in self.floors.items():
            behind = math.where(scores[name] < math.constant(floor, scores[name]), behind * 0 + 1, behind)
        most = math.most(fused)
        gap = 1.5 * (most - math.least(fused))
        gap = math.where(gap > 0, gap, math.maximum(math.maximum(most, -most), most * 0 + 1))
        return math.where(behind > 0, fused - gap, fused)

    def get_config(self) -> Config:
        """The fusion as plain values, which JSON can hold; `fusion_from_config` makes it again."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


FUSIONS: Registry[type[Fusion]] = Registry("fusion")


def register_fusion(kind: str) -> Callable[[_Kind], _Kind]:
    """Enters a kind of fusion under its name, by which `tune_fusion` and `fusion_from_config` find it.

    Args:
        kind: The name; taken once.

    Raises:
        ValueError: The name is taken, or illegal.

    Example:

    >>> import dataclasses
    >>> from mtl_zoo.recommend import WeightedSum, fusion_from_config, register_fusion
    >>> @register_fusion("weighted_sum_of_ours")
    ... @dataclasses.dataclass(frozen=True)
    ... class Ours(WeightedSum):
    ...     pass
    >>> fusion_from_config(Ours({"click": 1}).get_config())
    Ours(floors={}, weights={'click': 1.0})
    """
    return FUSIONS.register(kind, keep_as="kind")


def list_fusions() -> list[str]:
    """The names of the kinds of fusion.

    Example:

    >>> from mtl_zoo.recommend import list_fusions
    >>> "weighted_sum" in list_fusions()
    True
    """
    return FUSIONS.names()


def fusion_from_config(config: Mapping[str, Any]) -> Fusion:
    """A fusion from what its `get_config` returned.

    Args:
        config: `kind` and the arguments of that kind.

    Raises:
        ValueError: An unknown kind, or arguments that it does not have.

    Example:

    >>> from mtl_zoo.recommend import Powers, fusion_from_config
    >>> fusion_from_config(Powers({"click": 0.5}).get_config())
    Powers(floors={}, powers={'click': 0.5})
    """
    arguments = dict(config)
    cls = FUSIONS[arguments.pop("kind", None)]
    known = {field.name for field in dataclasses.fields(cls)}
    if not set(arguments) <= known:
        raise ValueError(f"`config` must have arguments of {cls.__name__}. Received: {sorted(set(arguments) - known)}")
    return cls(**arguments)


def checked_numbers(argument: str, values: Any, *, allow_empty: bool = False) -> dict[str, float]:
    """Finite numbers by the name of a task."""
    if not isinstance(values, Mapping) or not (values or allow_empty):
        raise ValueError(f"`{argument}` must map names of tasks to numbers. Received: {argument}={values!r}")
    for name in values:
        if not isinstance(name, str):
            raise ValueError(f"`{argument}` must have names of tasks as keys. Received: {name!r}")
    return {name: check.check_number(f"{argument}[{name!r}]", value) for name, value in values.items()}


def column(values: Any) -> np.ndarray:
    """Scores as float64; (rows, 1) becomes (rows,)."""
    array = np.asarray(values, "float64")
    return array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array


def total(parts: list[Any]) -> Any:
    """The sum, of at least one part."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result
