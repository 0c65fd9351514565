"""Trains and evaluates a configuration, once for each seed, and writes the results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.balancing import (
    balancing_of,
    balancing_spec,
    balancing_text,
    best_of,
    check_balancing,
    rows_of_sweep,
    sweep_points,
)
from mtl_zoo.benchmark.baseline_run import fit_rows
from mtl_zoo.benchmark.config import STATIC_SWEEP, RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json, features_of, resolve_hyperparameters
from mtl_zoo.benchmark.hyperparameters import sized as sized_arguments
from mtl_zoo.benchmark.identity import about_run
from mtl_zoo.benchmark.progress import Silent, StepReporter
from mtl_zoo.benchmark.results import ROW, ResultStore
from mtl_zoo.benchmark.scores import save_scores_of
from mtl_zoo.benchmark.training import Trained, train_once
from mtl_zoo.datasets import Dataset, load_dataset
from mtl_zoo.datasets._base import is_table
from mtl_zoo.evaluation import evaluate_scores
from mtl_zoo.models import create_model
from mtl_zoo.optimizers import as_optimizer
from mtl_zoo.training.callbacks import judged_outputs, task_scores

_log = logging.getLogger(__name__)


class _UnknownLoss(ValueError):
    """A loss weight for no loss: which losses there are only a model can tell, and no later try can mend it."""


OnTrained = Callable[[Any, Dataset, RunConfig, int], None]


@dataclasses.dataclass
class RunSummary:
    """How many runs ended how, and the keys of their rows.

    Example:

    >>> from mtl_zoo.benchmark import RunSummary
    >>> total = RunSummary(finished=1, keys=["1f"])
    >>> total.add(RunSummary(skipped=2, keys=["2a", "2b"]))
    >>> total.finished, total.skipped, total.keys
    (1, 2, ['1f', '2a', '2b'])
    """

    finished: int = 0
    skipped: int = 0
    failed: int = 0
    keys: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: RunSummary) -> None:
        self.finished += other.finished
        self.skipped += other.skipped
        self.failed += other.failed
        self.keys += other.keys


def run_config(
    config: RunConfig,
    store: ResultStore,
    *,
    dataset: Dataset | None = None,
    data_dir: str | Path | None = None,
    save_scores: str | Path | None = None,
    splits: Sequence[str] = ("validation", "test"),
    progress: Silent | None = None,
    on_trained: OnTrained | None = None,
) -> RunSummary:
    """Runs a configuration for each of its seeds and appends each run's rows to `store`.

    A run whose key (data version, variant, split rule, model, hyperparameters and what their size is matched to, seed,
    epochs, patience, optimizer, batch size, balancing) is in the store without an error is skipped. A run that fails,
    or is cut short by an interrupt, leaves one row with its error and is tried again next time. The epoch is chosen on
    the validation split, never on the test split.

    Args:
        config: What to run.
        store: Where the rows go.
        dataset: The data, if loaded before, or of your own: then `config.dataset` may be any name, and the rows repeat
            the name and the options of the data.
        data_dir: Folder of the data sets' files.
        save_scores: Folder for the test scores of each run, as `.npz` with arrays by output (for paired tests).
        splits: What is evaluated: `("validation",)` where the test rows are not to be looked at.
        progress: Is told what happens.
        on_trained: Called with (model, dataset, config, seed) after evaluation.

    Raises:
        ValueError: No such data set, model, option or hyperparameter: what no later try can mend.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark import ResultStore, RunConfig, run_config
    >>> store = ResultStore(pathlib.Path(tempfile.mkdtemp()) / "rows.csv")
    >>> config = RunConfig("synthetic_funnel", "constant", dataset_options={"size": "small"})
    >>> run_config(config, store).finished, run_config(config, store).skipped
    (1, 1)
    """
    progress = progress or Silent()
    arguments = resolve_hyperparameters(config.model, config.hyperparameters)
    if dataset is None:
        progress.loading(config.dataset)
        dataset = load(config, data_dir)
        progress.loaded(dataset)
    if config.group is not None:
        check.check_choice("group", config.group, tuple(dataset.test.groups))
    features_of(config, dataset)  # refuses unknown names
    check_balancing(config)
    dataset = with_fraction(config, dataset)
    summary, finished, sized = RunSummary(), store.finished(splits), None
    for seed in config.all_seeds:
        about = about_run(config, dataset, arguments, seed)
        summary.keys.append(about["key"])
        if about["key"] in finished:
            progress.skipped(config, seed)
            summary.skipped += 1
            continue
        with _kept_failure(config, seed, about, store, progress) as run:
            # Once for all seeds, and not at all where all are skipped: it takes seconds.
            sized = sized or sized_arguments(config, dataset, arguments)
            own, match = sized
            about |= {"hyperparameters": as_json(own), "parameter_match": match and as_json(match)}
            train = _way_of(config, store)
            rows, scores, seconds = train(
                config,
                dataset,
                own,
                seed,
                about,
                save_scores=save_scores,
                splits=splits,
                progress=progress,
                after=on_trained,
            )
        if run.failed:
            summary.failed += 1
        else:
            store.append(rows)
            progress.finished(config, seed, scores, seconds)
            summary.finished += 1
        keras.backend.clear_session()
    return summary


@dataclasses.dataclass
class _Run:
    failed: bool = False


@contextlib.contextmanager
def _kept_failure(
    config: RunConfig, seed: int, about: Mapping[str, Any], store: ResultStore, progress: Silent
) -> Iterator[_Run]:
    """A failure leaves a row, and the benchmark goes on with the next run; an interrupt leaves one and goes on up."""
    run = _Run()
    try:
        yield run
    except _UnknownLoss:
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        store.append([{**about, "error": f"{type(error).__name__}: cut short"}])
        raise
    except Exception as error:
        _log.exception("%s on %s, seed %d failed", config.model, config.dataset, seed)
        text = f"{type(error).__name__}: {error}"
        store.append([{**about, "error": text[:1000]}])
        progress.failed(config, seed, text.splitlines()[0])
        run.failed = True


def load(config: RunConfig, data_dir: str | Path | None = None) -> Dataset:
    """The data set of a configuration: a named one, or a table."""
    options = dict(config.dataset_options)
    if is_table(config.dataset) and config.group is not None:
        options.setdefault("groups", (config.group,))
    return load_dataset(config.dataset, data_dir=data_dir, **options)


def _optimizer(config: RunConfig, steps: int) -> keras.optimizers.Optimizer:
    optimizer = as_optimizer(config.optimizer)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps * config.epochs)
    return type(optimizer).from_config({**optimizer.get_config(), "learning_rate": rate})


def _loss_weights(config: RunConfig, model: Any) -> dict[str, float]:
    """The weights of a model's losses: the configuration's, and the tasks' own for the others."""
    losses = model.head.losses(model.tasks)
    defaults = model.head.loss_weights(model.tasks)
    known = list(dict.fromkeys([*losses, *(task.name for task in model.tasks)]))
    unknown = [name for name in config.loss_weights if name not in known]
    if unknown:
        raise _UnknownLoss(f"`loss_weights` must name losses. Received: {unknown}. Expected: names among {known}")
    return {name: config.loss_weights.get(name, defaults[name]) for name in losses}


