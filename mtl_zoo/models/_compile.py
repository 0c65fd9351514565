"""What `compile` resolves to: loss functions, loss weights and metrics by name, checked."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras

from mtl_zoo import _keras_private
from mtl_zoo import _validation as check
from mtl_zoo.heads import Output
from mtl_zoo.losses import TaskLoss


@dataclasses.dataclass
class Meters:
    """What the logs are made of: a mean of each loss, and the metrics of each output.

    Args:
        losses: By name of the loss.
        metrics: By name of the output.
        measures: Of tasks without a label, by name of the log.
    """

    losses: dict[str, keras.metrics.Metric]
    metrics: dict[str, list[keras.metrics.Metric]]
    measures: dict[str, keras.metrics.Metric] = dataclasses.field(default_factory=dict)

    def all(self) -> list[keras.metrics.Metric]:
        of_outputs = [metric for metrics in self.metrics.values() for metric in metrics]
        return [*self.losses.values(), *of_outputs, *self.measures.values()]

    @property
    def names(self) -> list[str]:
        """The names in the logs."""
        return [metric.name for metric in self.all()]

    def update(
        self, losses: Mapping[str, tuple[Any, Any]], outputs: Mapping[str, tuple[Any, Any, Any]], counts: Any = None
    ) -> None:
        """Enters a batch.

        Args:
            losses: Of each loss and measure, values and weights by row; those that are left out stay as they are.
            outputs: Of each output that is measured, labels, scores and weights by row.
            counts: Which rows count, (batch,) of 0 and 1; None: all.
        """
        factor = 1.0 if counts is None else counts
        for name, tracker in (self.losses | self.measures).items():
            if name not in losses:
                continue
            values, weights = losses[name]
            tracker.update_state(values, sample_weight=weights * factor)
        for name, metrics in self.metrics.items():
            for metric in metrics:
                labels, scores, weights = outputs[name]
                metric.update_state(labels[:, None], scores, sample_weight=weights * factor)


class TrainingSetup:
    """Losses, weights and metrics of one `compile` call.

    Not tracked by Keras as a part of the model: compiling again replaces it whole.
    """

    def __init__(self, model: Any, loss: Any, loss_weights: Any, metrics: Any) -> None:
        outputs = model.head.losses(model.tasks)
        self._default_losses = model.head.default_losses(model.tasks)
        self.loss_functions = {
            name: TaskLoss(name, outputs[name].task, given)
            for name, given in _by_loss("loss", loss, outputs, self._default_losses).items()
        }
        weights = _by_loss("loss_weights", loss_weights, outputs, model.head.loss_weights(model.tasks))
        self.loss_weights = {
            name: check.check_number(f"loss_weights[{name!r}]", weight, minimum=0) for name, weight in weights.items()
        }
        self._tasks = {output.name: output.task for output in model.outputs_info}
        self.given_metrics = _given_metrics(metrics, model.outputs_info)
        self._of_outputs = {output.name: output for output in model.outputs_info}
        self._of_losses = outputs
        self._measures = tuple(model.head.measures(model.tasks))
        self.meters = self._meters()
        self.by_source: dict[str, Meters] = {}
        # Whether the batches that were last measured said which source their rows are from.
        self.sees_sources = False
        # Whether they were of training, which tasks without a label are a part of.
        self.sees_unlabelled = False
        check.check_unique_names("metrics", [metric.name for metric in self.all_metrics()])

    def _meters(self, source: str = "", tasks: Collection[str] | None = None) -> Meters:
        """Of all tasks, or of those that a source has."""
        prefix = f"{source}_" if source else ""
        losses = {n: o for n, o in self._of_losses.items() if tasks is None or o.task.name in tasks}
        found = {n: o for n, o in self._of_outputs.items() if tasks is None or o.task.name in tasks}
        return Meters(
            {name: keras.metrics.Mean(name=f"{prefix}{name}_loss") for name in losses},
            {name: [_metric(output, m, prefix) for m in self.given_metrics[name]] for name, output in found.items()},
            {} if source else {name: keras.metrics.Mean(name=name) for name in self._measures},
        )

    def measure_by_source(self, tasks: Mapping[str, Collection[str]]) -> bool:
        """Has losses and metrics of several sources kept apart, too; whether that is new.

        Args:
            tasks: Names of the tasks of each source, in the order of the sources' numbers.
        """
        wanted = {source: self._meters(source, names) for source, names in tasks.items()}
        before = {source: meters.names for source, meters in self.by_source.items()}
        if before == {source: meters.names for source, meters in wanted.items()}:
            return False
        check.check_unique_names("sources", [n for m in (self.meters, *wanted.values()) for n in m.names])
        self.by_source = wanted
        return True

    def all_metrics(self) -> list[keras.metrics.Metric]:
        return [metric for meters in (self.meters, *self.by_source.values()) for metric in meters.all()]

    def hidden_logs(self) -> set[str]:
        """Logs of sources, where rows do not say which they are from, and of tasks without a label in evaluation."""
        of_sources = {name for meters in self.by_source.values() for name in meters.names}
        losses = [self.meters.losses[n].name for n, o in self._of_losses.items() if not o.task.is_labelled]
        unlabelled = {*losses, *self._measures}
        return (set() if self.sees_sources else of_sources) | (set() if self.sees_unlabelled else unlabelled)

    def directions(self) -> dict[str, str]:
        """Whether more of each log is better, `"max"` or `"min"`; those that nobody knows are left out."""
        found = {"loss": "min"}
        for meters in (self.meters, *self.by_source.values()):
            found |= {tracker.name: "min" for tracker in meters.losses.values()}
            for output, metrics in meters.metrics.items():
                for metric, made in zip(self.given_metrics[output], metrics, strict=True):
                    direction = self._direction(output, metric, made)
                    if direction:
                        found[made.name] = "max" if direction > 0 else "min"
        return found

    def log_names(self) -> dict[str, tuple[str, str]]:
        """(loss or output, metric) by the name of the log; those of a source as `<source>/<output>`."""
        found: dict[str, tuple[str, str]] = {}
        for source, meters in (("", self.meters), *((f"{name}/", one) for name, one in self.by_source.items())):
            found |= {tracker.name: (source + loss, "loss") for loss, tracker in meters.losses.items()}
            for output, metrics in meters.metrics.items():
                for given, made in zip(self.given_metrics[output], metrics, strict=True):
                    found[made.name] = (source + output, given if isinstance(given, str) else made.name)
        return found

    def _direction(self, output: str, given: Any, made: keras.metrics.Metric) -> int:
        exact = self._tasks[output].exact_metrics()
        if isinstance(given, str) and given in exact:
            return exact[given].direction
        return _keras_private.metric_direction(made)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "loss": {
                name: _saved(loss.given, self._default_losses[name]) for name, loss in self.loss_functions.items()
            },
            "loss_weights": dict(self.loss_weights),
            "metrics": {name: [serialize(metric) for metric in given] for name, given in self.given_metrics.items()},
        }


def _saved(loss: Any, default: Any) -> Any:
    """A head's own function is its head's to bring along."""
    return "auto" if loss is default and not isinstance(loss, str) else keras.saving.serialize_keras_object(loss)


def _by_loss(argument: str, given: Any, outputs: Any, default: Any) -> dict[str, Any]:
    """`given` as a dict with the names of all losses: what it leaves out is the default."""
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
    if unknown:
        raise ValueError(
            f"`{argument}` must name losses of the model. Received unknown: {unknown}. Expected: names among "
            f"{list(outputs)}; those that are left out are as their tasks say"
        )
    return {name: default[name] if _is_auto(given.get(name)) else given[name] for name in outputs}


def _is_auto(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "auto")


def _given_metrics(metrics: Any, outputs: Any) -> dict[str, list[Any]]:
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


def _metric(output: Output, metric: Any, prefix: str = "") -> keras.metrics.Metric:
    if isinstance(metric, str):
        known = output.task.streaming_metrics()
        check.check_choice(f"metrics[{output.name!r}]", metric, tuple(known))
        return known[metric](name=f"{prefix}{output.name}_{metric}")
    if not isinstance(metric, keras.metrics.Metric):
        raise TypeError(f"`metrics[{output.name!r}]` must be names or Keras metrics. Received: {metric!r}")
    # A copy: the object given may serve several outputs or models.
    config = copy.deepcopy(metric.get_config())
    config["name"] = f"{prefix}{output.name}_{metric.name}"
    return type(metric).from_config(config)
