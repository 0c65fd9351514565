"""The towers of tasks that compare the two sides of a row: their place in a model's graph, and each as a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _validation as check
from mtl_zoo.features.spec import Feature
from mtl_zoo.layers import DenseStack, MissingInputs, SideVector, UserItemPair
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.serving.columns import checked_arrays, encoded_columns
from mtl_zoo.tasks import Task

SIDES = ("user", "item")


def pair_logits(plan: ModelPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The logits of every such task, by name: a user's and an item's vector, side by side.

    Raises:
        ValueError: A side has no features, or the item's id is not known.
    """
    tasks = [task for task in plan.tasks if task.compares_sides]
    if not tasks:
        return {}
    if not plan.lookups:
        plan.embedding_layer(joined=True)(inputs)
    lookup = plan.lookups[0]
    logits = {}
    for task in tasks:
        ids = _item_feature(plan, task)
        vectors = [_tower(plan, task, side, lookup) for side in SIDES]
        pair = UserItemPair(ids.embed().num_ids, name=f"{task.name}_pair")  # type: ignore[union-attr]
        logits[task.name] = pair(*vectors, inputs[ids.name])
    return logits


def _tower(plan: ModelPlan, task: Any, side: str, lookup: Any) -> Any:
    """A side's vector of length 1, (batch, width), which the layer `<task>_<side>_vector` gives."""
    bounds = lookup.bounds()
    names = [f.name for f in plan.features if f.side == side and f.name in bounds]
    if not names:
        raise ValueError(
            f"`features` must have some with side={side!r} for the retrieval task {task.name!r}. Received: sides "
            f"{ {f.name: f.side for f in plan.features} }"
        )
    stem = f"{task.name}_{side}"
    if lookup.joined:
        x = SideVector([bounds[name] for name in names], name=f"{stem}_features")(lookup.output)
    else:
        # Keras gives a dict of tensors as a list, in the order of its sorted keys.
        known = dict(zip(sorted(bounds), keras.tree.flatten(lookup.output), strict=True))
        x = SideVector(name=f"{stem}_features")([known[name] for name in names])
    if len(task.tower_units) > 1:
        x = DenseStack(task.tower_units[:-1], name=f"{stem}_tower")(x)
    x = keras.layers.Dense(task.tower_units[-1], name=f"{stem}_linear", dtype="float32")(x)
    return keras.layers.UnitNormalization(name=f"{stem}_vector", dtype="float32")(x)


def _item_feature(plan: ModelPlan, task: Any) -> Feature:
    known = {f.name: f for f in plan.read_features if f.side == "item" and f.is_id}
    name = next(iter(known)) if task.item is None and len(known) == 1 else task.item
    if name not in known:
        raise ValueError(
            f"`item` of the retrieval task {task.name!r} must name the feature with side='item' that is the item's id. "
            f"Received: item={task.item!r}. Expected: one of {list(known)}"
        )
    return known[name]


def item_counts(model: Any) -> list[tuple[str, Any]]:
    """For each such task the name of the feature that is the item's id, and the weight that counts its ids."""
    tasks = [task for task in model.tasks if task.compares_sides]
    return [(_item_feature(model._plan, task).name, model.get_layer(f"{task.name}_pair").counts) for task in tasks]


# Each side as a model.


def retrieval_task(model: Any, name: str | None) -> Task:
    """The task that an argument `task` names: by default the only one."""
    known = {task.name: task for task in model.tasks if task.compares_sides}
    chosen = next(iter(known)) if name is None and len(known) == 1 else name
    if chosen not in known:
        raise ValueError(f"`task` must name a retrieval task of the model. Received: {name!r}. Expected: {list(known)}")
    return known[chosen]


def side_features(model: Any, side: str) -> list[Feature]:
    """The features of a side, and what their encoders ask for."""
    check.check_choice("side", side, SIDES)
    return [feature for feature in model.features if feature.side == side and not feature.bias]


def side_tower(model: Any, side: str, task: str | None = None) -> keras.Model:
    """A functional model from the inputs of a side to its vectors, which shares the model's layers and weights."""
    names = [name for feature in side_features(model, side) for name in feature.input_specs()]
    title = f"{retrieval_task(model, task).name}_{side}"
    made = model._plan.towers_by_side
    if title not in made:
        whole = keras.Model(model.input, model.get_layer(f"{title}_vector").output, name=f"{title}_vectors_of_all")
        inputs = {
            name: keras.Input(model.input[name].shape[1:], dtype=model.input[name].dtype, name=name) for name in names
        }
        others = {name: tensor for name, tensor in model.input.items() if name not in inputs}
        filled = dict(inputs)
        if others:
            shapes = {name: list(tensor.shape[1:]) for name, tensor in others.items()}
            missing = MissingInputs(shapes, {n: t.dtype for n, t in others.items()}, name=f"{title}_others")
            filled |= missing(inputs[names[0]])
        made[title] = keras.Model(inputs, whole(filled), name=f"{title}_vectors")
    return made[title]


def side_vectors(model: Any, side: str, x: Any, task: str | None, batch_size: int) -> np.ndarray:
    """The vectors of rows of one side, (rows, width) float32, from a table or from arrays by input name."""
    tower, size = side_tower(model, side, task), check.check_int("batch_size", batch_size)
    if isinstance(x, pd.DataFrame | pa.Table):
        if model.transform is None:
            raise ValueError(
                "`x` may be a table only if the model was made with a fitted FeatureTransform. Received: a table"
            )
        x = model.transform.encode(x, [feature.name for feature in side_features(model, side)])
    if not isinstance(x, Mapping):
        raise ValueError(f"`x` must be a table or a dict of arrays. Received: {type(x).__name__}")
    columns = {name: column for name, column in encoded_columns(model).items() if name in tower.input}
    arrays = checked_arrays("x", {name: x[name] for name in columns if name in x}, columns)
    arrays = {name: columns[name].typed(f"x[{name!r}]", array) for name, array in arrays.items()}
    return np.asarray(tower.predict(arrays, batch_size=size, verbose=0), "float32")
