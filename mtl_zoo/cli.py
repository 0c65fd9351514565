"""`mtl-zoo`: the library's jobs as commands. Every command is a function of the library."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mtl_zoo import __version__


def _parser(with_data: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtl-zoo", description="A model zoo for multi-task recommenders.")
    parser.add_argument("--version", action="version", version=f"mtl-zoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    env = commands.add_parser("env", help="versions and devices, for bug reports")
    env.set_defaults(run=_env)
    demo = commands.add_parser("demo", help="train, evaluate and compare five models on embedded data")
    demo.add_argument("--out", type=Path, default=Path("results/demo"), help="folder of the results")
    demo.add_argument("--seeds", type=int, default=2, help="runs of each model")
    demo.set_defaults(run=_demo)
    models = commands.add_parser("models", help="list the models of the catalogue, or show what is known of one")
    models.add_argument("name", metavar="NAME", nargs="?", help="a name that `mtl-zoo models` shows")
    models.set_defaults(run=_models)
    start = commands.add_parser("launch", help="run a training command as a cluster of processes on this machine")
    start.add_argument("--workers", type=int, default=2, help="processes that train")
    start.add_argument("--ps", type=int, default=0, metavar="SERVERS", help="parameter servers; a chief is added")
    start.add_argument("--restarts", type=int, default=0, help="how often to start again after a failure")
    start.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the logs, one a process")
    start.add_argument("--timeout", type=float, default=None, help="seconds for one attempt")
    start.add_argument("training", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="program and its arguments")
    start.set_defaults(run=_launch)
    if with_data:
        from mtl_zoo import cli_data

        cli_data.add_parser(commands)
    else:
        commands.add_parser("data", help="list, fetch, verify and describe data sets")
    return parser


def _env(args: argparse.Namespace) -> int:
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


def _models(args: argparse.Namespace) -> int:
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


def _demo(args: argparse.Namespace) -> int:
    from mtl_zoo.benchmark.demo import run_demo

    return run_demo(args.out, args.seeds)


def _launch(args: argparse.Namespace) -> int:
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


@contextlib.contextmanager
def _native_messages_held_back() -> Iterator[None]:
    """Keeps what TensorFlow's C++ code writes to stderr while it is imported; shown only if the import fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `mtl-zoo`; returns the exit code: 2 for a request that cannot be met."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Its advice on retracing is for whoever writes a training loop.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    # `data` brings TensorFlow with it, so its parser is made only when it is asked for.
    command = next((word for word in words if not word.startswith("-")), "")
    if command:
        with _native_messages_held_back():
            import tensorflow  # noqa: F401
    args = _parser(with_data=command == "data").parse_args(words)
    try:
        return int(args.run(args) or 0)
    except (ValueError, TypeError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
