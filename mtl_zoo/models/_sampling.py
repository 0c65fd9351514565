"""`fit(sampling=...)`: the rows that stay of what a model is trained on, and the model that knows of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo.features._balanced import BalancedStream
from mtl_zoo.features.balanced import BalancedBatches
from mtl_zoo.features.sampling import NegativeSampling
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.models import _data
from mtl_zoo.models._biases import bias_inputs
from mtl_zoo.models._checks import check_labels
from mtl_zoo.models._corrections import effects_of
from mtl_zoo.models._fingerprint import rows_digest
from mtl_zoo.tasks import label_names

_PROPER = "binary_crossentropy"


def prepare(model: Any, x: Any, y: Any, arguments: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """What `fit` is given without the rows that are dropped; the model corrects its scores from then on."""
    arguments = dict(arguments)
    sampling: NegativeSampling | BalancedBatches | None = arguments.pop("sampling", None)
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
    if isinstance(sampling, BalancedBatches):
        x, y, arguments = _balanced(model, sampling, x, y, arguments)
        sampling = x.sampling
    else:
        x, y, arguments = _sampled(model, sampling, x, y, arguments)
    model.set_corrections(dataclasses.replace(model.corrections, sampling=sampling))
    return x, y, arguments


def _check_same(model: Any, sampling: Any) -> None:
    if sampling is not None and not isinstance(sampling, NegativeSampling | BalancedBatches):
        raise TypeError(
            f"`sampling` must be a NegativeSampling, a BalancedBatches or None. Received: sampling={sampling!r}"
        )
    before = model.corrections.sampling
    if before is None:
        return
    if sampling is None or not sampling.is_like(before):
        raise ValueError(
            "`sampling` must have the same share as before, which the model's scores are corrected for. Received: "
            f"sampling={sampling!r}. Expected: {before!r} (or another seed), or a model of its own, `model.clone()`"
        )


def _check(model: Any, sampling: NegativeSampling | BalancedBatches, arguments: Mapping[str, Any]) -> None:
    effects_of(sampling, model.outputs_info, model.tasks)
    losses = model._require_compiled().loss_functions
    for task in sampling.steps(model.tasks):
        loss = losses[task.name].given if task.name in losses else _PROPER
        if isinstance(loss, str) and loss != _PROPER:
            raise ValueError(
                f"`sampling` needs the loss {_PROPER!r} for task {task.name!r}: the scores of others are no "
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


def _balanced(
    model: Any, sampling: BalancedBatches, x: Any, y: Any, arguments: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    if arguments.get("class_weight") is not None:
        raise ValueError(
            "`class_weight` must be None with balanced batches, whose shares weigh the classes. Received: "
            f"class_weight={arguments['class_weight']!r}"
        )
    if not arguments.get("shuffle", True):
        raise ValueError("`shuffle` must be True with balanced batches, which are an order. Received: shuffle=False")
    size = _data.batch_size(arguments, _data.TRAIN_BATCH_SIZE)
    if isinstance(x, TableStream):
        return BalancedStream.of_stream(x, model.tasks, sampling, size), y, arguments
    if not _data.holds_rows(x):
        raise ValueError(
            "`sampling` with balanced batches needs rows: arrays, a table or a TableStream as `x`. Received: "
            f"x={type(x).__name__}"
        )
    x, y, arguments = _data.prepare(model, x, y, arguments)
    check_labels(model, y)
    weights = arguments.pop("sample_weight", None)
    inputs = {name: x[name] for name in model.input if name in x}
    labels = {name: np.asarray(y[name], "float32").reshape(-1) for name in label_names(model.tasks)}
    rows = {name: len(array) for name, array in {**inputs, **labels}.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"`x` and `y` must have the same number of rows. Received: {rows}")
    parts, known = (inputs, labels, weights), {"sample": model.trained_rows}
    return BalancedStream.of_arrays(parts, model.tasks, sampling, size, model.transform, known), None, arguments
