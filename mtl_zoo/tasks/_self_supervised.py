"""What tasks without a label share: options of an objective that rows teach by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks.base import ExactMetric, RowLoss, Task


def _value(y: Any, rows: Any) -> Any:
    del y
    return rows[:, 0]


@dataclasses.dataclass(frozen=True)
class SelfSupervisedTask(Task):
    """Base of tasks that have no label and no output: they train beside others, and cost nothing afterwards.

    In training the model gives, under the task's name, what an objective of `mtl_zoo.self_supervision` makes of rows:

        (batch, 2 + 2 measures): a row's loss and its weight, then of each measure of the logs a value and its weight

    Attributes:
        measures: Names of the measures, which the logs show as `<task>_<measure>`.
    """

    link: ClassVar[str] = "identity"
    losses: ClassVar[Mapping[str, RowLoss]] = {"objective": _value}
    default_metrics: ClassVar[tuple[str, ...]] = ()
    selection_metric: ClassVar[str] = ""
    is_labelled: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("label", "sample_space", "sample_weight"):
            if getattr(self, argument) is not None:
                raise ValueError(
                    f"`{argument}` must be None for a task without a label. Received: {argument}="
                    f"{getattr(self, argument)!r} for task {self.name!r}"
                )
        if self.metric_names:
            raise ValueError(
                f"`metrics` must be 'auto' for a task without a label. Received: {self.metrics!r} for {self.name!r}"
            )

    @property
    def logit_units(self) -> int:
        return 2 + 2 * len(self.measures)

    @property
    def copies_tables(self) -> bool:
        """Whether its objective holds weights as large as the model's tables."""
        return False

    def check_beside(self, tasks: Sequence[Task]) -> None:
        if not any(task.is_labelled and not task.compares_sides for task in tasks):
            raise ValueError(
                f"`tasks` must hold one with a label and a tower beside {self.name!r}, which learns with the body of a "
                f"model. Received: {[task.name for task in tasks]}"
            )

    def counted(self, labels: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
        """Which rows may count, (batch,) of 0 and 1, by their labels of the model's tasks; None for all."""
        del labels, tasks
        return None

    def weights(self, rows: Any, labels: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
        """The rows' weights in the loss, (batch,), before sample weights."""
        return self._within(rows[:, 1], labels, tasks)

    def measured(self, rows: Any, labels: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, tuple[Any, Any]]:
        """Of each measure the rows' values and weights."""
        return {
            name: (rows[:, 2 + 2 * i], self._within(rows[:, 3 + 2 * i], labels, tasks))
            for i, name in enumerate(self.measures)
        }

    def _within(self, weights: Any, labels: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
        counted = self.counted(labels, tasks)
        return weights if counted is None else weights * counted

    @property
    def label_rule(self) -> str:
        return "nothing: the task has no label"

    def is_label(self, values: Any) -> Any:
        return np.zeros(np.shape(values), bool)

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        return {}

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        return {}


def checked_names(argument: str, names: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Names as a tuple, one or more, each once; None for all that there are."""
    if names is None:
        return None
    found = (names,) if isinstance(names, str) else tuple(names)
    if not found:
        raise ValueError(f"`{argument}` must be None or hold a name. Received: {argument}={names!r}")
    check.check_unique_names(argument, list(found))
    return found


def listed(config: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """A config whose tuples of names are lists."""
    return {**config, **{a: list(config[a]) for a in arguments if config[a] is not None}}
