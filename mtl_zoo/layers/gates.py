from __future__ import annotations

from collections.abc import Sequence

from mtl_zoo.layers.dselect_gate import DSelectKGate
from mtl_zoo.layers.expert_gate import BaseGate, ExpertGate
from mtl_zoo.options import DSelectK, Gate, as_gate


def make_gate(
    num_experts: int,
    gate: Gate | DSelectK | None = None,
    *,
    expert_names: Sequence[str] | None = None,
    name: str | None = None,
) -> BaseGate:
    """Makes the layer for a gate's options: a `DSelectKGate` for a `DSelectK`, an `ExpertGate` for a `Gate` or None.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import Gate
    >>> from mtl_zoo.layers import make_gate
    >>> make_gate(3, Gate(temperature=2.0))(np.ones((5, 8), "float32")).shape[1]
    3
    """
    gate = as_gate(gate)
    if isinstance(gate, DSelectK):
        return DSelectKGate(num_experts, gate, expert_names, name=name)
    return ExpertGate(num_experts, gate, expert_names, name=name)
