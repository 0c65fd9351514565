"""What `compile` resolves to: loss functions, loss weights and metrics by name, checked."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import keras

from mtl_zoo import _validation as check
from mtl_zoo.losses import TaskLoss


class TrainingSetup:
    """Losses, weights and metrics of one `compile` call.

    Not tracked by Keras as a part of the model: compiling again replaces it whole.
    """

    def __init__(self, model, loss, loss_weights, metrics):
        outputs = model.head.losses(model.tasks)
        self.loss_functions = {
            name: TaskLoss(name, outputs[name].task, given)
            for name, given in _by_loss("loss", loss, outputs, model.head.default_losses(model.tasks)).items()
        }
        weights = _by_loss("loss_weights", loss_weights, outputs, model.head.loss_weights(model.tasks))
        self.loss_weights = {
            name: check.check_number(f"loss_weights[{name!r}]", weight, minimum=0) for name, weight in weights.items()
        }
        self.given_metrics = _given_metrics(metrics, model.outputs_info)
        self.metrics = {
            output.name: [_metric(output, metric) for metric in self.given_metrics[output.name]]
            for output in model.outputs_info
        }
        self.loss_trackers = {name: keras.metrics.Mean(name=f"{name}_loss") for name in outputs}
        check.check_unique_names("metrics", [metric.name for metric in self.all_metrics()])

    def all_metrics(self):
        return [*self.loss_trackers.values(), *(metric for metrics in self.metrics.values() for metric in metrics)]

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "loss": {name: serialize(loss.given) for name, loss in self.loss_functions.items()},
            "loss_weights": dict(self.loss_weights),
            "metrics": {name: [serialize(metric) for metric in given] for name, given in self.given_metrics.items()},
        }


def _by_loss(argument, given, outputs, default):
    """`given` as a dict with exactly the names of the losses."""
    if given is None or (isinstance(given, str) and given == "auto"):
        return default
    if not isinstance(given, Mapping):
        if argument == "loss_weights":
            raise ValueError(
                f"`loss_weights` must be a dict by loss name. Received: loss_weights={given!r}. "
                f"Expected: the names {list(outputs)}"
            )
        return dict.fromkeys(outputs, given)
    unknown = [name for name in given if name not in outputs]
    forgotten = [name for name in outputs if name not in given]
    if unknown or forgotten:
        raise ValueError(
            f"`{argument}` must name every loss of the model and nothing else. Received unknown: {unknown}, "
            f"missing: {forgotten}. Expected: the names {list(outputs)}"
        )
    return {name: default[name] if _is_auto(given[name]) else given[name] for name in outputs}


def _is_auto(value):
    return value is None or (isinstance(value, str) and value == "auto")


def _given_metrics(metrics, outputs):
    names = [output.name for output in outputs]
    if isinstance(metrics, str) and metrics == "auto":
        return {output.name: list(output.task.metric_names) for output in outputs}
    if metrics is None:
        return {name: [] for name in names}
    if not isinstance(metrics, Mapping):
        raise ValueError(
            f"`metrics` must be 'auto', None or a dict by output name. Received: metrics={metrics!r}. "
            f"Expected: names among {names}"
        )
    unknown = [name for name in metrics if name not in names]
    if unknown:
        raise ValueError(f"`metrics` must name outputs of the model. Received unknown: {unknown}. Expected: {names}")
    given = {}
    for name in names:
        value = metrics.get(name) or []
        single = isinstance(value, str | keras.metrics.Metric) or not isinstance(value, Iterable)
        given[name] = [value] if single else list(value)
    return given


def _metric(output, metric):
    if isinstance(metric, str):
        known = output.task.streaming_metrics()
        check.check_choice(f"metrics[{output.name!r}]", metric, tuple(known))
        return known[metric](name=f"{output.name}_{metric}")
    if not isinstance(metric, keras.metrics.Metric):
        raise TypeError(f"`metrics[{output.name!r}]` must be names or Keras metrics. Received: {metric!r}")
    # A copy: the object given may serve several outputs or models.
    config = copy.deepcopy(metric.get_config())
    config["name"] = f"{output.name}_{metric.name}"
    return type(metric).from_config(config)
