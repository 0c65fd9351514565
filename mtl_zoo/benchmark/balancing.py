"""How a benchmark run balances its losses: any registered method, and the tuned grid of static weights."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.balancing import Balancing, create_balancing, label_frequencies, static_grid
from mtl_zoo.balancing._registry import label
from mtl_zoo.benchmark.config import EQUAL, STATIC_SWEEP, RunConfig
from mtl_zoo.training.callbacks import scores_of
from mtl_zoo.training.selection import WeightedScore

# The metric of the rows that say which weights a sweep chose.
CHOSEN_WEIGHT = "static_weight"


def balancing_text(config: RunConfig) -> str:
    """What the rows of a run call its balancing."""
    options = dict(sorted(config.balancing_options.items()))
    weights = ", ".join(f"{task}={weight:g}" for task, weight in sorted(config.loss_weights.items()))
    if config.balancing == EQUAL:
        return f"static({weights})" if weights else EQUAL
    return label(config.balancing, options) + (f", loss_weights({weights})" if weights else "")


def balancing_spec(config: RunConfig) -> dict[str, Any]:
    """The same as values: `method`, `options` and `loss_weights`."""
    weights = {task: float(weight) for task, weight in sorted(config.loss_weights.items())}
    return {"method": config.balancing, "options": dict(config.balancing_options), "loss_weights": weights}


def spec_of_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """`balancing_spec` of a row of results. Rows of 0.1.0 have the text alone, which is read here and nowhere else."""
    text = row.get("balancing_spec")
    if isinstance(text, str) and text:
        return json.loads(text)
    method, _, inside = str(row["balancing"]).partition("(")
    spec: dict[str, Any] = {"method": method, "options": {}, "loss_weights": {}}
    if method == "static" and inside:
        weights = {name: float(weight) for name, weight in re.findall(r"(\w+)=([\d.e+-]+)", inside)}
        spec["options"] = {"weights": weights}
    return spec


def static_weights(spec: Mapping[str, Any]) -> dict[str, float] | None:
    """The weights of a run with static ones; None of any other."""
    if spec["method"] == EQUAL:
        return spec["loss_weights"] or None
    return spec["options"].get("weights") if spec["method"] == "static" else None


def check_balancing(config: RunConfig) -> None:
    """Refuses options that the method does not have, before anything is loaded.

    Raises:
        ValueError: An option of the sweep that is unknown or out of range.
        TypeError: An unknown option of a method.
    """
    options = config.balancing_options
    if config.balancing == STATIC_SWEEP:
        sweep_points(config, ["loss"])
    elif config.balancing not in (EQUAL, "data_based") or "frequencies" in options:
        balancing_of(config, None, {})


def balancing_of(config: RunConfig, model: Any, labels: Mapping[str, np.ndarray]) -> Balancing | None:
    """What `compile` gets; `labels` are those of the training rows."""
    if config.balancing == EQUAL:
        return None
    options = dict(config.balancing_options)
    if config.balancing == "data_based" and "frequencies" not in options:
        options["frequencies"] = label_frequencies(model, labels)
    return create_balancing(config.balancing, **options)


def sweep_points(config: RunConfig, names: Any) -> list[dict[str, float]]:
    """The weights that a `static_sweep` tries, by loss name."""
    known = [name for name in inspect.signature(static_grid).parameters if name != "names"]
    for option in config.balancing_options:
        if option not in known:
            raise ValueError(
                f"`balancing_options` of a static_sweep must be {' or '.join(known)}. Received: {option!r}"
            )
    return static_grid(names, **config.balancing_options)


def best_of(model: Any, points: Mapping[str, pd.DataFrame]) -> str:
    """The key of the point with the best mean over tasks on the validation split, from the rows of all points."""
    rule = WeightedScore()
    metrics = rule.metrics_of(model)
    scores = {}
    for key, rows in points.items():
        found = scores_of(model, rows[rows["split"] == "validation"], metrics)
        rule.check_defined(found)
        scores[key] = rule.score(found)
    return max(scores, key=lambda key: scores[key])


def rows_of_sweep(
    about: Mapping[str, Any], chosen: pd.DataFrame, weights: Mapping[str, float], seconds: float
) -> list[dict[str, Any]]:
    """The rows of the chosen point as those of the sweep, which took `seconds`, and the weights that were chosen."""
    own = {name: about[name] for name in ("key", "balancing", "balancing_spec")} | {"train_seconds": round(seconds, 3)}
    whole = chosen.astype(dict.fromkeys(("parameters", "best_epoch", "observed"), "int64"))
    rows = [{**row, **own} for row in whole.to_dict("records")]
    of_weights = {"split": "validation", "metric": CHOSEN_WEIGHT, "space": "", "observed": ""}
    return rows + [{**rows[0], **of_weights, "task": loss, "value": weight} for loss, weight in weights.items()]
