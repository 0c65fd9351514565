from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, observed, tower_hidden, tower_logits
from mtl_zoo.heads._funnel import space_owner
from mtl_zoo.layers.dense_stack import DenseStack
from mtl_zoo.options import MLP, as_mlp
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class Cascade(Head):
    """The head of DBMTL: a task also reads the hidden layers of the tasks that it depends on.

    With `s_k` the tower of task k, `f_k` an MLP of its own and `D_k` the tasks that k depends on:

        h_k = f_k([s_k ; h_j for j in D_k])
        y_k = Dense(h_k)

    which follows `p(tasks | x) = prod_k p(k | tasks that k depends on, x)`: the dependence goes through hidden layers,
    not through labels or scores. Gradients go back the same way: a task trains those that it depends on. Outputs,
    losses, metrics and labels bear the tasks' names, each on its own sample space, as with `Towers`.

    Args:
        relation_units: Layer widths of each `f_k`, or an `MLP`; none: the hidden layers side by side.
        depends_on: Names of the tasks that a task depends on, by its name. Default: a task depends on the one whose
            label is its sample space.

    Reference: Wang et al., "Deep Bayesian Multi-Target Learning for Recommender Systems", 2019, arXiv:1902.09154. The
    formulas follow its abstract and published descriptions; they were not checked against the paper's text.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import Cascade
    >>> tasks = [BinaryTask("conversion", sample_space="click"), BinaryTask("click")]
    >>> Cascade().dependencies(tasks)
    {'click': (), 'conversion': ('click',)}
    """

    relation_units: MLP | Sequence[int] = (32,)
    depends_on: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        as_mlp("relation_units", self.relation_units, allow_empty=True)
        if self.depends_on is None:
            return
        if not isinstance(self.depends_on, Mapping):
            raise ValueError(f"`depends_on` must be a dict by task name. Received: depends_on={self.depends_on!r}")
        for name, others in self.depends_on.items():
            if isinstance(others, str) or not isinstance(others, Sequence):
                raise ValueError(
                    f"`depends_on[{name!r}]` must be a list of task names. Received: depends_on[{name!r}]={others!r}"
                )
            check.check_unique_names(f"depends_on[{name!r}]", list(others))

    def dependencies(self, tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
        """The tasks that each task depends on, by name, in an order in which they can be computed."""
        names = [task.name for task in tasks]
        if self.depends_on is None:
            owners = {task.name: space_owner(tasks, task) for task in tasks}
            declared: dict[str, tuple[str, ...]] = {
                name: () if owner is None else (owner.name,) for name, owner in owners.items()
            }
        else:
            named = {name for pair in self.depends_on.items() for name in (pair[0], *pair[1])}
            unknown = sorted(named - set(names))
            if unknown:
                raise ValueError(f"`depends_on` must name tasks. Received: {unknown}. Expected: names among {names}")
            declared = {name: tuple(self.depends_on.get(name, ())) for name in names}
        ordered: dict[str, tuple[str, ...]] = {}
        while len(ordered) < len(names):
            rest = {name: others for name, others in declared.items() if name not in ordered}
            ready = {name: others for name, others in rest.items() if ordered.keys() >= set(others)}
            if not ready:
                raise ValueError(
                    "`depends_on` must not lead back to the same task (by default it follows the sample spaces). "
                    f"Received: {rest}"
                )
            ordered |= ready
        return ordered

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        self.dependencies(tasks)
        return tuple(Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks)

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        relation = as_mlp("relation_units", self.relation_units, allow_empty=True)
        hidden: dict[str, Any] = {}
        for name, others in self.dependencies(tasks).items():
            x = tower_hidden(name, towers[name], tower_units)
            if others:
                x = keras.layers.Concatenate(name=f"{name}_evidence")([x, *(hidden[other] for other in others)])
            hidden[name] = DenseStack(relation, name=f"{name}_relation")(x) if relation.units else x
        return {task.name: tower_logits(task.name, task.units, hidden[task.name], biases) for task in tasks}

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {task.name: observed(task, labels) for task in tasks}
