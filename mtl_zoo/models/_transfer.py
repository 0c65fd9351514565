"""From a trained model to one with the same body and other tasks."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._halves import halves
from mtl_zoo.features import _labels
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models._adaptation import Adaptation
from mtl_zoo.tasks import Task, as_tasks, fitted_like

logger = logging.getLogger(__name__)

FREEZE = (None, "tables", "below")


def transfer(
    model: Any,
    tasks: Task | Sequence[Task],
    *,
    freeze: str | None = None,
    adapters: int | None = None,
    alpha: float | None = None,
    name: str | None = None,
) -> Any:
    """A new model with the body of a trained one, its features, tables, experts and transform, for other tasks.

    The new model is of the same class, with the same arguments. A weight comes over where both models have one of the
    same place and shape: all of the body, and the towers of tasks that both have. Towers, gates and experts that belong
    to a new task start anew. The old model is left as it is. `made.transferred` is a table of the weights: which came
    over, and which train. Low-rank updates that the old model has are added to their kernels. Corrections of scores,
    for sampling or by `calibrate`, do not come over.

    With `adapters`, the dense kernels W of what is frozen train by low-rank updates alone, which start as zeros:

        W' = W + (alpha / rank) A B,   A (in, rank), B (rank, out)

    What is frozen, and the updates, are saved with the model; `clone`, `export` and `Checkpoints` keep them.

    Args:
        model: A trained model of the zoo.
        tasks: The new model's tasks. Those with the name and the kind of an old one keep its tower.
        freeze: What does not train: None, nothing; `"tables"`, the embedding; `"below"`, all that the tasks share.
            Frozen batch normalisations use their running moments.
        adapters: Rank of the low-rank updates of what is frozen by `freeze="below"`; None: no updates.
        alpha: Scale of the updates. Default: None, the rank.
        name: The new model's name in Keras.

    Returns:
        A model that is not compiled.

    Raises:
        ValueError: Another `freeze`; `adapters` without `freeze="below"`, or for a body without a stack of dense layers
            or a bank of experts; a label that is a feature's column; tasks that the model cannot have.

    Warns:
        UserWarning: The old model's scores are corrected.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, SharedBottom, transfer
    >>> model = SharedBottom([Categorical("film", size=9)], [BinaryTask("click")], bottom_units=(8,))
    >>> new = transfer(model, BinaryTask("like"), freeze="below", adapters=2)
    >>> list(new.output), int(new.transferred["came_over"].sum()), len(new.transferred)
    (['like'], 3, 9)

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
    """
    check.check_choice("freeze", freeze, FREEZE)
    rank = None if adapters is None else check.check_int("adapters", adapters)
    if rank is not None and freeze != "below":
        raise ValueError(
            f"`adapters` must be None unless freeze='below', whose kernels they update. Received: adapters={adapters}, "
            f"freeze={freeze!r}"
        )
    if alpha is not None and rank is None:
        raise ValueError(f"`alpha` must be None without `adapters`. Received: alpha={alpha!r}")
    scale = float(rank or 1) if alpha is None else check.check_number("alpha", alpha, above=0)
    # A task that both have keeps the unit of its labels.
    made = _made(model, fitted_like(as_tasks(tasks), model.tasks), name)
    came = _copy_weights(model, made)
    if model.corrections:
        warnings.warn(
            "The new model's scores are not corrected as the old one's are, for sampling or by `calibrate`: give "
            "`fit(sampling=...)` and calibrate again where they are to be probabilities.",
            UserWarning,
            stacklevel=2,
        )
    if freeze is not None:
        frozen = _frozen(made, freeze, came)
        adaptation = Adaptation(tuple(frozen), rank, scale)
        if made.set_adaptation(adaptation) == 0 and rank is not None:
            raise ValueError(
                f"`adapters` must be None for a body without dense stacks or banks of experts. Received: {frozen}"
            )
    made.transferred = _report(made, came)
    _tell(made.transferred)
    return made


def _made(model: Any, tasks: tuple[Task, ...], name: str | None) -> Any:
    config = model.get_config()
    for other in ("corrections", "adaptation"):  # of weights that it may not have
        config.pop(other, None)
    made = type(model).from_config({**config, "name": name, "tasks": [task.get_config() for task in tasks]})
    if model.transform is not None:
        transform = copy.copy(model.transform)
        _labels.refuse_features(transform.specs, tasks, transform.sample_weight)
        transform.tasks = made.labelled_tasks
        made._plan.transform = transform.frozen()
    return made


def _copy_weights(model: Any, made: Any) -> set[int]:
    """Gives the new model the weights that both have; which of its own they are."""
    before = {variable.path: variable for variable in weights_of_graph(model)}
    anew = _weights_of_new_tasks(made, {task.name: task for task in model.tasks})
    merged = {
        id(kernel): value
        for layer in model.layers
        if model.adaptation.rank is not None and hasattr(layer, "merged_kernels")
        for kernel, value in layer.merged_kernels()
    }
    came = set()
    for variable in weights_of_graph(made):
        old = before.get(variable.path)
        if old is not None and tuple(old.shape) == tuple(variable.shape) and id(variable) not in anew:
            variable.assign(keras.ops.convert_to_numpy(merged.get(id(old), old)))
            came.add(id(variable))
    return came


def _weights_of_new_tasks(made: Any, kept: dict[str, Task]) -> set[int]:
    """Weights that belong to one task alone, which the old model had not, or had as one of another kind."""
    new = [output.name for output in made.outputs_info if not _is_same(kept.get(output.task.name), output.task)]
    if not new:
        return set()
    body = set() if _sole_reader(made) is None else _names_of_body(made)
    own = {id(v) for layer in made.layers if layer.name not in body for v in layer.weights}
    if len(made.output) > 1:
        own &= {id(variable) for name in new for variable in made.task_variables(name)}
    return own


def weights_of_graph(model: Any) -> list[Any]:
    """The weights of a model's graph, without those of its metrics and its balancing method."""
    found = {id(v): v for layer in model.layers for v in layer.weights}
    return list(found.values())


