from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_zoo import _reads
from mtl_zoo.balancing.engine.sources import Sources, gradients
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import register_step
from mtl_zoo.steps.episodes import (
    EpisodeStep,
    adapted_variables,
    add_gradients,
    call_with,
    episode_loss,
    scaled,
)


@register_step("reptile")
class Reptile(EpisodeStep):
    """Weights near those that each user's rows lead to: the mean of the gradients along the way to them.

    A batch holds episodes, each the rows of one user, all of which are used alike.

        theta_u = theta after `inner_steps` steps of size rate on L_u
        g = mean_u (theta - theta_u) / (rate * inner_steps);   theta <- optimizer(theta, g)

    Embedding tables do not move within an episode; theirs is the mean of their gradients on the same way. With one
    inner step this is training on the mean of the users' losses. Logs are measured on all rows before the adaptation.
    TensorFlow only.

    Args:
        support, query: Rows of an episode, of which their sum counts. Default: None, the batch is one episode.
        inner_rate: Step size within an episode. Default: 0.1.
        inner_steps: Default: 5.
        adapts: `"dense"` or `"towers"`, the weights that move within an episode; see `MAML`. Default: `"dense"`.

    Raises:
        ValueError: As `MAML`; `inner_rate` is 0.

    Example:

    >>> import mtl_zoo
    >>> model = mtl_zoo.SharedBottom([mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")], bottom_units=(4,))
    >>> model.compile("adam", step="reptile")
    >>> model.training_step.inner_steps
    5

    Reference:
        Nichol et al., "On First-Order Meta-Learning Algorithms", arXiv:1803.02999, 2018.
    """

    def __init__(
        self,
        support: int | None = None,
        query: int | None = None,
        inner_rate: float = 0.1,
        inner_steps: int = 5,
        adapts: str = "dense",
    ) -> None:
        super().__init__(support, query, inner_rate, inner_steps, adapts)
        if not self.inner_rate:
            raise ValueError(f"`inner_rate` must be above 0. Received: inner_rate={inner_rate!r}")

    def measured(self, batch: Batch, is_support: Any) -> Batch:
        return batch

    def episode(self, model: Any, rows: Batch, support: Any, share: Any) -> tuple[Any, Mapping[str, Any], list]:
        import tensorflow as tf

        moving = {id(v) for v in adapted_variables(model, self.adapts)}
        variables = adapted_variables(model, "dense")
        values = [tf.convert_to_tensor(v.value) for v in variables]
        total: list = [None] * len(model.trainable_variables)
        for step in range(self.inner_steps):
            with tf.GradientTape() as tape, _reads.record_reads() as reads:
                tape.watch(values)
                logits = call_with(model, variables, values, rows.inputs, training=True)
                loss = episode_loss(model, rows, logits)
            if step == 0:
                before = loss * share, logits
            sources = Sources.of(model.trainable_variables, reads)
            found = gradients(tape, loss, [*values, *(read.rows for read in sources.reads)])
            by_weight = {id(v): g for v, g in zip(variables, found, strict=False)}
            of_dense = [by_weight.get(id(v)) for v in sources.dense]
            by_variable = sources.of_variables([*of_dense, *found[len(values) :]])
            total = [add_gradients(*both) for both in zip(total, by_variable, strict=True)]
            values = [
                value if by_weight[id(v)] is None or id(v) not in moving else value - self.inner_rate * by_weight[id(v)]
                for v, value in zip(variables, values, strict=True)
            ]
        return *before, [scaled(g, share / self.inner_steps) for g in total]
