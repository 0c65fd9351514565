"""What `mtl-zoo bench progressive` does: each day of a table is predicted, and then trained on."""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtl_zoo import _validation as check
from mtl_zoo._files import whole_file
from mtl_zoo.continual import L2ToPrevious, Progress, ReplayBuffer, draw_days, progressive
from mtl_zoo.datasets._table import read_rows, tasks_of
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models import create_model
from mtl_zoo.optimizers import as_optimizer
from mtl_zoo.training.selection import judged_outputs


def days_of(table: pd.DataFrame, column: str, parts: int | None = None) -> dict[str, pd.DataFrame]:
    """The rows of a table by day, in the order of time.

    Args:
        table: All rows.
        column: What tells the time; without `parts`, each of its values is a day.
        parts: Cut the rows in their order of time into this many parts of nearly equal size.

    Raises:
        ValueError: No such column; it has missing values; fewer than two days.
    """
    if column not in table.columns:
        raise ValueError(f"`day` must name a column. Received: {column!r}. Expected: one of {list(table.columns)[:30]}")
    times = table[column]
    if times.isna().any():
        raise ValueError(f"`{column}` must tell the day of every row. Received: {int(times.isna().sum())} missing")
    if parts is not None:
        check.check_int("parts", parts, minimum=2, maximum=len(table))
        order = np.argsort(times.to_numpy(), kind="stable")
        rows = table.iloc[order].reset_index(drop=True)
        edges = [len(rows) * i // parts for i in range(parts + 1)]
        return {str(i + 1): rows.iloc[edges[i] : edges[i + 1]].reset_index(drop=True) for i in range(parts)}
    found = {str(day): rows.reset_index(drop=True) for day, rows in table.groupby(column, sort=True)}
    if len(found) < 2:
        raise ValueError(f"`{column}` must tell at least two days. Received: {list(found)}")
    return found


def run(args: argparse.Namespace) -> int:
    """`mtl-zoo bench progressive`; returns the exit code."""
    console = Console(stderr=True)
    table = read_rows("table", args.table)
    days = days_of(table, args.day, args.parts)
    first = list(days)[: check.check_int("first", args.first, maximum=len(days) - 1)]
    start = pd.concat([days.pop(name) for name in first], ignore_index=True)
    tasks = tasks_of(table, tuple(args.tasks))
    keras.utils.set_random_seed(args.seed)
    transform = FeatureTransform.infer(start, tasks, exclude=[args.day, *args.exclude])
    model = create_model(args.model, transform.fit(start))
    model.compile(_optimizer(args))
    model.fit(start, epochs=args.epochs, batch_size=args.batch_size, verbose=0)
    extend = {name: getattr(args, name) for name in ("min_count", "evict_after") if getattr(args, name) is not None}
    replay = ReplayBuffer(args.replay, args.seed) if args.replay else None
    if replay is not None:
        replay.add(start)
    console.print(f"trained on {', '.join(first)}: {len(start):,} rows; {len(days)} days to come", highlight=False)
    progress = progressive(
        model,
        days,
        extend=None if args.fixed else extend,
        rows=args.rows,
        replay=replay,
        ratio=args.ratio,
        anchor=L2ToPrevious(args.l2) if args.l2 else None,
        train=not args.never,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        folder=args.folder,
    )
    if args.out is not None:
        with whole_file(args.out) as part:
            progress.table.to_csv(part, index=False)
    metric = args.metric or _main_metric(progress)
    _print(progress, metric)
    if args.picture is not None:
        path = draw_days({args.model: _of_tasks(progress, metric)}, args.picture, metric)
        console.print(f"picture: {escape(str(path))}", highlight=False)
    return 0


def _optimizer(args: argparse.Namespace) -> Any:
    optimizer = as_optimizer(args.optimizer)
    if args.learning_rate is not None:
        optimizer.learning_rate = args.learning_rate
    return optimizer


def _main_metric(progress: Progress) -> str:
    """That of the first task."""
    return progress.model.labelled_tasks[0].selection_metric


def _of_tasks(progress: Progress, metric: str) -> pd.DataFrame:
    scores = progress.scores(metric)
    return scores[[name for name in judged_outputs(progress.model).values() if name in scores]]


def _print(progress: Progress, metric: str) -> None:
    scores = _of_tasks(progress, metric)
    about = {str(day): rows.iloc[0] for day, rows in progress.table.groupby("day", sort=False)}
    new = dict(progress.growth.groupby("day")["new"].sum()) if len(progress.growth) else {}
    shown = Table("day", "rows", "new ids", *(f"{name} {metric}" for name in scores), "seconds")
    for day, row in scores.iterrows():
        values = ["" if pd.isna(value) else f"{value:.4f}" for value in row]
        first = about[str(day)]
        shown.add_row(str(day), f"{first['rows']:,}", str(new.get(day, 0)), *values, f"{first['train_seconds']:.1f}")
    Console().print(shown)
