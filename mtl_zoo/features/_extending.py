"""What becomes of a fitted transform when later data come: a frozen copy, other entity tables, more ids."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features import _fitted as _learned
from mtl_zoo.features import _several
from mtl_zoo.features import entities as _entities
from mtl_zoo.features._columns import EMPTY
from mtl_zoo.features._growth import Growth, GrowthRules
from mtl_zoo.features._joined import Joined
from mtl_zoo.features.base import Feature, as_features
from mtl_zoo.features.entities import EntityTable

logger = logging.getLogger(__name__)


class Extending:
    """Base of `FeatureTransform`: what is made of a fitted transform, which itself stays as it is."""

    # What `FeatureTransform` holds.
    features: Any
    tasks: Any
    unseen: Any
    _specs: tuple[Feature, ...]
    _entities: tuple[EntityTable, ...]
    _fitted: _learned.Fitted | None
    _growth: dict[str, Growth]
    _graph: Any
    _is_frozen: bool

    def _require_fitted(self) -> _learned.Fitted:
        if self._fitted is None:
            raise ValueError(
                "`fit` must be called first, with the training table. Received: a transform not yet fitted"
            )
        return self._fitted

    def frozen(self) -> Any:
        """A copy that cannot be fitted again: what a model owns. Fitting this one again does not touch the copy.

        Raises:
            ValueError: The transform is not fitted.
        """
        self._require_fitted()
        copied = copy.copy(self)
        copied._is_frozen, copied.unseen = True, {}
        return copied

    @property
    def entities(self) -> tuple[EntityTable, ...]:
        """The entity tables; of a transform that was loaded, with the columns that features read."""
        return self._entities

    def with_entities(self, entities: EntityTable | Sequence[EntityTable]) -> Any:
        """A transform with other entity tables and all that this one has learned: what is known of entities now.

        Nothing is learned from the new tables, so ids and scales stay what a model was trained on. A new entity's
        values that are in no vocabulary are unknown.

        Args:
            entities: New tables in place of those of the same names; tables that are not named stay.

        Raises:
            ValueError: The transform is not fitted; a table is none of its own, is keyed by other ids, or lacks a
                column that is read.
        """
        fitted, tables = self._require_fitted(), _entities.replaced(self._entities, entities)
        changed = copy.copy(self)
        changed._entities, changed._fitted = tables, fitted.with_tables(tables)
        changed._graph, changed.unseen = None, {}
        return changed

    def extend(
        self,
        table: Any,
        *,
        min_count: int | None = None,
        evict_after: int | None = None,
        numbers: str = "keep",
        fixed: Sequence[str] = (),
        features: Feature | Sequence[Feature] = (),
        entities: EntityTable | Sequence[EntityTable] = (),
    ) -> Any:
        """A new transform that also knows the values of a later table; this one stays as it is.

        What a value's id is never changes. Learned vocabularies (`Categorical`, `Sequence`, `Neighbours`) grow: values
        that they lack get the next ids, the most frequent first. What was given stays: `vocabulary`, `size`,
        `hash_buckets`. So do the pieces of texts, the boundaries of `"quantile"`, the moments and years of dates and
        vectors, the lengths of lists, and which features have an input that says what is missing. Neighbours are looked
        up among all ids that there are now, so a node that had no id may become a neighbour.

        Call it with each day's (or week's) table in turn, and give the result to `model.extended`.

        Args:
            table: The later table, or `JointSources`. Labels are not read. Of a transform that was fitted on several
                sources it may lack what one of them lacked, as in `encode`.
            min_count: A value gets an id once it has been seen this often in this and earlier tables of `extend`
                together (what `fit` left out is not remembered). Default: each feature's own `min_count`.
            evict_after: A value that none of the last `evict_after` tables held loses its id, which the next new value
                takes; until then it stands for none, and ids do not move. The table of `fit` counts as one. Values that
                wait for `min_count` are forgotten after the same time. Default: nothing is evicted.
            numbers: `"keep"`: moments of numbers stay those of `fit`, so that what the model has learned of a scale
                stays true. `"refit"`: `Numeric` takes the mean, deviation and fill of this table.
            fixed: Names of features whose vocabulary stays, too, such as the one that names a row's domain.
            features: Specs in place of those of the same names, which differ only in what is no part of a model, such
                as `Neighbours` with the edges of today.
            entities: New entity tables in place of those of the same names, see `with_entities`.

        Returns:
            A `FeatureTransform`. Its `growth` tells what the table brought, by feature.

        Raises:
            ValueError: The transform is not fitted; the table is empty, lacks a column or holds other kinds of values
                than the training table; an argument is out of its range, or names what is not there.

        Example:

        >>> from mtl_zoo import Categorical, FeatureTransform
        >>> monday = FeatureTransform(Categorical("item")).fit({"item": ["a", "a", "b"]})
        >>> tuesday = monday.extend({"item": ["c", "a", "c"]})
        >>> [t.encode({"item": ["a", "b", "c"]})["item"].tolist() for t in (monday, tuesday)]
        [[2, 3, 1], [2, 3, 4]]
        >>> tuesday.growth[["name", "ids", "new", "unknown"]].round(2)
           name  ids  new  unknown
        0  item    5    1     0.67
        """
        before, rules = self._require_fitted(), GrowthRules(min_count, evict_after, numbers)
        names = [feature.name for feature in before.features]
        odd = [name for name in fixed if name not in names]
        if isinstance(fixed, str) or odd:
            raise ValueError(f"`fixed` must list features. Received: fixed={fixed!r}. Features: {names}")
        changed = copy.copy(self)
        changed._specs = _replaced(self._specs, (features,) if isinstance(features, Feature) else tuple(features))
        if isinstance(entities, EntityTable) or len(entities):
            changed._entities = _entities.replaced(self._entities, entities)
        joined = Joined.of(changed._specs, changed._entities)
        frame = _several.later_table(table, _learned.readers_of(changed._specs, joined), before.absent)
        changed._fitted, changed._growth = _extended(before, changed._specs, frame, joined, rules, fixed)
        changed._graph, changed.unseen = None, {}
        shown = {name: growth.new for name, growth in changed._growth.items() if growth.new}
        logger.info("extended by new values of %s", shown or "no feature")
        return changed

    @property
    def growth(self) -> pd.DataFrame:
        """What the last `extend` changed: a row a feature, none without one.

        Columns: `name`; `rule` (`"grows"`, `"stays"`, `"fixed"` or `"refitted"`); `ids`, the rows of its table now;
        `new`, values that got an id; `reused`, those of them that took an evicted one's; `evicted`, values that lost
        theirs; `waiting`, values that were not seen `min_count` times yet; `unknown`, the share of the table's cells
        whose value had no id before.
        """
        columns = ["name", *(field.name for field in dataclasses.fields(Growth))]
        rows = [{"name": name, **dataclasses.asdict(growth)} for name, growth in self._growth.items()]
        return pd.DataFrame(rows, columns=columns).astype({"ids": "Int64"})

    def require_extension_of(self, before: Any, argument: str = "transform") -> None:
        """Refuses this transform where a model that was made with `before` would read its ids as others.

        Args:
            before: The fitted transform of a model.
            argument: What this one is called in the error.

        Raises:
            ValueError: A value that `before` knows has another id; a feature or a task is another one.
        """
        now, then = self._require_fitted(), before._require_fitted()
        if now is then:
            return
        shapes = [[_fixed_config(feature) for feature in fitted.features] for fitted in (then, now)]
        labels = [[task.arrays_config() for task in tasks] for tasks in (before.tasks, self.tasks)]
        for name, (old, new) in {"features": shapes, "tasks": labels}.items():
            if old != new:
                unlike = [str(a or b) for a, b in _pairs(old, new) if a != b]
                raise ValueError(
                    f"`{argument}` must have the {name} of the model's transform, whose `extend` makes one that has. "
                    f"Received: {len(unlike)} others, first {unlike[0]:.300}"
                )
        self.refuse_other_ids(before, argument)

    def refuse_other_ids(self, before: Any, argument: str) -> None:
        """Refuses `before` where it gives a value that this transform knows, in a feature of both, another id.

        Args:
            before: A fitted transform, older than this one if they are not the same.
            argument: What is read with one of them, in the error.

        Raises:
            ValueError: A value has two ids.
        """
        now, then = self._require_fitted(), before._require_fitted()
        names = {feature.name for feature in then.features}
        for feature in now.features:
            old = then.states.get(feature.state_key) if feature.name in names else None
            state = now.state_of(feature)
            why = "" if old is None or state is old else state.moved_from(old)
            if why:
                raise ValueError(
                    f"`{argument}` must give the ids that the model was trained with. Received, for feature "
                    f"{feature.name!r}: {why}. A transform that was fitted again has other ids; model.transform.extend("
                    "table) makes one that adds to them, for model.extended(transform)"
                )

    def ids_since(self, before: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Of a feature: ids whose value is another than in the transform `before`, and ids that stood for none there.

        Args:
            before: A transform that this one is an extension of.
            name: Of the feature.
        """
        now, then = self._require_fitted(), before._require_fitted()
        feature = next(feature for feature in now.features if feature.name == name)
        state, old = now.state_of(feature), then.states.get(feature.state_key)
        if state is None or old is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return state.new_ids(old), old.free_ids()


