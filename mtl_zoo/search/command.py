"""What `mtl-zoo bench tune` does: `tune` for a configuration, with everything it found in a folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from mtl_zoo._files import whole_file
from mtl_zoo.benchmark.command import configs_of, interruptible
from mtl_zoo.benchmark.identity import dataset_name
from mtl_zoo.benchmark.runner import load
from mtl_zoo.search.tune import tune


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench tune`; returns the exit code: 130 if it was cut short."""
    if args.folds is not None:
        raise ValueError("`--folds` has no meaning for a search, judged on one validation split. Leave it out.")
    # Baselines, which a table of one's own is given where none are named, have nothing to tune.
    asked = configs_of(args)
    configs = [config for config in asked if not config.is_baseline] or asked
    if len(configs) != 1 or configs[0].is_baseline:
        names = ", ".join(dict.fromkeys(config.model for config in configs))
        raise ValueError(f"`--model` must name the one model that is tuned. Received: {names}")
    config, console = configs[0], Console(stderr=True, highlight=False)
    folder = args.out or Path("results", f"tune-{dataset_name(config)}-{config.model}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with interruptible():
            found = tune(
                config,
                load(config, args.data_dir),
                _space(args.space),
                objectives=tuple(args.objectives or ("score",)),
                trials=args.trials if args.trials or args.minutes else 30,
                minutes=args.minutes,
                storage=folder / "trials.db",
                seed=config.all_seeds[0],
                fixed=args.fix,
                verbose=0 if args.quiet else 1,
            )
    except KeyboardInterrupt:
        console.print(f"[bold red]cut short:[/] the same command goes on: {escape(str(folder))}", soft_wrap=True)
        return 130
    with whole_file(folder / "trials.csv") as part:
        found.table.to_csv(part, index=False)
    found.plot(folder / "trials.png")
    best = found.save(folder / "best.yaml")
    Console().print(str(found), highlight=False, markup=False, soft_wrap=True)
    console.print(f"mtl-zoo bench run {escape(str(best))}", soft_wrap=True)
    return 0


def _space(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"`--space` must be a YAML file. Received: {path}: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"`--space` must hold `name: choices or range` lines. Received: {path}")
    return content
