"""What a search shows while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtl_zoo.search.objectives import Objective


class Told:
    """A line for each trial and, on a terminal, a bar with the time that is left.

    Args:
        verbose: 0: nothing at all.
        trials: How many there will be, if that is known.
        objectives: What they are judged by.
    """

    def __init__(self, verbose: int, trials: int | None, objectives: Sequence[Objective]):
        self._console = Console(stderr=True, quiet=not verbose, highlight=False)
        self._objectives = objectives
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = self._console.is_terminal and bool(verbose)
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True, disable=not shown)
        self._task = self._bar.add_task("trials", total=trials)

    def __enter__(self) -> Told:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def ended(self, trial: Any, study: Any) -> None:
        """A trial has ended, one way or another."""
        state = trial.state.name.lower()
        if state == "complete":
            numbers = zip(self._objectives, trial.values, strict=True)
            text = "  ".join(f"{objective.name} {value:.5g}" for objective, value in numbers)
        else:
            text = {"pruned": f"after epoch {trial.user_attrs.get('epochs')}"}.get(
                state, str(trial.user_attrs.get("error", ""))
            )
        seconds = trial.user_attrs.get("seconds", 0.0)
        self._console.print(
            f"trial {trial.number:<3} {state:<8} {seconds:6.1f} s  {text}", markup=False, soft_wrap=True
        )
        done = sum(one.state.name in ("COMPLETE", "PRUNED") for one in study.get_trials(deepcopy=False))
        self._bar.update(self._task, completed=done)
