"""What the commands of `mtl-zoo` do; their options are in `mtl_zoo_cli`, beside the package."""

from __future__ import annotations

import argparse
import os

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table


def env(args: argparse.Namespace) -> int:
    """`mtl-zoo env`."""
    import keras

    from mtl_zoo.benchmark import environment

    table = Table(show_header=False, box=None)
    for name, version in environment.versions().items():
        table.add_row(name, version)
    table.add_row("backend", keras.backend.backend())
    table.add_row("processor", environment.processor())
    for device in environment.devices():
        table.add_row("device", device)
    commit, dirty = environment.commit()
    if commit:
        table.add_row("commit", commit + (" (changed)" if dirty else ""))
    Console().print(table, highlight=False)
    return 0


def models(args: argparse.Namespace) -> int:
    """`mtl-zoo models [NAME]`."""
    from mtl_zoo.models import list_models, model_info

    if args.name is not None:
        Console().print(str(model_info(args.name)), highlight=False, markup=False, soft_wrap=True)
        return 0
    table = Table(Column("name", no_wrap=True), "what it shares", "good for", Column("paper", no_wrap=True))
    for name in list_models():
        info = model_info(name)
        table.add_row(name, escape(info.kind), escape(info.good_for), escape(info.paper))
    Console().print(table, highlight=False)
    return 0


def export(args: argparse.Namespace) -> int:
    """`mtl-zoo export MODEL.keras FOLDER`."""
    import keras

    from mtl_zoo.benchmark.config import parse_assignments
    from mtl_zoo.export import export, quantize

    console = Console(highlight=False, soft_wrap=True)
    model = keras.saving.load_model(args.model)
    if not hasattr(model, "scoring"):
        raise ValueError(f"`model` must be a model of the zoo. Received: a {type(model).__name__} in {args.model}")
    if args.int8_tables:
        found = quantize(model)
        model = found.model
        console.print(f"int8 tables: {found.bytes_before:,} -> {found.bytes_after:,} bytes of weights")
    raw = False if args.encoded else None
    names = export(
        model, args.folder, args.format, raw=raw, overwrite=args.overwrite, **parse_assignments("--set", args.options)
    )
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    console.print(f"{args.folder}: {args.format}, {size:,} bytes, its scores are those of {args.model}", markup=False)
    table = Table("column", "input")
    for column, name in names.items():
        table.add_row(escape(column), escape(name))
    console.print(table)
    return 0


def demo(args: argparse.Namespace) -> int:
    """`mtl-zoo demo`."""
    from mtl_zoo.benchmark.demo import run_demo

    return run_demo(args.out, args.seeds)


def serve(args: argparse.Namespace) -> int:
    """`mtl-zoo serve FOLDER`."""
    from mtl_zoo.service import Settings, serve

    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    if args.api_key_file is not None:
        key: str | None = args.api_key_file.read_text(encoding="utf-8").strip()
    else:
        key = os.environ.get("MTL_ZOO_API_KEY") or None
    hosts = None if args.hosts is None else tuple(args.hosts)
    return serve(args.folder, Settings(**given | {"hosts": hosts, "api_key": key}))


def launch(args: argparse.Namespace) -> int:
    """`mtl-zoo launch -- COMMAND`."""
    from mtl_zoo.training.launch import launch

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        done = launch(
            args.training[1:] if args.training[:1] == ["--"] else args.training,
            args.workers,
            args.ps,
            restarts=args.restarts,
            logs=args.logs,
            timeout=args.timeout,
            echo=lambda line: Console(soft_wrap=True).print(line, highlight=False, markup=False),
        )
    except (KeyboardInterrupt, SystemExit):
        console.print("[bold red]interrupted:[/] all processes have ended")
        return 130
    for failure in done.failures:
        console.print(f"[bold red]failed:[/] {escape(failure)}; logs in {escape(str(args.logs))}")
    return done.code
