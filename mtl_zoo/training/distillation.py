"""A small model that learns from the scores of a large one, beside the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.losses import Batch, TaskLoss
from mtl_zoo.models._data import PREDICT_BATCH_SIZE, encode_table, is_table, labels_by_name, shows
from mtl_zoo.models._predict import predict_with_bar

# How the column of a task's taught scores is called among the labels; no task is.
_COLUMN = "taught {}"


def distill(
    teacher: Any,
    student: Any,
    x: Any,
    y: Any = None,
    *,
    temperature: float = 1.0,
    weight: float = 0.5,
    **arguments: Any,
) -> keras.callbacks.History:
    """Trains a model on labels and, beside them, on another model's scores: `fit` with

        loss = (1 - weight) loss(y, a) + weight soft_loss(p, a)

    for each of its losses that the teacher has scores `p` for. With temperature `T`, the logits `a` of the student and
    those of the teacher divided by it:

    - binary and multi-class tasks: `KL(p_T || q_T) T^2`, whose gradient keeps its size whatever `T` is (Hinton et al.);
    - regression: the squared difference of the two predictions, in the unit of the task's loss;
    - retrieval: that of the two inner products.

    Scores, not logits, are asked of the teacher, so it may be any model of the zoo with outputs of the same names and
    widths: other features of the same table, another head. It is asked once, before training. The loss of a row counts
    where its label is observed, as always, and is balanced and weighed as compiled. Afterwards the student has the
    losses that it was compiled with.

    Args:
        teacher: A trained model.
        student: A compiled model, which is trained.
        x: Rows for both: a table, if both models have a transform, or a dict of arrays that holds the inputs of both.
        y: Labels of arrays, as in `fit`. Default: None, for a table.
        temperature: Above 1, small probabilities of the teacher count more. Default: 1.0.
        weight: The share of the teacher, from 0 (labels alone) to 1 (scores alone). Default: 0.5.
        arguments: Those of `fit`. In validation data, losses are those of the labels. `verbose=0` also keeps the bar
            away that tells of the teacher's scores.

    Returns:
        What `fit` returns.

    Raises:
        ValueError: No output is common to both; `temperature` is not above 0; `weight` is not in 0..1; `x` is neither;
            `sampling` is given, which drops rows; the student is not compiled.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask, Numeric, create_model
    >>> from mtl_zoo.training import distill
    >>> features, tasks = [Numeric("age")], [BinaryTask("click")]
    >>> teacher = create_model("mmoe", features, tasks)
    >>> student = create_model("shared_bottom", features, tasks, bottom_units=(4,), tower_units=())
    >>> student.compile("adam")
    >>> age = np.linspace(-1, 1, 64, dtype="float32")
    >>> history = distill(teacher, student, {"age": age}, {"click": 1.0 * (age > 0)}, temperature=2.0, verbose=0)
    >>> sorted(history.history)
    ['click_auc', 'click_loss', 'loss']

    Reference: Hinton, Vinyals and Dean, NIPS 2014 workshop, arXiv:1503.02531.
    """
    check.check_number("temperature", temperature, above=0)
    check.check_number("weight", weight, minimum=0, maximum=1)
    if arguments.get("sampling") is not None:
        raise ValueError(
            "`sampling` must be None in distillation: the teacher's scores are of all rows. "
            f"Received: sampling={arguments['sampling']!r}"
        )
    x = student.scoring.table_of(x)
    inputs, labels = x, y
    if is_table(x):
        if y is not None or arguments.get("sample_weight") is not None:
            raise ValueError("`y` and `sample_weight` must be None with a table: they are columns of it.")
        inputs, labels, arguments["sample_weight"] = encode_table(student, x, shows(arguments))
    elif not isinstance(x, Mapping):
        raise ValueError(f"`x` must be a table or a dict of arrays. Received: {type(x).__name__}")
    taught = _common(teacher, student, x, shows(arguments))
    labels = {**labels_by_name(student, labels), **{_COLUMN.format(name): scores for name, scores in taught.items()}}

    def distilled(name: str, loss: TaskLoss) -> Any:
        output = student.head.losses(student.tasks)[name].name
        return Distilled(loss, _COLUMN.format(output), temperature, weight) if output in taught else loss.given

    with student.other_losses_within(distilled):
        return student.fit(inputs, labels, **arguments)


def _common(teacher: Any, student: Any, x: Any, verbose: int) -> dict[str, np.ndarray]:
    """The teacher's scores of the outputs that both have."""
    wanted = {output.name: output.units for output in student.head.losses(student.tasks).values()}
    theirs = {output.name: output.units for output in teacher.outputs_info}
    other = {name: (theirs[name], units) for name, units in wanted.items() if theirs.get(name, units) != units}
    if other or not set(wanted) & set(theirs):
        raise ValueError(
            "`teacher` must have outputs of the student's names and widths. Received: teacher "
            f"{teacher.name!r} with {theirs}. Expected some of: {wanted}"
        )
    rows = len(x) if is_table(x) else len(next(iter(x.values())))
    scores = predict_with_bar(teacher, x, rows, PREDICT_BATCH_SIZE, verbose)
    return {name: values for name, values in scores.items() if name in wanted}


@dataclasses.dataclass(frozen=True)
class Distilled:
    """A loss by row that takes a share from another model's scores, where the batch's labels hold them.

    Args:
        loss: The loss of the labels.
        column: Among the labels, the scores, (batch, units).
        temperature: As in `distill`.
        weight: The share of the scores.
    """

    loss: TaskLoss
    column: str
    temperature: float
    weight: float
    needs_batch = True

    def __call__(self, y: Any, logits: Any, batch: Batch) -> Any:
        found, task = self.loss(y[:, 0], logits, batch), self.loss.task
        if self.column not in batch.labels:
            return found
        taught = keras.ops.cast(batch.labels[self.column], "float32")
        # A loss may be of logits that are shifted from those that scores are made of.
        shift = task.loss_logits(logits, self.loss.name) - logits
        return (1 - self.weight) * found + self.weight * task.soft_loss(taught, logits - shift, self.temperature)
