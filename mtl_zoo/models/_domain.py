"""What the models of several domains have in common: the feature that names the domain, and its shares by row."""

from __future__ import annotations

from typing import Any

from mtl_zoo.features.spec import FIRST_ID, Categorical
from mtl_zoo.layers import DomainShares
from mtl_zoo.models._plan import ModelPlan


def domain_feature(plan: ModelPlan, domain: str | None) -> Categorical:
    """The `Categorical` that names each row's domain: `domain`, by default the one called `"domain"`.

    Raises:
        ValueError: No such feature, or one that holds several values a row or is part of a fusion.
    """
    feature = plan.feature("domain", domain, "names_domain", "that holds each row's domain")
    if feature.multi_hot:
        raise ValueError(f"`domain` must hold one value a row. Received: domain={feature.name!r}, which is multi_hot")
    if any(feature.name in fusion.features for fusion in plan.embedding.fusions):
        raise ValueError(f"`domain` must not be part of a fusion. Received: domain={feature.name!r}")
    return feature


def domain_shares(feature: Categorical, inputs: dict[str, Any]) -> Any:
    """`DomainShares` of the known values of the feature: missing and unknown ones are no domain."""
    known = int(feature.num_ids or 0) - FIRST_ID
    return DomainShares(known, FIRST_ID, name="domain_shares")(inputs[feature.name])
