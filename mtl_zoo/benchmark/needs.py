"""`mtl-zoo bench needs`: which defaults move a model's validation score most on a table, one change at a time."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from mtl_zoo.benchmark.command import check_configs, count_runs, cut_short, interruptible, run_each
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json, resolve_hyperparameters
from mtl_zoo.benchmark.leaderboard import Place, place_of, write_text
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.report import markdown_table, plain_table
from mtl_zoo.benchmark.requests import configs_of
from mtl_zoo.benchmark.summary import columns_of_rows, fold_ratio, score_of_rows, with_folds
from mtl_zoo.evaluation import Interval, fold_interval
from mtl_zoo.options import MLP, NORMS, Embedding

# What each default is changed to; factors of what it is, or values.
_RATES, _EPOCHS = (0.1, 0.3, 3.0, 10.0), (0.4, 2.0, 4.0)
_WIDTHS = (4, 8, 16, 32, 64)
_STARTS = ("uniform", "zeros", "random_normal", "glorot_uniform")


@dataclasses.dataclass(frozen=True)
class Change:
    """One default that is changed.

    Args:
        what: The default: `"learning rate"`, `"epochs"`, `"embedding width"`, `"embedding start"`, `"normalisation"`.
        value: What it becomes, in a word.
        option: How a command line says it.
        apply: From a configuration to the changed one.

    Example:

    >>> from mtl_zoo.benchmark.config import RunConfig
    >>> from mtl_zoo.benchmark.needs import changes
    >>> config = RunConfig("synthetic_funnel", "shared_bottom")
    >>> [change.option for change in changes(config)][:2]
    ['--learning-rate 0.0001', '--learning-rate 0.0003']
    """

    what: str
    value: str
    option: str
    apply: Callable[[RunConfig], RunConfig]


def changes(config: RunConfig) -> list[Change]:
    """The changes that are tried, each from the configuration as it is."""
    return [*_of_training(config), *_of_embedding(config), *_of_norms(config)]


def _of_training(config: RunConfig) -> Iterator[Change]:
    for factor in _RATES:
        rate = float(f"{config.learning_rate * factor:.3g}")
        yield _replaced("learning rate", f"{rate:g}", f"--learning-rate {rate:g}", learning_rate=rate)
    for factor in _EPOCHS:
        epochs = max(round(config.epochs * factor), 1)
        if epochs != config.epochs:
            yield _replaced("epochs", str(epochs), f"--epochs {epochs}", epochs=epochs)


def _of_embedding(config: RunConfig) -> Iterator[Change]:
    for width in _WIDTHS:
        if width != config.dataset_options.get("embedding_dim", 16):
            options = {**config.dataset_options, "embedding_dim": width}
            option = f"--dataset-set embedding_dim={width}"
            yield _replaced("embedding width", str(width), option, dataset_options=options)
    now = resolve_hyperparameters(config.model, config.hyperparameters).get("embedding") or Embedding()
    for start in _STARTS:
        if start != now.initializer:
            fields = {"embedding": {**now.get_config(), "initializer": start}}
            option = f"""--set embedding='{{"initializer": "{start}"}}'"""
            yield _replaced("embedding start", start, option, hyperparameters={**config.hyperparameters, **fields})


def _of_norms(config: RunConfig) -> Iterator[Change]:
    """All stacks of layers but those of gates get another normalisation."""
    arguments = resolve_hyperparameters(config.model, config.hyperparameters)
    stacks = {
        name: value if isinstance(value, MLP) else MLP(value)
        for name, value in arguments.items()
        if name.endswith("_units") and not name.startswith("gate") and _is_stack(value)
    }
    for norm in (None, *NORMS):
        changed = {
            name: {"MLP": {**mlp.get_config(), "norm": norm}} for name, mlp in stacks.items() if mlp.norm != norm
        }
        if changed:
            hyperparameters = {**config.hyperparameters, **changed}
            option = " ".join(f"--set {name}='{as_json(value)}'" for name, value in changed.items())
            yield _replaced("normalisation", str(norm), option, hyperparameters=hyperparameters)


def _is_stack(value: Any) -> bool:
    return isinstance(value, (MLP, int)) or (isinstance(value, tuple) and all(isinstance(v, int) for v in value))


def _replaced(what: str, value: str, option: str, **fields: Any) -> Change:
    return Change(what, value, option, lambda config: dataclasses.replace(config, **fields))


@dataclasses.dataclass(frozen=True)
class Need:
    """What a change did to the validation score, the mean over tasks of AUC, accuracy or 1 - NRMSE.

    Example:

    >>> from mtl_zoo.benchmark.needs import Need, changes
    >>> from mtl_zoo.benchmark.config import RunConfig
    >>> from mtl_zoo.evaluation import Interval
    >>> Need(changes(RunConfig("synthetic_funnel", "mmoe"))[0], 0.7, Interval(0.01, 0.005, 0.015)).helps
    True
    """

    change: Change
    score: float
    difference: Interval

    @property
    def helps(self) -> bool:
        """Whether the whole interval is above 0."""
        return bool(self.difference.low > 0)


def needs_of(table: pd.DataFrame, base: Sequence[str], changed: Sequence[tuple[Change, Sequence[str]]]) -> list[Need]:
    """What each change did, the largest effect first.

    Args:
        table: The rows of all runs.
        base: Keys of the runs with the defaults.
        changed: Each change with the keys of its runs, of the same seeds and folds.
    """
    table = with_folds(table[(table["error"] == "") & (table["split"] == "validation")])
    before, found = _scores(table, base), []
    for change, keys in changed:
        after = _scores(table, keys)
        runs = sorted(set(before) & set(after))
        if runs:
            frame = pd.DataFrame({"fold": [fold for fold, _ in runs], "d": [after[run] - before[run] for run in runs]})
            score = float(np.mean([after[run] for run in runs]))
            found.append(Need(change, score, _interval(frame, table)))
    return sorted(found, key=lambda need: -abs(need.difference.value))


def _scores(table: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[int, int], float]:
    """The score of each run by (fold, seed)."""
    found = {}
    for key in keys:
        rows = table[table["key"] == key]
        if len(rows):
            first = rows.iloc[0]
            found[int(first["fold"]), int(first["seed"])] = score_of_rows(rows, columns_of_rows(rows))
    return found


def _interval(differences: pd.DataFrame, table: pd.DataFrame) -> Interval:
    """Over folds, or over seeds where there are none; without several of them the interval is all numbers."""
    by_fold = differences.groupby("fold")["d"].mean()
    values = by_fold if len(by_fold) > 1 else differences["d"]
    if len(values) < 2:
        return Interval(float(values.mean()), -np.inf, np.inf)
    return fold_interval(values.to_numpy(), fold_ratio(table.iloc[0]) if len(by_fold) > 1 else 0.0)


def _run(
    wanted: Sequence[tuple[Change | None, RunConfig]], place: Place, console: Console, data_dir: Any
) -> tuple[list[str], list[tuple[Change, list[str]]], int]:
    """The keys of the runs as they are, each change with those of its runs, and how many runs failed.

    Changes of several folds are one.
    """
    configs = [config for _, config in wanted]
    base: list[str] = []
    failed = 0
    changed: dict[tuple[str, str], tuple[Change, list[str]]] = {}
    with Shown(console, count_runs(configs)) as progress, interruptible():
        ran = run_each(configs, place.store, progress, data_dir=data_dir, splits=("validation",))
        for (change, _), (_, _, summary) in zip(wanted, ran, strict=True):
            keys = base if change is None else changed.setdefault((change.what, change.value), (change, []))[1]
            keys += summary.keys
            failed += summary.failed
    return base, list(changed.values()), failed


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench needs`; returns the exit code."""
    args.seeds = 3 if args.seeds is None else args.seeds
    asked = [config for config in configs_of(args) if not config.is_baseline]
    models = {config.model for config in asked}
    if len(models) != 1:
        raise ValueError(f"`--model` must name one model, whose defaults are changed. Received: {sorted(models)}")
    check_configs(asked)
    wanted: list[tuple[Change | None, RunConfig]] = [(None, config) for config in asked]
    wanted += [(change, change.apply(config)) for config in asked for change in changes(config)]
    # Those on the same data one after another, so that it is loaded once.
    wanted.sort(key=lambda pair: repr(sorted(pair[1].dataset_options.items(), key=str)))
    console, place = Console(stderr=True), place_of(args, asked[0], "-needs")
    try:
        base, changed, failed = _run(wanted, place, console, args.data_dir)
    except KeyboardInterrupt:
        return cut_short(console, place.path)
    found = needs_of(place.store.read(), base, changed)
    if not found:
        console.print(
            f"[bold red]nothing to compare:[/] {failed} runs failed: {escape(str(place.path))}", soft_wrap=True
        )
        return 1
    _report(found, asked[0].model, Console())
    text = (
        markdown_table("change", _HEADS, _rows(found)) + "\n" + "\n".join(f"- {said}" for said in _said(found)) + "\n"
    )
    file = write_text(place.path.with_suffix(".md"), text)
    console.print(f"what this data needs: {escape(str(file))}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


_HEADS = ("score", "change of it", "95 %")


def _rows(found: Sequence[Need]) -> list[list[str]]:
    return [
        [
            f"{need.change.what} {need.change.value}",
            f"{need.score:.4f}",
            f"{need.difference.value:+.4f}",
            f"[{need.difference.low:+.4f}, {need.difference.high:+.4f}]" if np.isfinite(need.difference.low) else "",
        ]
        for need in found
    ]


def _said(found: Sequence[Need]) -> list[str]:
    """The best change of each default that helps, and how to ask for it."""
    best: dict[str, Need] = {}
    for need in found:
        if need.helps and need.difference.value > best.get(need.change.what, need).difference.value - 1e-12:
            best[need.change.what] = need
    said = [
        f"This data needs another {what}: {need.change.value} gains {need.difference.value:.4f} ({need.change.option})."
        for what, need in best.items()
    ]
    return said or ["No change of one default helps by more than chance: keep them."]


def _report(found: Sequence[Need], model: str, console: Console) -> None:
    console.print(plain_table(f"{model}: validation score", _HEADS, _rows(found)))
    for sentence in _said(found):
        console.print(f"[bold]*[/] {escape(sentence)}", highlight=False, soft_wrap=True)
    console.print(
        "[dim]Differences on validation rows, paired by seed or fold, of one change at a time; the best of many is "
        "flattered. Train what you take once more, and look at the test rows then.[/]",
        highlight=False,
    )
