"""One thing to time: a compiled model with its batches, and its step in parts that add up to the whole."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.studies._cost import Cost, graph_cost
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.features.batching import make_batches
from mtl_zoo.features.spec import FIRST_ID, Categorical, Feature, Numeric, Sequence
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models import create_model, model_info
from mtl_zoo.tasks import BinaryTask

_BATCHES = 16
# Rows in memory, from which the next batch is drawn for the cost of input.
_INPUT_ROWS = 200_000
_DOMAINS, _HISTORY = 4, 20
# The MMoE that speed is told of.
SMALL: dict[str, Any] = {"num_experts": 8, "expert_units": (128, 64), "tower_units": (32,)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the sizes of its features, batch and tasks.

    A model gets what it needs beside the features and tasks of all: a domain (of 4), a history (20 ids), a cart task.

    Args:
        model: A name of `list_models()`.
        vocabulary: Ids of each categorical feature.
        optimizer: What `compile` takes by name: `"auto"` reads and writes rows, `"adam"` is Keras' own.
        batch: Rows a step, of all replicas together.
        features: Categorical features; their ids are uniform, so that hardly any row is hot.
        numerics: Numeric features.
        dim: Width of an embedding.
        hyperparameters: Arguments of the model.
        num_tasks: Binary tasks: a click, a conversion on clicked rows, what the model needs, others on all rows.
        replicas: Logical CPUs of a MirroredStrategy; 1 is none.
        steps_per_execution: Steps that Keras' own train function runs at a call, reading from a `tf.data.Dataset`;
            1 is a call for each step, its batch at hand.
    """

    model: str
    vocabulary: int
    optimizer: str = "auto"
    batch: int = 1024
    features: int = 30
    numerics: int = 10
    dim: int = 16
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_tasks: int = 2
    replicas: int = 1
    steps_per_execution: int = 1

    def __post_init__(self):
        if self.batch % self.replicas or (self.replicas > 1 and self.steps_per_execution > 1):
            raise ValueError(
                "`batch` must be a multiple of `replicas`, and `steps_per_execution` 1 with several of them. Received: "
                f"batch={self.batch}, replicas={self.replicas}, steps_per_execution={self.steps_per_execution}"
            )

    @property
    def columns(self) -> dict[str, Any]:
        """The fields as a row has them."""
        return {**dataclasses.asdict(self), "hyperparameters": json.dumps(self.hyperparameters)}

    @property
    def tasks(self) -> tuple[BinaryTask, ...]:
        found = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
        if "middle_action" in self._needs:
            found.append(BinaryTask("cart", sample_space="click"))
        return (*found, *(BinaryTask(f"task_{i}") for i in range(len(found), self.num_tasks)))

    @property
    def _needs(self) -> tuple[str, ...]:
        return model_info(self.model).requires

    def specs(self) -> list[Feature]:
        """The features of the model."""
        found: list[Feature] = [
            Categorical(f"id_{i}", size=self.vocabulary, dim=self.dim) for i in range(self.features)
        ]
        found += [Numeric(f"number_{i}", normalization=None) for i in range(self.numerics)]
        if "domain" in self._needs:
            found.append(Categorical("domain", size=_DOMAINS, dim=self.dim))
        if "sequence" in self._needs:
            found.append(Sequence("history", size=self.vocabulary, length=_HISTORY, dim=self.dim))
        return found

    def create(self) -> Any:
        """The model, not compiled."""
        return create_model(
            self.model, self.specs(), self.tasks, **resolve_hyperparameters(self.model, self.hyperparameters)
        )

    def build(self) -> Any:
        """The model, compiled without metrics, its optimizer built."""
        model = self.create()
        model.compile(self.optimizer, metrics=None, steps_per_execution=self.steps_per_execution)
        model.optimizer.build(model.trainable_variables)
        return model

    def draw(self, rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and labels: uniform ids, normal numbers, a fifth of the labels 1."""
        rng = np.random.default_rng(seed)

        def column(feature: Any) -> np.ndarray:
            if isinstance(feature, Numeric):
                return rng.standard_normal(rows, dtype="float32")
            shape = (rows, feature.length) if isinstance(feature, Sequence) else rows
            return rng.integers(FIRST_ID, FIRST_ID + feature.size, shape, dtype="int32")

        inputs = {feature.name: column(feature) for feature in self.specs()}
        return inputs, {task.name: (rng.random(rows) < 0.2).astype("float32") for task in self.tasks}


def touch_slots(model: Any) -> None:
    """Writes to the optimizer's slots: the first write to a page costs more than any later one, and memory."""
    for variable in model.optimizer.variables:
        if len(variable.shape):  # not the learning rate
            variable.value.assign_add(ops.zeros_like(variable.value))  # in its own memory


@functools.cache
def _mirrored(replicas: int) -> Any:
    """One strategy for all cases: TensorFlow numbers the collective operations of each anew, and two may collide."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


class Timed:
    """A model whose parts can be timed: `input`, `embedding`, `forward`, `gradients`, `step`.

    `embedding` is part of `forward`, that of `gradients`, and that of `step`; `input` is apart.
    """

    def __init__(self, case: Case):
        self.case = case
        self._strategy = _mirrored(case.replicas) if case.replicas > 1 else None
        with self._strategy.scope() if self._strategy else contextlib.nullcontext():
            self.model = case.build()
        touch_slots(self.model)
        self._batches = itertools.cycle([self._batch(seed) for seed in range(_BATCHES)])
        self._functions = {name: self._compiled(function) for name, function in _parts(self.model).items()}
        draws = _input(case.batch, case.features, case.numerics, case.vocabulary)
        self.parts: dict[str, Callable[[int], float]] = {"input": functools.partial(_seconds, lambda: next(draws))}
        for name, function in self._functions.items():
            self.parts[name] = functools.partial(self._time, function)
        if case.steps_per_execution > 1:
            self.parts["step"] = self._time_train_function()
        for part in self.parts.values():
            part(2)

    def cost(self) -> Cost:
        """Of one step, from its traced graph; of all replicas together."""
        return graph_cost(self._functions["step"].get_concrete_function(*next(self._batches)))

    def _batch(self, seed: int) -> Any:
        import tensorflow as tf

        def tensors(part: int) -> Any:
            return tf.nest.map_structure(tf.constant, self.case.draw(self.case.batch // self.case.replicas, part))

        if self._strategy is None:
            return tensors(seed)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tensors(seed * self.case.replicas + context.replica_id_in_sync_group)
        )

    def _compiled(self, function: Callable) -> Any:
        import tensorflow as tf

        if self._strategy is None:
            return tf.function(function, autograph=False)
        strategy = self._strategy
        return tf.function(lambda x, y: strategy.run(function, args=(x, y)), autograph=False)

    def _time(self, function: Callable, steps: int) -> float:
        return _seconds(lambda: function(*next(self._batches)), steps, self._wait_for)

    def _time_train_function(self) -> Callable[[int], float]:
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(self.case.draw(self.case.batch * _BATCHES))
        batches = iter(data.batch(self.case.batch, drop_remainder=True).cache().repeat().prefetch(2))
        self.model.make_train_function()
        each = self.case.steps_per_execution
        return lambda steps: (
            _seconds(lambda: self.model.train_function(batches), -(-steps // each), self._wait_for) / each
        )

    def _wait_for(self, result: Any) -> None:
        for tensor in keras.tree.flatten(result):
            for part in self._strategy.experimental_local_results(tensor) if self._strategy else (tensor,):
                np.asarray(part)


def _seconds(call: Callable[[], Any], calls: int, wait: Callable[[Any], None] | None = None) -> float:
    """Of one of several calls, the last of which is waited for."""
    started = time.perf_counter()
    for _ in range(calls):
        result = call()
    if wait is not None:
        wait(result)
    return (time.perf_counter() - started) / calls


def _parts(model: Any) -> dict[str, Callable]:
    """What of a step is timed, each a function of inputs and labels."""
    import tensorflow as tf

    layers = [layer for layer in model.layers if isinstance(layer, FeatureEmbedding)]

    def embedding(x, y):
        return [layer({feature.name: x[feature.name] for feature in layer.features}) for layer in layers]

    def forward(x, y):
        return model.compute_loss(x, y, model(x, training=True))

    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        found = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return tf.nest.flatten(found, expand_composites=True)

    def step(x, y):
        return model.train_step((x, y))

    return {"embedding": embedding, "forward": forward, "gradients": gradients, "step": step}


@functools.lru_cache(maxsize=1)
def _input(batch: int, features: int, numerics: int, vocabulary: int) -> Any:
    """Shuffled batches of rows in memory, without end; cases of the same size share them."""
    rows = Case("shared_bottom", vocabulary, features=features, numerics=numerics).draw(_INPUT_ROWS)
    return iter(make_batches(*rows, batch_size=batch, shuffle=True, seed=0).repeat())
