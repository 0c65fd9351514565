"""Heads: from what a backbone gives each tower to named logits, their labels and their losses."""

from mtl_zoo.heads._base import Head, Output, RowLosses, observed
from mtl_zoo.heads._beside import beside
from mtl_zoo.heads.action_funnel import ActionFunnel
from mtl_zoo.heads.cascade import Cascade
from mtl_zoo.heads.counterfactual_twin import CounterfactualTwin
from mtl_zoo.heads.doubly_robust import DoublyRobust
from mtl_zoo.heads.entire_space import EntireSpace
from mtl_zoo.heads.inverse_propensity import InversePropensity
from mtl_zoo.heads.towers import Towers
from mtl_zoo.heads.transfer_chain import TransferChain

__all__ = [
    "ActionFunnel",
    "Cascade",
    "CounterfactualTwin",
    "DoublyRobust",
    "EntireSpace",
    "Head",
    "InversePropensity",
    "Output",
    "RowLosses",
    "Towers",
    "TransferChain",
    "beside",
    "observed",
]
