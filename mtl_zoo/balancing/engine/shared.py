"""What the losses of a model share, read from graphs that are traced and never run.

TensorFlow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl_zoo import _reads
from mtl_zoo.balancing.engine.sources import Sources
from mtl_zoo.losses.batch import Batch


def shared_sizes(model: Any, labels: Sequence[str]) -> tuple[int, ...]:
    """How many parameters each dense weight has that more than one loss depends on."""
    import tensorflow as tf

    found: list[tuple[int, ...]] = []

    def forward(x: Any, y: Any) -> None:
        with tf.GradientTape(persistent=True) as tape:
            with _reads.record_reads() as reads:
                logits = model(x, training=True)
            losses = model.weigh_losses(model.row_losses(Batch(x, y), logits))
        sources = Sources.of(model.trainable_variables, reads)
        by_source = zip(*(sources.gradients(tape, loss) for loss in losses), strict=True)
        shared = [i for i, given in enumerate(by_source) if sum(g is not None for g in given) > 1]
        found.append(sources.sizes([i for i in shared if not sources.is_read(i)]))

    inputs = {name: _any_rows(tensor) for name, tensor in model.input.items()}
    strategy = model.distribute_strategy
    traced = tf.function(lambda x, y: strategy.run(forward, args=(x, y)), autograph=False)
    traced.get_concrete_function(inputs, _labels(labels))
    return found[0]


def logits_of_losses(model: Any, labels: Sequence[str]) -> list[set[str]]:
    """For each loss, in order, the logits that it depends on."""
    import tensorflow as tf

    found: list[set[str]] = []

    def losses_of(y: Any, logits: Any) -> None:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            losses = model.task_losses(y, logits)
        for name in model.loss_names:
            # A task without a label has no loss here.
            given = tape.gradient(losses[name], logits) if name in losses else {}
            found.append({name for name, gradient in given.items() if gradient is not None})

    logits = {name: _any_rows(tensor) for name, tensor in model.output.items()}
    tf.function(losses_of, autograph=False).get_concrete_function(_labels(labels), logits)
    return found


def _any_rows(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def _labels(names: Sequence[str]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.TensorSpec((None,), tf.float32) for name in names}