def with_fraction(config: RunConfig, dataset: Dataset) -> Dataset:
    """The data set with the share of its training rows that the configuration asks for."""
    every = len(dataset.train)
    rows = max(1, round(config.train_fraction * every))
    if rows == every:
        return dataset
    rule = f"{dataset.split_rule}; of the {every:,} training rows {rows:,} drawn at random"
    return dataclasses.replace(
        dataset, train=dataset.train.sample(rows, dataset.options.get("seed", 0)), split_rule=rule
    )


def _way_of(config: RunConfig, store: ResultStore) -> Callable[..., Any]:
    """The function that does a run: of a baseline, of a sweep, or of a network."""
    if config.is_baseline:
        return fit_rows
    return functools.partial(_sweep, store) if config.balancing == STATIC_SWEEP else _train


def _train(
    config: RunConfig,
    dataset: Dataset,
    arguments: Mapping[str, Any],
    seed: int,
    about: Mapping[str, Any],
    *,
    save_scores: str | Path | None,
    splits: Sequence[str],
    progress: Silent,
    after: OnTrained | None,
) -> tuple[list[dict[str, Any]], dict[str, float], float]:
    """One run: (rows, headline test score by task, seconds of training)."""
    trained = fit_run(config, dataset, arguments, seed, progress)
    model, timer, validation = trained.model, trained.timer, trained.validation
    common = {
        **about,
        "parameters": model.count_params(),
        "train_seconds": round(timer.total_seconds, 3),
        "examples_per_second": round(timer.examples_per_second, 1),
    }
    rows = []
    for split_name in splits:
        split = dataset.splits[split_name]
        scores = model.predict(split.inputs, verbose=0)
        table = evaluate_scores(model, split, scores, group=config.group, products=True)
        rows += _rows_of_split({**common, "split": split_name}, table, validation.best_epochs)
        if split_name == "validation":
            rows += _last_epoch(model, validation.history, rows)
    if save_scores is not None and split_name == "test":
        save_scores_of(Path(save_scores), model, dataset.test, scores, about)
    if after is not None:
        after(model, dataset, config, seed)
    return rows, task_scores(model, table), timer.total_seconds


