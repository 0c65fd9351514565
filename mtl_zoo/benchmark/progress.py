"""What a benchmark shows while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mtl_zoo.benchmark.config import EQUAL, RunConfig


def _name(config: RunConfig) -> str:
    return config.model if config.balancing == EQUAL else f"{config.model} {config.balancing}"


class Silent:
    """Takes note of nothing; the base of what does."""

    def loading(self, dataset: str) -> None:
        pass

    def loaded(self, dataset: Any) -> None:
        pass

    def started(self, config: RunConfig, seed: int, steps: int) -> None:
        """A run of at most `steps` training steps begins."""

    def step(self) -> None:
        pass

    def epoch(self, epoch: int, score: float) -> None:
        pass

    def finished(self, config: RunConfig, seed: int, scores: dict[str, float], seconds: float) -> None:
        pass

    def noted(self, config: RunConfig, notes: Mapping[str, str], left_out: Sequence[str]) -> None:
        """What a baseline chose for each task, and the features that it cannot read."""

    def skipped(self, config: RunConfig, seed: int) -> None:
        pass

    def failed(self, config: RunConfig, seed: int, error: str) -> None:
        pass


class Shown(Silent):
    """Bars for the runs and the steps of the current one on a terminal; a line for each run everywhere.

    Args:
        console: Where to.
        runs: Number of runs, those that will be skipped included.
    """

    def __init__(self, console: Console, runs: int):
        self.console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._runs = self._bars.add_task("runs", total=runs)
        self._left, self._took = runs, list[float]()
        self._started = time.monotonic()
        self._steps: Any = None
        self._best = ""

    def __enter__(self) -> Shown:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def loading(self, dataset: str) -> None:
        self.console.print(f"loading [bold]{dataset}[/] ...", highlight=False)

    def loaded(self, dataset: Any) -> None:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
        self.console.print(f"  rows: {rows}; tasks: {', '.join(t.name for t in dataset.tasks)}", highlight=False)

    def started(self, config: RunConfig, seed: int, steps: int) -> None:
        if self._steps is not None:  # the points of a sweep are one run
            self._bars.remove_task(self._steps)
        elif not self.console.is_terminal:  # where no bar shows that something goes on
            self.console.print(f"training {_name(config)}, seed {seed} ...", highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._steps = self._bars.add_task(f"{_name(config)}, seed {seed}", total=steps)

    def step(self) -> None:
        self._bars.advance(self._steps)

    def epoch(self, epoch: int, score: float) -> None:
        label = self._bars.tasks[-1].description.partition("  ")[0]
        self._bars.update(self._steps, description=f"{label}  epoch {epoch}: validation {score:.4f}")

    def finished(self, config: RunConfig, seed: int, scores: dict[str, float], seconds: float) -> None:
        shown = "  ".join(f"{task} {value:.4f}" for task, value in scores.items())
        if not config.is_baseline:
            self._took.append(time.monotonic() - self._started)
        self._done(f"[green]done[/]     {_name(config):<14} seed {seed}  {seconds:6.1f} s  {shown}{self._remaining()}")

    def _remaining(self) -> str:
        """How long the rest takes if it takes as long as the networks so far; baselines are quicker."""
        left = self._left - 1
        if not self._took or left < 1:
            return ""
        return f"  [dim]about {_duration(sum(self._took) / len(self._took) * left)} left[/]"

    def noted(self, config: RunConfig, notes: Mapping[str, str], left_out: Sequence[str]) -> None:
        said = [f"{task} {note}" for task, note in notes.items()]
        said += [f"does not read {', '.join(left_out)} (texts and the like)"] if left_out else []
        if said:
            self.console.print(f"  [dim]{_name(config)}: {escape('; '.join(said))}[/]", highlight=False, soft_wrap=True)

    def skipped(self, config: RunConfig, seed: int) -> None:
        self._done(f"[dim]skipped[/]  {_name(config):<14} seed {seed}  its rows are there")

    def failed(self, config: RunConfig, seed: int, error: str) -> None:
        self._done(f"[red]failed[/]   {_name(config):<14} seed {seed}  {escape(error)}")

    def _done(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)
        if self._steps is not None:
            self._bars.remove_task(self._steps)
            self._steps = None
        self._left -= 1
        self._bars.advance(self._runs)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class StepReporter(keras.callbacks.Callback):
    """Tells a `Silent` or `Shown` of every training step."""

    def __init__(self, progress: Silent):
        super().__init__()
        self._progress = progress

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Several steps may be one call, of which the last is told; a call at the end may be short.
        done = min(batch + 1, self.params.get("steps") or batch + 1)
        for _ in range(done - self._done):
            self._progress.step()
        self._done = done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._progress.epoch(epoch + 1, (logs or {}).get("val_score", float("nan")))
