"""`shap_arguments(model, background)`: what explainers of the library shap ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.explanations._given import output_of
from mtl_zoo.models._data import require_transform


class Scores:
    """From raw rows, (rows, columns) in the order of `columns`, to scores: (rows,), or (rows, classes)."""

    def __init__(self, model: Any, columns: list[str], types: Any, output: Any, batch_size: int):
        self.model, self.columns, self.types, self.output, self.size = model, columns, types, output, batch_size

    def __call__(self, rows: Any) -> np.ndarray:
        given = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(np.asarray(rows), columns=self.columns)
        given = given[self.columns].astype(self.types)
        found = self.model.predict(given, batch_size=self.size, verbose=0)[self.output.name]
        return found if self.output.units > 1 else found[:, 0]


class Masker:
    """From the columns that are kept to the background's rows with the cells of a row there. shap's take no strings."""

    def __init__(self, background: np.ndarray):
        self.background, self.shape = background, background.shape

    def __call__(self, kept: np.ndarray, row: np.ndarray) -> tuple[np.ndarray]:
        return (np.where(kept, row, self.background),)


def shap_arguments(
    model: Any, background: pd.DataFrame, task: str | None = None, *, batch_size: int = 4096
) -> tuple[Scores, Masker]:
    """The function and the masker that shap's explainers take, for rows with strings and numbers as they come.

        explainer = shap.Explainer(*shap_arguments(model, table.sample(50), "click"))
        explainer(table[model.transform.columns].head()).values

    A column that is masked has the cells of the background's rows, whose mean score is what parts are compared with.
    shap comes with `pip install mtl-zoo[shap]`; this function itself needs nothing of it. It knows nothing of a model
    but its scores, of which it asks for hundreds a row: `explain` needs fewer.

    Args:
        model: A model that was made with a transform.
        background: Rows to compare with, tens rather than thousands.
        task: Name of the output. Default: the only one.
        batch_size: Rows at once.

    Returns:
        A function from rows, a DataFrame or an array in the order of `model.transform.columns`, to scores, (rows,) or
        (rows, classes); and a masker.

    Raises:
        ValueError: The model has no transform, or no such output; `background` has no row or lacks a column.
        TypeError: `background` is no DataFrame.

    Example:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model
    >>> from mtl_zoo.explanations import shap_arguments
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo"], "click": [0, 1]})
    >>> model = create_model("shared_bottom", FeatureTransform([Categorical("city")], [BinaryTask("click")]).fit(table))
    >>> scores, masker = shap_arguments(model, table)
    >>> (rows,) = masker(np.array([False]), np.array(["Bonn"], object))
    >>> rows[:, 0].tolist(), scores(rows).shape
    (['Rome', 'Oslo'], (2,))

    Reference: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017, arXiv:1705.07874.
    """
    columns, output = list(require_transform(model).columns), output_of(model, task)
    if not isinstance(background, pd.DataFrame):
        raise TypeError(f"`background` must be a DataFrame. Received: {type(background).__name__}")
    lacking = [name for name in columns if name not in background]
    if lacking:
        raise ValueError(f"`background` must have the columns that the model reads. Received without: {lacking}")
    if not len(background):
        raise ValueError("`background` must have at least one row. Received: none")
    rows = background[columns]
    return Scores(model, columns, rows.dtypes, output, batch_size), Masker(rows.to_numpy(object))
