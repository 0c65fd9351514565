"""What steps that learn to adapt share: a batch of episodes, and gradient steps on copies of a model's weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend, _reads
from mtl_zoo import _validation as check
from mtl_zoo.balancing import Balancing
from mtl_zoo.balancing.engine.sources import Sources
from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import Outcome, Step

ADAPTS = ("dense", "towers")


class EpisodeStep(Step):
    """Base of steps on batches of episodes, each the rows of one user: first its support rows, then its query rows.

    A subclass gives `episode`, the gradients of one of them. The model's gradients are their mean over the episodes of
    the global batch, and those of penalties. Arguments are those of `MAML`.
    """

    def __init__(
        self,
        support: int | None = None,
        query: int | None = None,
        inner_rate: float = 0.1,
        inner_steps: int = 1,
        adapts: str = "dense",
    ) -> None:
        if (support is None) != (query is None):
            raise ValueError(
                f"`support` and `query` must be given together. Received: support={support!r}, query={query!r}"
            )
        self.support = None if support is None else check.check_count("support", support)
        self.query = None if query is None else check.check_count("query", query)
        self.inner_rate = check.check_number("inner_rate", inner_rate, minimum=0)
        self.inner_steps = check.check_count("inner_steps", inner_steps)
        self.adapts = check.check_choice("adapts", adapts, ADAPTS)

    def check(self, model: Any, balancing: Balancing | None) -> None:
        super().check(model, balancing)
        unlabelled = [task.name for task in model.tasks if not task.is_labelled]
        if unlabelled:
            raise ValueError(
                f"`tasks` must have labels with step={self.step_name!r}, which adapts copies of the weights. Received: "
                f"{unlabelled}"
            )
        if balancing is not None:
            raise ValueError(
                f"`balancing` must be None with step={self.step_name!r}, whose gradients are those of episodes. Weigh "
                f"the losses by `loss_weights`. Received: balancing={balancing.method_name!r}"
            )
        if model.dtype_policy.name == "mixed_float16":
            raise ValueError(
                f"`step` {self.step_name!r} needs float32 or mixed_bfloat16: an inner step's gradients are not scaled. "
                "Received: a model of mixed_float16"
            )

    def episode(self, model: Any, rows: Batch, support: Any, share: Any) -> tuple[Any, Mapping[str, Any], list]:
        """One episode: its loss times `share`, its logits, and that loss's gradient for each trainable weight."""
        raise NotImplementedError(f"{type(self).__name__} must define `episode(model, rows, support, share)`.")

    def measured(self, batch: Batch, is_support: Any) -> Batch:
        """The batch with the labels that the logs are measured by: by default the query rows'."""
        return without_labels(batch, is_support)

    def run(self, model: Any, batch: Batch) -> Outcome:
        import tensorflow as tf

        # Statistics and random states move on, and penalties count, once a batch: by the weights as they are.
        with tf.GradientTape() as tape, _reads.record_reads() as reads:
            rest = model.other_losses(batch, model(batch.inputs, training=True))
        count = tf.shape(tf.nest.flatten(batch.labels)[0])[0]
        size, support = self._sizes(count)
        with tf.control_dependencies([_check_whole(count, size)]):
            episodes = count // size
        share = 1.0 / _backend.sum_over_replicas(tf.cast(episodes, tf.float32))
        loss, logits, gradients = self._sum(model, batch, episodes, size, support, share)
        if not isinstance(rest, int):
            sources = Sources.of(model.trainable_variables, reads)
            of_rest = sources.of_variables(sources.gradients(tape, rest))
            gradients = [add_gradients(*both) for both in zip(gradients, of_rest, strict=True)]
        is_support = tf.range(count) % size < support
        rows = model.row_losses(self.measured(batch, is_support), logits)
        total = _backend.sum_over_replicas(loss + rest)
        model.optimizer.apply(model.anchored(gradients), model.trainable_variables)
        return Outcome(loss + rest, logits, rows, total)

    def _sizes(self, count: Any) -> tuple[Any, Any]:
        """Rows of an episode, and how many of them are its support; without sizes the batch is one episode."""
        if self.support is None or self.query is None:
            return count, count // 2
        return self.support + self.query, self.support

    def _sum(self, model: Any, batch: Batch, episodes: Any, size: Any, support: Any, share: Any) -> tuple:
        """The episodes one after the other, so that no more than one's weights are in memory."""
        import tensorflow as tf

        variables = model.trainable_variables
        tables = [v for v in variables if _backend.is_table(v)]
        dense = adapted_variables(model, "dense")
        names = list(model.output)

        def lists(dtype: Any) -> Any:
            return tf.TensorArray(dtype, size=episodes, infer_shape=False)

        def body(at: Any, loss: Any, sums: list, ids: list, rows: list, logits: list) -> tuple:
            own, scores, gradients = self.episode(model, part_of(batch, at * size, size), support, share)
            found = {id(v): gradient for v, gradient in zip(variables, gradients, strict=True)}
            sums = [
                total if found[id(v)] is None else total + found[id(v)] for v, total in zip(dense, sums, strict=True)
            ]
            slices = [_slices(v, found[id(v)]) for v in tables]
            ids = [array.write(at, one.indices) for array, one in zip(ids, slices, strict=True)]
            rows = [array.write(at, one.values) for array, one in zip(rows, slices, strict=True)]
            logits = [array.write(at, scores[name]) for array, name in zip(logits, names, strict=True)]
            return at + 1, loss + own, sums, ids, rows, logits

        start = (
            tf.constant(0),
            tf.constant(0.0),
            [tf.zeros(v.shape, v.dtype) for v in dense],
            [lists(tf.int32) for _ in tables],
            [lists(v.dtype) for v in tables],
            [lists(model.output[name].dtype) for name in names],
        )
        _, loss, sums, ids, rows, logits = tf.while_loop(
            lambda at, *_: at < episodes, body, start, parallel_iterations=1, maximum_iterations=episodes
        )
        found = {id(v): total for v, total in zip(dense, sums, strict=True)}
        for v, at, values in zip(tables, ids, rows, strict=True):
            whole = tf.ensure_shape(values.concat(), [None, v.shape[1]])
            found[id(v)] = tf.IndexedSlices(whole, at.concat(), tf.constant(list(v.shape)))
        scores = {
            name: tf.ensure_shape(array.concat(), [None, *model.output[name].shape[1:]])
            for name, array in zip(names, logits, strict=True)
        }
        return loss, scores, [found[id(v)] for v in variables]


