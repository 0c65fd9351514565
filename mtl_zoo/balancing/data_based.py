from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing, check_by_loss
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("data_based")
class DataBased(LossBalancing):
    """Data-based weights: constants computed from the labels, larger for labels that are rare or vary little.

        w_k = T f_k^-power / sum_j f_j^-power

    `f_k` is the share of positive rows of a binary label, or the variance of a numeric label.
    `label_frequencies(model, labels)` computes them from the training labels; they must be given, since a balancing
    method sees losses only. The weights sum to T.

    Args:
        frequencies: The `f_k` of every loss, as a dict of numbers above 0 by name.
        power: The power of the inverse frequency. 0.5 is its root, which is gentler where one label is a thousand times
            rarer than another.
        name: The method's name in Keras.

    Raises:
        ValueError: If there are no frequencies or one is not above 0; when the model is compiled, if a name is not a
            loss or a loss is missing.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import DataBased
    >>> method = DataBased({"click": 0.04, "conversion": 0.01})
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> method.weigh(np.ones(2, "float32"), np.ones(2, "float32")).numpy().round(4).tolist()
    [0.4000000059604645, 1.600000023841858]

    Reference: the inverse frequency of classes, applied to tasks; a baseline rather than a paper's method.
    """

    def __init__(
        self, frequencies: Mapping[str, float] | None = None, power: float = 1.0, name: str | None = None
    ) -> None:
        super().__init__(name)
        if frequencies is None:
            raise ValueError(
                "`frequencies` must be a dict of numbers by loss name, as `label_frequencies(model, labels)` gives. "
                "Received: frequencies=None"
            )
        self.frequencies = check_by_loss("frequencies", frequencies, above=0) or {}
        self.power = check.check_number("power", power, minimum=0)

    def make_state(self, count: int) -> None:
        raised = [f**-self.power for f in self.by_loss("frequencies", self.frequencies, 1.0)]
        self.values = tuple(count * value / sum(raised) for value in raised)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        return ops.convert_to_tensor(self.values, "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "frequencies": dict(self.frequencies), "power": self.power}


def label_frequencies(model: Any, labels: Mapping[str, Any]) -> dict[str, float]:
    """How rare each loss's label is, over its observed rows, for `DataBased`.

    It is the share of ones of a binary label, the variance of a numeric label in the unit of its loss (1 if it is
    standardised), and for classes with shares `p_c` the chance that two rows differ, `1 - sum_c p_c^2`. The labels are
    those that the model's head trains on; in a funnel that includes the label of the product.

    Args:
        model: A model of the zoo.
        labels: The label columns, as a dict of arrays by name, with the columns of sample spaces.

    Raises:
        ValueError: If a label has no positive row (or, as a number or class, never varies), or has no observed row.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.balancing import label_frequencies
    >>> tasks = [BinaryTask("click"), BinaryTask("like")]
    >>> model = create_model("shared_bottom", [Numeric("age")], tasks)
    >>> label_frequencies(model, {"click": np.array([1, 0, 0, 0]), "like": np.array([1, 0, np.nan, np.nan])})
    {'click': 0.25, 'like': 0.5}
    """
    labels = {name: np.asarray(values, "float32").reshape(-1) for name, values in labels.items()}
    targets = model.targets(labels)
    frequencies = {}
    for loss, output in model.head.losses(model.tasks).items():
        y, observed = (ops.convert_to_numpy(values) for values in targets[output.name])
        y = y[observed > 0].astype("float64")
        frequencies[loss] = output.task.label_frequency(y) if len(y) else 0.0
        if not frequencies[loss] > 0:
            raise ValueError(
                f"`labels` must hold positive, or different, observed values for every loss. Received none for {loss!r}"
            )
    return frequencies
