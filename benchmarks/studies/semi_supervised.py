"""What rows without labels bring: tasks without a label beside labelled ones, by the share of rows that have a label.

    python -m benchmarks.studies.semi_supervised --out benchmarks/results/learning/semi_supervised.csv

Of the training rows a share (1, 10, 100 %) keeps its labels, drawn by the seed; the others stay, with NaN. A small
shared-bottom model is trained on all of them, alone ("none") or beside one task without a label, all other things
equal: batches, number of steps, the epoch with the best validation AUC (2,000 labelled rows, more than few labels would
leave: the same for all). Weights and rates are one setting for all data sets and shares, see `methods`, and were not
tuned. Data: persons of the census (the test file, rows drawn by the seed; `college` and `never_married`), ratings of
MovieLens 100K in the order of time with the films liked before (`like`), and `synthetic_funnel` (`click`; its fields
are independent of each other, so that rows without a label tell nothing). The figure shows the mean difference to
"none" over seeds, with its 95 % interval by Student's t of paired differences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy import stats

import mtl_zoo
from benchmarks.studies import _frame as frame
from benchmarks.studies.histories import ratings
from mtl_zoo import BinaryTask, Categorical, ExactValidation, FeatureTransform, evaluate
from mtl_zoo.datasets import Split
from mtl_zoo.tasks import ContrastiveTask, MeanTeacherTask, NextItemTask, PseudoLabelTask, ReconstructionTask

COLUMNS = ("data", "method", "share", "seed", "task", "auc", "rows", "labelled", "best_epoch", "epochs", "seconds")
ROWS, BATCH = (10_000, 2_000, 20_000), 256
DIFFERENCES = ("data", "task", "share", "method", "seeds", "none", "auc", "gain", "low", "high")


def methods(tasks: Sequence[str]) -> dict[str, list[Any]]:
    """The tasks without a label of each method, beside tasks of these names."""
    return {
        "none": [],
        "reconstruction": [ReconstructionTask("masked", rate=0.3, negatives=2000, loss_weight=0.3)],
        "contrast": [ContrastiveTask("views", rate=0.3, temperature=0.2, projection_units=(32, 16), loss_weight=0.1)],
        "pseudo-labels": [PseudoLabelTask(f"sure_{t}", of=t, threshold=0.9, rate=0.2) for t in tasks],
        "mean teacher": [MeanTeacherTask("teacher", decay=0.99, ramp_up=200, rate=0.2, loss_weight=10.0)],
        "next item": [NextItemTask("next", sequence="history", num_blocks=1, loss_weight=0.1)],
    }


def census(seed: int) -> tuple[list[Any], list[Any], dict[str, Split]]:
    """Persons: their features, the tasks, and the rows of each part."""
    data = mtl_zoo.load_dataset("census_income", variant="test_file", group=2, embedding_dim=4)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return list(data.features), list(data.tasks), {name: _some(parts[name], n, seed) for name, n in _sizes()}


def movielens(seed: int) -> tuple[list[Any], list[Any], dict[str, Split]]:
    """Ratings by time, each with the films that the user liked before."""
    import os

    rows = ratings(Path(os.environ["MTL_ZOO_DATA"], "movielens_100k"))
    first, second = int(len(rows) * 0.7), int(len(rows) * 0.8)
    rng = np.random.default_rng(seed)
    parts = {}
    for (name, size), part in zip(_sizes(), (rows[:first], rows[first:second], rows[second:]), strict=True):
        parts[name] = part.iloc[np.sort(rng.permutation(len(part))[:size])]
    features = [
        *(Categorical(name, dim=16, unknown_rate=0.1) for name in ("user_id", "item_id")),
        mtl_zoo.Sequence("history", key="item_id", dim=16, length=20, unknown_rate=0.1),
    ]
    # Ids are those of all training rows: an unlabelled row is known.
    transform = FeatureTransform(features, BinaryTask("like")).fit(rows[:first])
    splits = {n: Split(transform.encode(part), transform.encode_labels(part)) for n, part in parts.items()}
    return list(transform.features), list(transform.tasks), splits


def funnel(seed: int) -> tuple[list[Any], list[Any], dict[str, Split]]:
    """Impressions of independent fields, and clicks."""
    data = mtl_zoo.load_dataset("synthetic_funnel", size=ROWS, seed=seed, embedding_dim=8)
    fields = [feature for feature in data.features if "_field_" in feature.name]
    splits = {}
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        inputs = {feature.name: part.inputs[feature.name] for feature in fields}
        splits[name] = Split(inputs, {"click": part.labels["click"]})
    return fields, [BinaryTask("click")], splits


DATA: dict[str, Callable[[int], tuple[list[Any], list[Any], dict[str, Split]]]] = {
    "census": census,
    "movielens": movielens,
    "funnel": funnel,
}


def _sizes() -> list[tuple[str, int]]:
    return list(zip(("train", "validation", "test"), ROWS, strict=True))


def _some(split: Split, size: int, seed: int) -> Split:
    """So many rows, drawn by the seed."""
    at = np.sort(np.random.default_rng(seed).permutation(len(next(iter(split.labels.values()))))[:size])
    inputs = {name: values[at] for name, values in split.inputs.items()}
    return Split(inputs, {name: values[at] for name, values in split.labels.items()})


def hidden(split: Split, share: float, seed: int) -> tuple[dict[str, np.ndarray], int]:
    """The labels, of which so large a share is known, and how many rows that are."""
    count = round(share * len(next(iter(split.labels.values()))))
    known = np.random.default_rng([seed, 1]).permutation(len(next(iter(split.labels.values()))))[:count]
    labels = {name: np.full_like(values, np.nan) for name, values in split.labels.items()}
    for name, values in split.labels.items():
        labels[name][known] = values[known]
    return labels, count


class Trainer:
    """One model of a method, which is traced once and starts anew for each run."""

    def __init__(self, features: Any, tasks: Any):
        self.features, self.tasks = features, tasks
        self.model: Any = None

    def _fresh(self) -> Any:
        return mtl_zoo.SharedBottom(self.features, self.tasks, bottom_units=(32, 16), tower_units=())

    def start(self, seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        fresh = self._fresh()
        if self.model is None:
            self.model = self._fresh()
            self.model.compile(keras.optimizers.Adam(2e-3), metrics=None)
            self.model.optimizer.build(self.model.trainable_variables)
            self.slots = [np.array(v) for v in self.model.optimizer.variables]
        metrics = {id(v) for m in self.model.metrics for v in m.variables}
        own = [v for v in self.model.variables if id(v) not in metrics]
        for variable, value in zip(own, fresh.variables, strict=True):
            variable.assign(value)
        for variable, value in zip(self.model.optimizer.variables, self.slots, strict=True):
            variable.assign(value)
        return self.model


def measure(
    trainer: Trainer, splits: dict[str, Split], share: float, seed: int, epochs: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """AUC on the test rows by task, and what there is to say of the training."""
    model = trainer.start(seed)
    labels, count = hidden(splits["train"], share, seed)
    choice, started = ExactValidation(splits["validation"], patience=3), time.perf_counter()
    model.fit(splits["train"].inputs, labels, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[choice])
    seconds = round(time.perf_counter() - started, 1)
    table = evaluate(model, splits["test"])
    found = table[table["metric"] == "auc"].set_index("task")["value"].to_dict()
    about = {"rows": len(next(iter(labels.values()))), "labelled": count, "epochs": len(choice.history)}
    return found, {**about, "best_epoch": next(iter(choice.best_epochs.values())), "seconds": seconds}


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The mean difference of each method to "none" over seeds, with its 95 % interval of paired differences."""
    keys = ["data", "task", "share"]
    wide = table.astype({"auc": float}).pivot_table(index=[*keys, "seed"], columns="method", values="auc")
    found = []
    for key, rows in wide.groupby(keys, sort=False):
        for method in (name for name in wide.columns if name != "none"):
            both = rows[[method, "none"]].dropna()
            gaps = (both[method] - both["none"]).to_numpy()
            if len(gaps) < 2:
                continue
            half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
            values = (*key, method, len(gaps), both["none"].mean(), both[method].mean(), gaps.mean())
            found.append((*values, gaps.mean() - half, gaps.mean() + half))
    return pd.DataFrame(found, columns=list(DIFFERENCES)).round(5)


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel a task: gains over the share of labelled rows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(table.groupby(["data", "task"], sort=False))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.8), squeeze=False, layout="constrained")
    names = [name for name in methods([]) if name in set(table["method"])]
    for axis, ((data, task), rows) in zip(axes[0], panels, strict=True):
        for i, name in enumerate(names):
            own = rows[rows["method"] == name].sort_values("share")
            if own.empty:
                continue
            # Beside each other, on an axis of powers of ten.
            x = own["share"].astype(float) * 100 * 1.09 ** (i - len(names) / 2)
            error = [own["gain"] - own["low"], own["high"] - own["gain"]]
            axis.errorbar(x, own["gain"], yerror_of(error), marker="o", capsize=2, linewidth=1.2, label=name)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set_xscale("log")
        shares = sorted(rows["share"].astype(float).unique())
        none = rows.drop_duplicates("share").set_index("share")["none"]
        axis.set_xticks([100 * s for s in shares], [f"{100 * s:g} %\n(none {none[s]:.3f})" for s in shares])
        axis.minorticks_off()
        axis.set_title(f"{data}: {task}")
        axis.set_xlabel("rows with a label")
    axes[0, 0].set_ylabel('test AUC, difference to "none"')
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes[0]), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def yerror_of(error: Sequence[pd.Series]) -> np.ndarray:
    return np.maximum(np.stack([part.to_numpy(float) for part in error]), 0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    defaults = {
        **{"data": tuple(DATA), "methods": tuple(methods([])), "shares": (0.01, 0.1, 1.0), "seeds": (0, 1, 2)},
        **{"epochs": 10, "report_only": False},
    }
    given = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    kept = frame.Rows(given.out, COLUMNS)
    for name in [] if given.report_only else given.data:
        run(kept, name, given)
    table = kept.read()
    found = compared(table[table["error"].astype(str) == ""])
    found.to_csv(given.out.with_name(f"{given.out.stem}-differences.csv"), index=False)
    frame.show(found, list(DIFFERENCES), "differences of test AUC to none: means over seeds, 95 % intervals")
    if len(found):
        draw(found, given.out.with_suffix(".png"))
    return 0


def run(kept: frame.Rows, data: str, given: Any) -> None:
    """Trains what the file does not hold yet of a data set: one model a method, which is traced once."""
    splits: dict[int, dict[str, Split]] = {}
    features: list[Any] = []
    tasks: list[Any] = []
    for method in given.methods:
        trainer = None
        for seed in given.seeds:
            for share in given.shares:
                key = {"data": data, "method": method, "share": share, "seed": seed}
                if kept.has(**key) or (method == "next item" and data != "movielens"):
                    continue
                if seed not in splits:
                    features, tasks, splits[seed] = DATA[data](seed)
                if trainer is None:
                    trainer = Trainer(features, [*tasks, *methods([t.name for t in tasks])[method]])
                found, about = measure(trainer, splits[seed], share, seed, given.epochs)
                for task, value in found.items():
                    kept.add({**key, "task": task, "auc": round(value, 5), **about, "error": ""})


if __name__ == "__main__":
    frame.start(__file__)
