"""How numbers enter a model: ordinary mixed tables, the defaults of `infer` and of `compile`, and each encoding.

    MTL_ZOO_DATA=data python -m benchmarks.studies.numbers --out benchmarks/results/bench/numbers.csv

Each table (see `_tables.py`) is cut at random to at most `--rows` rows, 60 % to train, 15 % to choose the epoch by and
25 % to test. A shared-bottom model with its default widths is trained with `compile("auto")`, the best epoch by the
mean score of the tasks; cases differ in how numbers enter alone. Logistic or ridge regression (one-hot, standardised)
and scikit-learn's HistGradientBoosting are trained on the same rows, a model a task, with their defaults. A row of the
file is one task: AUC, or RMSE / standard deviation of the test labels (nrmse). `seconds` are those of training, the
tracing of a network's graph included, and compare nothing where the machine had other work.

    python -m benchmarks.studies.numbers --cost --out benchmarks/results/bench/numbers_cost.csv

gives the processor's time of a training step of 256 rows with 40 numbers, by encoding; rounds alternate.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._tables import TABLES, Mixed
from mtl_zoo import Categorical, ExactValidation, FeatureTransform, Numeric, create_model
from mtl_zoo.metrics.exact import auc, rmse
from mtl_zoo.tasks import BinaryTask

COLUMNS = (
    *("table", "seed", "case", "task", "metric", "value", "train_rows", "features", "width", "best_epoch", "epochs"),
    "seconds",
)
# Distinct values up to which whole numbers are ids: what the rule was, a few, and none but flags.
MANY, FEW, FLAGS = 1000, 20, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """How numbers enter.

    Args:
        threshold: Whole numbers with at most so many distinct values are ids.
        numbers: Arguments of each Numeric.
        beside: Whether whole numbers that are ids are numbers as well.
    """

    threshold: int
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    beside: bool = False


PIECES: dict[str, Any] = {"encoding": "piecewise_linear"}
CASES: dict[str, Case] = {
    "ids": Case(MANY),
    "numbers": Case(FLAGS),
    "numbers, piecewise linear": Case(FLAGS, PIECES),
    "both, piecewise linear": Case(MANY, PIECES, beside=True),
    "few ids, piecewise linear": Case(FEW, PIECES),
    "numbers, periodic": Case(FLAGS, {"encoding": "periodic"}),
    "numbers, quantile ids": Case(FLAGS, {"normalization": "quantile", "buckets": 32}),
    "ids, piecewise linear": Case(MANY, PIECES),
    "numbers, piecewise linear of 8": Case(FLAGS, {**PIECES, "dim": 8}),
    "numbers, piecewise linear of 64 pieces": Case(FLAGS, {**PIECES, "pieces": 64}),
    "both": Case(MANY, beside=True),
}
Parts = dict[str, pd.DataFrame]
Scores = dict[str, np.ndarray]


def split(mixed: Mixed, rows: int, seed: int) -> Parts:
    drawn = mixed.rows.sample(min(rows, len(mixed.rows)), random_state=seed).reset_index(drop=True)
    first, second = int(0.6 * len(drawn)), int(0.75 * len(drawn))
    return {"train": drawn[:first], "validation": drawn[first:second], "test": drawn[second:]}


def transform_of(case: Case, mixed: Mixed, train: pd.DataFrame) -> FeatureTransform:
    """What `infer` gives, with numbers as the case has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"exclude": mixed.exclude, "threshold": case.threshold, "number_encoding": None}
        found = FeatureTransform.infer(train, mixed.tasks, **options)
        ids = [feature for feature in found.features if isinstance(feature, Categorical)]
        features: list[Any] = []
        for feature in found.features:
            is_number = isinstance(feature, Numeric)
            features.append(dataclasses.replace(feature, **case.numbers) if is_number else feature)
        for feature in ids if case.beside else []:
            values = train[feature.source]
            if pd.api.types.is_numeric_dtype(values) and values.nunique() > FLAGS:
                number = Numeric(f"{feature.name}_number", column=feature.source, **case.numbers)
                # Ids that are named so are no numbers.
                if feature.name not in ("user_id", "item_id"):
                    features.append(number)
        return FeatureTransform(features, mixed.tasks).fit(train)


