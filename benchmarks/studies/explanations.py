"""Do explanations add up, and do they find what is known to matter?

`--parts gaps`: every model of the catalogue, in narrow, is trained for a dozen steps on the synthetic funnel (with
domains, histories, a number and, save for models of two steps, a cart: each has what it needs), and the first and the
last output of test rows are explained by integrated gradients, from missing values and from the mean. A row of the file
tells how far the features' parts are from the change of the logit that they explain.

`--parts truth`: the generator's true effects are known. Of each value of the twelve fields and of the domain the true
effect is its least-squares coefficient in the true logit over the training rows, less the field's mean. A network is
trained on `--rows` rows without ids (case `fields`) and with them (`ids`, which determine the fields of users and
items), and compared by rank correlation (Spearman):

    values       the mean part of each value, over test rows, with its true effect
    parts        the part of each field in each row with the true effect of the value there
    groups       the permutation importance of groups of features of different strength, on `--judged` test rows, with
                 the deviation of the sum of their true effects

`--parts ceiling`: how well the effects on conversions can be known from these rows at all: the rank correlation of the
coefficients of a logistic regression on the clicked training rows, which has the generator's main effects and no more.

The rows in benchmarks/results/bench/explanations.csv were made by

    python -m benchmarks.studies.explanations --out benchmarks/results/bench/explanations.csv
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import hstack
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from benchmarks.studies import _frame as frame

COLUMNS = (
    *("part", "case", "model", "seed", "task", "baseline", "measure", "value", "rows", "largest_gap", "median_gap"),
    *("incomplete", "smallest_change", "gradients", "seconds"),
)
_KEYS = ("part", "case", "model", "seed", "task", "baseline", "measure")
# Widths of the models whose gaps are measured.
NARROW = {
    "num_experts": 3,
    "num_task_experts": 2,
    "num_shared_experts": 1,
    "expert_units": (16, 8),
    "bottom_units": (32, 16),
    "column_units": (16, 16),
    "stage_units": (16,),
    "tower_units": (8,),
}
FIELDS = tuple(f"{group}_field_{i}" for group in ("user", "item", "context") for i in range(1, 5))
GROUPS = {
    "history": ["history"],
    "one field": ["user_field_1"],
    "number": ["number"],
    "two fields": ["item_field_1", "item_field_2"],
    "domain": ["domain"],
    "three fields": ["context_field_1", "context_field_2", "context_field_3"],
    "four fields": ["item_field_1", "item_field_2", "item_field_3", "item_field_4"],
    "eight fields": [*FIELDS[:8]],
}


def main(arguments: Sequence[str] | None = None) -> int:
    defaults: dict[str, Any] = {"parts": ("gaps", "truth", "ceiling"), "models": ("all",), "seeds": 3, "rows": 500_000}
    defaults |= {"gap_rows": 4_000, "explained": 20, "epochs": 2, "batch_size": 1024, "truth_model": "shared_bottom"}
    defaults |= {"judged": 2_000}
    args = frame.parser(__doc__ or "", defaults).parse_args(arguments)
    kept = frame.Rows(args.out, COLUMNS)
    if "gaps" in args.parts:
        _gaps(args, kept)
    if "truth" in args.parts:
        for case in ("fields", "ids"):
            for seed in range(args.seeds):
                _truth(args, kept, case, seed)
    if "ceiling" in args.parts:
        for seed in range(args.seeds):
            _ceiling(args, kept, seed)
    table = kept.read()
    frame.show(table[table["part"] == "gaps"], ["model", "task", "baseline", "largest_gap", "incomplete", "gradients"])
    frame.show(table[table["part"].isin(["truth", "ceiling"])], ["part", "case", "seed", "task", "measure", "value"])
    return 0


def _narrow(name: str) -> dict[str, Any]:
    """The arguments of `NARROW` that a model (or its backbone) has."""
    import mtl_zoo

    parameters = inspect.signature(mtl_zoo.model_info(name).cls).parameters
    found = {argument: value for argument, value in NARROW.items() if argument in parameters}
    if "backbone" in parameters:
        inner = _narrow(parameters["backbone"].default)
        found["backbone_options"] = {argument: v for argument, v in inner.items() if argument != "tower_units"}
    return found


def _add(kept: frame.Rows, row: dict[str, Any]) -> None:
    kept.add({name: row.get(name, "") for name in COLUMNS})


def _gaps(args: Any, kept: frame.Rows) -> None:
    import keras

    import mtl_zoo

    names = mtl_zoo.list_models() if "all" in args.models else args.models
    options = {"domains": 2, "history": 5, "numeric": True, "embedding_dim": 8}
    load = functools.partial(mtl_zoo.load_dataset, "synthetic_funnel", size=args.gap_rows, **options)
    two_steps, three_steps = load(), load(cart=True)
    for name in names:
        if kept.has(part="gaps", model=name):
            continue
        keras.utils.set_random_seed(0)
        # A model of one conversion after one click has no place for a cart between the two.
        data = two_steps if "funnel" in mtl_zoo.model_info(name).requires else three_steps
        rows = data.test.take(args.explained)
        model = mtl_zoo.create_model(name, data.features, data.tasks, **_narrow(name))
        # A dozen steps, for which tracing a graph would take most of the time.
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        model.fit(data.train.inputs, data.train.labels, batch_size=512, epochs=2, verbose=0)
        for output in (model.outputs_info[0], model.outputs_info[-1]):
            for baseline in ("missing", "mean"):
                started = time.perf_counter()
                about = mtl_zoo.explain(model, rows, output.name, baseline=baseline).rows
                _add(kept, {
                    **dict(zip(_KEYS, ("gaps", "", name, 0, output.name, baseline, "relative gap"), strict=True)),
                    "rows": len(about), "largest_gap": f"{about['relative_gap'].max():.2g}",
                    "median_gap": f"{about['relative_gap'].median():.2g}",
                    "incomplete": int((about["relative_gap"] >= 0.01).sum()),
                    "smallest_change": f"{about['change'].abs().min():.2g}",
                    "gradients": round(float(about["gradients"].mean()), 1),
                    "seconds": round(time.perf_counter() - started, 2),
                })  # fmt: skip


def true_effects(inputs: dict[str, np.ndarray], logit: np.ndarray) -> dict[str, np.ndarray]:
    """By feature, the additive effect of each row's value on the true logit: least squares, less the mean."""
    columns: list[np.ndarray] = []
    owners: list[str] = []
    for name in (*FIELDS, "domain"):
        ids = inputs[name] - 2
        one_hot = np.eye(ids.max() + 1, dtype="float64")[ids]
        columns.append(one_hot - one_hot.mean(axis=0))
        owners += [name] * one_hot.shape[1]
    columns.append((inputs["number"] - inputs["number"].mean(dtype="float64"))[:, None])
    owners.append("number")
    x = np.concatenate(columns, axis=1)
    # The columns of a field add up to 0: a little ridge picks the coefficients that do, too.
    weights = np.linalg.solve(x.T @ x + 1e-6 * len(x) * np.eye(x.shape[1]), x.T @ (logit - logit.mean()))
    own = np.array(owners)
    return {name: x[:, own == name] @ weights[own == name] for name in dict.fromkeys(owners)}