def adapted_variables(model: Any, adapts: str) -> list:
    """The weights that adapt: all that are trained but for tables, or of these the ones that one output alone reads."""
    dense = [v for v in model.trainable_variables if not _backend.is_table(v)]
    if adapts == "dense":
        return dense
    private = {id(v) for name in model.output for v in model.task_variables(name)}
    return [v for v in dense if id(v) in private]


def adapt(
    model: Any,
    variables: Sequence[Any],
    rows: Batch,
    rate: float,
    steps: int,
    second_order: bool = False,
    training: bool = True,
) -> list:
    """The values of `variables` after some steps of gradient descent on the losses of `rows`.

        theta_0 = theta;   theta_{i+1} = theta_i - rate * d loss(rows; theta_i) / d theta_i

    Args:
        model: A compiled model.
        variables: Of its weights; they keep their values.
        rows: The rows to adapt to.
        rate: The step size.
        steps: How many steps.
        second_order: Whether gradients of what is returned go through the gradients in it.
        training: As in a call of the model. If not, the rows are none that `fit(sampling=...)` has sampled.
    """
    import tensorflow as tf

    values = [tf.convert_to_tensor(v.value) for v in variables]
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = call_with(model, variables, values, rows.inputs, training)
            if not training:
                # Rows that are trained on may be sampled; others are not.
                sampled = dataclasses.replace(model.corrections, calibrations={})
                logits = sampled.apply(model.outputs_info, model.tasks, logits)
            loss = episode_loss(model, rows, logits)
        found = tape.gradient(loss, values)
        if not second_order:
            found = [None if g is None else tf.stop_gradient(g) for g in found]
        values = [w if g is None else w - tf.cast(rate, w.dtype) * g for w, g in zip(values, found, strict=True)]
    return values


def call_with(model: Any, variables: Sequence[Any], values: Sequence[Any], inputs: Any, training: bool) -> Any:
    """A model's logits with other values of some weights. What the pass assigns, such as statistics, is dropped."""
    with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)), collect_losses=True):
        return model(inputs, training=training)


def episode_loss(model: Any, rows: Batch, logits: Mapping[str, Any]) -> Any:
    """The sum of the tasks' losses times their weights, each the mean over the rows at hand that have its label."""
    return sum(model.weigh_losses(model.row_losses(rows, logits), local=True))


def part_of(batch: Batch, start: Any, size: Any) -> Batch:
    """Some neighbouring rows of a batch."""
    import tensorflow as tf

    def rows(value: Any) -> Any:
        return tf.nest.map_structure(lambda x: None if x is None else x[start : start + size], value)

    found = {field.name: rows(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    return Batch(**found)


def without_labels(batch: Batch, where: Any) -> Batch:
    """The batch with no label observed in the rows where `where` (rows,) is true."""

    def hidden(label: Any) -> Any:
        label = ops.cast(ops.convert_to_tensor(label), "float32")
        return ops.where(ops.reshape(where, (-1, *[1] * (len(label.shape) - 1))), float("nan"), label)

    return dataclasses.replace(batch, labels=keras.tree.map_structure(hidden, batch.labels))


def _check_whole(count: Any, size: Any) -> Any:
    import tensorflow as tf

    return tf.debugging.assert_equal(
        count % tf.maximum(size, 1),
        0,
        message="A batch must hold whole episodes of support + query rows, as `make_episodes` gives them.",
    )


def _slices(table: Any, gradient: Any) -> Any:
    """The gradient of a table by row; of no row if there is none."""
    import tensorflow as tf

    if gradient is None:
        return tf.IndexedSlices(tf.zeros([0, table.shape[1]], table.dtype), tf.zeros([0], tf.int32))
    return tf.IndexedSlices(gradient.values, tf.cast(gradient.indices, tf.int32), gradient.dense_shape)


def add_gradients(first: Any, second: Any) -> Any:
    """The sum of two gradients of one weight, dense or by row; None counts nothing."""
    import tensorflow as tf

    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, tf.IndexedSlices) and isinstance(second, tf.IndexedSlices):
        values = tf.concat([first.values, second.values], 0)
        return tf.IndexedSlices(values, tf.concat([first.indices, second.indices], 0), first.dense_shape)
    return first + second


def scaled(gradient: Any, factor: Any) -> Any:
    """A gradient, dense or by row, times a number."""
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return None if gradient is None else gradient * factor
