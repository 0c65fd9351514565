"""Why an item is in a list: what tasks and features do to its fused score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.recommend._catalogue import Catalogue
from mtl_zoo.recommend._pairs import PairScores
from mtl_zoo.recommend._ranking import Ranked, Wanted, best_rows, fuse

# At most so many candidates are the list that fused scores are compared within.
_COMPARED = 200


def explain(
    pairs: PairScores, catalogue: Catalogue, features: Sequence[Any], user: dict[str, np.ndarray], one: Ranked,
    wanted: Wanted,
) -> pd.DataFrame:  # fmt: skip
    """Effects of tasks and features on each item of a list; see `Recommender.reasons`."""
    fusion, count = wanted.fusion, len(one.rows)
    # The list's items and the best of the other candidates, since fusions of ranks look at whole lists.
    compared = np.union1d(one.places, best_rows(one.fused, _COMPARED))
    at = np.searchsorted(compared, one.places)
    scores = {name: values[compared].astype("float64") for name, values in one.all_scores.items()}
    before = fuse(fusion, scores, [len(compared)])[at] if count else np.zeros(0)

    def effects(changed: dict[str, np.ndarray]) -> np.ndarray:
        """What the fused score of each of the list's items loses if its scores alone become others."""
        lists = {name: np.tile(values, (count, 1)) for name, values in scores.items()}
        for name, values in changed.items():
            lists[name][np.arange(count), at] = values
        flat = {name: values.reshape(-1) for name, values in lists.items()}
        fused = fuse(fusion, flat, [len(compared)] * count).reshape(count, -1)
        return before - fused[np.arange(count), at]

    read = [name for name in dict.fromkeys([*fusion.tasks(), *fusion.floors]) if name in scores] or list(scores)
    means = {name: float(one.all_scores[name].mean()) if count else 0.0 for name in read}
    of_tasks = {name: effects({name: np.full(count, means[name])}) for name in read} if count else {}
    without = _without_each(pairs, catalogue, features, user, one.rows) if count else {}
    of_features = {name: effects(changed) for name, changed in without.items()}
    rows = []
    for place in range(count):
        tasks = {name: float(values[place]) for name, values in of_tasks.items()}
        parts = {name: float(values[place]) for name, values in of_features.items()}
        task, feature = (max(found, key=lambda name: found[name]) for found in (tasks, parts))
        reason = f"{task} {one.scores[task][place]:.3g} (mean {means[task]:.3g})"
        if tasks[task] <= 0:
            reason += ", below the mean"
        elif parts[feature] > 0:
            reason += f", mostly by {feature}"
        rows.append((task, tasks[task], feature, parts[feature], tasks, parts, reason))
    columns = ["task", "task_effect", "feature", "feature_effect", "task_effects", "feature_effects", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _without_each(
    pairs: PairScores, catalogue: Catalogue, features: Sequence[Any], user: dict[str, np.ndarray], rows: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Scores of a user's items where each feature is missing: id 0, and 0 of a scaled number, which is the mean."""
    names = [feature.name for feature in features]
    items = {name: array[rows] for name, array in catalogue.arrays.items()}
    users_at, items_at = dict(user), dict(items)
    for arrays, every in ((users_at, len(names)), (items_at, len(names))):
        for name, array in arrays.items():
            arrays[name] = np.tile(array, (every, *[1] * (array.ndim - 1)))
    for number, feature in enumerate(features):
        for name, spec in feature.input_specs().items():
            arrays, size = (users_at, 1) if name in users_at else (items_at, len(rows))
            arrays[name][number * size : (number + 1) * size] = spec.missing
    of_user = np.repeat(np.arange(len(names)), len(rows))
    found = pairs(users_at, items_at, of_user, np.arange(len(names) * len(rows)))
    return {
        name: {column: values.reshape(len(names), -1)[number] for column, values in found.items()}
        for number, name in enumerate(names)
    }
