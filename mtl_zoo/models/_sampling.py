"""`fit(sampling=...)`: the rows that stay of what a model is trained on, and the model that knows of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo.features.sampling import NegativeSampling
from mtl_zoo.models import _data
from mtl_zoo.models._biases import bias_inputs
from mtl_zoo.models._corrections import effects_of
from mtl_zoo.models._fingerprint import rows_digest

_PROPER = "binary_crossentropy"


def prepare(model: Any, x: Any, y: Any, arguments: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """What `fit` is given without the rows that are dropped; the model corrects its scores from then on."""
    arguments = dict(arguments)
    sampling: NegativeSampling | None = arguments.pop("sampling", None)
    _check_same(model, sampling)
    stale = list(model.corrections.calibrations)
    if stale:
        warnings.warn(
            f"`calibrate` fitted the scores of {stale} to the weights before this training. Calibrate again after it.",
            UserWarning,
            stacklevel=4,
        )
    whole = _data.holds_rows(x)
    model.trained_rows = rows_digest(x, *([] if y is None else [_data.labels_by_name(model, y)])) if whole else None
    if sampling is None:
        return x, y, arguments
    _check(model, sampling, arguments)
    x, y, arguments = _sampled(model, sampling, x, y, arguments)
    model.set_corrections(dataclasses.replace(model.corrections, sampling=sampling))
    return x, y, arguments


def _check_same(model: Any, sampling: Any) -> None:
    if sampling is not None and not isinstance(sampling, NegativeSampling):
        raise TypeError(f"`sampling` must be a NegativeSampling or None. Received: sampling={sampling!r}")
    before = model.corrections.sampling
    if before is None:
        return
    if sampling is None or (sampling.task, sampling.rate) != (before.task, before.rate):
        raise ValueError(
            "`sampling` must drop the same share as before, which the model's scores are corrected for. Received: "
            f"sampling={sampling!r}. Expected: {before!r} (or another seed), or a model of its own, `model.clone()`"
        )


def _check(model: Any, sampling: NegativeSampling, arguments: Mapping[str, Any]) -> None:
    effects_of(sampling, model.outputs_info, model.tasks)
    loss = model._require_compiled().loss_functions[sampling.task].given
    if isinstance(loss, str) and loss != _PROPER:
        raise ValueError(
            f"`sampling` needs the loss {_PROPER!r} for task {sampling.task!r}: the scores of others are no "
            f"probabilities, and log(rate) does not correct them. Received: loss={loss!r}"
        )
    if arguments.get("validation_split"):
        raise ValueError(
            "`validation_split` must be None with `sampling`: rows that a model is validated on are not dropped. Give "
            f"`validation_data`. Received: validation_split={arguments['validation_split']!r}"
        )


def _sampled(
    model: Any, sampling: NegativeSampling, x: Any, y: Any, arguments: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    if _data.is_stream(x):
        return x.sampled(sampling), y, arguments
    task = sampling.task_among(model.tasks)
    if _data.is_table(x):
        return sampling.sample(x, task), y, arguments
    if not isinstance(x, Mapping):
        raise ValueError(
            "`sampling` needs rows: arrays, a table or a TableStream as `x`. Received: "
            f"x={type(x).__name__}, whose rows are batched already"
        )
    y = {name: np.asarray(label) for name, label in _data.labels_by_name(model, y).items()}
    keep = sampling.kept(task, y)
    weights = arguments.get("sample_weight")
    if isinstance(weights, Mapping):
        arguments["sample_weight"] = {name: np.asarray(weight)[keep] for name, weight in weights.items()}
    elif weights is not None:
        arguments["sample_weight"] = np.asarray(weights)[keep]
    biases = {name: np.asarray(x[name]) for name in bias_inputs(model) if name in x}
    x = {**model.scoring.shaped("x", x), **biases}
    rows = len(next(iter(x.values())))
    if rows != len(keep):
        raise ValueError(f"`x` and `y` must have the same number of rows. Received: {rows} and {len(keep)}")
    inputs = {name: values[keep] for name, values in x.items()}
    return inputs, {name: label[keep] for name, label in y.items()}, arguments
