"""Why some models of the catalogue lose on small data with their defaults: one change at a time, on the same rows.

    python -m benchmarks.studies.causes --out benchmarks/results/bench/causes.csv

Rows, features, optimizer and early stopping are those of benchmarks/configs/catalogue/synthetic_funnel_small.yaml
(20,000 rows to train on; Adam 0.0003, batches of 256; the click's loss has 1 and the conversion's 0.1 where a case
names no weights), with widths near those that have as many parameters as its shared bottom, and fewer test rows. A row
of the file is one output of one case and seed: the test AUC at the epoch with the best validation score, the AUC of
the training rows at that epoch, which tells what was learned by heart, and the validation scores epoch by epoch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

import mtl_zoo
from benchmarks.studies import _frame as frame
from mtl_zoo import MLP, ExactValidation, evaluate

COLUMNS = ("case", "seed", "task", "test_auc", "train_auc", "best_epoch", "epochs", "curve", "seconds")
RATE = 3e-4
SIZE = (20_000, 20_000, 50_000)
LEFT_OUT = ("user_id", "item_id")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and how it is trained.

    Args:
        model, arguments: What `create_model` is given.
        weights: Loss weights; None leaves the model's own.
        optimizer: What `compile` is given, in place of Adam for all weights.
        batch_size: Rows a step.
        tables: What the first weights of all embedding tables are multiplied by.
        changed: What else is changed of the model before it is trained.
    """

    model: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, float] | None = dataclasses.field(default_factory=lambda: {"conversion": 0.1})
    optimizer: Any = RATE
    batch_size: int = 256
    tables: float = 1.0
    changed: Callable[[Any], None] | None = None


SLOW_TABLES = {"embeddings": RATE / 10, "dense": RATE}
_PLAIN = {"bottom_units": MLP((256, 128)), "tower_units": (32,)}
_HOME, _STAR = {"tower_units": (32,)}, {"bottom_units": (96, 48), "tower_units": (32,)}


def _stack(**options: Any) -> dict[str, Any]:
    return {**_PLAIN, "bottom_units": MLP((256, 128), **options)}


def _home(**options: Any) -> dict[str, Any]:
    return {**_HOME, "expert_units": MLP((43,), activation="silu", **options)}


def _m3oe(parts: Sequence[str] = ("bottom", "expert", "pair"), times: int = 1, **options: Any) -> dict[str, Any]:
    """M3oE with what an `MLP` takes beside its units in some of its networks, all of them wider `times` times."""
    units = {"bottom": 44 * times, "expert": 11 * times, "pair": 11 * times}
    return {f"{part}_units": MLP((width,), **(options if part in parts else {})) for part, width in units.items()}