def fit_run(
    config: RunConfig,
    dataset: Dataset,
    arguments: Mapping[str, Any],
    seed: int,
    progress: Silent,
    *,
    build: Callable[..., Any] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Trains the model of a configuration; no row of the test split is read.

    Args:
        config, dataset, seed: What to train, on what, and how weights and order are drawn.
        arguments: All arguments of the model.
        progress: Is told of every step.
        build: Makes the model from features, tasks and the arguments. Default: that of the configuration's name.
        callbacks: More of them.
    """
    steps = math.ceil(len(dataset.train) / config.batch_size)
    made = build or functools.partial(create_model, config.model)

    def compile_arguments(model: Any) -> dict[str, Any]:
        return {
            "optimizer": _optimizer(config, steps),
            "loss_weights": _loss_weights(config, model),
            "balancing": balancing_of(config, model, dataset.train.labels),
            "steps_per_execution": config.steps_per_execution,
        }

    progress.started(config, seed, steps * config.epochs)
    return train_once(
        lambda: made(features_of(config, dataset), dataset.tasks, **arguments),
        compile_arguments,
        dataset,
        seed,
        epochs=config.epochs,
        patience=config.patience,
        batch_size=config.batch_size,
        per_task=True,
        callbacks=[StepReporter(progress), *callbacks],
    )


def _rows_of_split(
    common: Mapping[str, Any], table: pd.DataFrame, best_epochs: Mapping[Any, int]
) -> list[dict[str, Any]]:
    # An output that is no task of its own is of the epoch that the whole model is of.
    epoch_of_model = max(best_epochs.values())
    records: list[dict[Any, Any]] = table.drop(columns="note").to_dict("records")
    return [{**common, "best_epoch": best_epochs.get(row["task"], epoch_of_model), **row} for row in records]


def _last_epoch(model: Any, history: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that say how many epochs were trained, and the score of choice after the last: what went after the best."""
    last = history[-1]
    found = []
    for task, output in judged_outputs(model).items():
        row = next(row for row in rows if row["task"] == output)
        found.append({**row, "metric": "epochs_trained", "value": last["epoch"]})
        found.append({**row, "metric": "last_score", "value": last["tasks"][task]})
    return found


def _sweep(
    store: ResultStore,
    config: RunConfig,
    dataset: Dataset,
    arguments: Mapping[str, Any],
    seed: int,
    about: Mapping[str, Any],
    *,
    splits: Sequence[str],
    **given: Any,
) -> tuple[list[dict[str, Any]], dict[str, float], float]:
    """The run of a `static_sweep`: each point is a run with rows of its own, of which the best one's are the sweep's.

    Points that are in the store are not trained again. Every one has the epochs that a method has; the seconds are
    those of all of them.
    """
    model = create_model(config.model, features_of(config, dataset), dataset.tasks, **arguments)
    points = {}
    for weights in sweep_points(config, model.loss_names):
        point = dataclasses.replace(config, balancing="static", balancing_options={"weights": weights})
        key = about_run(point, dataset, arguments, seed)["key"]
        points[key] = weights
        if key not in store.finished(splits):
            own = {**about, "key": key, "balancing": balancing_text(point)}
            own["balancing_spec"] = as_json(balancing_spec(point))
            rows, _, _ = _train(point, dataset, arguments, seed, own, splits=splits, **given)
            store.append(rows)
            keras.backend.clear_session()
    table = store.read()
    table = table[table["error"] == ""].drop_duplicates(ROW, keep="last")
    found = {key: table[table["key"] == key] for key in points}
    best = best_of(model, found)
    seconds = sum(rows["train_seconds"].iloc[0] for rows in found.values())
    rows = rows_of_sweep(about, found[best], points[best], seconds)
    return rows, task_scores(model, found[best][found[best]["split"] == splits[-1]]), seconds
