"""Which tasks form a funnel, and the labels of its products: what the heads of ESMM and its kin share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.tasks import Task


def space_owner(tasks: Sequence[Task], task: Task) -> Task | None:
    """The task whose label is `task`'s sample space, if there is one."""
    by_label = {name: other for other in tasks for name in (other.label_column, other.name)}
    return by_label.get(task.sample_space or "")


def step_before(tasks: Sequence[Task], task: Task) -> Task | None:
    """The step of a funnel before `task`: the task whose label is its sample space, where both are of events."""
    owner = space_owner(tasks, task)
    return owner if owner is not None and task.is_event and owner.is_event else None


def steps_to(tasks: Sequence[Task], task: Task) -> tuple[Task, ...]:
    """The steps from the funnel's first task to `task`, which is alone if it is no part of a funnel."""
    steps, before = [task], step_before(tasks, task)
    while before is not None:
        if before in steps:
            raise ValueError(
                "`sample_space` must not lead back to its own task. Received: "
                f"{[(step.name, step.sample_space) for step in reversed(steps)]}"
            )
        steps.append(before)
        before = step_before(tasks, before)
    return tuple(reversed(steps))


def click_and_conversion(tasks: Sequence[Task]) -> tuple[Task, Task]:
    """The one pair of binary tasks of which the second has the first as its sample space."""
    pairs = [(before, task) for task in tasks if (before := step_before(tasks, task)) is not None]
    if len(pairs) != 1:
        raise ValueError(
            "`tasks` must hold one click and one conversion task for an entire-space head: two BinaryTasks, the "
            "second with the first as sample_space, such as BinaryTask('click') and "
            f"BinaryTask('conversion', sample_space='click'). Received {len(pairs)} such pairs in: {list(tasks)}"
        )
    return pairs[0]


def click_action_conversion(tasks: Sequence[Task], action: str | None = None) -> tuple[Task, Task, Task]:
    """Click, the action after it, and conversion; `action` names the second where the tasks do not tell.

    A chain (the conversion's space is the action, the action's is the click) tells. So does the order of the tasks
    where just two hang on the click: the action comes first.
    """
    if action is not None:
        check.check_choice("action", action, [task.name for task in tasks])
    chains, forks = [], []
    for i, last in enumerate(tasks):
        before = step_before(tasks, last)
        if before is None:
            continue
        click = step_before(tasks, before)
        if click is not None and action in (None, before.name):
            chains.append((click, before, last))
        forks += [
            (before, middle, last)
            for j, middle in enumerate(tasks)
            if middle is not last
            and step_before(tasks, middle) is before
            and (j < i if action is None else middle.name == action)
        ]
    found = chains or forks
    if len(found) != 1:
        raise ValueError(
            "`tasks` must hold one click, one action after it and one conversion: three BinaryTasks, such as "
            "BinaryTask('click'), BinaryTask('cart', sample_space='click') and BinaryTask('conversion', "
            "sample_space='click') in this order, or with sample_space='cart' for the last; `action` names the action "
            f"where several could be it. Received {len(found)} such triples with action={action!r} in: {list(tasks)}"
        )
    return found[0]


def free_name(tasks: Sequence[Task], name: str, what: str = "the product's output") -> str:
    """`name`, which no task may have."""
    if any(task.name == name for task in tasks):
        raise ValueError(f"`tasks` must not use the name of {what}. Received a task named {name!r}")
    return name


def product_name(tasks: Sequence[Task], first: Task, last: Task) -> str:
    """The name of the output that says that both happened."""
    return free_name(tasks, f"{first.name}_and_{last.name}")


def and_then(first: tuple[Any, Any], then: tuple[Any, Any]) -> tuple[Any, Any]:
    """Labels of "both", and which rows count, from those of a step and of the next.

    Without the first step there is no second, whatever its label says; a first step with an unobserved second leaves
    the product unobserved.
    """
    (happened, first_counts), (next_happened, next_counts) = first, then
    return happened * next_happened, first_counts * ops.where(happened == 1, next_counts, 1.0)


def contradictions(labels: Mapping[str, Any], step: Task, then: Task, output: str) -> list[str]:
    """A sentence if rows have the second step without the first."""
    happened, next_happened = (np.asarray(labels[task.name], "float64").ravel() for task in (step, then))
    count = int(np.sum((happened == 0) & (next_happened == 1)))
    if not count:
        return []
    return [f"{count} of {len(happened)} rows have {then.name} = 1 with {step.name} = 0; they count as {output} = 0."]
