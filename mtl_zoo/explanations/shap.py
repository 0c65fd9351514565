"""`score_function(model, table)`: a model as the function of rows that explainers of the library shap take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.explanations._given import output_of
from mtl_zoo.models._data import require_transform


def score_function(
    model: Any, table: pd.DataFrame, task: str | None = None, *, batch_size: int = 4096
) -> Callable[[Any], np.ndarray]:
    """A function from raw rows to scores, for shap and other libraries that know nothing of a model but its scores.

        columns = list(model.transform.columns)
        explainer = shap.Explainer(score_function(model, table), table[columns].to_numpy(object)[:50])
        explainer(table[columns].to_numpy(object)[:5])

    shap comes with `pip install mtl-zoo[shap]`; this function needs nothing of it. Masked columns take the values that
    the explainer puts there, so background rows are the baseline. `explain` needs far fewer scores.

    Args:
        model: A model that was made with a transform.
        table: A table like those that are explained, whose types of columns rows get back.
        task: Name of the output. Default: the only one.
        batch_size: Rows at once.

    Returns:
        A function of a DataFrame, or of an array (rows, columns) in the order of `model.transform.columns`. It gives
        scores, (rows,), or (rows, classes) for a task of several classes.

    Raises:
        ValueError: The model has no transform, or no such output.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model
    >>> from mtl_zoo.explanations import score_function
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo"], "click": [0, 1]})
    >>> model = create_model("shared_bottom", FeatureTransform([Categorical("city")], [BinaryTask("click")]).fit(table))
    >>> score_function(model, table)(table[["city"]].to_numpy(object)).shape
    (2,)
    """
    columns = list(require_transform(model).columns)
    types, output = table[columns].dtypes, output_of(model, task)

    def scores(rows: Any) -> np.ndarray:
        given = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(np.asarray(rows), columns=columns)
        found = model.predict(given[columns].astype(types), batch_size=batch_size, verbose=0)[output.name]
        return found if output.units > 1 else found[:, 0]

    return scores
