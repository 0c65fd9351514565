"""`calibrate(model, rows)`: scores that are brought to the rates that they stand for, after training."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.evaluation.evaluate import as_split, rows_and_scores
from mtl_zoo.heads import Output
from mtl_zoo.models._calibration import Affine, Calibration, Isotonic
from mtl_zoo.models._fingerprint import rows_digest

_SMALLEST = 1e-7  # of a score, as float32 tells it from 1


def calibrate(
    model: Any, data: Any, task: str | None = None, method: str = "platt", *, batch_size: int = 4096, verbose: int = 1
) -> Any:
    """A model whose scores of one output are calibrated on rows that it was not trained on.

    With `a` the logit that the score is made of, the new score is

    * `"platt"`: `sigmoid(slope a + shift)`, fitted by maximum likelihood: two numbers, for a few hundred rows or more;
    * `"temperature"`: `sigmoid(a / T)`: one number; it cannot mend a level that is wrong everywhere;
    * `"isotonic"`: the rising step function with the least squared error, with straight pieces between its steps: any
      rising shape, for some thousand positive rows.

    All of them rise with `a`, so the order of rows stays (isotonic ties rows of one step). The calibration is a part of
    the model that is returned: `predict`, `evaluate`, `save`, scorers and exports give calibrated scores. It comes
    after the correction for `NegativeSampling`, and stands in place of an earlier calibration of the same output. Other
    outputs stay as they are: the product of a funnel is an output of its own, and is calibrated by its own name.

    Args:
        model: A model of the zoo. It stays as it is.
        data: Rows with labels that the model was not trained on: a split of a data set, or a table if the model has a
            transform. Those count that the output is measured on: observed, and in its sample space.
        task: Name of an output of a binary task. Default: None, the only one there is.
        method: `"platt"`, `"temperature"` or `"isotonic"`. Default: "platt".
        batch_size: Rows a step of `predict`.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Returns:
        A model with the same weights. If `model` is compiled, it is too, with a fresh optimizer.

    Raises:
        ValueError: No such output, or none of events; another method; the rows have only one label, or are ranked worse
            than by chance.

    Warns:
        UserWarning: The rows are those that the model was trained on, whose scores are too sure.

    Example:

    >>> from mtl_zoo import calibrate, create_model
    >>> from mtl_zoo.datasets import load_dataset
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> model = create_model("shared_bottom", data.features, data.tasks[:1], bottom_units=(8,))
    >>> model.compile("adam")
    >>> history = model.fit(data.train.inputs, data.train.labels, batch_size=128, verbose=0)
    >>> calibrated = calibrate(model, data.validation, "click")
    >>> rate = float(data.validation.labels["click"].mean())
    >>> bool(abs(calibrated.predict(data.validation.inputs, verbose=0)["click"].mean() - rate) < 1e-3)
    True

    Reference: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Zadrozny and Elkan, "Transforming
    Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002; Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017, arXiv:1706.04599.
    """
    check.check_choice("method", method, tuple(_METHODS))
    output = _output(model, task)
    split = as_split(model, data, verbose)
    _warn_of_training_rows(model, data if hasattr(data, "columns") else (split.inputs, split.labels))
    made = model.clone()
    made.set_weights(model.get_weights())
    made.trained_rows = model.trained_rows
    others = {name: found for name, found in model.corrections.calibrations.items() if name != output.name}
    made.set_corrections(dataclasses.replace(model.corrections, calibrations=others))
    scores = rows_and_scores(made, split, batch_size, verbose)[1][output.name]
    p = np.clip(np.asarray(scores, "float64").reshape(-1), _SMALLEST, 1 - _SMALLEST)
    y, weight = (keras.ops.convert_to_numpy(part).reshape(-1) for part in made.targets(split.labels)[output.name])
    weight = weight * _sample_weight(split, output)
    counts = weight > 0
    if len(np.unique(y[counts])) < 2:
        raise ValueError(
            f"`data` must hold rows with label 0 and with label 1 of {output.name!r}. Received: {int(counts.sum())} "
            f"rows that count, with labels {sorted(set(y[counts].tolist()))}"
        )
    found = _METHODS[method](np.log(p[counts]) - np.log1p(-p[counts]), y[counts], weight[counts].astype("float64"))
    made.set_corrections(dataclasses.replace(made.corrections, calibrations={**others, output.name: found}))
    return made


def _output(model: Any, task: str | None) -> Output:
    outputs = {output.name: output for output in model.outputs_info if output.task.is_event}
    if task is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if task not in outputs:
        raise ValueError(
            f"`task` must name an output with labels 0 and 1. Received: task={task!r}. Expected: one of {list(outputs)}"
        )
    return outputs[task]


def _warn_of_training_rows(model: Any, rows: Any) -> None:
    known = model.trained_rows
    if known is not None and known == (rows_digest(*rows) if isinstance(rows, tuple) else rows_digest(rows)):
        warnings.warn(
            "`data` are the rows that the model was trained on: it is surer of them than of others, and so will its "
            "calibrated scores be. Calibrate on validation rows.",
            UserWarning,
            stacklevel=3,
        )


def _sample_weight(split: Any, output: Output) -> Any:
    weights = split.weights
    if hasattr(weights, "get"):
        weights = weights.get(output.task.name)
    return 1.0 if weights is None else np.asarray(weights, "float64").reshape(-1)


def platt(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Affine:
    """The slope and shift of logits `a` under which labels `y` are likeliest.

    Raises:
        ValueError: The slope would not be above 0.
    """
    from sklearn.linear_model import LogisticRegression

    middle, width = np.average(a, weights=weight), max(float(np.std(a)), 1e-6)
    # All but without a penalty, which versions of scikit-learn name in different ways.
    model = LogisticRegression(C=1e12, tol=1e-9, max_iter=1000).fit(((a - middle) / width)[:, None], y, weight)
    slope = float(model.coef_[0, 0]) / width
    if not slope > 0:
        raise ValueError(
            "`data` must be ranked better than by chance: a rising calibration cannot mend scores that fall with the "
            f"rate. Received: rows whose best slope is {slope:.3g}"
        )
    return Affine(slope, float(model.intercept_[0]) - slope * float(middle))


def _temperature(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Calibration:
    from scipy.optimize import minimize_scalar

    def loss(log_slope: float) -> float:
        scaled = a * np.exp(log_slope)
        return float(np.average(np.logaddexp(0, scaled) - y * scaled, weights=weight))

    return Affine(float(np.exp(minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded").x)))


def _isotonic(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    # Half a row at the ends: a rate of exactly 0 or 1 has no logit.
    least = 0.5 / len(y)
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(a, y, weight)
    logits, first = np.unique(np.asarray(model.X_thresholds_, "float32"), return_index=True)
    return Isotonic(tuple(logits.tolist()), tuple(np.maximum.accumulate(model.y_thresholds_[first]).tolist()))


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Calibration]] = {
    "platt": platt,
    "temperature": _temperature,
    "isotonic": _isotonic,
}