def _truth(args: Any, kept: frame.Rows, case: str, seed: int) -> None:
    import keras

    import mtl_zoo
    from mtl_zoo.explanations import permutation_importance

    if kept.has(part="truth", case=case, seed=seed):
        return
    options = {"domains": 3, "history": 5, "numeric": True, "embedding_dim": 4, "seed": seed}
    data = mtl_zoo.load_dataset("synthetic_funnel", size=args.rows, **options)
    left_out = () if case == "ids" else ("user_id", "item_id")
    features = [feature for feature in data.features if feature.name not in left_out]
    keras.utils.set_random_seed(seed)
    model = mtl_zoo.create_model(args.truth_model, features, data.tasks, bottom_units=(64,), tower_units=(16,))
    model.compile("auto")
    started = time.perf_counter()
    model.fit(data.train.inputs, data.train.labels, batch_size=args.batch_size, epochs=args.epochs, verbose=0)
    seconds = round(time.perf_counter() - started, 1)
    test = data.test.take(min(2_000, len(data.test)))
    for task in ("click", "conversion"):
        truth = test.truth[task].astype("float64")
        known = {name: np.concatenate([data.train.inputs[name], test.inputs[name]]) for name in test.inputs}
        logits = np.concatenate([data.train.truth[task].astype("float64"), truth])
        effects = true_effects(known, np.log(logits) - np.log1p(-logits))
        effects = {name: values[-len(test) :] for name, values in effects.items()} | {"history": np.zeros(len(test))}
        found = mtl_zoo.explain(model, test, task, baseline="mean")
        judged = data.test.take(min(args.judged, len(data.test)))
        importance = permutation_importance(model, judged, task, groups=GROUPS, resamples=0, metric="logloss").table
        for measure, (ours, true) in _compared(found.table, effects, test.inputs, importance).items():
            row = dict(zip(_KEYS, ("truth", case, args.truth_model, seed, task, "mean", measure), strict=True))
            _add(kept, {**row, "value": round(float(spearmanr(ours, true)[0]), 4), "rows": len(ours),
                        "seconds": seconds, "incomplete": int((~found.rows["complete"]).sum())})  # fmt: skip


