"""One training of one model: what every run of the harness and every point of a front does alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from mtl_zoo.datasets import Dataset
from mtl_zoo.training.callbacks import EpochTimer, ExactValidation
from mtl_zoo.training.selection import Selection


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with the weights of its best epoch, and what was noted while it was trained."""

    model: Any
    timer: EpochTimer
    validation: ExactValidation


def train_once(
    build: Callable[[], Any],
    compile_arguments: Callable[[Any], dict[str, Any]],
    data: Dataset,
    seed: int,
    *,
    epochs: int,
    patience: int | None,
    batch_size: int,
    rule: Selection | None = None,
    per_task: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Builds, compiles and trains a model; the best epoch is chosen on the validation split.

    Args:
        build: Makes a new model, not compiled.
        compile_arguments: Those of `compile`, from the model. Metrics are none: in the logs they would cost time, and
            the exact ones are computed anyway.
        data: A data set.
        seed: Draws the weights and the order of the rows.
        epochs, patience: As `ExactValidation` takes them.
        batch_size: Rows a step.
        rule: What the best epoch is. Default: that of `ExactValidation`.
        per_task: Whether tasks that share nothing have a best epoch each.
        callbacks: More of them.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    model.compile(metrics=None, **compile_arguments(model))
    given: dict[str, Any] = {"select": rule} if rule is not None else {}
    if per_task:
        given["per_task"] = model.independent_tasks
    timer, validation = EpochTimer(len(data.train)), ExactValidation(data.validation, patience, **given)
    model.fit(
        data.train.batches(batch_size, shuffle=True, seed=seed),
        epochs=epochs,
        shuffle=False,  # the batches are shuffled already; Keras would warn
        verbose=0,
        callbacks=[timer, validation, *callbacks],
    )
    return Trained(model, timer, validation)
