"""What `mtl-zoo data list | fetch NAME | verify NAME | describe NAME` do."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from mtl_zoo.datasets import (
    Check,
    Dataset,
    FetchError,
    dataset_info,
    fetch_dataset,
    list_datasets,
    load_dataset,
    search_roots,
    verify_dataset,
)


def run(args: argparse.Namespace, console: Console | None = None) -> int:
    """Carries out a parsed `data` command; returns the exit code."""
    console = console or Console()
    command = {"list": _list, "fetch": _fetch, "verify": _verify, "describe": _describe}[args.data_command]
    try:
        return command(args, console)
    except (FetchError, ValueError, TypeError, OSError) as error:
        console.print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True, highlight=False)
        return 1


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _list(args: argparse.Namespace, console: Console) -> int:
    roots = search_roots(args.data_dir)
    table = Table(Column("name", no_wrap=True), Column("here", no_wrap=True), "what", "licence")
    for name in list_datasets():
        info = dataset_info(name)
        if not info.reads_files:
            here = "generated"
        elif info.is_complete(roots):
            here = "yes"
        elif any((root / folder).is_dir() for root in roots for folder in info.folders if folder):
            here = "in part"
        else:
            here = "login" if info.login else "no"
        table.add_row(name, here, _plain(info.summary), info.licence)
    console.print(table)
    console.print(f"data folders: {', '.join(map(str, roots))}", soft_wrap=True, highlight=False)
    return 0


def _fetch(args: argparse.Namespace, console: Console) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        rows: dict[str, Any] = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in rows:
                rows[file] = bar.add_task(file, total=total)
            bar.update(rows[file], completed=done, total=total)

        checks = fetch_dataset(args.name, args.data_dir, force=args.force, progress=progress)
    return _show(args.name, checks, console)


def _verify(args: argparse.Namespace, console: Console) -> int:
    return _show(args.name, verify_dataset(args.name, args.data_dir), console)


def _show(name: str, checks: list[Check], console: Console) -> int:
    table = Table("check", "expected", "found", "", title=name)
    for c in checks:
        table.add_row(_plain(c.what), _plain(c.expected), _plain(c.found), "[green]ok" if c.ok else "[red]WRONG")
    console.print(table)
    return 0 if all(c.ok for c in checks) else 1


def _describe(args: argparse.Namespace, console: Console) -> int:
    info = dataset_info(args.name)
    options = _parse_options(args.options)
    about = Table(show_header=False, title=args.name, box=None)
    defaults = ", ".join(f"{option}={default!r}" for option, default in info.options.items())
    for label, text in (
        ("what", info.summary),
        ("source", info.source),
        ("licence", info.licence),
        ("files", ", ".join(info.files) or "none, it is generated"),
        ("options", defaults),
    ):
        about.add_row(f"[bold]{label}", _plain(text))
    console.print(about)
    _describe_data(load_dataset(args.name, args.data_dir, **options), console)
    return 0


def _parse_options(pairs: list[str]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise ValueError(f"`--set` must be OPTION=VALUE. Received: --set {pair}")
        options[name.replace("-", "_")] = yaml.safe_load(value)
    return options


def _describe_data(data: Dataset, console: Console) -> None:
    console.print(f"variant {data.variant}, version {data.version}; {_plain(data.split_rule)}", soft_wrap=True)
    for note in data.notes:
        console.print(f"note: {_plain(note)}", soft_wrap=True)
    tasks = Table("task", "kind", "defined on", *(f"{name}: rows, mean" for name in data.splits))
    for task in data.tasks:
        tasks.add_row(
            task.name,
            task.kind,
            task.sample_space or "all rows",
            *(_label_summary(split.labels, task) for split in data.splits.values()),
        )
    console.print(tasks)
    features = Table("feature", "kind", "ids", "shape")
    for feature in data.features:
        ids = getattr(feature.embed(), "num_ids", None)
        features.add_row(feature.name, feature.kind, "" if ids is None else f"{ids:,}", str(feature.shape or ""))
    console.print(features)


def _label_summary(labels: dict[str, np.ndarray], task: Any) -> str:
    observed = np.isfinite(labels[task.name])
    if task.sample_space is not None:
        observed &= labels[task.sample_space] == 1
    mean = f"{labels[task.name][observed].mean():.4f}" if observed.any() else "-"
    return f"{int(observed.sum()):,}, {mean}"
