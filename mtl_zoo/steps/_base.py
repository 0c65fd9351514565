"""What a training step is, and the steps by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras

from mtl_zoo import _backend
from mtl_zoo._registry import Registry
from mtl_zoo.balancing import Balancing
from mtl_zoo.losses.batch import Batch


class Outcome(NamedTuple):
    """What a step leaves for the logs.

    Args:
        loss: The loss of this replica's rows before the update, a scalar; over the replicas it adds up to that of the
            global batch.
        logits: By output name, from before the update: what metrics are computed of.
        rows: The model's `row_losses` of these.
        total: The loss of the global batch, which several replicas must add up before they reduce gradients: in the
            other order they wait for each other for ever.

    Example:

    >>> from mtl_zoo.steps import Outcome
    >>> Outcome._fields[:3]
    ('loss', 'logits', 'rows')
    """

    loss: Any
    logits: Any
    rows: Any
    total: Any


class Step:
    """Base of training steps: what happens to a model's weights on one batch. TensorFlow only, save for `"plain"`.

    A step holds options and no state; state belongs to the model, its optimizer or its balancing method, which are
    saved and resumed. A subclass gives `run(model, batch)`, is registered with `@register_step("name")`, and keeps each
    argument as an attribute of the same name, which makes its config.

    Example:

    >>> from mtl_zoo.steps import PlainStep, Step
    >>> isinstance(PlainStep(), Step)
    True
    """

    step_name: ClassVar[str] = ""

    def check(self, model: Any, balancing: Balancing | None) -> None:
        """Refuses what the step cannot train; called by `compile`.

        Args:
            model: The model, whose losses and metrics are set.
            balancing: The balancing method that it is compiled with.

        Raises:
            ValueError: By default: on another backend than TensorFlow, or with a balancing method that would be ignored
                since it asks for another step.
        """
        if not _backend.is_tensorflow():
            raise ValueError(
                f"`step` must be None on the {keras.backend.backend()!r} backend, where Keras' own is the only one. "
                f"Received: step={self.step_name!r}"
            )
        if balancing is not None and balancing.training_step not in ("plain", self.step_name):
            raise ValueError(
                f"`step` must be None or {balancing.training_step!r} with this balancing method, which needs it. "
                f"Received: step={self.step_name!r}, balancing={balancing.method_name!r}"
            )

    def run(self, model: Any, batch: Batch) -> Outcome:
        """Computes gradients and has the model's optimizer apply them.

        Args:
            model: A compiled model.
            batch: One batch; with several replicas, this replica's part of it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `run(model, batch)`.")

    def run_state(self, model: Any, state: Any, data: Any) -> tuple[Any, Any]:
        """The step on JAX, from all variables' values to the next ones. Only `"plain"` has one."""
        raise NotImplementedError(f"{type(self).__name__} has no step for JAX.")

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Step:
        return cls(**config)


STEPS: Registry[type[Step]] = Registry("step")


def register_step(name: str) -> Callable[[type[Step]], type[Step]]:
    """Decorator that enters a step under a name for `compile(step=...)` and registers it for saving.

    Example:

    >>> from mtl_zoo.steps import Step, register_step
    >>> @register_step("plain")
    ... class Mine(Step):
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'plain', the name of PlainStep
    """

    def register(cls: type[Step]) -> type[Step]:
        STEPS.add(name, cls)
        cls.step_name = name
        return keras.saving.register_keras_serializable(package="mtl_zoo")(cls)

    return register


def list_steps() -> list[str]:
    """The names that `compile(step=...)` knows, sorted.

    Example:

    >>> from mtl_zoo.steps import list_steps
    >>> list_steps()
    ['balanced', 'maml', 'plain', 'reevaluated', 'reptile']
    """
    return STEPS.names()


def as_step(given: str | Step | None, balancing: Balancing | None = None) -> Step:
    """What `compile(step=...)` takes: a name, a step, or None for what the balancing method asks for.

    Raises:
        ValueError: An unknown name.
        TypeError: Something else.

    Example:

    >>> from mtl_zoo.steps import as_step
    >>> type(as_step("plain")).__name__
    'PlainStep'
    """
    if given is None:
        given = "plain" if balancing is None else balancing.training_step
    if isinstance(given, str):
        return STEPS[given]()
    if not isinstance(given, Step):
        raise TypeError(f"`step` must be a name or a Step. Received: step={given!r}. Expected: one of {list_steps()}")
    return given
