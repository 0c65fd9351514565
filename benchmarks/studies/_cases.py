"""What studies of features share: cases that are trained on the same rows, seed by seed, and compared with one of them.

A study says how a seed's rows are split, which features each case has, and which columns are scored. Scores are kept
beside the rows, so that a case that is added later is compared with those before, by a bootstrap of what the tests are
about (films, users): all rows of one are drawn together, since they are not independent.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _bootstrap as bootstrap
from benchmarks.studies import _frame as frame
from mtl_zoo import FeatureTransform, create_model
from mtl_zoo.metrics.exact import auc, rmse

COLUMNS = ("case", "seed", "part", "task", "metric", "value", "rows", "groups", "best_epoch", "epochs", "seconds")
OPTIONS: dict[str, Any] = {
    **{"seeds": 3, "resamples": 500, "model": "shared_bottom", "epochs": 15, "batch_size": 256, "learning_rate": 1e-3},
    "report_only": False,
}
METRICS = {"auc": auc, "rmse": rmse}
Scores = dict[str, dict[str, np.ndarray]]  # by part of the test, by task


@dataclasses.dataclass(frozen=True)
class Split:
    """The rows of a seed: tables to train on, to choose the epoch by, and to test on by the name of the part."""

    train: pd.DataFrame
    validation: pd.DataFrame
    tests: dict[str, pd.DataFrame]
    seed: int


@dataclasses.dataclass(frozen=True)
class Made:
    """What a case makes of a split.

    What is slow to train is trained on less, which the name of its case says: `train_rows` are the most rows to train
    on and half as many to choose the epoch by, `test_rows` the most rows of each test that are scored. `epochs`,
    `batch_size` (for training) and `learning_rate` take the place of the command's; the last may be rates of groups, as
    `compile` takes them.

    Args:
        features: What is read.
        table: A table (or several sources) of each part of the split.
        transform: Arguments of the transform, such as what is known of entities.
        tasks: The tasks. Default: those of the study.
        fitted_on: What the transform is fitted on in place of the training rows, and its tasks.
        start: From the transform, and a function that makes a model of given tasks with it, to the trained model.
    """

    features: list[Any]
    table: Callable[[pd.DataFrame], Any] = lambda part: part
    transform: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: Sequence[Any] = ()
    fitted_on: Callable[[], tuple[Any, Sequence[Any]]] | None = None
    start: Callable[[FeatureTransform, Callable[[Sequence[Any]], Any]], Any] | None = None
    train_rows: int | None = None
    test_rows: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    predict_batch_size: int = 4096
    learning_rate: float | dict[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """A case that needs no training: what gives the scores of a test's rows, by task, of some tasks or of all.

    `test_rows` are the most rows of each test that are scored.
    """

    score: Callable[[pd.DataFrame], Mapping[str, np.ndarray]]
    test_rows: int | None = None


Make = Callable[[Split], Made | Scored]


def sample(table: pd.DataFrame, rows: int | None, seed: int) -> np.ndarray:
    """Positions of at most so many rows, in order; the same ones for each case of a seed."""
    if rows is None or rows >= len(table):
        return np.arange(len(table))
    return np.sort(np.random.default_rng(seed).permutation(len(table))[:rows])


@dataclasses.dataclass(frozen=True)
class Study:
    """A study of features.

    Args:
        text: The study's docstring, whose first line the command shows.
        folder: The folder of `MTL_ZOO_DATA` that it reads.
        tasks: What is predicted.
        metrics: By task, `"auc"` or `"rmse"`; the epoch is chosen by the first.
        groups: The column whose values the bootstrap draws.
        options: Options of the command beside `OPTIONS`.
        base: The case that the others are compared with.
    """

    text: str
    folder: str
    tasks: Sequence[Any]
    metrics: Mapping[str, str]
    groups: str
    options: Mapping[str, Any]
    base: str = "ids"
    cases: dict[str, Make] = dataclasses.field(default_factory=dict)
    bases: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def case(self, name: str, bases: Sequence[str] = ()) -> Callable[[Make], Make]:
        """Enters a case under its name; `bases` are the cases that it is compared with, in place of `base`."""

        def enter(make: Make) -> Make:
            if name in self.cases:
                raise ValueError(f"`case` must have a new name. Received: {name!r}")
            self.cases[name] = make
            self.bases[name] = tuple(bases) or (self.base,)
            return make

        return enter

    def run(self, splits: Callable[[Path, Any], dict[int, Split]], arguments: Sequence[str] | None = None) -> int:
        """The command. `splits` gives the split of each seed, from the data's folder and the options."""
        options = {**OPTIONS, **self.options, "cases": tuple(self.cases)}
        args = frame.parser(self.text, options).parse_args(arguments)
        if not os.environ.get("MTL_ZOO_DATA"):
            raise ValueError(f"`MTL_ZOO_DATA` must name the folder of data sets, with {self.folder} in it.")
        unknown = [name for name in args.cases if name not in self.cases]
        if unknown:
            raise ValueError(f"`--cases` must be of {list(self.cases)}. Received: {unknown}")
        by_seed = splits(Path(os.environ["MTL_ZOO_DATA"], self.folder), args)
        kept, scores = frame.Rows(args.out, COLUMNS), args.out.with_name(f"{args.out.stem}-scores")
        scores.mkdir(parents=True, exist_ok=True)
        for seed, split in by_seed.items():
            for name in [] if args.report_only else args.cases:
                if not (kept.has(case=name, seed=seed) and _file(scores, name, seed).exists()):
                    self._add(name, split, args, kept, scores)
        rows = self.compared(by_seed, scores, args.resamples)
        if rows:
            found = frame.write(args.out.with_name(f"{args.out.stem}-differences.csv"), rows)
            frame.show(found, ["case", "base", "part", "task", "seeds", "difference", "low", "high"])
        return 0

    def _add(self, name: str, split: Split, args: Any, kept: frame.Rows, scores: Path) -> None:
        made = self.cases[name](split)
        rows = {part: sample(test, made.test_rows, split.seed) for part, test in split.tests.items()}
        tests = {part: split.tests[part].iloc[at] for part, at in rows.items()}
        found, about = self.scored(tests, made) if isinstance(made, Scored) else self.trained(split, tests, made, args)
        arrays = {}
        for part, at in rows.items():
            for task, values in found[part].items():
                arrays[f"{part}.{task}"] = np.full(len(split.tests[part]), np.nan, np.float32)
                arrays[f"{part}.{task}"][at] = values
            for task, value in self.values(tests[part], found[part]).items():
                of = {"case": name, "seed": split.seed, "part": part, "task": task, "metric": self.metrics[task]}
                size = {"rows": len(at), "groups": tests[part][self.groups].nunique()}
                kept.add({**of, "value": round(value, 5), **size, **about})
        np.savez(_file(scores, name, split.seed), **arrays)  # type: ignore[arg-type]

    def scored(self, tests: Mapping[str, pd.DataFrame], made: Scored) -> tuple[Scores, dict[str, Any]]:
        """Scores of the tests, and how long they took."""
        started = time.perf_counter()
        scores = {part: {t: np.asarray(x) for t, x in made.score(test).items()} for part, test in tests.items()}
        return scores, {"seconds": round(time.perf_counter() - started, 1), "epochs": 0, "best_epoch": 0}

    def trained(
        self, split: Split, tests: Mapping[str, pd.DataFrame], made: Made, args: Any
    ) -> tuple[Scores, dict[str, Any]]:
        """Scores of the tests at the epoch with the best validation metric of the first task, and how it went."""
        import keras

        from mtl_zoo.training import ExactValidation, PrimaryTask

        first = next(iter(self.metrics))
        keras.utils.set_random_seed(split.seed)
        # The whole training part stays that object, by which `made.table` may know it.
        train = split.train.iloc[sample(split.train, made.train_rows, split.seed)] if made.train_rows else split.train
        few = made.train_rows and made.train_rows // 2
        validation = split.validation.iloc[sample(split.validation, few, split.seed)]
        tasks = made.tasks or self.tasks
        rows, of_transform = (made.table(train), tasks) if made.fitted_on is None else made.fitted_on()
        transform = FeatureTransform(made.features, of_transform, **made.transform).fit(rows)
        units = {"bottom_units": (64, 32), "tower_units": (16,)} if args.model == "shared_bottom" else {}

        def create(wanted: Sequence[Any]) -> Any:
            return create_model(args.model, transform, wanted, **units)

        model = create(tasks) if made.start is None else made.start(transform, create)
        rate = made.learning_rate or args.learning_rate
        model.compile(rate if isinstance(rate, dict) else keras.optimizers.Adam(rate), metrics=None)
        best = ExactValidation(
            made.table(validation), patience=2, select=PrimaryTask(first), batch_size=made.predict_batch_size
        )
        started = time.perf_counter()
        epochs, size = made.epochs or args.epochs, made.batch_size or args.batch_size
        history = model.fit(made.table(train), batch_size=size, epochs=epochs, verbose=0, callbacks=[best])
        about = {"seconds": round(time.perf_counter() - started, 1), "epochs": len(history.epoch)}
        scores = {}
        for part, test in tests.items():
            found = model.predict(made.table(test), batch_size=made.predict_batch_size, verbose=0)
            scores[part] = {task: np.asarray(found[task]).reshape(-1) for task in self.metrics}
        return scores, {**about, "best_epoch": best.best_epochs[first]}

    def values(self, test: pd.DataFrame, scores: Mapping[str, np.ndarray], rows: Any = slice(None)) -> dict[str, float]:
        """The metric of each task that has scores, on some rows of a test; rows without a score do not count."""
        found = {}
        for task in [task for task in self.metrics if task in scores]:
            label, score = test[task].to_numpy(float)[rows], np.asarray(scores[task], float)[rows]
            there = ~np.isnan(score) & ~np.isnan(label)
            found[task] = float(METRICS[self.metrics[task]](label[there], score[there]))
        return found

    def differences(
        self,
        tests: Mapping[int, pd.DataFrame],
        base: Mapping[int, dict[str, np.ndarray]],
        other: Mapping[int, dict[str, np.ndarray]],
        resamples: int,
    ) -> dict[str, tuple[float, float, float]]:
        """By task: the mean over seeds of `other - base`, and its 95 % interval."""
        base, other = _on_the_same_rows(base, other)
        by_group = {s: list(test.groupby(self.groups).indices.values()) for s, test in tests.items()}
        tasks = [task for task in self.metrics if task in next(iter(base.values()))]

        def mean_differences(rows: Mapping[int, Any] | None) -> list[float]:
            gaps = []
            for seed, test in tests.items():
                at = slice(None) if rows is None else rows[seed]
                before, after = (self.values(test, scores[seed], at) for scores in (base, other))
                gaps.append([after[task] - before[task] for task in tasks])
            return [float(np.mean(of_task)) for of_task in zip(*gaps, strict=True)]

        found = bootstrap.interval(
            mean_differences,
            lambda rng: {seed: bootstrap.rows_of_groups(groups, rng) for seed, groups in by_group.items()},
            resamples,
        )
        return {task: (float(m), float(low), float(high)) for task, m, low, high in zip(tasks, *found, strict=True)}

    def compared(self, splits: Mapping[int, Split], scores: Path, resamples: int) -> list[dict[str, Any]]:
        """Rows of every case against its bases, on the seeds, tasks and rows that both have."""
        kept = {(name, seed): _read(scores, name, seed) for name in self.cases for seed in splits}
        rows = []
        for name, base in [(case, base) for case in self.cases for base in self.bases.get(case, (self.base,))]:
            seeds = [seed for seed in splits if kept[name, seed] and kept[base, seed]]
            if name == base or not seeds:
                continue
            for part in splits[seeds[0]].tests:
                tests = {seed: splits[seed].tests[part] for seed in seeds}
                one, other = ({seed: kept[which, seed][part] for seed in seeds} for which in (base, name))
                for task, (value, low, high) in self.differences(tests, one, other, resamples).items():
                    numbers = {"difference": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
                    about = {"case": name, "base": base, "part": part, "task": task, "seeds": len(seeds)}
                    rows.append({**about, **numbers, "resamples": resamples})
        return rows


def _on_the_same_rows(*scores: Mapping[int, dict[str, np.ndarray]]) -> list[dict[int, dict[str, np.ndarray]]]:
    """Scores by seed and task, of the tasks that all have, NaN in rows that one of them has not scored."""
    same: list[dict[int, dict[str, np.ndarray]]] = [{} for _ in scores]
    for seed in scores[0]:
        tasks = [task for task in scores[0][seed] if all(task in one[seed] for one in scores)]
        gone = {task: np.any([np.isnan(one[seed][task]) for one in scores], axis=0) for task in tasks}
        for one, found in zip(scores, same, strict=True):
            found[seed] = {task: np.where(gone[task], np.nan, one[seed][task]) for task in tasks}
    return same


def _file(folder: Path, name: str, seed: int) -> Path:
    words = "".join(letter if letter.isalnum() else "-" for letter in name)
    return folder / f"{words}-{seed}.npz"


def _read(folder: Path, name: str, seed: int) -> Scores:
    path = _file(folder, name, seed)
    if not path.exists():
        return {}
    found: Scores = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            part, task = key.split(".")
            found.setdefault(part, {})[task] = arrays[key]
    return found
