"""The private Keras names that the zoo uses; a test fails, and names it, when one of them goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

# What is read from, or replaced in, Keras' optimizers.
OPTIMIZER_HOOKS = ("_backend_apply_gradients", "_clip_gradients", "_get_variable_index", "_trainable_variables")
TENSORFLOW_OPTIMIZER_HOOKS = ("_all_reduce_sum_gradients", "_distribution_strategy")
ACCUMULATION_HOOKS = (
    *("_iterations", "_accumulated_gradients", "_get_variable_index", "_backend_apply_gradients"),
    *("_clip_gradients", "_apply_weight_decay", "_backend_update_step"),
)
TENSORFLOW_TRAINER_HOOKS = ("_maybe_symbolic_build", "_get_metrics_result_or_logs")
JAX_TRAINER_HOOKS = ("_update_metrics_variables",)
SLOTS = {
    "Adam": ("_momentums", "_velocities", "_velocity_hats"),
    "Adagrad": ("_accumulators",),
    "Ftrl": ("_accumulators", "_linears"),
    "SGD": ("momentums",),
}

# Lists of variables that an optimizer has beside its slots.
_NO_SLOTS = ("_variables", "_trainable_variables")


# What stands above a hook is known where it is mixed in.
_OfKeras: Any = object


class GradientHooks(_OfKeras):
    """Base of optimizers that see gradients summed over replicas before they are clipped.

    Keras clips each replica's own gradients and sums them after; then the weights depend on how a batch was split.
    """

    def own_gradients(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """A replica's gradients -> what is summed over replicas."""
        return gradients

    def prepare_gradients(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Gradients of the global batch -> what is clipped and applied."""
        return gradients

    def clip_gradients(self, gradients: list, clip: Callable[[list], list]) -> list:
        """Clipped gradients; `clip` is Keras' own clipping of a list of tensors."""
        return clip(gradients)

    def variable_index(self, variable: Any) -> int:
        return self._get_variable_index(variable)

    def _backend_apply_gradients(self, grads: list, trainable_variables: list) -> None:
        reduce = getattr(super(), "_all_reduce_sum_gradients", None)
        if reduce is not None:
            own = self.own_gradients(grads)
            grads = [grad for grad, _ in reduce(list(zip(own, trainable_variables, strict=True)))]
        super()._backend_apply_gradients(self.prepare_gradients(grads), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        # Keras would sum them here, after clipping.
        return grads_and_vars

    def _clip_gradients(self, grads: list) -> list:
        return self.clip_gradients(list(grads), super()._clip_gradients)


def slots(optimizer: Any, kind: str) -> list:
    """The slot variables of a kind ("momentums"), in the order of the optimizer's variables."""
    found = getattr(optimizer, f"_{kind}", None)
    return getattr(optimizer, kind) if found is None else found


def slot_lists(optimizer: Any) -> Iterator[tuple[str, list, list]]:
    """Each kind of slots that an optimizer has: its name, the model's variables, and the slot of each of them.

    Of an optimizer that holds others, theirs.
    """
    held = list(optimizer.parts().values()) if hasattr(optimizer, "parts") else []
    held += [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    for number, part in enumerate(held):
        yield from ((f"{number}.{name}", variables, found) for name, variables, found in slot_lists(part))
    if held or not optimizer.built:
        return
    variables = built_variables(optimizer)
    for name, found in vars(optimizer).items():
        if not isinstance(found, list) or len(found) != len(variables) or name in _NO_SLOTS:
            continue
        if all(slot is None or isinstance(slot, keras.Variable) for slot in found):
            yield name, variables, list(found)


def beside(optimizer: Any, variable: Any) -> contextlib.AbstractContextManager:
    """Where to create a slot of `variable`: on its devices, mirrored if it is."""
    strategy = getattr(optimizer, "_distribution_strategy", None)
    if strategy is None:
        return contextlib.nullcontext()
    return strategy.extended.colocate_vars_with(variable.value if isinstance(variable, keras.Variable) else variable)


def built_variables(optimizer: Any) -> list:
    """The model variables that an optimizer was built for."""
    return list(optimizer._trainable_variables)


def track_loss(model: Any, loss: Any, x: Any) -> None:
    """What Keras' own train step does for the `loss` of the logs, in a step of ours; `loss` is the global batch's."""
    batch = keras.ops.shape(keras.tree.flatten(x)[0])[0]
    model._loss_tracker.update_state(loss, sample_weight=batch)


def updated_metrics(model: Any, values: Any, loss: Any, batch: tuple, logits: Any) -> tuple[Any, Any]:
    """What Keras' own train step on JAX does for the logs: the logs, and the values of metrics after a batch."""
    x, y, weights = batch
    return model._update_metrics_variables(values, loss, x, y, logits, weights)


def metric_direction(metric: Any) -> int:
    """Whether more of a metric of Keras is better (1) or worse (-1); 0 if it does not say."""
    return {"up": 1, "down": -1}.get(str(getattr(metric, "_direction", None)), 0)


def is_made_for(optimizer: Any, strategy: Any) -> bool:
    """Whether an optimizer's own variables, such as its step counter, are those of a tf.distribute strategy."""
    return getattr(optimizer, "_distribution_strategy", strategy) is strategy


def steps_taken(optimizer: Any) -> int:
    """Calls of `apply`, those that only added gradients up among them."""
    return int(optimizer._iterations.numpy())


def has_waiting_gradients(optimizer: Any) -> bool:
    """Whether gradients were added up that no step has applied yet."""
    steps = getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps
    return bool(steps) and steps_taken(getattr(optimizer, "inner_optimizer", optimizer)) % steps != 0


@contextlib.contextmanager
def accumulation(optimizer: Any, update: bool) -> Iterator[None]:
    """Within it an optimizer that accumulates gradients applies them if `update`, and else only adds them up.

    Keras decides that inside of the graph, in a branch that replicas cannot reduce gradients in. TensorFlow only.
    """
    steps = optimizer.gradient_accumulation_steps
    if not steps:
        yield
        return

    def add_or_apply(gradients: list, variables: list) -> None:
        waiting = [optimizer._accumulated_gradients[optimizer._get_variable_index(v)] for v in variables]
        # Each replica adds up its own: they are reduced when they are applied.
        sums = [keras.ops.convert_to_tensor(g) + w for g, w in zip(gradients, waiting, strict=True)]
        for w, total in zip(waiting, sums, strict=True):
            w.assign(keras.ops.zeros_like(total) if update else total)
        if update:
            mean = optimizer._clip_gradients([total / steps for total in sums])
            optimizer._apply_weight_decay(variables)
            optimizer._backend_update_step(mean, variables, optimizer.learning_rate)

    optimizer._backend_apply_gradients = add_or_apply
    try:
        yield
    finally:
        del optimizer._backend_apply_gradients


def add_in_place(variable: Any) -> None:
    """Makes `assign_add` one operation where the variable lies. TensorFlow only.

    Keras reads, adds and writes: of two workers that do so at the same time, one is forgotten.
    """
    tensor = variable.value
    variable.assign_add = lambda value: tensor.assign_add(keras.ops.cast(value, variable.dtype))


class DistributedHooks(_OfKeras):
    """Base of models that prepare themselves for training under tf.distribute, and whose logs need no second look.

    A subclass gives `prepare_distributed()`, which is true if it did.
    """

    def _maybe_symbolic_build(self, **data: Any) -> None:
        if not self.prepare_distributed():
            super()._maybe_symbolic_build(**data)

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        return logs if logs and self.prepare_distributed() else super()._get_metrics_result_or_logs(logs)


_NOT_GIVEN: Any = object()


class CloneHook(_OfKeras):
    """Base of functional models that `keras.models.clone_model`, which makes a plain model of any, must not clone.

    A subclass gives `refuse_clone()`, which raises.
    """

    def _run_through_graph(
        self, inputs: Any, operation_fn: Callable = lambda operation: operation, call_fn: Any = _NOT_GIVEN
    ) -> Any:
        given = {} if call_fn is _NOT_GIVEN else {"call_fn": call_fn}
        # Of a whole model, only the copy is made with a function of its own for calls.
        if given and self.built:
            self.refuse_clone()
        return super()._run_through_graph(inputs, operation_fn, **given)


def forget_layer(model: Any, layer: Any) -> None:
    """Undoes the tracking of a layer that was an attribute of a model."""
    if layer in model._layers:
        model._layers.remove(layer)
