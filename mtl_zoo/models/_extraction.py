"""What CGC and each level of PLE are made of: experts of one task or of all, and gates over some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo.layers import ExpertBank, ExpertMixture, make_gate

SHARED = "shared"


@dataclasses.dataclass(frozen=True)
class Experts:
    """The experts of one owner at one level.

    Args:
        names: How each is called in reports of gates.
        outputs: (batch, experts, units); None where there are none.
    """

    names: tuple[str, ...] = ()
    outputs: Any = None


def check_extraction(towers: Sequence[str], num_task_experts: int, num_shared_experts: int) -> None:
    """Numbers of experts may be 0, though not both; no task may bear the name of what is shared."""
    check.check_count("num_task_experts", num_task_experts, minimum=0)
    check.check_count("num_shared_experts", num_shared_experts, minimum=0)
    if not num_task_experts and not num_shared_experts:
        raise ValueError(
            "`num_task_experts` and `num_shared_experts` must not both be 0. "
            "Received: num_task_experts=0, num_shared_experts=0"
        )
    if SHARED in towers:
        raise ValueError(
            f"`tasks` must not hold one named {SHARED!r}, the name of the experts of all tasks. "
            f"Received: {list(towers)}. Rename it, for example to 'share'"
        )


def make_experts(owner: str, count: int, expert_units: Any, x: Any, suffix: str = "") -> Experts:
    """`count` experts that read x, (batch, width).

    A bank for each owner, though one for all would do where all read the same x: then a task's private experts are
    variables of their own (`task_variables`), and not rows of what looks shared.
    """
    if not count:
        return Experts()
    bank = ExpertBank(count, expert_units, name=f"{owner}_experts{suffix}")
    return Experts(tuple(f"{owner}_{i}" for i in range(count)), bank(x))


def select(reader: str, selector: Any, groups: Sequence[Experts], gate: Any, suffix: str = "") -> Any:
    """`softmax(W selector) S`, with S the experts of `groups`, one after the other: (batch, units)."""
    names = [name for group in groups for name in group.names]
    outputs = [group.outputs for group in groups if group.names]
    selected = outputs[0]
    if len(outputs) > 1:
        selected = keras.layers.Concatenate(axis=1, name=f"{reader}_selected{suffix}")(outputs)
    weights = make_gate(len(names), gate, expert_names=names, name=f"{reader}_gate{suffix}")(selector)
    return ExpertMixture(name=f"{reader}_mixture{suffix}")(weights, selected)
