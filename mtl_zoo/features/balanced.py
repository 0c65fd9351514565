"""Balanced batches: each holds a stated share of the rows with label 1."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._mixing import apportioned
from mtl_zoo.features.sampling import labels_of_steps
from mtl_zoo.tasks import Task


@dataclasses.dataclass(frozen=True)
class BalancedBatches:
    """Batches of which each holds a stated share of rows with label 1, with the scores put right afterwards.

    `model.fit(..., sampling=BalancedBatches({"click": 0.5}))` makes each batch of B rows of B/2 clicked and B/2 other
    ones. An epoch has as many batches as without it. The rows of each label are drawn without replacement, pass after
    pass, so that each comes equally often: a clicked row `share B / n_1` times for a batch, another `(1 - share) B /
    n_0`. With `rate` the ratio of the second to the first, a model learns the logit `logit p - log(rate)`, as with
    `NegativeSampling`, and the model keeps the correction: `predict`, `evaluate`, `save`, scorers and exports give `p`.

    Several steps of a funnel are balanced together, each task after the first being defined where the label of the one
    before is 1: `{"click": 0.5, "conversion": 0.3}` makes half the rows of a batch clicks, and three tenths of these
    conversions. With `q'_k` the learned probability of step k given the one before, `m_k` how often a row that stops
    before it comes against one that passes all, the scores are exact again:

        A_k = (1 - q'_k) / m_k + q'_k A_{k+1},   A_{n+1} = 1,     logit q_k = logit q'_k + log m_k + log A_{k+1}

    What other tasks learn is right where `NegativeSampling` says so; other tasks are refused by name. Rows without a
    label of the first task, or outside of its sample space, are left out. The order of the rows depends on the seed and
    the number of the epoch alone, so that `Checkpoints` go on where a run was. The rows of a stream are read once for
    each kind of labels.

    Args:
        shares: By task, the share of label 1 in each batch, in (0, 1): among all rows for the first, for each other
            among those with label 1 of the one before. Shares are rounded to whole rows of a batch, of which each kind
            has one at least; the correction knows that.
        rates: `m_k`, which `fit` finds.

    Raises:
        ValueError: A share is out of range, or (in `fit`) below the rate that label 1 has anyway; the tasks are no
            steps of a funnel; there is no row of a kind; a batch is too small.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BalancedBatches, BinaryTask, Numeric, SharedBottom
    >>> x = np.linspace(0, 1, 1000, dtype="float32")
    >>> model = SharedBottom([Numeric("x")], BinaryTask("click"), bottom_units=(4,))
    >>> model.compile("adam")
    >>> labels = {"click": (np.arange(1000) % 100 == 0).astype("float32")}
    >>> history = model.fit({"x": x}, labels, batch_size=100, sampling=BalancedBatches({"click": 0.5}), verbose=0)
    >>> round(model.corrections.sampling.rates[0], 4)
    0.0101
    """

    shares: Mapping[str, float]
    rates: tuple[float, ...] = dataclasses.field(default=(), kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.shares, Mapping) or not self.shares:
            raise ValueError(f"`shares` must be a dict of shares by task. Received: shares={self.shares!r}")
        for name, share in self.shares.items():
            check.check_number(f"shares[{name!r}]", share, above=0, below=1)
        object.__setattr__(self, "shares", dict(self.shares))
        object.__setattr__(self, "rates", tuple(self.rates))

    def get_config(self) -> dict[str, Any]:
        return {"shares": dict(self.shares), "rates": list(self.rates)}

    def is_like(self, other: Any) -> bool:
        """Whether another sampling has the same shares."""
        return self == other

    def steps(self, tasks: Task | Sequence[Task]) -> tuple[Task, ...]:
        """The tasks whose labels are balanced, as steps of a funnel.

        Raises:
            ValueError: There is no task of a name, or one is not defined where the label of the one before is 1.
        """
        known = {task.name: task for task in ((tasks,) if isinstance(tasks, Task) else tasks) if task.is_event}
        unknown = [name for name in self.shares if name not in known]
        if unknown:
            raise ValueError(
                f"`shares` must name tasks with labels 0 and 1. Received: {unknown}. Expected: some of {list(known)}"
            )
        steps = tuple(known[name] for name in self.shares)
        for before, task in itertools.pairwise(steps):
            if task.sample_space not in (before.name, before.label_column):
                raise ValueError(
                    "`shares` must name steps of a funnel in their order: the sample space of each is the label of the "
                    f"one before. Received: {task.name!r} with sample_space={task.sample_space!r} after {before.name!r}"
                )
        return steps

    def kinds(self, steps: Sequence[Task], labels: Mapping[str, Any]) -> np.ndarray:
        """By row the number of steps that it passes, 0 .. n; -1 where the first has no label.

        Args:
            steps: What `steps` gave.
            labels: Labels by task, and the sample space of the first by name.

        Raises:
            ValueError: A row passes a step, and has no label of the next.
        """
        first = np.asarray(labels[steps[0].name], "float64").reshape(-1)
        found = np.where(np.isnan(first), -1, 0)
        if steps[0].sample_space is not None:
            found[np.asarray(labels[steps[0].sample_space], "float64").reshape(-1) != 1] = -1
        for number, task in enumerate(steps):
            label = np.asarray(labels[task.name], "float64").reshape(-1)
            unknown = (found == number) & np.isnan(label)
            if unknown.any():
                raise ValueError(
                    f"`{task.label_column}` must be observed where {task.sample_space!r} is 1, to balance "
                    f"{task.name!r}. Received: {int(unknown.sum())} rows without"
                )
            found[(found == number) & (label == 1)] = number + 1
        return found

    def kinds_of_table(self, table: Any, steps: Sequence[Task]) -> np.ndarray:
        """`kinds` of the rows of a table."""
        return self.kinds(steps, labels_of_steps(table, steps))

    def rows_of_batch(self, batch_size: int) -> list[int]:
        """How many rows of each kind a batch holds, at least one.

        Raises:
            ValueError: The batch has fewer rows than there are kinds.
        """
        if batch_size <= len(self.shares):
            raise ValueError(
                f"`batch_size` must be at least {len(self.shares) + 1}, for a row of each kind of labels. Received: "
                f"batch_size={batch_size}"
            )
        passed, found = 1.0, []
        for share in self.shares.values():
            found.append(passed * (1 - share))
            passed *= share
        return apportioned(batch_size, np.array([*found, passed]))

    def fitted(self, sizes: Sequence[int], batch_size: int) -> BalancedBatches:
        """The same with the rates that follow from how many rows there are of each kind.

        Raises:
            ValueError: There is no row of a kind, or label 1 would be rarer than it is.
        """
        if not all(sizes):
            passed = ", ".join(f"{count} that pass {number}" for number, count in enumerate(sizes))
            raise ValueError(
                f"`shares` need rows of each kind of labels. Received rows by the steps {list(self.shares)} that they "
                f"pass: {passed}"
            )
        often = np.array(self.rows_of_batch(batch_size)) / np.array(sizes)
        rates = tuple(float(rate) for rate in often[:-1] / often[-1])
        if max(rates) > 1:
            passing = np.cumsum(list(sizes)[::-1])[::-1]
            own = {name: round(float(passing[i + 1] / passing[i]), 6) for i, name in enumerate(self.shares)}
            raise ValueError(
                f"`shares` must not make label 1 rarer than it is. Received: shares={self.shares!r} where label 1 has "
                f"the rates {own}"
            )
        return dataclasses.replace(self, rates=rates)
