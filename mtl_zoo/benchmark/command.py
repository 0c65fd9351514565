"""What `mtl-zoo bench run` and `mtl-zoo bench pareto` do: a configuration from options, a YAML file, or both."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape

from mtl_zoo.benchmark.balancing import check_balancing
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import features_of, resolve_hyperparameters, resolve_reference
from mtl_zoo.benchmark.identity import dataset_name
from mtl_zoo.benchmark.leaderboard import leaderboard, place_of, write_text
from mtl_zoo.benchmark.page import page
from mtl_zoo.benchmark.pareto import pareto
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.report import markdown, print_report
from mtl_zoo.benchmark.requests import configs_of
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import RunSummary, load, run_config
from mtl_zoo.datasets import Dataset
from mtl_zoo.models import create_model


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench run`; returns the exit code: 1 if a run failed, 130 if cut."""
    console = Console(stderr=True)
    configs = configs_of(args)
    place = place_of(args, configs[0])
    scores = args.save_scores or place.scores
    try:
        with Shown(console, count_runs(configs)) as progress, interruptible():
            total = run_configs(configs, place.store, progress, data_dir=args.data_dir, save_scores=scores)
    except KeyboardInterrupt:
        return cut_short(console, place.path)
    results = place.store.read()
    shown = results[results["dataset"].isin({dataset_name(config) for config in configs})]
    if ((shown["error"] == "") & (shown["split"] == "test")).any():
        sections = leaderboard(shown, scores=scores)
        print_report(sections, Console())
        for file in place.write(sections):
            console.print(f"leaderboard: {escape(str(file))}", highlight=False, soft_wrap=True)
    counts = f"{total.finished} finished, {total.skipped} skipped, {total.failed} failed"
    console.print(f"{counts}: {escape(str(place.path))}")
    return 1 if total.failed else 0


def run_report(args: argparse.Namespace) -> int:
    """`mtl-zoo bench report`."""
    missing = [str(file) for file in args.files if not file.exists()]
    if missing:
        raise ValueError(f"`FILE.csv` must exist. Received: {', '.join(missing)}")
    table = pd.concat([ResultStore(file).read() for file in args.files])
    sections = leaderboard(table, scores=args.scores, split=args.split)
    print_report(sections, Console() if sys.stdout.isatty() else Console(width=160))
    if args.markdown:
        write_text(args.markdown, markdown(sections))
    if args.html:
        write_text(args.html, page(sections, args.files[0].stem))
    if args.picture:
        from mtl_zoo.benchmark.plots import draw_report

        draw_report(sections, args.picture)
    return 0


def run_pareto(args: argparse.Namespace) -> int:
    """`mtl-zoo bench pareto`: the first configuration's model on its data set."""
    config = next(config for config in configs_of(args) if not config.is_baseline)
    arguments = resolve_hyperparameters(config.model, config.hyperparameters)
    dataset = load(config, args.data_dir)
    found = pareto(
        lambda: create_model(config.model, features_of(config, dataset), dataset.tasks, **arguments),
        dataset,
        args.methods,
        steps=args.steps,
        seeds=len(config.all_seeds),
        epochs=config.epochs,
        patience=config.patience,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
    )
    Console().print(str(found), highlight=False, markup=False, soft_wrap=True)
    if args.picture:
        found.plot(args.picture)
    return 0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A plain `kill` ends a run as Ctrl-C does, so that its row says so."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cut_short(console: Console, path: Path) -> int:
    """Says that a command was interrupted, and how it goes on; returns the exit code."""
    console.print(f"[bold red]cut short:[/] the same command goes on: {escape(str(path))}", soft_wrap=True)
    return 130


def count_runs(configs: Sequence[RunConfig]) -> int:
    """How many trainings the configurations ask for, a sweep being one."""
    return sum(len(config.all_seeds) for config in configs)


def run_configs(configs: Sequence[RunConfig], store: ResultStore, progress: Shown, **arguments: Any) -> RunSummary:
    """Runs one after another; what cannot work is said before anything is loaded or trained."""
    check_configs(configs)
    total = RunSummary()
    for _, _, summary in run_each(configs, store, progress, **arguments):
        total.add(summary)
    return total


def check_configs(configs: Sequence[RunConfig]) -> None:
    """Refuses names and arguments that no model has.

    Raises:
        ValueError: A model, an argument or an option that is not known.
    """
    for config in configs:
        resolve_hyperparameters(config.model, config.hyperparameters)
        if config.parameter_matched:
            resolve_reference(config)
        check_balancing(config)


def run_each(
    configs: Sequence[RunConfig], store: ResultStore, progress: Shown, **arguments: Any
) -> Iterator[tuple[RunConfig, Dataset, RunSummary]]:
    """Each configuration once it has run, with its data; neighbours on the same data load it once."""
    loaded, dataset = None, None
    for config in configs:
        wanted = (config.dataset, config.dataset_options, config.group)
        if dataset is None or wanted != loaded:
            progress.loading(dataset_name(config))
            dataset, loaded = load(config, arguments.get("data_dir")), wanted
            progress.loaded(dataset)
        yield config, dataset, run_config(config, store, dataset=dataset, progress=progress, **arguments)
