"""Progressive validation: each day is predicted before it is trained on."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _distribute
from mtl_zoo import _validation as check
from mtl_zoo._files import read_header, remove_leftovers, whole_folder
from mtl_zoo._progress import Bar
from mtl_zoo.continual.replay import ReplayBuffer
from mtl_zoo.evaluation import evaluate
from mtl_zoo.features._columns import read_table
from mtl_zoo.models._fingerprint import rows_digest

FORMAT = 1
_STATE, _WHAT = "state.json", "a day of progressive validation"
_NAME = re.compile(r"day-(\d{6})")


@dataclasses.dataclass(frozen=True)
class Progress:
    """What `progressive` gives.

    Args:
        model: The model after the last day.
        table: The columns of `evaluate` and in front of them `day`; behind them `rows` of the day, and the seconds of
            `predict` and of training (`extend` and `fit`).
        growth: The `growth` of each day's transform, with the column `day`; empty without `extend`.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.continual import Progress
    >>> rows = {"day": [1, 2], "task": "click", "metric": "auc", "value": [0.6, 0.7]}
    >>> Progress(None, pd.DataFrame(rows), pd.DataFrame()).scores("auc")["click"].tolist()
    [0.6, 0.7]
    """

    model: Any
    table: pd.DataFrame
    growth: pd.DataFrame

    def scores(self, metric: str) -> pd.DataFrame:
        """A row a day and a column a task (or other output) of one metric of `table`."""
        check.check_choice("metric", metric, tuple(dict.fromkeys(self.table["metric"])))
        found = self.table[self.table["metric"] == metric]
        order = list(dict.fromkeys(self.table["day"]))
        wide = found.pivot_table(index="day", columns="task", values="value", sort=False, dropna=False)
        return wide.reindex(order)


def progressive(
    model: Any,
    days: Mapping[str, Any] | Sequence[Any],
    *,
    extend: Mapping[str, Any] | None = None,
    rows: str = "initializer",
    replay: ReplayBuffer | None = None,
    ratio: float = 0.2,
    anchor: Any = None,
    train: bool = True,
    epochs: int = 1,
    batch_size: int = 1024,
    seed: int = 0,
    folder: str | Path | None = None,
    verbose: int = 1,
) -> Progress:
    """Predicts each day's rows, measures the scores, and then trains on them: the quality that users would have seen.

    For each day in turn: the model of the days before scores it, and `evaluate` measures that; the transform and the
    model are extended by it; the model is trained on it, with rows of `replay` among its own, which it then joins.

    Args:
        model: A compiled model of the zoo that was made with a transform and, usually, trained on the days before.
        days: Tables in the order of time, by name (a date is named by its text) or in a list (then named `"1"`,
            `"2"`, ...).
        extend: Arguments of `FeatureTransform.extend`, such as `{"min_count": 5}`; `{}` for its defaults. Default:
            None, the transform stays, and new values are unknown.
        rows: Where rows of new ids start, see `model.extended`.
        replay: Rows of past days; it is added to.
        ratio: Rows of `replay` for each row of the day.
        anchor: What weights are held by on each day: an `L2ToPrevious` or `EWC`, or a function from the rows of
            `replay` (a table) to one, such as `lambda past: EWC(100.0, past)`. Days before there is such a row have no
            anchor.
        train: False never trains (nor extends): the baseline of a model that is not updated.
        epochs, batch_size: Of the training on a day.
        seed: With the number of the day, what Keras', NumPy's and Python's random numbers are seeded by on each day.
        folder: Where each day's results and model are kept. The same call goes on after the last day that is there,
            with that day's model in place of `model`, and ends as one that was not interrupted. A day appears when it
            is whole; the one before it is then removed. Default: nothing is kept.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Returns:
        A `Progress`: the model, and the metrics and the growth of each day.

    Raises:
        ValueError: `days` is empty; the model has no transform or is not compiled; `folder` holds days of other data or
            other arguments; what `extend`, `fit` and `evaluate` refuse.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
    >>> from mtl_zoo.continual import progressive
    >>> days = [{"item": [i, i + 1] * 4, "click": [0, 1] * 4} for i in range(3)]
    >>> model = SharedBottom(FeatureTransform(Categorical("item"), BinaryTask("click")).fit(days[0]), bottom_units=(4,))
    >>> model.compile("adam")
    >>> progress = progressive(model, days, extend={}, batch_size=8)
    >>> progress.scores("auc").index.tolist(), progress.growth["new"].tolist()
    (['1', '2', '3'], [0, 1, 1])

    Reference: Blum, Kalai and Langford, Beating the hold-out, COLT 1999, for predicting what is then learned from.
    """
    named = days.items() if isinstance(days, Mapping) else enumerate(days, 1)
    tables = {str(name): day for name, day in named}  # as a folder keeps them
    _check(model, tables)
    check.check_number("ratio", ratio, minimum=0)
    check.check_int("epochs", epochs)
    check.check_int("batch_size", batch_size)
    given: dict[str, Any] = {"extend": None if extend is None else repr(dict(extend)), "rows": rows, "ratio": ratio}
    given |= {"train": train, "epochs": epochs, "batch_size": batch_size, "seed": seed, "replay": replay is not None}
    kept = None if folder is None else _Folder(Path(folder), given)
    run = _Run(model, replay, [], [])
    done = run if kept is None else kept.resumed(run, tables)
    with Bar("Days", len(tables), verbose) as bar:
        for number, (day, table) in enumerate(tables.items()):
            bar.reach(number)
            if number < done.days:
                continue
            frame = read_table(table)
            keras.utils.set_random_seed((seed + 1_000_003 * number) % 2**32)
            done = done.scored(day, frame)
            if train:
                done = done.trained(
                    day, frame, extend, rows, ratio, anchor, {"epochs": epochs, "batch_size": batch_size}
                )
            done = dataclasses.replace(done, days=number + 1, digests=(*done.digests, rows_digest(frame)))
            if kept is not None:
                kept.write(done)
    growth = pd.DataFrame(done.growth)
    return Progress(done.model, pd.DataFrame(done.measured), growth.astype({"ids": "Int64"}) if len(growth) else growth)


def _check(model: Any, tables: Mapping[str, Any]) -> None:
    if not tables:
        raise ValueError("`days` must hold at least one table. Received: none")
    if model.transform is None or not model.compiled:
        lacks = "a transform" if model.transform is None else "compile() before"
        raise ValueError(f"`model` must be compiled, and made with a FeatureTransform. Received: one without {lacks}")


@dataclasses.dataclass(frozen=True)
class _Run:
    """Where a run stands: the model, the replay buffer, what was measured, the days that are done."""

    model: Any
    replay: ReplayBuffer | None
    measured: list[dict[str, Any]]
    growth: list[dict[str, Any]]
    days: int = 0
    digests: tuple[str, ...] = ()

    def scored(self, day: str, frame: pd.DataFrame) -> _Run:
        """With the metrics of a day that the model has not seen."""
        started = time.perf_counter()
        rows_of_day: Any = frame
        found = evaluate(self.model, rows_of_day, verbose=0)
        seconds = round(time.perf_counter() - started, 3)
        about = {"rows": len(frame), "predict_seconds": seconds, "train_seconds": 0.0}
        rows = [{"day": day, **row, **about} for row in found.to_dict("records")]
        return dataclasses.replace(self, measured=[*self.measured, *rows])

    def trained(
        self,
        day: str,
        frame: pd.DataFrame,
        extend: Mapping[str, Any] | None,
        rows: str,
        ratio: float,
        anchor: Any,
        options: dict[str, Any],
    ) -> _Run:
        """With a model that has learned from the day."""
        started, model, growth = time.perf_counter(), self.model, list(self.growth)
        if extend is not None:
            transform = model.transform.extend(frame, **extend)
            model = model.extended(transform, rows)
            growth += [{"day": day, **row} for row in transform.growth.to_dict("records")]
        past = None if self.replay is None or not len(self.replay) else self.replay.rows
        if callable(anchor):
            anchor = None if past is None else anchor(past)
        mixed = frame if self.replay is None else self.replay.mixed(frame, ratio)
        model.fit(mixed, verbose=0, anchor=anchor, **options)
        if self.replay is not None:
            self.replay.add(frame)
        seconds = round(time.perf_counter() - started, 3)
        measured = [{**row, "train_seconds": seconds} if row["day"] == day else row for row in self.measured]
        return dataclasses.replace(self, model=model, measured=measured, growth=growth)


class _Folder:
    """The days of a run in files; the last one has all that the next needs."""

    def __init__(self, place: Path, given: dict[str, Any]) -> None:
        self.place, self.given = place.absolute(), given
        self.place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.place, _NAME.pattern)

    def _days(self) -> list[Path]:
        return sorted(path for path in self.place.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def resumed(self, run: _Run, tables: Mapping[str, Any]) -> _Run:
        """The run after the last day that is there; `run` itself where there is none."""
        days = self._days()
        if not days:
            return run
        path = days[-1]
        keys = {"given": dict, "digests": list, "measured": list, "growth": list}
        state = read_header(path, _STATE, _WHAT, FORMAT, keys)
        other = {k: v for k, v in state["given"].items() if self.given.get(k) != v}
        if other:
            now = {name: self.given.get(name) for name in other}
            raise ValueError(f"`folder` must hold days of a run with these arguments, {now}. Received: {path}, {other}")
        digests = [rows_digest(read_table(table)) for table in list(tables.values())[: len(state["digests"])]]
        if digests != state["digests"]:
            raise ValueError(
                f"`folder` must hold days of the same tables. Received: {path}, of {len(state['digests'])} days, "
                f"which the {len(tables)} tables given do not begin with"
            )
        model: Any = keras.saving.load_model(path / "model.keras")
        with np.load(path / "seeds.npz") as seeds:
            for number, variable in enumerate(_seeds(model)):
                variable.assign(seeds[str(number)])
        if run.replay is not None:
            run.replay.__dict__.update(ReplayBuffer.load(path / "replay").__dict__)
        return _Run(model, run.replay, state["measured"], state["growth"], len(digests), tuple(digests))

    def write(self, run: _Run) -> None:
        """Writes a day whole, and removes those before it."""
        path = self.place / f"day-{run.days:06d}"
        with whole_folder(path) as part:
            run.model.save(part / "model.keras")
            seeds = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(_seeds(run.model))}
            np.savez(part / "seeds.npz", **seeds)
            if run.replay is not None:
                (part / "replay").mkdir()
                run.replay.write(part / "replay")
            state = {"format": FORMAT, "given": self.given, "digests": list(run.digests)}
            text = json.dumps({**state, "measured": run.measured, "growth": run.growth}, default=_plain)
            (part / _STATE).write_text(text, encoding="utf-8")
        for old in self._days():
            if old < path:
                shutil.rmtree(old)


def _plain(value: Any) -> Any:
    """JSON knows neither NumPy's scalars nor pandas' missing value."""
    return value.item() if isinstance(value, np.generic) else None


def _seeds(model: Any) -> list[Any]:
    """What a file of Keras leaves out: the states of random generators."""
    known = {id(v) for v in (*model.weights, *_distribute.metric_variables(model))}
    return [variable for variable in model.variables if id(variable) not in known]
