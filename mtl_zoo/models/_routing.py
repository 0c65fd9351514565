"""The body of SNR-Trans and SNR-Aver, which differ in the connections alone."""

from __future__ import annotations

from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo.layers import ExpertBank, SubNetworkRouting, UnstackColumns
from mtl_zoo.models._plan import ModelPlan


def route_experts(
    plan: ModelPlan,
    inputs: Any,
    num_levels: int,
    num_experts: int,
    expert_units: Any,
    transform: bool,
    seed: int | None,
    constants: dict[str, float],
) -> dict[str, Any]:
    """Levels of sub-networks, routed to each other and to the towers: (batch, units) by tower name.

    Args:
        transform: Whether a matrix turns what each connection passes on.
        seed: Of the gates' samples; every level draws its own.
        constants: Of the gates: `l0`, `beta`, `gamma`, `zeta`, `log_alpha`.
    """
    check.check_count("num_levels", num_levels)

    def route(outputs, level, name):
        own_seed = None if seed is None else seed + level
        return SubNetworkRouting(outputs, transform, **constants, seed=own_seed, name=name)

    u = ExpertBank(num_experts, expert_units, name="level_0")(plan.embed(inputs))
    for level in range(1, num_levels):
        v = route(num_experts, level, f"routes_{level}")(u)
        u = ExpertBank(num_experts, expert_units, name=f"level_{level}")(v)
    v = route(len(plan.towers), num_levels, "tower_routes")(u)
    return dict(zip(plan.towers, UnstackColumns(name="columns")(v), strict=True))
