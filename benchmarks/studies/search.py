"""What `tune` gains over the defaults: on the validation rows that it is judged by, and on the test rows it never sees.

    MTL_ZOO_DATA=... python -m benchmarks.studies.search --out benchmarks/results/bench/search.csv

A quarter of the training rows of the census, about 50,000, and as many impressions of `synthetic_funnel`. The search
starts from the model's defaults, which are trial 0. The defaults and the best settings are then trained with other
seeds than the search's and scored on the test rows. The interval is that of a bootstrap of the test rows, all seeds'
scores of a row drawn together; it says nothing of the luck of seeds, for which `seeds_above` stands. Trials and scores
are kept in the folder `--work`: the same command goes on after a kill.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies import _bootstrap as bootstrap
from benchmarks.studies import _frame as frame
from mtl_zoo import tune
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import load, run_config
from mtl_zoo.datasets import Dataset
from mtl_zoo.metrics.exact import auc

COLUMNS = (
    *("data", "model", "train_rows", "trials", "pruned", "search_seconds", "start_validation", "best_validation"),
    *("validation_gain", "task", "metric", "seeds", "start_test", "best_test", "difference", "low", "high"),
    *("seeds_above", "resamples", "settings", "importances"),
)
DATA: dict[str, dict[str, Any]] = {
    "census": {
        "dataset": "census_income",
        "dataset_options": {"variant": "nominal", "group": 1, "embedding_dim": 16},
        "train_fraction": 0.25,
    },
    "funnel": {"dataset": "synthetic_funnel", "dataset_options": {"size": (50_000, 50_000, 50_000)}},
}
SCORE = "score"


def config_of(data: str, model: str, epochs: int, patience: int) -> RunConfig:
    """The defaults of a model on a data set, where the search starts."""
    return RunConfig(**{"model": model, "epochs": epochs, "patience": patience, "batch_size": 1024, **DATA[data]})


def test_scores(config: RunConfig, dataset: Dataset, seeds: Sequence[int], folder: Path) -> list[dict[str, np.ndarray]]:
    """The kept test scores of a configuration, seed by seed; what is not there yet is trained."""
    store = ResultStore(folder / "runs.csv")
    run_config(config, store, dataset=dataset, save_scores=folder)
    rows = store.read()
    rows = rows[(rows["error"] == "") & rows["seed"].isin(seeds)].drop_duplicates("key")
    files = [next(folder.glob(f"*-seed{row.seed}-{row.key}.npz")) for row in rows.sort_values("seed").itertuples()]
    return [dict(np.load(file)) for file in files]


def compared(start: Sequence[Any], best: Sequence[Any], tasks: Sequence[str], resamples: int) -> list[dict[str, Any]]:
    """A row for each task, and one for their mean: `best - start` on the same test rows, with its 95 % interval."""
    rows_of = {task: start[0][f"observed:{task}"] > 0 for task in tasks}
    count = len(next(iter(rows_of.values())))

    def values(runs: Sequence[Any], weight: np.ndarray | None) -> np.ndarray:
        """(seeds, tasks + 1): AUCs, and their mean last."""
        found = []
        for run in runs:
            own = []
            for task, there in rows_of.items():
                y, score = run[f"label:{task}"].reshape(-1)[there.reshape(-1)], run[task].reshape(-1)[there.reshape(-1)]
                own.append(auc(y, score, None if weight is None else weight[there.reshape(-1)]))
            found.append([*own, float(np.mean(own))])
        return np.array(found)

    before, after = values(start, None), values(best, None)
    middle, low, high = bootstrap.interval(
        lambda weight: (values(best, weight) - values(start, weight)).mean(axis=0),
        lambda rng: np.bincount(rng.integers(count, size=count), minlength=count).astype("float64"),
        resamples,
    )
    return [
        {
            "task": name,
            "metric": "auc",
            "seeds": len(before),
            "start_test": round(float(before[:, i].mean()), 5),
            "best_test": round(float(after[:, i].mean()), 5),
            "difference": round(float(middle[i]), 5),
            "low": round(float(low[i]), 5),
            "high": round(float(high[i]), 5),
            "seeds_above": int((after[:, i] > before[:, i]).sum()),
            "resamples": resamples,
        }
        for i, name in enumerate([*tasks, SCORE])
    ]


def run_case(data: str, args: Any) -> list[dict[str, Any]]:
    """The rows of one data set."""
    folder = args.work / data
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(data, args.model, args.epochs, args.patience)
    dataset = load(config)
    found = tune(config, dataset, trials=args.trials, storage=folder / "trials.db", verbose=1)
    table = found.table
    table.to_csv(args.out.with_name(f"{args.out.stem}-trials-{data}.csv"), index=False)
    found.plot(folder / "trials.png")
    first = table.loc[table["start"], f"objective {SCORE}"].iloc[0]
    best = float(found.front[f"objective {SCORE}"].iloc[0])
    about = {
        "data": data,
        "model": args.model,
        "train_rows": round(len(dataset.train) * config.train_fraction),
        "trials": len(table),
        "pruned": int((table["state"] == "pruned").sum()),
        "search_seconds": round(float(table["seconds"].sum()), 1),
        "start_validation": round(float(first), 5),
        "best_validation": round(best, 5),
        "validation_gain": round(best - float(first), 5),
        "settings": as_json(found.settings),
        "importances": json.dumps(dict(zip(found.importances["name"], found.importances["importance"], strict=True))),
    }
    seeds = range(1, args.seeds + 1)  # the search's own is 0
    start, tuned = (_with(one, seeds) for one in (config, found.config))
    runs = []
    for name, one in (("start", start), ("best", tuned)):
        own = load(one) if one.dataset_options != config.dataset_options else dataset
        runs.append(test_scores(one, own, list(seeds), folder / name))
    rows = compared(*runs, [task.name for task in dataset.tasks], args.resamples)
    return [{**about, **row} for row in rows]


def _with(config: RunConfig, seeds: Sequence[int]) -> RunConfig:
    return dataclasses.replace(config, seeds=tuple(seeds))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    options = {"data": tuple(DATA), "model": "mmoe", "trials": 12, "epochs": 4, "patience": 2, "seeds": 3}
    options |= {"resamples": 200, "work": "results/search"}
    args = frame.parser(__doc__ or "", options).parse_args(arguments)
    args.work = Path(args.work)
    rows = frame.Rows(args.out, COLUMNS)
    for data in args.data:
        if not rows.has(data=data, model=args.model, trials=args.trials):
            for row in run_case(data, args):
                rows.add(row)
    shown = ("data", "task", "start_validation", "best_validation", "start_test", "best_test", "difference", "low")
    frame.show(rows.read(), (*shown, "high", "seeds_above"), "best settings against the defaults")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
