"""What a search wants more or less of, on the validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.evaluation.gain import facts_of
from mtl_zoo.tasks import Task
from mtl_zoo.training.callbacks import task_scores
from mtl_zoo.training.selection import WeightedScore, judged_outputs

SCORE, PARAMETERS = "score", "parameters"


@dataclasses.dataclass(frozen=True)
class Objective:
    """One number of a trained model, and whether more of it is better.

    Args:
        name: As the user says it: `"score"`, `"parameters"`, `"<task>"` or `"<output>/<metric>"`.
        output: The output that is measured, if it is one.
        metric: The metric of it.
        larger: Whether more is better.
    """

    name: str
    output: str | None = None
    metric: str | None = None
    larger: bool = True

    @property
    def direction(self) -> str:
        """As a study calls it."""
        return "maximize" if self.larger else "minimize"

    @property
    def log(self) -> str:
        """The log of an epoch that trials are compared by while they are trained."""
        return f"val_{self.output}_score" if self.output and "/" not in self.name else "val_score"

    def value(self, model: Any, table: pd.DataFrame) -> float:
        """Of a model, whose metrics on the validation rows are in a table of `evaluate`."""
        if self.name == PARAMETERS:
            return float(model.count_params())
        if self.name == SCORE:
            return WeightedScore().score(task_scores(model, table))
        output = judged_outputs(model).get(str(self.output), self.output)
        rows = table[(table["task"] == output) & (table["metric"] == self.metric)]
        if rows.empty:
            known = [f"{row.task}/{row.metric}" for row in table.itertuples()]
            raise ValueError(
                f"`objectives` must be what the model is measured by. Received: {self.name!r}; has {known}"
            )
        value = float(rows["value"].iloc[0])
        if not np.isfinite(value):
            raise ValueError(f"`objectives` must be defined on the validation rows. Received: {self.name!r}, {value}")
        return value


def objectives_of(given: str | Sequence[str], tasks: Sequence[Task]) -> tuple[Objective, ...]:
    """The objectives that these names stand for.

    Raises:
        ValueError: A name is not known, is given twice, or is a metric that is neither better when high nor when low.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or check.duplicates(names):
        raise ValueError(f"`objectives` must be different names, at least one. Received: objectives={list(names)}")
    return tuple(_objective(name, {task.name: task for task in tasks}) for name in names)


def _objective(name: str, tasks: dict[str, Task]) -> Objective:
    output, slash, metric = name.partition("/")
    if name in (SCORE, PARAMETERS) and name not in tasks:
        return Objective(name, larger=name == SCORE)
    if not slash:
        check.check_choice("objectives", name, (SCORE, PARAMETERS, *tasks))
        metric = tasks[name].selection_metric
    facts = tasks[output].exact_metrics().get(metric) if output in tasks else facts_of(metric)
    if facts is None or not facts.direction:
        of = tasks[output].exact_metrics() if output in tasks else {}
        expected = f" Expected: one of {[m for m, f in of.items() if f.direction]}" if of else ""
        raise ValueError(f"`objectives` must name a metric that has a better end. Received: {name!r}.{expected}")
    return Objective(name, output, metric, facts.direction > 0)


def metrics_of(objectives: Sequence[Objective], tasks: Sequence[Task]) -> set[str]:
    """The metrics that must be computed: those of the objectives, and those that epochs are chosen by."""
    return {o.metric for o in objectives if o.metric} | {task.selection_metric for task in tasks}
