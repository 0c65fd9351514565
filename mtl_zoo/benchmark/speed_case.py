"""One thing to time: a compiled model with its batches, and its step in lengths that add up to the whole."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.cost import Cost, graph_cost
from mtl_zoo.benchmark.runner import resolve_hyperparameters
from mtl_zoo.features.batching import make_batches
from mtl_zoo.features.spec import FIRST_ID, Categorical, Feature, Numeric, Sequence
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.models import create_model, model_info
from mtl_zoo.tasks import BinaryTask

_BATCHES = 16
# Rows in memory, from which the next batch is drawn for the cost of input.
_INPUT_ROWS = 200_000
_TASKS = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))
# What a model that needs them gets beside the features and tasks of all.
_CART = BinaryTask("cart", sample_space="click")
_DOMAINS = 4
_HISTORY = 20


@dataclasses.dataclass(frozen=True)
class SpeedCase:
    """One thing to time.

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
        for argument in ("vocabulary", "batch", "features", "dim", "replicas", "steps_per_execution"):
            check.check_int(argument, getattr(self, argument))
        check.check_int("numerics", self.numerics, minimum=0)
        check.check_int("num_tasks", self.num_tasks, minimum=2)
        if self.replicas > 1 and self.steps_per_execution > 1:
            raise ValueError(
                "`steps_per_execution` must be 1 with several replicas: more are timed on one device only. "
                f"Received: steps_per_execution={self.steps_per_execution}, replicas={self.replicas}"
            )
        if self.batch % self.replicas:
            raise ValueError(
                f"`batch` must be a multiple of `replicas`. Received: batch={self.batch}, replicas={self.replicas}"
            )

    @property
    def tasks(self) -> tuple[BinaryTask, ...]:
        needed = (*_TASKS, _CART) if self._needs("middle_action") else _TASKS
        return (*needed, *(BinaryTask(f"task_{i}") for i in range(len(needed), self.num_tasks)))

    def _needs(self, what: str) -> bool:
        return what in model_info(self.model).requires

    def specs(self) -> list[Feature]:
        """The features of the model."""
        ids = range(self.features)
        specs: list[Feature] = [Categorical(f"id_{i}", size=self.vocabulary, dim=self.dim) for i in ids]
        specs += [Numeric(f"number_{i}", normalization=None) for i in range(self.numerics)]
        if self._needs("domain"):
            specs.append(Categorical("domain", size=_DOMAINS, dim=self.dim))
        if self._needs("sequence"):
            specs.append(Sequence("history", size=self.vocabulary, length=_HISTORY, dim=self.dim))
        return specs


def build_model(case: SpeedCase) -> Any:
    """The case's model, compiled, without metrics."""
    options = resolve_hyperparameters(case.model, case.hyperparameters)
    model = create_model(case.model, case.specs(), case.tasks, **options)
    model.compile(case.optimizer, metrics=None, steps_per_execution=case.steps_per_execution)
    model.optimizer.build(model.trainable_variables)
    return model


def touch_slots(model: Any) -> None:
    """Writes to the optimizer's slots: the first write to a page costs more than any later one, and memory."""
    for variable in model.optimizer.variables:
        if len(variable.shape):  # not the learning rate
            variable.assign(ops.zeros_like(variable.value))


def draw_rows(case: SpeedCase, rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and labels: uniform ids, normal numbers, a fifth of the labels 1."""
    rng = np.random.default_rng(seed)

    def column(feature):
        if isinstance(feature, Numeric):
            return rng.standard_normal(rows, dtype="float32")
        shape = (rows, feature.length) if isinstance(feature, Sequence) else rows
        return rng.integers(FIRST_ID, FIRST_ID + feature.size, shape, dtype="int32")

    inputs = {feature.name: column(feature) for feature in case.specs()}
    return inputs, {task.name: (rng.random(rows) < 0.2).astype("float32") for task in case.tasks}


@functools.cache
def _mirrored(replicas: int) -> Any:
    """One strategy for all cases: TensorFlow numbers the collective operations of each anew, and two may collide."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


class TimedCase:
    """A model whose parts can be timed: `input`, `embedding`, `forward`, `gradients`, `step`.

    `embedding` is part of `forward`, that of `gradients`, and that of `step`; `input` is apart.
    """

    def __init__(self, case: SpeedCase):
        self.case = case
        self._strategy = _mirrored(case.replicas) if case.replicas > 1 else None
        with self._strategy.scope() if self._strategy else contextlib.nullcontext():
            self.model = build_model(case)
        touch_slots(self.model)
        self._batches = itertools.cycle([self._batch(seed) for seed in range(_BATCHES)])
        self._draws = _input(case.batch, case.features, case.numerics, case.vocabulary)
        self._functions = {name: self._compiled(function) for name, function in _parts(self.model).items()}
        self.parts: dict[str, Callable[[int], float]] = {"input": self._time_input}
        self.parts |= {name: functools.partial(self._time, run) for name, run in self._functions.items()}
        if case.steps_per_execution > 1:
            self.parts["step"] = self._time_train_function()
        for part in self.parts.values():
            part(2)

    def cost(self) -> Cost:
        """Of one step, from its traced graph; of all replicas together."""
        return graph_cost(self._functions["step"].get_concrete_function(*next(self._batches)))

    def _batch(self, seed: int) -> Any:
        import tensorflow as tf

        def tensors(part):
            return tf.nest.map_structure(tf.constant, draw_rows(self.case, self.case.batch // self.case.replicas, part))

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

    def _time(self, run: Callable, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            result = run(*next(self._batches))
        self._wait_for(result)
        return (time.perf_counter() - started) / steps

    def _time_input(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            next(self._draws)
        return (time.perf_counter() - started) / steps

    def _time_train_function(self) -> Callable[[int], float]:
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(draw_rows(self.case, self.case.batch * _BATCHES))
        batches = iter(data.batch(self.case.batch, drop_remainder=True).cache().repeat().prefetch(2))
        self.model.make_train_function()

        def seconds(steps):
            calls = -(-steps // self.case.steps_per_execution)
            started = time.perf_counter()
            for _ in range(calls):
                result = self.model.train_function(batches)
            self._wait_for(result)
            return (time.perf_counter() - started) / (calls * self.case.steps_per_execution)

        return seconds

    def _wait_for(self, result: Any) -> None:
        for tensor in keras.tree.flatten(result):
            for part in self._strategy.experimental_local_results(tensor) if self._strategy else (tensor,):
                np.asarray(part)


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
    rows = draw_rows(SpeedCase("shared_bottom", vocabulary, features=features, numerics=numerics), _INPUT_ROWS)
    return iter(make_batches(*rows, batch_size=batch, shuffle=True, seed=0).repeat())
