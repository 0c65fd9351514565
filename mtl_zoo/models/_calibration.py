"""Monotone maps of a logit, which bring scores to the rates that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from keras import ops

from mtl_zoo import _validation as check


@dataclasses.dataclass(frozen=True)
class Affine:
    """`slope a + shift`: Platt scaling, or with shift 0 a temperature of 1 / slope."""

    slope: float
    shift: float = 0.0

    kind: ClassVar[str] = "affine"

    def __post_init__(self) -> None:
        check.check_number("slope", self.slope, above=0)
        check.check_number("shift", self.shift)

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "slope": self.slope, "shift": self.shift}

    def __call__(self, logits: Any) -> Any:
        return self.slope * ops.cast(logits, "float32") + self.shift


@dataclasses.dataclass(frozen=True)
class Isotonic:
    """The logit of a probability that rises with the logit in straight pieces between knots, and stays beyond them.

    Args:
        logits: The knots, rising.
        probabilities: The probability at each, in (0, 1) and not falling.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    kind: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        x, p = np.asarray(self.logits, "float64"), np.asarray(self.probabilities, "float64")
        good = len(x) == len(p) > 0 and (np.diff(x) > 0).all() and (np.diff(p) >= 0).all()
        if not (good and np.isfinite(x).all() and (p > 0).all() and (p < 1).all()):
            raise ValueError(
                "`logits` must rise, and `probabilities` not fall, within (0, 1). "
                f"Received: {len(x)} logits and {len(p)} probabilities"
            )
        object.__setattr__(self, "logits", tuple(float(value) for value in x))
        object.__setattr__(self, "probabilities", tuple(float(value) for value in p))

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "logits": list(self.logits), "probabilities": list(self.probabilities)}

    def __call__(self, logits: Any) -> Any:
        x, p = np.asarray(self.logits, "float32"), np.asarray(self.probabilities, "float32")
        logits = ops.cast(logits, "float32")
        a = ops.reshape(ops.clip(logits, x[0], x[-1]), (-1,))
        # The piece that a logit falls in, and how far into it. Knots may be one, and then all is flat.
        right = ops.clip(ops.searchsorted(ops.convert_to_tensor(x), a, side="left"), min(1, len(x) - 1), len(x) - 1)
        left = ops.maximum(right - 1, 0)
        ends = [ops.take(ops.convert_to_tensor(values), at) for values in (x, p) for at in (left, right)]
        width = ends[1] - ends[0]
        share = ops.where(width > 0, (a - ends[0]) / ops.where(width > 0, width, 1.0), 0.0)
        found = ends[2] + share * (ends[3] - ends[2])
        return ops.reshape(ops.log(found) - ops.log1p(-found), ops.shape(logits))


Calibration = Affine | Isotonic


def calibration_from_config(config: Mapping[str, Any]) -> Calibration:
    config = dict(config)
    known: dict[str, Any] = {cls.kind: cls for cls in (Affine, Isotonic)}
    made = known[check.check_choice("kind", config.pop("kind"), tuple(known))]
    return made(**{name: tuple(v) if isinstance(v, list) else v for name, v in config.items()})