def _pairs(old: list[Any], new: list[Any]) -> list[tuple[Any, Any]]:
    size = max(len(old), len(new))
    return list(zip(old + [None] * (size - len(old)), new + [None] * (size - len(new)), strict=True))


def _fixed_config(feature: Feature) -> dict[str, Any]:
    """What a feature must keep for a model of it to go on."""
    return {name: value for name, value in feature.get_config().items() if name not in feature.grows}


def _replaced(specs: tuple[Feature, ...], features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The specs, those of `features` in place of those of the same names."""
    if not features:
        return specs
    new = {feature.name: feature for feature in as_features(features)}
    old = {spec.name: spec for spec in specs}
    if set(new) - set(old):
        raise ValueError(
            f"`features` must take the place of features of the transform. Received: {sorted(set(new) - set(old))}. "
            f"Expected: names among {list(old)}"
        )
    made = as_features([new.get(name, spec) for name, spec in old.items()])
    for spec in made:
        if spec.get_config() != old[spec.name].get_config():
            raise ValueError(
                f"`features` must be those of the transform, save for what is no part of a model. Received: {spec!r} "
                f"in place of {old[spec.name]!r}"
            )
    return made


def _extended(
    before: _learned.Fitted,
    specs: tuple[Feature, ...],
    frame: pd.DataFrame,
    joined: tuple[Joined, ...],
    rules: GrowthRules,
    fixed: Sequence[str],
) -> tuple[_learned.Fitted, dict[str, Growth]]:
    """What was learned, with another table's values, and what that changed by feature."""
    columns = _learned.Training.read(specs, frame, joined).columns
    for spec in specs:
        before.columns[spec.source].check(columns[spec.source], spec.name)
    readings = {s.name: s.read(columns[s.source]) for s in specs if columns[s.source].kind != EMPTY}
    groups: dict[Any, list[Feature]] = {}
    for spec in specs:
        groups.setdefault(spec.state_key or spec.name, []).append(spec)
    states: dict[Any, Any] = dict(before.states)
    growth: dict[str, Growth] = {}
    for key, group in groups.items():
        teach = [spec for spec in group if not spec.borrows] or group
        sharing = [(spec, readings[spec.name]) for spec in teach if spec.name in readings]
        state, change = teach[0].extended(before.states.get(key), sharing, rules)
        if any(spec.name in fixed for spec in group):
            change = Growth("fixed", ids=change.ids, unknown=change.unknown)
        elif state is not None:
            states[key] = state
        growth |= {spec.name: change for spec in group}
    old = {feature.name: feature for feature in before.features}
    sized = _learned.beside(s.resized(states.get(s.state_key), old[s.name].sizes()) for s in specs)
    ids = {spec.name: getattr(states.get(spec.state_key), "num_ids", None) for spec in specs}
    growth = {name: dataclasses.replace(change, ids=ids[name]) for name, change in growth.items()}
    return dataclasses.replace(before, features=sized, states=states, joined=joined), growth
