"""Names for what passes between the parts of the house: of types, for annotations, and of what a batch holds."""

from __future__ import annotations

from typing import Any, TypeAlias

# A tensor of whichever backend runs, or what that backend takes in its place: the backends have no common type.
Tensor: TypeAlias = Any
# The length of each axis; None where it is not known before the data come, as for the batch.
Shape: TypeAlias = tuple[Any, ...]
# What `get_config` returns and `from_config` takes.
Config: TypeAlias = dict[str, Any]

# The input that says which of several sources a row is from. No feature can have this name, and no model reads it.
SOURCE_INPUT = "(source)"
