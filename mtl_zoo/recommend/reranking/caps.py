"""Rules on how often a category may stand in a list, or in any few places in a row."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage


@register_stage("category_cap")
@dataclasses.dataclass(frozen=True)
class CategoryCap(Stage):
    """At most so many candidates of a category among the first k, or in every `window` places in a row.

    Each place takes the first candidate in order that the rule lets in.

    Args:
        column: The column of categories (a genre, a seller).
        most: Candidates of one category that are let in.
        window: Places in a row that the rule is about. Default: the whole list.
        fill: What happens to a place that no candidate may have: if True it takes the first in order against the rule,
            if False the list ends there.

    Raises:
        ValueError: `most` or `window` is not a whole number >= 1; the column is missing.

    Example:

    >>> from mtl_zoo.recommend import Candidates, CategoryCap, rerank
    >>> candidates = Candidates([1, 2, 3, 4], [4, 3, 2, 1], {"seller": ["x", "x", "x", "y"]})
    >>> rerank(candidates, CategoryCap("seller", most=1, window=2), k=3).ids.tolist()
    [1, 4, 2]
    """

    column: str
    most: int = 1
    window: int | None = None
    fill: bool = True

    def __post_init__(self) -> None:
        check.check_int("most", self.most)
        check.check_choice("fill", self.fill, (False, True))
        if self.window is not None:
            check.check_int("window", self.window, minimum=2)

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        categories = np.unique(candidates.column(self.column).astype(str), return_inverse=True)[1]
        # Candidates of a category come in order, so only the first that is left of each need be looked at.
        waiting = [np.flatnonzero(categories == code).tolist()[::-1] for code in range(categories.max(initial=-1) + 1)]
        window, near = self.window or len(candidates) + 1, Counter[int]()
        chosen: list[int] = []
        for place in range(min(k, len(candidates))):
            if place >= window:
                near[int(categories[chosen[place - window]])] -= 1
            allowed = [rows[-1] for code, rows in enumerate(waiting) if rows and near[code] < self.most]
            if not allowed and not self.fill:
                return candidates.at(np.array(chosen, "int64"))
            best = min(allowed or [rows[-1] for rows in waiting if rows])
            code = int(categories[best])
            waiting[code].pop()
            near[code] += 1
            chosen.append(best)
        return candidates.chosen_first(chosen)
