"""Types of the arguments that every model takes, for the annotations of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from mtl_zoo.features.spec import Feature
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.tasks import Task

Features: TypeAlias = FeatureTransform | Feature | Sequence[Feature]
Tasks: TypeAlias = Task | Sequence[Task]
