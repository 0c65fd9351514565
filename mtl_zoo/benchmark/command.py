"""`python -m benchmarks.run`: a configuration from the command line, a YAML file, or both."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mtl_zoo.benchmark.balancing import check_balancing
from mtl_zoo.benchmark.config import (
    OPTIMIZERS,
    SCHEDULES,
    RunConfig,
    configs_from_dict,
    load_configs,
    parse_assignments,
)
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import RunSummary, load, resolve_hyperparameters, resolve_reference, run_config


def run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Trains and evaluates a model on a data set, once for each seed, and appends the results to a CSV "
        "file. Runs whose results are there are skipped; failed ones are tried again.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="arguments of RunConfig; options override it")
    parser.add_argument("--dataset", help="a name of list_datasets()")
    parser.add_argument("--model", help="a name of list_models()")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go")
    parser.add_argument("--seeds", type=_seeds, help="how many (0, 1, ...), or a list such as 3,4,5")
    parser.add_argument("--epochs", type=int, help="the most epochs trained")
    parser.add_argument("--patience", type=int, help="stop after so many epochs without improvement")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--optimizer", choices=OPTIMIZERS)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate")
    parser.add_argument("--balancing", help="equal, static_sweep, or a name of list_balancing()")
    parser.add_argument("--group", help="also the AUC within groups of this column")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; default: $MTL_ZOO_DATA")
    parser.add_argument("--save-scores", type=Path, metavar="DIR", help="keep the test scores, for paired tests")
    parser.add_argument("--train-fraction", type=float, metavar="SHARE", help="use this share of the training rows")
    parser.add_argument("--leave-out", nargs="+", metavar="FEATURE", help="features that the model does not get")
    pairs = (
        ("--set", "hyperparameters of the model"),
        ("--dataset-set", "options of the data set"),
        ("--loss-weights", "loss weights by loss name, in place of the tasks' own"),
        ("--balancing-set", "options of the balancing method"),
    )
    for option, what in pairs:
        parser.add_argument(option, action="extend", nargs="+", default=[], metavar="NAME=VALUE", help=what)
    return parser


def _seeds(text: str) -> int | tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part) if "," in text else int(text)


def parse_run(arguments: Sequence[str] | None = None) -> tuple[list[RunConfig], argparse.Namespace]:
    """The configurations that a command line asks for."""
    args = run_parser().parse_args(arguments)
    names = ("dataset", "model", "seeds", "epochs", "patience", "batch_size", "optimizer", "learning_rate", "schedule")
    given = {name: getattr(args, name) for name in (*names, "balancing", "group", "train_fraction")}
    given["leave_out"] = args.leave_out
    given["hyperparameters"] = parse_assignments("--set", args.set)
    given["dataset_options"] = parse_assignments("--dataset-set", args.dataset_set)
    given["balancing_options"] = parse_assignments("--balancing-set", args.balancing_set)
    given["loss_weights"] = parse_assignments("--loss-weights", args.loss_weights)
    return (load_configs(args.config, **given) if args.config else configs_from_dict({}, **given)), args


def run_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.run`; returns the exit code: 1 if a run failed, 2 if the request is wrong, 130 if cut."""
    console = Console(stderr=True)
    # TensorFlow's advice on retracing is for whoever writes a training loop.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        configs, args = parse_run(arguments)
        store = ResultStore(args.out)
        with Shown(console, count_runs(configs)) as progress, interruptible():
            total = run_configs(configs, store, progress, data_dir=args.data_dir, save_scores=args.save_scores)
    except KeyboardInterrupt:
        console.print(f"[bold red]cut short:[/] the same command goes on: {escape(str(store.path))}", soft_wrap=True)
        return 130
    except (ValueError, TypeError, FileNotFoundError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    console.print(f"{total.finished} finished, {total.skipped} skipped, {total.failed} failed: {store.path}")
    return 1 if total.failed else 0


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
    return sum(len(config.all_seeds) for config in configs)


def run_configs(configs: Sequence[RunConfig], store: ResultStore, progress: Shown, **arguments) -> RunSummary:
    """Runs one after another; neighbours on the same data load it once."""
    for config in configs:
        # What cannot work is said before anything is loaded or trained.
        resolve_hyperparameters(config.model, config.hyperparameters)
        if config.parameter_matched:
            resolve_reference(config)
        check_balancing(config)
    total, loaded, dataset = RunSummary(), None, None
    for config in configs:
        wanted = (config.dataset, config.dataset_options)
        if wanted != loaded:
            progress.loading(config.dataset)
            dataset, loaded = load(config, arguments.get("data_dir")), wanted
            progress.loaded(dataset)
        summary = run_config(config, store, dataset=dataset, progress=progress, **arguments)
        total.finished += summary.finished
        total.skipped += summary.skipped
        total.failed += summary.failed
    return total
