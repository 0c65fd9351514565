from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_zoo import _reads
from mtl_zoo.balancing.engine.sources import Sources
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import register_step
from mtl_zoo.steps.episodes import (
    EpisodeStep,
    adapt,
    adapted_variables,
    call_with,
    episode_loss,
    part_of,
    without_labels,
)


@register_step("maml")
class MAML(EpisodeStep):
    """Weights from which a few steps on a user's first rows lead to good scores of its others.

    A batch holds episodes, each the rows of one user: S support rows, then Q query rows.

        theta_u = theta - rate * d L_{S_u}(theta) / d theta                          (`inner_steps` times)
        g = d / d theta  mean_u L_{Q_u}(theta_u);   theta <- optimizer(theta, g)

    L is the sum of the tasks' losses times their weights over the episode's rows. With `adapts="dense"` all weights but
    the embedding tables adapt, as in MeLU: the tables are everybody's, and are trained by the query rows' loss. With
    `adapts="towers"` those that one output alone reads do, as in ANIL. Logs are measured on the query rows with the
    adapted weights. Statistics of batch normalisation and random states move on once a batch, with theta. TensorFlow
    only; a pass and its gradients for each episode and each inner step. `make_episodes` gives such batches, and
    `FewShotScorer` adapts when scores are asked for.

    Args:
        support, query: Rows of an episode. Default: None, the batch is one episode, whose first half is the support.
        inner_rate: Step size of the adaptation; 0 trains on the query rows alone. Default: 0.1.
        inner_steps: Default: 1.
        adapts: `"dense"` or `"towers"`. Default: `"dense"`.
        second_order: Whether g goes through the adaptation's own gradients. False takes these as constants, which is
            cheaper. Default: True.

    Raises:
        ValueError: One of `support` and `query` without the other; sizes below 1; with a balancing method, or a model
            of mixed_float16.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.steps import MAML
    >>> model = mtl_zoo.SharedBottom([mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")], bottom_units=(4,))
    >>> model.compile("adam", step=MAML(support=5, query=10, inner_rate=0.05))
    >>> model.training_step.inner_rate
    0.05

    Reference:
        Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017; Lee et al., "MeLU:
        Meta-Learned User Preference Estimator for Cold-Start Recommendation", KDD 2019; Raghu et al., "Rapid Learning
        or Feature Reuse? Towards Understanding the Effectiveness of MAML", ICLR 2020.
    """

    def __init__(
        self,
        support: int | None = None,
        query: int | None = None,
        inner_rate: float = 0.1,
        inner_steps: int = 1,
        adapts: str = "dense",
        second_order: bool = True,
    ) -> None:
        super().__init__(support, query, inner_rate, inner_steps, adapts)
        self.second_order = bool(second_order)

    def episode(self, model: Any, rows: Batch, support: Any, share: Any) -> tuple[Any, Mapping[str, Any], list]:
        import tensorflow as tf

        variables = adapted_variables(model, self.adapts)
        with tf.GradientTape() as tape, _reads.record_reads() as reads:
            first = part_of(rows, 0, support)
            values = adapt(model, variables, first, self.inner_rate, self.inner_steps, self.second_order)
            logits = call_with(model, variables, values, rows.inputs, training=True)
            is_support = tf.range(tf.shape(tf.nest.flatten(rows.labels)[0])[0]) < support
            loss = episode_loss(model, without_labels(rows, is_support), logits) * share
        sources = Sources.of(model.trainable_variables, reads)
        return loss, logits, sources.of_variables(sources.gradients(tape, loss))
