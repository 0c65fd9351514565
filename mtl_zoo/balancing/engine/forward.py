"""A forward pass that the gradients of every task's loss can be taken from. TensorFlow only."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from mtl_zoo import _reads
from mtl_zoo.balancing.engine.sources import Sources
from mtl_zoo.losses.batch import Batch


@dataclasses.dataclass(frozen=True)
class Forward:
    """A forward pass: its tape, what its losses are, and what their gradients are taken of.

    Args:
        tape: The tape that recorded it, which may be asked several times.
        sources: What gradients are taken of.
        logits: By name.
        rows: The losses by row.
        losses: The losses times their weights, in the order of `loss_names`.
        scaled: Those times the scale of mixed float16.
        scale: That scale.
        rest: What belongs to no task, the number 0 if there is nothing.
        scaled_rest: That times the scale.
        upper: Of methods that look at the shared representation, the tape of what lies above it.
        representation: Its tensors.
    """

    tape: Any
    sources: Sources
    logits: Any
    rows: Any
    losses: Sequence[Any]
    scaled: Sequence[Any]
    scale: Any
    rest: Any
    scaled_rest: Any
    upper: Any = None
    representation: Sequence[Any] = ()

    @property
    def loss(self) -> Any:
        """The sum of all, whatever a balancing method makes of it."""
        return sum(self.losses) + self.rest


def forward_pass(model: Any, batch: Batch) -> Forward:
    """One forward pass; below and above the representation apart, if the model's balancing method looks at it."""
    import tensorflow as tf

    halves = None if model.balancing is None else model.balancing.halves
    scale = model.optimizer.scale_loss(tf.ones(()))
    with contextlib.ExitStack() as stack:
        tape = stack.enter_context(tf.GradientTape(persistent=True))
        reads = stack.enter_context(_reads.record_reads())
        upper, representation = None, ()
        if halves is None:
            logits = model(batch.inputs, training=True)
        else:
            upper = stack.enter_context(tf.GradientTape(persistent=True))
            logits, representation = halves.record(model.select_inputs(batch.inputs, training=True), upper)
        rows = model.row_losses(batch, logits)
        losses, rest = model.weigh_losses(rows), model.other_losses(batch, logits)
        scaled = [loss * scale for loss in losses]
        scaled_rest = rest * scale
    sources = Sources.of(model.trainable_variables, reads)
    return Forward(tape, sources, logits, rows, losses, scaled, scale, rest, scaled_rest, upper, representation)
