"""Heads: from what a backbone gives each tower to named logits, their labels and their losses."""

from mtl_zoo.heads._base import Head, Output, observed
from mtl_zoo.heads.entire_space import EntireSpace
from mtl_zoo.heads.towers import Towers

__all__ = ["EntireSpace", "Head", "Output", "Towers", "observed"]
