"""Uplift: who acts because of a treatment, and how well a model orders people by that."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import read_table
from mtl_zoo.metrics.exact import checked_arrays
from mtl_zoo.tasks import BinaryTask


class Uplift(NamedTuple):
    """How well rows are ordered by uplift, per row of the table.

    Args:
        qini: Area between the Qini curve and the straight line to its end.
        auuc: Area under the uplift curve.
        ate: The average treatment effect: the mean response of the treated less that of the others.

    Example:

    >>> from mtl_zoo.evaluation import Uplift
    >>> Uplift(qini=0.1, auuc=0.2, ate=0.05).qini
    0.1
    """

    qini: float
    auuc: float
    ate: float


def uplift_tasks(response: str, treated: str = "treated", control: str = "control", **options: Any) -> tuple:
    """A task for the treated rows and one for the others, whose scores differ by the uplift.

        uplift = P(response = 1 | x, treated) - P(response = 1 | x, not treated)

    Both read the same label; each is trained on its own rows, on a body that they share (a T-learner with shared
    layers, as TARNet).

    Args:
        response: Column of the label, 0 or 1.
        treated, control: Columns of 0 and 1 that say which rows were treated and which were not.
        **options: Of `BinaryTask`, for both.

    Returns:
        Two tasks, `<response>_treated` and `<response>_control`.

    Example:

    >>> from mtl_zoo.evaluation import uplift_tasks
    >>> [task.name for task in uplift_tasks("visit")]
    ['visit_treated', 'visit_control']

    Reference: Shalit et al., "Estimating individual treatment effect", ICML 2017, arXiv:1606.03976.
    """
    return tuple(
        BinaryTask(f"{response}_{name}", label=response, sample_space=column, **options)
        for name, column in (("treated", treated), ("control", control))
    )


def uplift_curve(uplift: ArrayLike, treated: ArrayLike, response: ArrayLike) -> pd.DataFrame:
    """What treating the rows with the highest uplift would have brought, by how many they are.

    With the first n rows in the order of `uplift`, of whom N_T were treated and N_C not, and their responses' sums Y_T
    and Y_C:

        qini(n)   = (Y_T - Y_C * N_T / N_C) / N            (0 control rows count no response)
        uplift(n) = (Y_T / N_T - Y_C / N_C) * n / N        (0 where one of both is empty)

    N is the number of all rows. Rows of one score come in together.

    Returns:
        Columns `share` (n / N), `qini`, `uplift`; the first row is at 0.

    Raises:
        ValueError: Arrays of other lengths; scores that are not finite; a treatment or response that is not 0 or 1;
            rows of one group alone.

    Example:

    >>> from mtl_zoo.evaluation import uplift_curve
    >>> uplift_curve([0.9, 0.8, 0.1, 0.0], [1, 0, 1, 0], [1, 0, 0, 1])["qini"].tolist()
    [0.0, 0.25, 0.25, 0.25, 0.0]

    Reference:
        Radcliffe, "Using control groups to target on predicted lift", Direct Marketing Analytics Journal, 2007.
    """
    y, score, _ = checked_arrays(response, uplift, None)
    t, _, _ = checked_arrays(treated, uplift, None)
    if len(t) != len(y) or len(np.unique(t)) < 2:
        raise ValueError(f"`treated` must hold 1 and 0. Received: {np.unique(t).tolist()} in {len(t)} rows")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(y) - 1)
    sums = [np.cumsum(values[order])[last] for values in (t, 1 - t, t * y, (1 - t) * y)]
    treated_rows, control_rows, treated_sum, control_sum = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(control_rows > 0, control_sum * treated_rows / control_rows, 0.0)
        rates = treated_sum / treated_rows - control_sum / control_rows
    rates = np.where((treated_rows > 0) & (control_rows > 0), rates, 0.0)
    share = (last + 1) / len(y)
    curve = {"share": share, "qini": (treated_sum - scaled) / len(y), "uplift": rates * share}
    return pd.DataFrame({name: np.insert(values, 0, 0.0) for name, values in curve.items()})


def uplift_metrics(uplift: ArrayLike, treated: ArrayLike, response: ArrayLike) -> Uplift:
    """Qini coefficient, area under the uplift curve, and average treatment effect; see `uplift_curve`.

    A random order has a Qini coefficient of 0 in expectation. Areas are by the trapezoid rule over the share of rows.

    Example:

    >>> from mtl_zoo.evaluation import uplift_metrics
    >>> found = uplift_metrics([0.9, 0.8, 0.1, 0.0], [1, 0, 1, 0], [1, 0, 0, 1])
    >>> round(found.qini, 4), found.ate
    (0.1875, 0.0)
    """
    curve = uplift_curve(uplift, treated, response)
    x, y, t = curve["share"].to_numpy(), np.asarray(response, float).ravel(), np.asarray(treated, float).ravel()
    qini = np.trapezoid(curve["qini"], x) - curve["qini"].iloc[-1] / 2
    ate = y[t == 1].mean() - y[t == 0].mean()
    return Uplift(float(qini), float(np.trapezoid(curve["uplift"], x)), float(ate))


def evaluate_uplift(model: Any, table: Any, response: str, treated: str = "treated", **arguments: Any) -> Uplift:
    """`uplift_metrics` of a model with the two tasks of `uplift_tasks`, on the rows of a table.

    Args:
        model: A model of the zoo with outputs `<response>_treated` and `<response>_control`.
        table: Rows that were treated by chance, with the columns `response` and `treated`.
        response, treated: As in `uplift_tasks`.
        **arguments: Of `model.predict`.

    Raises:
        ValueError: The model lacks the outputs, or the table a column.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import FeatureTransform, Numeric, create_model
    >>> from mtl_zoo.evaluation import evaluate_uplift, uplift_tasks
    >>> trial = pd.DataFrame({"age": [1.0, 2, 3, 4], "treated": [1, 0, 1, 0], "visit": [1, 0, 0, 1]})
    >>> trial["control"] = 1 - trial["treated"]
    >>> model = create_model("shared_bottom", FeatureTransform(Numeric("age"), uplift_tasks("visit")).fit(trial))
    >>> evaluate_uplift(model, trial, "visit").ate
    0.0
    """
    names = [f"{response}_treated", f"{response}_control"]
    known = [output.name for output in model.outputs_info]
    for name in names:
        check.check_choice("response", name, tuple(known))
    frame = read_table(table)
    missing = [name for name in (response, treated) if name not in frame]
    if missing:
        raise ValueError(f"`table` must hold the treatment and the response. Missing: {missing}")
    scores = model.predict(frame, **{"verbose": 0, **arguments})
    difference = (scores[names[0]] - scores[names[1]]).ravel()
    return uplift_metrics(difference, np.asarray(frame[treated]), np.asarray(frame[response]))
