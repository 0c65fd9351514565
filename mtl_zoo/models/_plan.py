from __future__ import annotations

from typing import Any

from mtl_zoo.features.spec import as_features, require_fitted
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.heads import Head, Towers
from mtl_zoo.tasks import as_tasks


class ModelPlan:
    """What every model starts from: its checked features, tasks and head, and the towers that a backbone must feed.

    Args:
        features: Feature specs, or a fitted `FeatureTransform`, which then travels with the model.
        tasks: The tasks. None: those of the transform.
        head: A `Head`. Default: `Towers()`, one tower a task.
    """

    def __init__(self, features: Any, tasks: Any = None, head: Head | None = None):
        self.transform = features if isinstance(features, FeatureTransform) else None
        if self.transform is not None and not self.transform.is_fitted:
            raise ValueError(
                "`features` must be a fitted FeatureTransform. Call its fit() on the training table first."
            )
        self.features = as_features(features if self.transform is None else self.transform.features)
        require_fitted(self.features)
        self.tasks = as_tasks(self._tasks_or_those_of_transform(tasks))
        self.head = Towers() if head is None else head
        if not isinstance(self.head, Head):
            raise TypeError(f"`head` must be a Head, such as EntireSpace(). Received: head={head!r}")
        self.towers = self.head.tower_names(self.tasks)
        self.outputs = self.head.outputs(self.tasks)

    def _tasks_or_those_of_transform(self, tasks):
        if tasks is None and self.transform is None:
            raise ValueError("`tasks` must be given where `features` is no FeatureTransform. Received: tasks=None")
        return self.transform.tasks if tasks is None else tasks