def _epsilon(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.get_layer("normalization").epsilon = value

    return change


def _risk(model: str, **arguments: Any) -> Case:
    """A model of the entire space with its own loss weights."""
    tower = {} if model == "dcmt" else {"tower_units": (32,)}
    return Case(model, {**tower, **arguments}, weights=None)


def _twins(weight: float) -> Case:
    return Case("dcmt", weights={"conversion": weight, "conversion_twin": weight})


CASES: dict[str, Case] = {
    # Does a norm, or the larger start of what it normalises, make a model learn its rows by heart?
    "shared_bottom": Case("shared_bottom", _PLAIN),
    "shared_bottom, batch norm": Case("shared_bottom", _stack(norm="batch")),
    "shared_bottom, layer norm": Case("shared_bottom", _stack(norm="layer")),
    "shared_bottom, tables start 10 times as large": Case("shared_bottom", _PLAIN, tables=10.0),
    "shared_bottom, tables start 30 times as large": Case("shared_bottom", _PLAIN, tables=30.0),
    "shared_bottom, batch norm of epsilon 1": Case("shared_bottom", _stack(norm="batch", epsilon=1.0)),
    "shared_bottom, layer norm of epsilon 1": Case("shared_bottom", _stack(norm="layer", epsilon=1.0)),
    # HoME, M3oE and STAR, whose papers normalise.
    "home, batch norm": Case("home", _home(norm="batch", epsilon=1e-5)),
    "home, no norm": Case("home", _home()),
    "home, batch norm of epsilon 1": Case("home", _home(norm="batch", epsilon=1.0)),
    "m3oe, layer norm": Case("m3oe", _m3oe(norm="layer", epsilon=1e-5)),
    "m3oe, no norm": Case("m3oe", _m3oe()),
    "m3oe, layer norm of epsilon 1": Case("m3oe", _m3oe(norm="layer", epsilon=1.0)),
    "m3oe, layer norm in the bottoms": Case("m3oe", _m3oe(("bottom",), norm="layer", epsilon=1e-5)),
    "m3oe, layer norm in the experts": Case("m3oe", _m3oe(("expert",), norm="layer", epsilon=1e-5)),
    "m3oe, layer norm in the pairs": Case("m3oe", _m3oe(("pair",), norm="layer", epsilon=1e-5)),
    "m3oe, layer norm in the pairs, 4 times as wide": Case("m3oe", _m3oe(("pair",), 4, norm="layer", epsilon=1e-5)),
    "m3oe, layer norm, 4 times as wide": Case("m3oe", _m3oe(times=4, norm="layer", epsilon=1e-5)),
    "m3oe, no norm, 4 times as wide": Case("m3oe", _m3oe(times=4)),
    "m3oe, layer norm, 4 times as wide, dropout 0.5": Case(
        "m3oe", _m3oe(times=4, norm="layer", epsilon=1e-5, dropout=0.5)
    ),
    "star, normalisation by domain": Case("star", _STAR, changed=_epsilon(1e-3)),
    "star, normalisation of epsilon 1": Case("star", _STAR, changed=_epsilon(1.0)),
    # The losses over all impressions, beside a click's loss of about .2.
    "esmm": Case("esmm"),
    "escm2_ips": _risk("escm2_ips", lambda_c=0.5, lambda_g=0.5),
    "escm2_ips, risk 0.1 and product 1": _risk("escm2_ips", lambda_c=0.1, lambda_g=1.0),
    "escm2_ips, risk 0.03 and product 1": _risk("escm2_ips", lambda_c=0.03, lambda_g=1.0),
    "escm2_ips, risk 0": _risk("escm2_ips", lambda_c=0.0, lambda_g=1.0),
    "escm2_ips, propensities of 0.1 at least": _risk("escm2_ips", lambda_c=0.5, lambda_g=0.5, min_propensity=0.1),
    "escm2_dr": _risk("escm2_dr", lambda_c=0.5, lambda_g=0.5),
    "escm2_dr, risk 0.1 and product 1": _risk("escm2_dr", lambda_c=0.1, lambda_g=1.0),
    "escm2_dr, risk 0.03 and product 1": _risk("escm2_dr", lambda_c=0.03, lambda_g=1.0),
    "dcmt": _twins(1.0),
    "dcmt, weights of the two risks 0.1": _twins(0.1),
    "dcmt, weights of the two risks 0.03": _twins(0.03),
    "dcmt, no constraint": Case("dcmt", {"constraint": 0.0}, weights=None),
    # What else might cure a norm.
    "shared_bottom, batch norm, dropout 0.5": Case("shared_bottom", _stack(norm="batch", dropout=0.5)),
    "shared_bottom, batch norm, batches of 2048": Case("shared_bottom", _stack(norm="batch"), batch_size=2048),
    "shared_bottom, batch norm, slow tables": Case("shared_bottom", _stack(norm="batch"), optimizer=SLOW_TABLES),
    "star, slow tables": Case("star", _STAR, optimizer=SLOW_TABLES, changed=_epsilon(1e-3)),
}


def train(case: Case, data: Any, seed: int, epochs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Test and training AUC by output, and how the training went."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = mtl_zoo.create_model(case.model, data.features, data.tasks, **case.arguments)
    if case.changed is not None:
        case.changed(model)
    for table in model.get_layer("embedding").tables if case.tables != 1 else ():
        table.assign(table * case.tables)
    optimizer = keras.optimizers.Adam(case.optimizer) if isinstance(case.optimizer, float) else case.optimizer
    known = {k: v for k, v in (case.weights or {}).items() if k in model.loss_names}
    model.compile(optimizer, metrics=None, **({"loss_weights": known} if known else {}))
    best, started = ExactValidation(data.validation, patience=4), time.perf_counter()
    batches = data.train.batches(case.batch_size, shuffle=True, seed=seed)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[best])
    seconds = round(time.perf_counter() - started, 1)
    curve = " ".join(f"{epoch['score']:.3f}" for epoch in best.history)
    about = {"best_epoch": max(best.best_epochs.values()), "epochs": len(best.history), "curve": curve}
    tables = {name: evaluate(model, part) for name, part in (("test", data.test), ("train", data.train))}
    found: dict[str, Any] = {}
    for name, table in tables.items():
        for row in table[table["metric"] == "auc"].to_dict("records"):
            found.setdefault(row["task"], {})[f"{name}_auc"] = round(float(row["value"]), 5)
    return found, {**about, "seconds": seconds}


def run_causes(cases: Sequence[str], seeds: int, epochs: int, out: Any) -> pd.DataFrame:
    """Trains what the file does not hold yet, and gives all of its rows."""
    kept = frame.Rows(out, COLUMNS)
    data = mtl_zoo.load_dataset("synthetic_funnel", size=SIZE, domains=3, history=5, embedding_dim=16)
    data.features = tuple(f for f in data.features if f.name not in LEFT_OUT)
    for seed in range(seeds):
        for name in cases:
            if not kept.has(case=name, seed=seed, task="click"):
                found, about = train(CASES[name], data, seed, epochs)
                # The click's row tells that a case is done.
                for task in sorted(found, key=lambda task: task == "click"):
                    kept.add({"case": name, "seed": seed, "task": task, **found[task], **about})
    return kept.read()


def main(arguments: Sequence[str] | None = None) -> int:
    args = frame.parser(__doc__ or "", {"cases": tuple(CASES), "seeds": 2, "epochs": 30}).parse_args(arguments)
    table = run_causes(args.cases, args.seeds, args.epochs, args.out)
    numbers = ["test_auc", "train_auc", "best_epoch", "seconds"]
    table = table[table["error"].astype(str) == ""].astype(dict.fromkeys(numbers, float))
    means = table.groupby(["task", "case"], sort=False)[numbers].mean().reset_index()
    means["seeds"] = table.groupby(["task", "case"], sort=False).size().to_numpy()
    frame.show(means.round(4), ["task", "case", *numbers, "seeds"], "means over seeds")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
