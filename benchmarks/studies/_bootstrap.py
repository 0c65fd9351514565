"""The one bootstrap of the studies: what is drawn and what is measured are theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CONFIDENCE = (2.5, 97.5)


def interval(
    value: Callable[[Any], Any], draw: Callable[[np.random.Generator], Any], resamples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers as they are, and the ends of the 95 % interval of each, from one generator, whose seed is 0.

    Args:
        value: From what was drawn, or None for all as it is, to a list of numbers.
        draw: From the generator to what is drawn.
        resamples: How often.

    Example:

    >>> import numpy as np
    >>> x = np.arange(9.0)
    >>> middle, low, high = interval(
    ...     lambda at: [x.mean() if at is None else x[at].mean()], lambda rng: rng.integers(9, size=9), resamples=50
    ... )
    >>> bool(low[0] < middle[0] == 4.0 < high[0])
    True
    """
    rng = np.random.default_rng(0)
    middle = np.asarray(value(None), "float64")
    low, high = np.percentile([value(draw(rng)) for _ in range(resamples)], CONFIDENCE, axis=0)
    return middle, low, high


def rows_of_groups(groups: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As many groups as there are, drawn with all their rows: those of one are not independent."""
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
