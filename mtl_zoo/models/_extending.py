"""A model that goes on with a transform that knows more ids: its tables and their optimizer's slots grow by row."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend, _distribute, _keras_private
from mtl_zoo import _validation as check
from mtl_zoo.features.requests import FIRST_ID, UNKNOWN_ID
from mtl_zoo.features.spec import features_to_config
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models._retrieval import item_counts

logger = logging.getLogger(__name__)

ROWS = ("initializer", "mean", "unknown")


def extended(model: Any, transform: Any, rows: str) -> Any:
    """What `MultiTaskModel.extended` gives."""
    check.check_choice("rows", rows, ROWS)
    if model.transform is None:
        raise ValueError(
            "`transform` extends that of a model which was made with one. Received: a model made from feature specs"
        )
    if not isinstance(transform, FeatureTransform) or not transform.is_fitted:
        raise ValueError(f"`transform` must be a fitted FeatureTransform. Received: transform={transform!r}")
    if any(_backend.row_scales(variable) is not None for variable in model.weights):
        raise ValueError(
            "`extended` needs float32 tables, whose rows can be trained. Received: a model with int8 tables. Extend "
            "the model that `quantize` was given, and quantize the result"
        )
    copying = [task.name for task in model.tasks if not task.is_labelled and task.copies_tables]
    if copying:
        raise ValueError(
            f"`extended` cannot grow the tables that a teacher has of its own. Received: {copying}. Make the model "
            "with MeanTeacherTask(tables=False)"
        )
    transform.require_extension_of(model.transform)
    with _backend.scope_of(model):
        made = type(model).from_config({**model.get_config(), "features": features_to_config(transform.features)})
        made.take_transform(transform)
        made.trained_rows = model.trained_rows
        tables = _tables(model, made, transform)
        _freeze_alike(model, made)
        if model.compiled:
            made.compile_from_config(model.get_compile_config())
    _carry_over(_own_variables(model), _own_variables(made), [*tables, *_counts(model, made, transform)])
    for table in tables:
        table.start_new_rows(rows)
    if model.compiled and model.optimizer is not None and model.optimizer.built:
        _carry_slots(model.optimizer, made.optimizer, tables)
    grown = {name: count for table in tables for name, count in table.new_rows().items() if count}
    logger.info("rows that are new, by table: %s", grown or "none")
    return made


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """A fused table of the old model, and of the new one.

    Args:
        old, new: The variables that hold its rows, in order.
        parts: For each table within, its name, (first row, rows) in both, the ids whose rows start anew, and those that
            stood for no value.
    """

    old: list[Any]
    new: list[Any]
    parts: list[tuple[str, tuple[int, int], tuple[int, int], np.ndarray, np.ndarray]]

    def moves(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that are kept: where they are in the old table, and in the new one."""
        before, after = [], []
        for _, (old, size), (new, _), fresh, _ in self.parts:
            ids = np.setdiff1d(np.arange(size), fresh)
            before.append(old + ids)
            after.append(new + ids)
        return np.concatenate(before), np.concatenate(after)

    def carry(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Copies the rows that are kept from `old` to `new`, variables of the shards; the others stay as they are."""
        matrix, (before, after) = _joined(new), self.moves()
        matrix[after] = _joined(old)[before]
        _assign(new, matrix)

    def start_new_rows(self, rows: str) -> None:
        """Gives rows without a past the mean of the known ones, or what is known of unknown values."""
        if rows == "initializer":
            return
        matrix = _joined(self.new)
        for _, (_, size), (first, _), fresh, free in self.parts:
            known = np.setdiff1d(np.arange(FIRST_ID, size), np.concatenate([fresh, free]))
            if len(fresh) and rows == "unknown":
                matrix[first + fresh] = matrix[first + UNKNOWN_ID]
            elif len(fresh) and len(known):
                matrix[first + fresh] = matrix[first + known].mean(axis=0, dtype=np.float64)
        _assign(self.new, matrix)

    def new_rows(self) -> dict[str, int]:
        return {name: len(fresh) for name, _, _, fresh, _ in self.parts}


def _tables(model: Any, made: Any, transform: Any) -> list[_Table]:
    """The fused tables of both models."""
    layers = [[layer for layer in m.layers if isinstance(layer, FeatureEmbedding)] for m in (model, made)]
    found = []
    for old, new in zip(*layers, strict=True):
        for (was, old_parts), (group, new_parts) in zip(old.tables_by_group(), new.tables_by_group(), strict=True):
            reads = {place.request.table: place.name for place in group.places}
            parts = [
                (name, was.tables[name], rows, *transform.ids_since(model.transform, reads[name]))
                for name, rows in group.tables.items()
            ]
            found.append(_Table(old_parts, new_parts, parts))
    return found


def _counts(model: Any, made: Any, transform: Any) -> list[_Table]:
    """What counts items by their ids: those that came were not met yet."""
    found = []
    for (name, was), (_, now) in zip(item_counts(model), item_counts(made), strict=True):
        rows = [(0, variable.shape[0]) for variable in (was, now)]
        found.append(_Table([was], [now], [(name, rows[0], rows[1], *transform.ids_since(model.transform, name))]))
    return found


def _joined(shards: Sequence[Any]) -> np.ndarray:
    """All rows that variables hold; of several, each ends in a spare row."""
    arrays = [np.array(keras.ops.convert_to_numpy(shard)) for shard in shards]
    return arrays[0] if len(arrays) == 1 else np.concatenate([array[:-1] for array in arrays])


def _assign(shards: Sequence[Any], matrix: np.ndarray) -> None:
    if len(shards) == 1:
        shards[0].assign(matrix)
        return
    start = 0
    for shard in shards:
        array = np.array(keras.ops.convert_to_numpy(shard))
        array[:-1] = matrix[start : start + len(array) - 1]
        shard.assign(array)
        start += len(array) - 1


def _freeze_alike(model: Any, made: Any) -> None:
    for old, new in zip(model.layers, made.layers, strict=True):
        if not old.trainable:
            new.trainable = False
    for old, new in zip(model.weights, made.weights, strict=False):
        if old.trainable != new.trainable:
            new.trainable = old.trainable


def _own_variables(model: Any) -> list[Any]:
    """Weights, seeds and the balancing method's state."""
    left_out = {id(v) for v in _distribute.metric_variables(model)}
    return [variable for variable in model.variables if id(variable) not in left_out]


def _carry_over(old: list[Any], new: list[Any], tables: Sequence[_Table]) -> None:
    in_tables = {id(variable) for table in tables for variable in (*table.old, *table.new)}
    old, new = ([variable for variable in every if id(variable) not in in_tables] for every in (old, new))
    unlike = [(a, b) for a, b in zip(old, new, strict=True) if tuple(a.shape) != tuple(b.shape)]
    if unlike:
        a, b = unlike[0]
        raise ValueError(
            "`transform` must not bring values of a feature on whose number weights outside of tables depend, such as "
            f"that of the domain. Received: the weight {a.path!r} of shape {tuple(a.shape)} would have "
            f"{tuple(b.shape)}. Name the feature in `fixed`: transform.extend(table, fixed=[...])"
        )
    for a, b in zip(old, new, strict=True):
        b.assign(keras.ops.copy(a))  # a variable of JAX would hold the other's buffer, which training gives away
    for table in tables:
        table.carry(table.old, table.new)


def _carry_slots(old: Any, new: Any, tables: Sequence[_Table]) -> None:
    """Copies an optimizer's state: rows of slots as rows of their tables, everything else whole."""
    by_row = set()
    for (_, was, before), (_, variables, after) in zip(
        _keras_private.slot_lists(old), _keras_private.slot_lists(new), strict=True
    ):
        old_slots = {id(v): slot for v, slot in zip(was, before, strict=True)}
        slots = {id(v): slot for v, slot in zip(variables, after, strict=True)}
        for table in tables:
            if not all(_is_by_row(slots.get(id(v)), v) for v in table.new):
                continue
            own = [slots[id(v)] for v in table.new]
            table.carry([old_slots[id(v)] for v in table.old], own)
            by_row |= {id(slot) for slot in own}
    for a, b in zip(old.variables, new.variables, strict=True):
        if id(b) not in by_row:
            b.assign(keras.ops.copy(a))


def _is_by_row(slot: Any, variable: Any) -> bool:
    """Whether a slot has a number, or a vector, for each row of its weight."""
    return getattr(slot, "shape", None) is not None and len(slot.shape) > 0 and slot.shape[0] == variable.shape[0]