def _ceiling(args: Any, kept: frame.Rows, seed: int) -> None:
    import mtl_zoo

    if kept.has(part="ceiling", seed=seed):
        return
    data = mtl_zoo.load_dataset("synthetic_funnel", size=args.rows, domains=3, history=5, numeric=True, seed=seed)
    clicked = data.train.labels["click"] == 1
    names, inputs = [*FIELDS, "domain"], data.train.inputs
    # Every value of the rows has an effect, those that nobody clicked too.
    values = np.stack([inputs[name] for name in names], axis=1)
    codes = OneHotEncoder().fit(values).transform(values[clicked])
    x = hstack([codes, inputs["number"][clicked, None]]).tocsr()
    started = time.perf_counter()
    found = LogisticRegression(C=0.3, max_iter=500).fit(x, data.train.labels["conversion"][clicked])
    truth = data.train.truth["conversion"].astype("float64")
    effects = true_effects(data.train.inputs, np.log(truth) - np.log1p(-truth))
    true = [pd.Series(effects[name]).groupby(data.train.inputs[name]).mean().to_numpy() for name in names]
    ours = np.split(found.coef_[0][:-1], np.cumsum([len(one) for one in true])[:-1])
    correlation = spearmanr(np.concatenate([one - one.mean() for one in ours]), np.concatenate(true))[0]
    row = dict(zip(_KEYS, ("ceiling", "fields", "logistic regression", seed, "conversion", "", "values"), strict=True))
    seconds = round(time.perf_counter() - started, 2)
    _add(kept, {**row, "value": round(float(correlation), 4), "rows": x.shape[1] - 1, "seconds": seconds})


def _compared(
    parts: pd.DataFrame, effects: dict[str, np.ndarray], inputs: dict[str, np.ndarray], importance: pd.DataFrame
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By measure, what was found and what is true."""
    names = [*FIELDS, "domain"]
    by_value = [
        pd.DataFrame({"ours": parts[name], "true": effects[name]}).groupby(inputs[name]).mean() for name in names
    ]
    values = pd.concat(by_value)
    ours = np.concatenate([parts[name] for name in names])
    true = np.concatenate([effects[name] for name in names])
    strength = {group: np.std(sum(effects[name] for name in members)) for group, members in GROUPS.items()}
    return {
        "values": (values["ours"].to_numpy(), values["true"].to_numpy()),
        "parts": (ours, true),
        "groups": (importance["importance"].to_numpy(), importance["feature"].map(strength).to_numpy()),
    }


if __name__ == "__main__":
    frame.start(__file__)
