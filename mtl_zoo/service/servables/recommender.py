"""A recommender, as `Recommender.save` writes it: `/recommend`, and scores of rows by its model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo.service.body import kind_of
from mtl_zoo.service.columns import Room, known_keys, to_array
from mtl_zoo.service.errors import bad_input
from mtl_zoo.service.servables._base import register_servable
from mtl_zoo.service.servables.keras_model import KerasModel

# Limits of a request: users, length of a list, ids of `candidates` and of `exclude` for a user, values of a user's row.
MOST_USERS, MOST_K, MOST_IDS, MOST_VALUES = 100, 1000, 10_000, 100_000
_KEYS = ("users", "k", "exclude_seen", "exclude", "candidates", "fusion", "diversity", "reasons", "seed")
_PLACES = ("user", "rank", "item", "score")


@register_servable("recommender")
class SavedRecommender(KerasModel):
    """The folder of a `Recommender`.

    Example:

    >>> from pathlib import Path
    >>> from mtl_zoo.service.servables import SavedRecommender
    >>> SavedRecommender.is_in(Path("a_folder_that_is_not_there"))
    False
    """

    what = "a recommender"

    def __init__(self, recommender: Any):
        super().__init__(recommender.model)
        self.recommender = recommender

    @classmethod
    def is_in(cls, path: Path) -> bool:
        return (path / "recommender.json").is_file()

    @classmethod
    def load(cls, path: Path) -> SavedRecommender:
        from mtl_zoo.recommend.recommender import Recommender

        return cls(Recommender.load(path))

    def warm_up(self) -> None:
        super().warm_up()
        users = self.recommender.users
        if users is not None and len(users):
            # Columns that requests alone know are not in the table.
            row = {name: users[name].iloc[0] for name in users.columns}
            if all(name in row for name in self.recommender.user_columns):
                self.recommender.recommend(row, k=1)

    def asked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        known_keys("The body", given, _KEYS)
        users = given.get("users")
        if not isinstance(users, list) or not 1 <= len(users) <= MOST_USERS:
            raise bad_input(f"`users` must be a list of 1 to {MOST_USERS} users. Received: {kind_of(users)}")
        found: dict[str, Any] = {"users": [self._user(place, user) for place, user in enumerate(users)]}
        for name in ("exclude", "candidates"):
            if given.get(name) is not None:
                found[name] = _ids(name, given[name], len(users))
        common: dict[str, Any] = {}
        for name, most in (("k", MOST_K), ("seed", 2**31 - 1)):
            if name in given:
                common[name] = _whole(name, given[name], most)
        for name in ("exclude_seen", "reasons"):
            if name in given and not isinstance(given[name], bool):
                raise bad_input(f"`{name}` must be true or false. Received: {kind_of(given[name])}")
            if name in given:
                common[name] = given[name]
        if given.get("diversity") is not None:
            common["diversity"] = _number("diversity", given["diversity"])
        if given.get("fusion") is not None:
            common["fusion"] = self._weights(given["fusion"])
        return {**found, "common": common}

    def _user(self, place: int, user: Any) -> Any:
        """A user's row with the columns that the model reads, or an id."""
        label = f"`users[{place}]`"
        if not isinstance(user, dict):
            return _id(label, user)
        name = self.recommender.user
        known_keys(label, user, dict.fromkeys([name, *self.recommender.user_columns]))
        room = Room(MOST_VALUES)
        for column, value in user.items():
            if isinstance(value, dict):
                raise bad_input(f"{label}, column {column!r} must not be an object.")
            if column in self.columns:
                to_array(f"{label}, column {column!r}", [value], self.columns[column], room)
            else:
                _id(f"{label}, column {column!r}", value)
        return user

    def _weights(self, weights: Any) -> dict[str, float]:
        """A weight of each task; of those that are left out it is 0."""
        if not isinstance(weights, dict) or not weights:
            raise bad_input(f"`fusion` must be an object of weights by task. Received: {kind_of(weights)}")
        known_keys("`fusion`", weights, self.recommender.tasks)
        return {task: _number(f"fusion, task {task!r}", weight) for task, weight in weights.items()}

    def recommend(self, asked: dict[str, Any], is_late: Callable[[], bool]) -> dict[str, Any]:
        lists = []
        for place, user in enumerate(asked["users"]):
            if is_late():
                break
            own = {name: asked[name][place] for name in ("exclude", "candidates") if name in asked}
            if not isinstance(user, dict):
                user = {self.recommender.user: user}
            table = self.recommender.recommend(user, **own, **asked["common"])
            items = [self._item(row) for row in table.to_dict("records")]
            lists.append({"user": user.get(self.recommender.user), "items": items})
        return {"recommendations": lists}

    def _item(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        tasks = self.recommender.tasks
        plain = {str(name): _plain(value) for name, value in row.items()}
        item = {name: plain[name] for name in _PLACES if name != "user"}
        item["scores"] = {task: plain[task] for task in tasks}
        reasons = {name: value for name, value in plain.items() if name not in (*_PLACES, *tasks)}
        return {**item, "reasons": reasons} if reasons else item


def _whole(name: str, value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise bad_input(f"`{name}` must be a whole number up to {most}. Received: {kind_of(value)}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= 1e30:
        raise bad_input(f"`{name}` must be a finite number. Received: {kind_of(value)}")
    return float(value)


def _id(label: str, value: Any) -> int | str:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, str) and value.isprintable():
        return value
    raise bad_input(f"{label} must be an id, a whole number or a string. Received: {kind_of(value)}")


def _ids(name: str, value: Any, users: int) -> list[list[int | str]]:
    """Ids for each user: one list for all, or a list of lists."""
    if not isinstance(value, list):
        raise bad_input(f"`{name}` must be a list of ids, or one for each user. Received: {kind_of(value)}")
    lists = value if value and all(isinstance(one, list) for one in value) else [value] * users
    if len(lists) != users or any(len(one) > MOST_IDS for one in lists):
        raise bad_input(f"`{name}` must be a list of ids, at most {MOST_IDS}, or one for each of {users} users.")
    found = [[_id(f"`{name}`", one) for one in ids] for ids in lists]
    if any(len(set(map(type, ids))) > 1 for ids in found):
        raise bad_input(f"`{name}` must hold ids of one type.")
    return found


def _plain(value: Any) -> Any:
    """A cell of a table as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
