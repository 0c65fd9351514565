"""Features that only training knows: the shallow towers that read them, and what stands for them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtl_zoo import _backend
from mtl_zoo.heads._base import Biases, task_tower
from mtl_zoo.layers import BiasedLogit, FeatureEmbedding, TrainingOnly
from mtl_zoo.tasks import Task


def check_biases(features: Any, tasks: Any) -> None:
    """Refuses bias features that no task reads, and tasks that read what there is not."""
    hidden = [feature.name for feature in features if feature.bias]
    biased = [task.name for task in tasks if task.bias is not None]
    if hidden and not biased:
        raise ValueError(
            "`tasks` must hold one with `bias=` for the features with bias=True, which nothing else reads. Received: "
            f"features {hidden} and tasks {[task.name for task in tasks]}. Write BinaryTask(..., bias='add')"
        )
    if biased and not hidden:
        raise ValueError(
            f"`features` must hold one with bias=True for tasks with `bias=`. Received: tasks {biased}. Write "
            "Categorical('position', bias=True)"
        )
    if hidden and len(hidden) == len(features):
        raise ValueError(f"`features` must hold one without bias=True, which scores are made of. Received: {hidden}")


def biases_of(plan: Any, inputs: Mapping[str, Any]) -> Biases:
    """By task with a bias, what adds its tower to a logit."""
    return {task.name: _bias(plan, task, inputs) for task in plan.tasks if task.bias is not None}


def _bias(plan: Any, task: Task, inputs: Mapping[str, Any]) -> Callable[[Any], Any]:
    names = [name for feature in plan.bias_features for name in feature.input_specs()]

    def biased(logit: Any) -> Any:
        ids = TrainingOnly(task.bias.rate, name=f"{task.name}_bias_ids")({name: inputs[name] for name in names})
        x = _embedding(plan, f"{task.name}_bias_embedding")(ids)
        bias = task_tower(f"{task.name}_bias", 1, x, task.bias.units)
        return BiasedLogit(task.bias.how, name=f"{task.name}_biased")(logit, bias)

    return biased


def _embedding(plan: Any, name: str) -> FeatureEmbedding:
    """Tables of the bias features, with the options that tables of others have."""
    options = plan.embedding
    return FeatureEmbedding(
        plan.bias_features,
        options.initializer,
        shards=options.shards,
        l2=options.l2,
        joined=True,
        table_dtype=options.table_dtype,
        name=name,
    )


def with_unknown(model: Any, inputs: Mapping[str, Any], training: bool) -> Mapping[str, Any]:
    """The inputs; where nothing is trained, zeros for those of bias features that are not there."""
    hidden = bias_inputs(model)
    absent = [name for name in hidden if name not in inputs]
    if training or not absent:
        return inputs
    rows = next((x for name, x in inputs.items() if name in model.input), None)
    if rows is None:
        return inputs
    shapes = {name: [size or 1 for size in model.input[name].shape[1:]] for name in absent}
    return {**inputs, **{n: _backend.empty_rows(rows, shapes[n], model.input[n].dtype) for n in absent}}


def bias_inputs(model: Any) -> tuple[str, ...]:
    """The names of the inputs of bias features."""
    return tuple(name for feature in model.features if feature.bias for name in feature.input_specs())


def required_inputs(model: Any) -> tuple[str, ...]:
    """The names of the inputs that scores need: all but those of bias features."""
    hidden = bias_inputs(model)
    return tuple(name for name in model.input if name not in hidden)
