"""The command `mtl-zoo`: its options, and nothing else, so that its help needs no TensorFlow.

It stands beside the package, since any import of `mtl_zoo` brings Keras with it. What the commands do is in
`mtl_zoo.cli`, which is imported when one of them is carried out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def version() -> str:
    """`mtl_zoo.__version__`, read without importing the package."""
    spec = importlib.util.find_spec("mtl_zoo")
    text = Path(str(spec and spec.origin)).read_text(encoding="utf-8")
    return str(re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1])  # type: ignore[index]


def parser() -> argparse.ArgumentParser:
    """Every command; `run` of what it parses is the name of the function that carries it out."""
    made = argparse.ArgumentParser(prog="mtl-zoo", description="A model zoo for multi-task recommenders.")
    made.add_argument("--version", action="version", version=f"mtl-zoo {version()}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(commands, "env", "mtl_zoo.cli:env", "versions and devices, for bug reports")
    demo = _command(commands, "demo", "mtl_zoo.cli:demo", "train, evaluate and compare five models on embedded data")
    demo.add_argument("--out", type=Path, default=Path("results/demo"), help="folder of the results")
    demo.add_argument("--seeds", type=int, default=2, help="runs of each model")
    models = _command(
        commands, "models", "mtl_zoo.cli:models", "list the models of the catalogue, or show what is known of one"
    )
    models.add_argument("name", metavar="NAME", nargs="?", help="a name that `mtl-zoo models` shows")
    _export(
        _command(commands, "export", "mtl_zoo.cli:export", "write a saved model's scores in a form that runs elsewhere")
    )
    _launch(
        _command(
            commands, "launch", "mtl_zoo.cli:launch", "run a training command as a cluster of processes on this machine"
        )
    )
    _serve(_command(commands, "serve", "mtl_zoo.cli:serve", "answer requests for scores over HTTP"))
    _bench(commands.add_parser("bench", help="compare models on a data set, or on a table of your own"))
    _data(commands.add_parser("data", help="list, fetch, verify and describe data sets"))
    return made


def _command(commands: Any, name: str, run: str, text: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(run=run)
    return made


def _export(made: argparse.ArgumentParser) -> None:
    made.add_argument("model", type=Path, metavar="MODEL.keras", help="what `model.save` wrote")
    made.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write, whole or not at all")
    made.add_argument("--format", default="saved_model", help="a name of list_formats(): saved_model, onnx, litert")
    made.add_argument(
        "--encoded", action="store_true", help="take the model's own inputs, where it would take the columns of a table"
    )
    made.add_argument("--int8-tables", action="store_true", help="round embedding tables to int8 first")
    made.add_argument("--overwrite", action="store_true", help="replace an exported model that is there")
    made.add_argument(
        "--set", metavar="OPTION=VALUE", action="append", default=[], dest="options", help="of the format"
    )


def _launch(made: argparse.ArgumentParser) -> None:
    made.add_argument("--workers", type=int, default=2, help="processes that train")
    made.add_argument("--ps", type=int, default=0, metavar="SERVERS", help="parameter servers; a chief is added")
    made.add_argument("--restarts", type=int, default=0, help="how often to start again after a failure")
    made.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the logs, one a process")
    made.add_argument("--timeout", type=float, default=None, help="seconds for one attempt")
    made.add_argument("training", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="program and its arguments")


def _serve(made: argparse.ArgumentParser) -> None:
    """Defaults are those of `mtl_zoo.service.Settings`, which a test compares."""
    made.add_argument("folder", metavar="FOLDER", type=Path, help="numbered folders, one a version; or a model itself")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is reached from elsewhere")
    made.add_argument("--port", type=int, default=8501)
    made.add_argument("--name", help="the model's name in URLs; default: the folder's name")
    key = "file that holds the API key; default: $MTL_ZOO_API_KEY, else none is asked for"
    made.add_argument("--api-key-file", type=Path, metavar="FILE", help=key)
    made.add_argument("--hosts", nargs="+", metavar="HOST", help="values of the header Host that are answered")
    made.add_argument("--demo", action="store_true", help="a page to try the model on, at /")
    for name, default, text in _LIMITS:
        option = f"--{name.replace('_', '-')}"
        made.add_argument(option, type=type(default), default=default, metavar="N", help=f"{text}; default: {default}")


_LIMITS = (
    ("deadline", 5.0, "seconds for a request, then 504"),
    ("max_body", 8388608, "bytes of a body, then 413"),
    ("max_buffered", 268435456, "bytes of all bodies at once, then 503"),
    ("max_rows", 10000, "rows of a request, then 400"),
    ("max_values", 2000000, "values of a request, padding included, then 400"),
    ("queue_requests", 128, "requests that wait, then 429"),
    ("queue_values", 16000000, "values of all requests that wait, then 429"),
    ("batch_rows", 2048, "rows that are scored together"),
    ("max_connections", 1000, "connections, then 503"),
    ("keep", 1, "versions that stay loaded"),
    ("poll", 1.0, "seconds between two looks at the folder"),
    ("settle", 2.0, "seconds without a change after which a version counts as written"),
    ("drain", 30.0, "seconds that open requests have left at the end"),
    ("stall", 60.0, "seconds after which a call of the model counts as lost"),
)


def _data(made: argparse.ArgumentParser) -> None:
    commands = made.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    for name, text in (
        ("list", "the data sets, and which of them are on this machine"),
        ("fetch", "download a data set's official files and verify them"),
        ("verify", "check a data set's checksums, row and label counts"),
        ("describe", "show a data set's source, rows, tasks and features"),
    ):
        command = _command(commands, name, "mtl_zoo.cli_data:run", text)
        if name != "list":
            command.add_argument("name", metavar="NAME", help="a name that `mtl-zoo data list` shows")
        if name == "fetch":
            command.add_argument("--force", action="store_true", help="download even what is there and whole")
        if name == "describe":
            command.add_argument(
                "--set", metavar="OPTION=VALUE", action="append", default=[], dest="options", help="of the data set"
            )
        command.add_argument("--data-dir", type=Path, help="data folder; default: $MTL_ZOO_DATA, then the cache")


def _bench(made: argparse.ArgumentParser) -> None:
    commands = made.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")
    run = _command(
        commands,
        "run",
        "mtl_zoo.benchmark.command:run",
        "train and evaluate models on a data set, once for each seed, append the results to a CSV file and compare "
        "them; runs whose results are there are skipped, failed ones are tried again",
    )
    _config_options(run)
    run.add_argument(
        "--out",
        type=Path,
        metavar="PLACE",
        help="where results go: a folder, or the .csv file of the rows; default: results/NAME.csv. In a folder, and "
        "beside the rows of a table of your own, lie NAME.md and NAME.html, the leaderboard, too",
    )
    run.add_argument("--save-scores", type=Path, metavar="DIR", help="keep the test scores, for paired tests")
    _tune(
        _command(
            commands,
            "tune",
            "mtl_zoo.search.command:run",
            "search the hyperparameters of a model on the validation rows; the same command goes on after a kill, and "
            "shares the trials where it runs several times at once",
        )
    )
    report = _command(
        commands,
        "report",
        "mtl_zoo.benchmark.command:run_report",
        "mean ± standard deviation over seeds, gain over single_task, parameters and speed",
    )
    report.add_argument("files", type=Path, nargs="+", metavar="FILE.csv", help="results of `mtl-zoo bench run`")
    report.add_argument("--split", choices=("test", "validation"), default="test")
    report.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables as Markdown, too")
    report.add_argument("--html", type=Path, metavar="OUT.html", help="write them as one page that needs nothing else")
    report.add_argument("--scores", type=Path, metavar="DIR", help="of --save-scores: for intervals of differences")
    report.add_argument("--picture", type=Path, metavar="OUT.png", help="draw them, too")
    _curve_and_needs(commands)
    _progressive(
        _command(
            commands,
            "progressive",
            "mtl_zoo.benchmark.progressive:run",
            "predict each day of a table and then train on it, with ids for the values that it brings",
        )
    )
    pareto = _command(
        commands,
        "pareto",
        "mtl_zoo.benchmark.command:run_pareto",
        "train one model with a grid of static loss weights and with balancing methods, and show which are best",
    )
    _config_options(pareto)
    pareto.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="names of list_balancing()")
    pareto.add_argument("--steps", type=int, default=8, help="of the grid, which has one point more with two tasks")
    pareto.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the points and their front")


def _tune(made: argparse.ArgumentParser) -> None:
    _config_options(made)
    made.add_argument("--trials", type=int, help="how many there shall be in all; default: 30, or what --minutes allow")
    made.add_argument("--minutes", type=float, help="after so many no trial is begun")
    made.add_argument(
        "--objective", dest="objectives", action="append", metavar="NAME",
        help="score (default), a task, OUTPUT/METRIC, or parameters; several for their front",
    )  # fmt: skip
    made.add_argument("--space", type=Path, metavar="FILE.yaml", help="what is tried; default: what suits the model")
    made.add_argument("--fix", nargs="+", default=[], metavar="NAME", help="names of the space that are not searched")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="trials.db, trials.csv, trials.png and best.yaml")
    made.add_argument("--quiet", action="store_true", help="no line for each trial")


def _curve_and_needs(commands: Any) -> None:
    curve = _command(
        commands,
        "curve",
        "mtl_zoo.benchmark.curve:run",
        "train the same models on more and more of the training rows, and show what the rows gain",
    )
    _config_options(curve)
    curve.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 1.0], help="of the training rows")
    needs = _command(
        commands,
        "needs",
        "mtl_zoo.benchmark.needs:run",
        "change one default of a model at a time, and show which move its validation score most; never on test rows",
    )
    _config_options(needs)
    for made_of in (curve, needs):
        made_of.add_argument("--out", type=Path, metavar="PLACE", help="a folder, or the .csv file of the rows")


def _progressive(made: argparse.ArgumentParser) -> None:
    made.add_argument("table", type=Path, metavar="FILE", help="a .csv or .parquet file with the rows of all days")
    made.add_argument("--day", required=True, metavar="COLUMN", help="tells the day: each of its values is one")
    made.add_argument("--parts", type=int, help="cut the rows in the order of --day into this many days instead")
    made.add_argument("--task", dest="tasks", action="append", required=True, metavar="COLUMN", help="what to predict")
    made.add_argument("--exclude", nargs="+", default=[], metavar="COLUMN", help="columns that are no features")
    made.add_argument("--model", default="shared_bottom", help="a name of list_models()")
    made.add_argument("--first", type=int, default=1, help="days that the model is trained on at the start")
    made.add_argument("--epochs", type=int, default=1, help="of the start, and of each day")
    made.add_argument("--batch-size", type=int, default=1024)
    made.add_argument("--optimizer", default="adam", help="of Keras, or of mtl_zoo.optimizers")
    made.add_argument("--learning-rate", type=float)
    made.add_argument("--min-count", type=int, help="a value gets an id once it was seen so often")
    made.add_argument("--evict-after", type=int, help="days after which a value that was not seen loses its id")
    made.add_argument("--rows", choices=("initializer", "mean", "unknown"), default="initializer", help="of new ids")
    made.add_argument("--fixed", action="store_true", help="values of later days get no ids")
    made.add_argument("--never", action="store_true", help="never train after the start")
    made.add_argument("--replay", type=int, default=0, metavar="ROWS", help="size of a sample of past rows")
    made.add_argument("--ratio", type=float, default=0.2, help="rows of the sample for each row of a day")
    made.add_argument("--l2", type=float, default=0.0, help="strength by which weights are held to the day before's")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--metric", help="of the table and the picture; default: that of the first task's kind")
    made.add_argument("--folder", type=Path, help="keep each day here, and go on after the last one that is whole")
    made.add_argument("--out", type=Path, metavar="FILE.csv", help="write all metrics of all days")
    made.add_argument("--picture", type=Path, metavar="OUT.png", help="draw a metric over the days")


def _config_options(made: argparse.ArgumentParser) -> None:
    """What becomes a `RunConfig`."""
    made.add_argument("config", nargs="?", type=Path, metavar="FILE.yaml", help="arguments of RunConfig")
    made.add_argument("--config", dest="config_option", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--dataset", help="a name of list_datasets(), or a path to a .csv or .parquet file")
    made.add_argument("--table", dest="dataset", metavar="FILE", help="a table of your own: .csv or .parquet")
    made.add_argument(
        "--task",
        dest="tasks",
        action="append",
        metavar="COLUMN[:KIND][@SPACE]",
        help="what to predict of the table, such as click, rating:regression, or conversion@click where click is 1",
    )
    made.add_argument("--model", help="a name of list_models(), or of a baseline")
    made.add_argument("--models", nargs="+", metavar="NAME", help="several of them")
    made.add_argument(
        "--baselines",
        metavar="all|none|NAME,NAME",
        help="constant, popularity, linear, boosting; default: all for a table of your own, else none",
    )
    made.add_argument(
        "--time", metavar="COLUMN", help="split the table by the order of this column, which is no feature"
    )
    made.add_argument(
        "--split",
        "--folds-by",
        choices=("random", "time", "group"),
        help="of the table; group keeps the values of --group whole. Default: time if --time is given, else random",
    )
    made.add_argument("--folds", type=int, help="cross-validation: cut the table into so many folds, by --split")
    made.add_argument("--seeds", type=_seeds, help="how many (0, 1, ...), or a list such as 3,4,5")
    made.add_argument("--epochs", type=int, help="the most epochs trained")
    made.add_argument("--patience", type=int, help="stop after so many epochs without improvement")
    made.add_argument("--batch-size", type=int)
    made.add_argument("--optimizer", help="of Keras, or of mtl_zoo.optimizers")
    made.add_argument("--learning-rate", type=float)
    made.add_argument("--schedule", help="of the learning rate: constant or cosine")
    made.add_argument("--balancing", help="equal, static_sweep, or a name of list_balancing()")
    made.add_argument("--group", help="also the AUC within groups of this column")
    made.add_argument("--data-dir", type=Path, help="folder of the data sets; default: $MTL_ZOO_DATA")
    made.add_argument("--train-fraction", type=float, metavar="SHARE", help="use this share of the training rows")
    made.add_argument("--leave-out", nargs="+", metavar="FEATURE", help="features that the model does not get")
    for option, what in (
        ("--set", "hyperparameters of the model"),
        ("--dataset-set", "options of the data set"),
        ("--loss-weights", "loss weights by loss name, in place of the tasks' own"),
        ("--balancing-set", "options of the balancing method"),
    ):
        made.add_argument(option, action="extend", nargs="+", default=[], metavar="NAME=VALUE", help=what)


def _seeds(text: str) -> int | tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part) if "," in text else int(text)


@contextlib.contextmanager
def native_messages_held_back() -> Iterator[None]:
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
    args = parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Its advice on retracing is for whoever writes a training loop.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    module, _, function = args.run.partition(":")
    with native_messages_held_back():
        importlib.import_module("tensorflow")
        run = getattr(importlib.import_module(module), function)
    try:
        return int(run(args) or 0)
    except (ValueError, TypeError, OSError, ImportError) as error:
        from rich.console import Console
        from rich.markup import escape

        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
