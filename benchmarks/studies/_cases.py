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


Make = Callable[[Split], Made]


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

    def case(self, name: str) -> Callable[[Make], Make]:
        """Enters a case under its name."""

        def enter(make: Make) -> Make:
            if name in self.cases:
                raise ValueError(f"`case` must have a new name. Received: {name!r}")
            self.cases[name] = make
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
            frame.show(found, ["case", "part", "task", "seeds", "difference", "low", "high"], f"against {self.base}")
        return 0

    def _add(self, name: str, split: Split, args: Any, kept: frame.Rows, scores: Path) -> None:
        found, about = self.trained(split, self.cases[name](split), args)
        arrays = {f"{part}.{task}": values for part, by_task in found.items() for task, values in by_task.items()}
        np.savez(_file(scores, name, split.seed), **arrays)  # type: ignore[arg-type]
        for part, test in split.tests.items():
            for task, value in self.values(test, found[part]).items():
                of = {"case": name, "seed": split.seed, "part": part, "task": task, "metric": self.metrics[task]}
                size = {"rows": len(test), "groups": test[self.groups].nunique()}
                kept.add({**of, "value": round(value, 5), **size, **about})

    def trained(self, split: Split, made: Made, args: Any) -> tuple[Scores, dict[str, Any]]:
        """Scores of the tests at the epoch with the best validation metric of the first task, and how it went."""
        import keras

        from mtl_zoo.training import ExactValidation, PrimaryTask

        first = next(iter(self.metrics))
        keras.utils.set_random_seed(split.seed)
        tasks = made.tasks or self.tasks
        rows, of_transform = (made.table(split.train), tasks) if made.fitted_on is None else made.fitted_on()
        transform = FeatureTransform(made.features, of_transform, **made.transform).fit(rows)
        units = {"bottom_units": (64, 32), "tower_units": (16,)} if args.model == "shared_bottom" else {}

        def create(wanted: Sequence[Any]) -> Any:
            return create_model(args.model, transform, wanted, **units)

        model = create(tasks) if made.start is None else made.start(transform, create)
        model.compile(keras.optimizers.Adam(args.learning_rate), metrics=None)
        best = ExactValidation(made.table(split.validation), patience=2, select=PrimaryTask(first))
        started = time.perf_counter()
        history = model.fit(
            made.table(split.train), batch_size=args.batch_size, epochs=args.epochs, verbose=0, callbacks=[best]
        )
        about = {"seconds": round(time.perf_counter() - started, 1), "epochs": len(history.epoch)}
        scores = {}
        for part, test in split.tests.items():
            found = model.predict(made.table(test), batch_size=4096, verbose=0)
            scores[part] = {task: np.asarray(found[task]).reshape(-1) for task in self.metrics}
        return scores, {**about, "best_epoch": best.best_epochs[first]}

    def values(self, test: pd.DataFrame, scores: Mapping[str, np.ndarray], rows: Any = slice(None)) -> dict[str, float]:
        """The metric of each task, on some rows of a test."""
        labels = {task: test[task].to_numpy(float)[rows] for task in self.metrics}
        return {task: float(METRICS[kind](labels[task], scores[task][rows])) for task, kind in self.metrics.items()}

    def differences(
        self,
        tests: Mapping[int, pd.DataFrame],
        base: Mapping[int, dict[str, np.ndarray]],
        other: Mapping[int, dict[str, np.ndarray]],
        resamples: int,
    ) -> dict[str, tuple[float, float, float]]:
        """By task: the mean over seeds of `other - base`, and its 95 % interval."""
        rng = np.random.default_rng(0)
        by_group = {s: list(test.groupby(self.groups).indices.values()) for s, test in tests.items()}

        def mean_difference(rows: Mapping[int, Any]) -> dict[str, float]:
            gaps = []
            for seed, test in tests.items():
                before, after = (self.values(test, scores[seed], rows[seed]) for scores in (base, other))
                gaps.append({task: after[task] - before[task] for task in before})
            return {task: float(np.mean([gap[task] for gap in gaps])) for task in gaps[0]}

        value = mean_difference(dict.fromkeys(tests, slice(None)))
        drawn = []
        for _ in range(resamples):
            rows = {}
            for seed, groups in by_group.items():
                rows[seed] = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
            drawn.append(mean_difference(rows))
        found = {}
        for task, middle in value.items():
            low, high = np.percentile([one[task] for one in drawn], [2.5, 97.5])
            found[task] = (middle, float(low), float(high))
        return found

    def compared(self, splits: Mapping[int, Split], scores: Path, resamples: int) -> list[dict[str, Any]]:
        """Rows of every case against the base, on the seeds that both have."""
        kept = {(name, seed): _read(scores, name, seed) for name in self.cases for seed in splits}
        rows = []
        for name in self.cases:
            seeds = [seed for seed in splits if kept[name, seed] and kept[self.base, seed]]
            if name == self.base or not seeds:
                continue
            for part in splits[seeds[0]].tests:
                tests = {seed: splits[seed].tests[part] for seed in seeds}
                base, other = ({seed: kept[which, seed][part] for seed in seeds} for which in (self.base, name))
                for task, (value, low, high) in self.differences(tests, base, other, resamples).items():
                    numbers = {"difference": round(value, 5), "low": round(low, 5), "high": round(high, 5)}
                    about = {"case": name, "base": self.base, "part": part, "task": task, "seeds": len(seeds)}
                    rows.append({**about, **numbers, "resamples": resamples})
        return rows


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
