"""How features that only training knows, such as the position in a list, enter a task's logit."""

from __future__ import annotations

import dataclasses
from typing import Any

from mtl_zoo import _validation as check

ADD, MULTIPLY = "add", "multiply"


@dataclasses.dataclass(frozen=True)
class Bias:
    """A shallow tower over the bias features of a model, that acts in training and is off wherever scores are made.

    With `a(x)` the logit that the model gives without it, `b(z)` that of the tower and `z` the features with
    `bias=True`, the label of a row is learned by

        sigmoid(a + b(z))              `"add"`: the shallow tower of YouTube
        sigmoid(b(z)) sigmoid(a)       `"multiply"`: PAL, where sigmoid(b) is the chance that the row was looked at

    Scores do not know `z`. With `"multiply"` they are `sigmoid(a)`, the probability once a row is looked at. With
    `"add"` they are `sigmoid(a + b(missing))`, with one constant for all rows: what the tower learned for rows whose
    features were dropped, so that the scores' level is that of an unknown position.

    Args:
        how: `"add"` or `"multiply"`.
        units: Layer widths of the tower; a linear layer to `b` follows. Each task has a tower and tables of its own.
        dropout: The share of training rows whose bias features are all read as missing, in [0, 1). Default: None, which
            is 0.1 for `"add"` and 0 for `"multiply"`.

    Raises:
        ValueError: An option is out of range; `dropout=0` with `"add"`, whose scores would have no level.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, SharedBottom
    >>> from mtl_zoo.tasks import Bias
    >>> features = [Categorical("item", size=9), Categorical("position", size=10, dim=4, bias=True)]
    >>> model = SharedBottom(features, BinaryTask("click", bias=Bias("multiply", units=(8,))))
    >>> model.predict({"item": [2, 3]}, verbose=0)["click"].shape
    (2, 1)

    Reference: Zhao et al., "Recommending What Video to Watch Next: A Multitask Ranking System", RecSys 2019,
    doi:10.1145/3298689.3346997, section 4.3; Guo et al., "PAL: A Position-bias Aware Learning Framework for CTR
    Prediction in Live Recommender Systems", RecSys 2019, doi:10.1145/3298689.3347033.
    """

    how: str = ADD
    units: tuple[int, ...] = (16,)
    dropout: float | None = None

    def __post_init__(self) -> None:
        check.check_choice("how", self.how, (ADD, MULTIPLY))
        object.__setattr__(self, "units", check.check_units("units", self.units, allow_empty=True))
        if self.dropout is not None:
            check.check_number("dropout", self.dropout, minimum=0, below=1)
            if self.how == ADD and self.dropout == 0:
                raise ValueError(
                    "`dropout` must be above 0 with how='add': scores are those of rows without a position, which the "
                    "tower learns from rows whose position was dropped. Received: dropout=0"
                )

    @property
    def rate(self) -> float:
        """The share of rows whose bias features are dropped."""
        return (0.1 if self.how == ADD else 0.0) if self.dropout is None else self.dropout

    def get_config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "units": list(self.units)}


def as_bias(bias: Any) -> Bias | None:
    """`Bias` options from what a task is given: None, a name, or options (of a saved file, as a dict)."""
    if bias is None or isinstance(bias, Bias):
        return bias
    if isinstance(bias, dict):
        return Bias(**{**bias, "units": tuple(bias["units"])})
    if bias not in (ADD, MULTIPLY):
        raise ValueError(f"`bias` must be None, {ADD!r}, {MULTIPLY!r} or a Bias. Received: bias={bias!r}")
    return Bias(bias)
