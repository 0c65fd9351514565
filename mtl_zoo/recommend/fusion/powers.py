"""The product of tasks' scores, each to a power."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.recommend.fusion._base import Fusion, Suggest, checked_numbers, register_fusion
from mtl_zoo.recommend.fusion._math import Math, NumpyMath


@register_fusion("powers")
@dataclasses.dataclass(frozen=True)
class Powers(Fusion):
    """The product of powers of scores, `prod_k s_k^(a_k)`.

    With all powers 1 and the probabilities of a funnel's steps it is the probability of the whole funnel. What a task
    is scaled by does not change the order.

    Args:
        powers: Any numbers by task; 0 leaves a task out.
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: No powers, or powers that are not finite; negative scores, or zeros with a negative power.

    Example:

    >>> from mtl_zoo.recommend import Powers
    >>> Powers({"click": 1, "conversion": 0.5})({"click": [0.5, 0.2], "conversion": [0.04, 0.25]}).round(3).tolist()
    [0.1, 0.1]
    """

    powers: Mapping[str, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "powers", checked_numbers("powers", self.powers))

    def tasks(self) -> tuple[str, ...]:
        return tuple(self.powers)

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        product = None
        for name, power in self.powers.items():
            if isinstance(math, NumpyMath) and np.min(scores[name], initial=0.0) < 0:
                bad = scores[name][scores[name] < 0]
                raise ValueError(f"`scores` must be >= 0 for powers. Received: {check.sample_values(bad)} for {name!r}")
            factor = math.power(scores[name], math.constant(power, scores[name]))
            product = factor if product is None else product * factor
        return product

    @classmethod
    def suggested(cls, suggest: Suggest, typical: Mapping[str, float]) -> Powers:
        return cls({name: suggest(f"power_{name}", 0.0, 2.0) for name in typical})
