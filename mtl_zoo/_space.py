"""What a hyperparameter may be: ranges and choices, which the catalogue states and a search draws from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from mtl_zoo import _validation as check


class Trial(Protocol):
    """What draws values: a trial of Optuna."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included.

    Args:
        low: The least.
        high: The greatest.
        log: Whether they are drawn on a logarithmic scale. Default: False.

    Raises:
        ValueError: `low` is above `high`, or below 1 with `log`; a bound is no whole number.

    Example:

    >>> from mtl_zoo.search import IntRange
    >>> IntRange(2, 16).holds(8), IntRange(2, 16).holds(1)
    (True, False)
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        check.check_int("low", self.low, minimum=1 if self.log else -(2**53))
        check.check_int("high", self.high, minimum=self.low)

    def suggest(self, trial: Trial, name: str) -> int:
        """A value that the trial chooses."""
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def including(self, value: Any) -> IntRange:
        """This range, made wide enough for a value."""
        if self.holds(value):
            return self
        whole = check.check_int("value", value, minimum=1 if self.log else -(2**53))
        return IntRange(min(self.low, whole), max(self.high, whole), self.log)

    def encoded(self, value: Any) -> Any:
        """The value as a study holds it."""
        return value

    def decoded(self, held: Any) -> int:
        """The value that a study holds so."""
        return int(held)


@dataclasses.dataclass(frozen=True)
class FloatRange:
    """Numbers from `low` to `high`.

    Args:
        low: The least.
        high: The greatest.
        log: Whether they are drawn on a logarithmic scale. Default: False.

    Raises:
        ValueError: `low` is not below `high`, or not above 0 with `log`; a bound is not finite.

    Example:

    >>> from mtl_zoo.search import FloatRange
    >>> FloatRange(1e-4, 1e-2, log=True).holds(0.001)
    True
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        check.check_number("low", self.low, **({"above": 0} if self.log else {}))
        check.check_number("high", self.high, above=self.low)

    def suggest(self, trial: Trial, name: str) -> float:
        """A value that the trial chooses."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def including(self, value: Any) -> FloatRange:
        """This range, made wide enough for a value."""
        if self.holds(value):
            return self
        number = check.check_number("value", value, **({"above": 0} if self.log else {}))
        return FloatRange(min(self.low, number), max(self.high, number), self.log)

    def encoded(self, value: Any) -> Any:
        """The value as a study holds it."""
        return float(value)

    def decoded(self, held: Any) -> float:
        """The value that a study holds so."""
        return float(held)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values: names, numbers, widths of layers, None.

    Args:
        *options: The values. A tuple or dict is held as JSON by a study.

    Raises:
        ValueError: There are none, or two are the same.

    Example:

    >>> from mtl_zoo.search import Choice
    >>> Choice((64,), (128, 64)).holds((128, 64))
    True
    """

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", tuple(_as_tuple(option) for option in options))
        labels = [self.encoded(option) for option in self.options]
        twice = check.duplicates([json.dumps(label) for label in labels])
        if not labels or twice:
            raise ValueError(f"`options` must be different values, at least one. Received: {list(options)}")

    def suggest(self, trial: Trial, name: str) -> Any:
        """A value that the trial chooses."""
        return self.decoded(trial.suggest_categorical(name, [self.encoded(option) for option in self.options]))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return self.encoded(value) in [self.encoded(option) for option in self.options]

    def including(self, value: Any) -> Choice:
        """These values and this one."""
        return self if self.holds(value) else Choice(*self.options, value)

    def encoded(self, value: Any) -> Any:
        """The value as a study holds it."""
        if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return json.dumps(value)

    def decoded(self, held: Any) -> Any:
        """The value that a study holds so."""
        return self.options[[self.encoded(option) for option in self.options].index(held)]


Domain: TypeAlias = IntRange | FloatRange | Choice


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value


def as_domain(name: str, given: Any) -> Domain:
    """What a hyperparameter may be, as text can say it.

    Args:
        name: Of the hyperparameter, for errors.
        given: A domain as it is; a list of options; `{"choices": [...]}`; or `{"low": ..., "high": ..., "log": ...}`, a
            range of whole numbers if both bounds are.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(given, (IntRange, FloatRange, Choice)):
        return given
    try:
        if isinstance(given, (list, tuple)):
            return Choice(*given)
        if isinstance(given, Mapping) and set(given) == {"choices"}:
            return Choice(*given["choices"])
        if isinstance(given, Mapping) and {"low", "high"} <= set(given) <= {"low", "high", "log"}:
            whole = all(isinstance(given[bound], int) for bound in ("low", "high"))
            return IntRange(**given) if whole else FloatRange(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`space[{name!r}]` must be a range or a choice. Received: {given!r}: {error}") from error
    raise ValueError(f"`space[{name!r}]` must be a list of choices, or a range {{low, high, log}}. Received: {given!r}")


# Of arguments that models share, by name; a model's own file says what else it has.
USUAL: dict[str, Domain] = {
    "num_experts": IntRange(2, 16, log=True),
    "num_task_experts": IntRange(1, 4),
    "num_group_experts": IntRange(1, 4),
    "num_shared_experts": IntRange(1, 8, log=True),
    "num_levels": IntRange(1, 3),
    "bottom_units": Choice((64,), (128, 64), (256, 128), (512, 256)),
    "expert_units": Choice((64,), (128,), (128, 64), (256, 128)),
    "tower_units": Choice((), (32,), (64,), (64, 32)),
}