def train_network(case: Case, mixed: Mixed, parts: Parts, seed: int, args: Any) -> tuple[Scores, dict[str, Any]]:
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    transform = transform_of(case, mixed, parts["train"])
    model = create_model(args.model, transform)
    model.compile("auto", metrics=None)
    best = ExactValidation(parts["validation"], patience=3)
    started = time.perf_counter()
    options = {"batch_size": args.batch_size, "epochs": args.epochs, "verbose": 0}
    history = model.fit(parts["train"], callbacks=[best], **options)
    seconds = time.perf_counter() - started
    found = model.predict(parts["test"], batch_size=4096, verbose=0)
    width = max(stop for _, stop in model.get_layer("embedding").bounds().values())
    about = {"best_epoch": max(best.best_epochs.values()), "epochs": len(history.epoch), "width": width}
    scores = {task.name: np.asarray(found[task.name], float).reshape(-1) for task in mixed.tasks}
    return scores, {**about, "features": len(transform.features), "seconds": round(seconds, 1)}


def train_baseline(kind: str, mixed: Mixed, parts: Parts, **options: Any) -> tuple[Scores, dict[str, Any]]:
    """A model a task, with scikit-learn's defaults but for `options` of the boosting."""
    reserved = {task.label or task.name for task in mixed.tasks}
    columns = [c for c in parts["train"].columns if c not in reserved and c not in mixed.exclude]
    texts = [c for c in columns if not pd.api.types.is_numeric_dtype(parts["train"][c]) or c.endswith("_id")]
    numbers = [c for c in columns if c not in texts]
    scores: Scores = {}
    started = time.perf_counter()
    for task in mixed.tasks:
        label = {name: part[task.label or task.name].to_numpy(float) for name, part in parts.items()}
        there = ~np.isnan(label["train"])
        is_binary = task.kind == "binary"
        model = (
            _boosting(texts, numbers, is_binary, **options)
            if kind == "boosting"
            else _linear(texts, numbers, is_binary)
        )
        tables = {name: _plain(part[columns], texts) for name, part in parts.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(tables["train"][there], label["train"][there])
        scores[task.name] = model.predict_proba(tables["test"])[:, 1] if is_binary else model.predict(tables["test"])
    return scores, {"features": len(columns), "seconds": round(time.perf_counter() - started, 1)}


def _plain(table: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    return table.assign(**{c: table[c].astype(str) for c in texts})


def _linear(texts: Sequence[str], numbers: Sequence[str], is_binary: bool) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
    scaled = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    parts = ColumnTransformer([("texts", one_hot, list(texts)), ("numbers", scaled, list(numbers))])
    return make_pipeline(parts, LogisticRegression(max_iter=1000) if is_binary else Ridge())


def _boosting(texts: Sequence[str], numbers: Sequence[str], is_binary: bool, **options: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250)
    parts = ColumnTransformer([("texts", codes, list(texts)), ("numbers", "passthrough", list(numbers))])
    kind = HistGradientBoostingClassifier if is_binary else HistGradientBoostingRegressor
    given = {"categorical_features": list(range(len(texts))), "random_state": 0, **options}
    return make_pipeline(parts, kind(**given))


def measure(mixed: Mixed, test: pd.DataFrame, scores: Scores) -> dict[str, tuple[str, float]]:
    found = {}
    for task in mixed.tasks:
        label = test[task.label or task.name].to_numpy(float)
        there = ~np.isnan(label)
        y, score = label[there], scores[task.name][there]
        is_binary = task.kind == "binary"
        value = auc(y, score) if is_binary else rmse(y, score) / y.std()
        found[task.name] = ("auc" if is_binary else "nrmse", round(float(value), 5))
    return found


def run_cases(
    args: Any, columns: Sequence[str], scores_of: Callable[..., tuple[Scores, dict[str, Any]]]
) -> pd.DataFrame:
    """Trains what the file does not hold yet by `scores_of(case, mixed, parts, seed)`, and gives all of its rows."""
    kept = frame.Rows(args.out, columns)
    for seed in range(args.seeds):
        for name in args.tables:
            mixed = TABLES[name]()
            parts = split(mixed, args.rows, seed)
            for case in args.cases:
                # The last task's row tells that the case is done.
                if kept.has(table=name, seed=seed, case=case, task=mixed.tasks[-1].name):
                    continue
                scores, about = scores_of(case, mixed, parts, seed)
                of = {"table": name, "seed": seed, "case": case, "train_rows": len(parts["train"])}
                for task, (metric, value) in measure(mixed, parts["test"], scores).items():
                    kept.add({**of, "task": task, "metric": metric, "value": value, **about})
    return kept.read()


def run_numbers(args: Any) -> pd.DataFrame:
    def scores_of(case: str, mixed: Mixed, parts: Parts, seed: int) -> tuple[Scores, dict[str, Any]]:
        if case in CASES:
            return train_network(CASES[case], mixed, parts, seed, args)
        return train_baseline(case, mixed, parts)

    return run_cases(args, COLUMNS, scores_of)


def run_cost(args: Any) -> pd.DataFrame:
    """The processor's milliseconds a step of each way in which 40 numbers enter, the median over rounds."""
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(40)]
    table = pd.DataFrame(rng.lognormal(size=(args.batch_size * 20, 40)), columns=names)
    table["y"] = (rng.random(len(table)) < 0.5).astype("float32")
    models, times = {}, {}
    for way in ("numbers", "numbers, piecewise linear", "numbers, periodic", "numbers, quantile ids"):
        features = [Numeric(name, **CASES[way].numbers) for name in names]
        transform = FeatureTransform(features, BinaryTask("y")).fit(table)
        models[way] = create_model(args.model, transform)
        models[way].compile("auto", metrics=None)
        arrays = transform.encode(table), transform.encode_labels(table)
        models[way].fit(*arrays, batch_size=args.batch_size, verbose=0)
        times[way] = (arrays, [])
    for _ in range(args.rounds):
        for way, model in models.items():
            arrays, found = times[way]
            started = time.process_time()
            model.fit(*arrays, batch_size=args.batch_size, verbose=0)
            found.append((time.process_time() - started) / 20 * 1000)
    base = times["numbers"][1]
    rows = [
        {"case": way, "ms": round(float(np.median(f)), 2), **frame.ratios(f, base)} for way, (_, f) in times.items()
    ]
    return frame.write(args.out, rows)


def differences(rows: pd.DataFrame, base: str = "boosting") -> pd.DataFrame:
    """By table and task, the mean over seeds of each case, and how it differs from boosting (above 0: better)."""
    rows = rows[rows["error"].astype(str) == ""].astype({"value": float})
    means = rows.groupby(["table", "task", "metric", "case"], sort=False)["value"].mean().unstack("case")
    sign = np.where(means.index.get_level_values("metric") == "auc", 1.0, -1.0)
    return means.sub(means[base], axis=0).mul(sign, axis=0).round(4)


def main(arguments: Sequence[str] | None = None) -> int:
    defaults: dict[str, Any] = {"tables": tuple(TABLES), "cases": ("linear", "boosting", *CASES), "seeds": 3}
    defaults |= {"rows": 10_000, "model": "shared_bottom", "batch_size": 256, "epochs": 20}
    defaults |= {"cost": False, "rounds": 7}
    args = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    if args.cost:
        frame.show(run_cost(args), ["case", "ms", "ratio"], "a step")
        return 0
    found = differences(run_numbers(args)).reset_index()
    frame.show(found, [str(c) for c in found.columns], "better than boosting by")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
