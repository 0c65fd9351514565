"""What `mtl-zoo bench run` and `mtl-zoo bench pareto` do: a configuration from options, a YAML file, or both."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mtl_zoo.benchmark.balancing import check_balancing
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict, load_configs, parse_assignments
from mtl_zoo.benchmark.hyperparameters import features_of, resolve_hyperparameters, resolve_reference
from mtl_zoo.benchmark.pareto import pareto
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.report import print_report
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import RunSummary, dataset_name, load, run_config
from mtl_zoo.benchmark.summary import summarise
from mtl_zoo.models import create_model

# What is compared where no model is named.
_USUAL_MODELS: dict[str, dict[str, Any]] = {"single_task": {}, "shared_bottom": {}, "mmoe": {}}


def configs_of(args: argparse.Namespace) -> list[RunConfig]:
    """The configurations that a command line asks for."""
    names = ("dataset", "model", "seeds", "epochs", "patience", "batch_size", "optimizer", "learning_rate", "schedule")
    given = {name: getattr(args, name) for name in (*names, "balancing", "group", "train_fraction", "leave_out")}
    given["hyperparameters"] = parse_assignments("--set", args.set)
    given["dataset_options"] = parse_assignments("--dataset-set", args.dataset_set)
    given["balancing_options"] = parse_assignments("--balancing-set", args.balancing_set)
    given["loss_weights"] = parse_assignments("--loss-weights", args.loss_weights)
    if args.tasks:
        given["dataset_options"]["tasks"] = tuple(args.tasks)
    file = args.config or args.config_option
    if file is not None:
        return load_configs(file, **given)
    return configs_from_dict({} if args.model else {"models": _USUAL_MODELS}, **given)


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench run`; returns the exit code: 1 if a run failed, 130 if cut."""
    console = Console(stderr=True)
    configs = configs_of(args)
    file = args.config or args.config_option
    store = ResultStore(args.out or Path("results", f"{file.stem if file else dataset_name(configs[0])}.csv"))
    try:
        with Shown(console, count_runs(configs)) as progress, interruptible():
            total = run_configs(configs, store, progress, data_dir=args.data_dir, save_scores=args.save_scores)
    except KeyboardInterrupt:
        console.print(f"[bold red]cut short:[/] the same command goes on: {escape(str(store.path))}", soft_wrap=True)
        return 130
    results = store.read()
    shown = results[results["dataset"].isin({dataset_name(config) for config in configs})]
    if ((shown["error"] == "") & (shown["split"] == "test")).any():
        print_report(summarise(shown), Console())
    console.print(f"{total.finished} finished, {total.skipped} skipped, {total.failed} failed: {store.path}")
    return 1 if total.failed else 0


def run_pareto(args: argparse.Namespace) -> int:
    """`mtl-zoo bench pareto`: the first configuration's model on its data set."""
    config = configs_of(args)[0]
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


def count_runs(configs: Sequence[RunConfig]) -> int:
    """How many trainings the configurations ask for, a sweep being one."""
    return sum(len(config.all_seeds) for config in configs)


def run_configs(configs: Sequence[RunConfig], store: ResultStore, progress: Shown, **arguments: Any) -> RunSummary:
    """Runs one after another; neighbours on the same data load it once."""
    for config in configs:
        # What cannot work is said before anything is loaded or trained.
        resolve_hyperparameters(config.model, config.hyperparameters)
        if config.parameter_matched:
            resolve_reference(config)
        check_balancing(config)
    total, loaded, dataset = RunSummary(), None, None
    for config in configs:
        wanted = (config.dataset, config.dataset_options, config.group)
        if wanted != loaded:
            progress.loading(dataset_name(config))
            dataset, loaded = load(config, arguments.get("data_dir")), wanted
            progress.loaded(dataset)
        summary = run_config(config, store, dataset=dataset, progress=progress, **arguments)
        total.finished += summary.finished
        total.skipped += summary.skipped
        total.failed += summary.failed
    return total