def _is_same(old: Task | None, new: Task) -> bool:
    return old is not None and old.kind == new.kind and old.units == new.units


def _frozen(made: Any, freeze: str, came: set[int]) -> list[str]:
    """Names of the layers that are frozen, all of whose weights came over."""
    layers = [layer for layer in made.layers if layer.weights]
    if freeze == "tables":
        layers = [layer for layer in layers if isinstance(layer, FeatureEmbedding)]
    else:
        body = _names_of_body(made)
        layers = [layer for layer in layers if layer.name in body]
    return [layer.name for layer in layers if all(id(variable) in came for variable in layer.weights)]


def _names_of_body(made: Any) -> set[str]:
    """The layers of what several tasks share; where one alone reads the body, of what it would share with another."""
    task = _sole_reader(made)
    if task is None:
        return {layer.name for layer in halves(made).below.layers}
    config = made.get_config()
    twins = [dataclasses.replace(task, name=f"{task.name}.{i}", label=task.label_column) for i in (1, 2)]
    tasks = [*twins, *(other for other in made.tasks if other is not task)]
    config.pop("corrections", None)
    two = type(made).from_config({**config, "tasks": [other.get_config() for other in tasks]})
    return {layer.name for layer in halves(two).below.layers}


def _sole_reader(made: Any) -> Task | None:
    """The only task that reads the body, beside others that compare sides; None if there are several."""
    if len(made.output) == 1:
        return made.outputs_info[0].task
    readers = [output.task for output in made.outputs_info if not output.task.compares_sides]
    return readers[0] if len(readers) == 1 else None


def _report(made: Any, came: set[int]) -> pd.DataFrame:
    trained = {id(variable) for variable in made.trainable_variables}
    rows = [
        (v.path, tuple(v.shape), int(np.prod(v.shape)), id(v) in came, id(v) in trained) for v in weights_of_graph(made)
    ]
    return pd.DataFrame(rows, columns=["weight", "shape", "numbers", "came_over", "trains"])


def _tell(report: pd.DataFrame) -> None:
    total = int(report["numbers"].sum())
    came = int(report["numbers"][report["came_over"]].sum())
    trains = int(report["numbers"][report["trains"]].sum())
    logger.info("%d of %d numbers came over, %d train", came, total, trains)
