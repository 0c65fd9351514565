"""`gate_weights(model, rows)`: which experts a row used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._gates import GateReader
from mtl_zoo.explanations._given import index_of, inputs_of


def gate_weights(model: Any, rows: Any, *, batch_size: int = 4096) -> pd.DataFrame:
    """The weights that a model's gates give to experts, for each row.

    `gate_report` has their means, and says what is wrong with them.

    Args:
        model: A model with gates.
        rows: A table if the model was made with a transform, a split of a data set, or a dict of arrays.
        batch_size: Rows at once.

    Returns:
        A row for each row, and a column for each gate and expert (two levels). The weights of a gate add up to 1.

    Raises:
        ValueError: The model has no gates; there is no row; values that the model cannot read.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.explanations import gate_weights
    >>> features, tasks = [Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")]
    >>> model = create_model("mmoe", features, tasks, num_experts=2, expert_units=(4,))
    >>> weights = gate_weights(model, {"user_id": [2, 3, 4]})
    >>> list(weights["click_gate"].columns), weights.shape
    (['expert_0', 'expert_1'], (3, 4))
    """
    check.check_int("batch_size", batch_size)
    reader = GateReader(model)
    found = reader.by_row(inputs_of(model, rows), batch_size)
    names = [(name, expert) for name, gate in reader.gates.items() for expert in gate.expert_names]
    weights = np.concatenate([found[name] for name in reader.gates], axis=1)
    columns = pd.MultiIndex.from_tuples(names, names=["gate", "expert"])
    return pd.DataFrame(weights, columns=columns, index=index_of(rows, len(weights)))
