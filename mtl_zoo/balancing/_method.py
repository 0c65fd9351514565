"""What all balancing methods share: their state, the guards, and the record that reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops

from mtl_zoo import _validation as check

if TYPE_CHECKING:
    from mtl_zoo.balancing.engine.task_gradients import TaskGradients

# Below this a gradient counts as zero: its task is left out of the step's weighing.
TINY = 1e-20
# What a smaller loss counts as, where one divides by it or takes its logarithm.
SMALL_LOSS = 1e-8


class _StepSeed(keras.random.SeedGenerator):
    """Seeds that follow from a number and the step alone: the same on every replica, and after a restart."""

    def __init__(self, seed: int, step: Any):
        # Without a variable of its own, which replicas would move apart and files would not hold.
        self.seed, self.step = seed, step

    def next(self, ordered: bool = True) -> Any:
        dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
        return ops.stack([ops.cast(self.seed, dtype), ops.cast(self.step, dtype)])


class Balancing(keras.layers.Layer):
    """Base of all methods. A method extends `LossBalancing`, `GramBalancing`, `GradientBalancing` or
    `RepresentationBalancing`; another kind of method extends this class and gives `gradients(tasks)`.

    `compile` calls `prepare` with the losses' names and kinds; the state is made there, as weights that do not train,
    so saving, mirroring and resuming need nothing else. The losses that a method sees are those of the model times its
    `loss_weights`, over the global batch.

    A task without an observed row in the batch, or whose gradient is zero or not finite, is inactive for the step: the
    method weighs the others as if it were not there, its coefficient is 0, and `skipped` counts it.

    Example:

    >>> from mtl_zoo.balancing import Balancing, create_balancing
    >>> method = create_balancing("dwa", steps=100)
    >>> isinstance(method, Balancing), method.method_name
    (True, 'dwa')
    """

    method_name: ClassVar[str] = ""
    # Whether a step takes the gradient of each task's loss, and not only that of their sum. TensorFlow only.
    needs_task_gradients: ClassVar[bool] = False
    # Whether the losses of a batch are wanted once more, after the update. TensorFlow only.
    reevaluates: bool = False
    # Whether what the method does is a coefficient for each task, which reports show.
    has_coefficients: ClassVar[bool] = True
    # The model in two, below the representation and above it, for methods that look at gradients of that.
    halves: Any = None

    def __init__(self, name: str | None = None):
        super().__init__(name=name or "balancing", dtype="float32")
        self.loss_names: tuple[str, ...] = ()
        self.kinds: tuple[str, ...] = ()

    @property
    def gradients_of(self) -> str | None:
        """What the gradients that the method compares are taken of, in words for reports; None if it looks at none."""
        return None

    @property
    def training_step(self) -> str:
        """The training step that a model compiled with this method takes, one of `mtl_zoo.steps.list_steps()`."""
        if self.needs_task_gradients:
            return "balanced"
        return "reevaluated" if self.reevaluates else "plain"

    def prepare_for(self, model: Any, labels: Sequence[str], kinds: Sequence[str]) -> None:
        """Makes the state for a model's losses, which have these kinds; `labels` are the names that labels have."""
        self.prepare(model.loss_names, kinds)

    def prepare(self, names: Sequence[str], kinds: Sequence[str]) -> None:
        """Makes the state for these losses; `kinds` are `"binary"`, `"multiclass"` or `"regression"`."""
        self.loss_names, self.kinds = tuple(names), tuple(kinds)
        count = len(self.loss_names)
        self.step = self.state("step", (), 0.0)
        self.skipped = self.state("skipped", (count,), 0.0)
        self.last_coefficients = self.state("last_coefficients", (count,), 1.0)
        self.sum_coefficients = self.state("sum_coefficients", (count,), 0.0)
        self.make_state(count)
        self.built = True

    def make_state(self, count: int) -> None:
        """Makes further state, for `count` losses. None by default."""

    def state(self, name: str, shape: tuple[int, ...], value: float) -> Any:
        """A weight that does not train, equal on every replica.

        `ops.convert_to_tensor` of it is no copy: what is computed after `assign` sees the new value.
        """
        return self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            # Each replica writes its own copy, from what is the same on all: so state may change inside a branch.
            aggregation="none",
            name=name,
        )

    def by_loss(self, argument: str, given: Mapping[str, float] | None, default: float) -> tuple[float, ...]:
        """The numbers of a dict by loss name, in the order of the losses; `default` for all where there is none."""
        if given is None:
            return (default,) * len(self.loss_names)
        unknown = [name for name in given if name not in self.loss_names]
        forgotten = [name for name in self.loss_names if name not in given]
        if unknown or forgotten:
            raise ValueError(
                f"`{argument}` must name every loss of the model and nothing else. Received unknown: {unknown}, "
                f"missing: {forgotten}. Expected: the names {list(self.loss_names)}"
            )
        return tuple(given[name] for name in self.loss_names)

    def step_seed(self, seed: int) -> keras.random.SeedGenerator:
        """The `seed=` of one random draw a step, the same on all replicas and in training that was resumed."""
        return _StepSeed(seed, self.step)

    def objective(self, losses: Any) -> Any:
        """What a plain step differentiates, from the losses, (losses,), of this replica's rows. Default: their sum."""
        return ops.sum(losses)

    def gradients(self, tasks: TaskGradients) -> list:
        """The gradients that the optimizer receives, from those of each task; TensorFlow only.

        Args:
            tasks: The gradients of one batch, and what puts them together.

        Returns:
            A gradient for each of `tasks.sources`, in order; None where no loss depends on one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `gradients(tasks)`.")

    def record(self, coefficients: Any, active: Any) -> None:
        """Keeps what reports show of a step."""
        self.step.assign_add(1.0)
        self.skipped.assign_add(1.0 - active)
        self.last_coefficients.assign(coefficients)
        self.sum_coefficients.assign_add(coefficients)

    def load_own_variables(self, store: Any) -> None:
        # Weights of a model that was compiled with another method, or with none: the state starts anew.
        shapes = [tuple(store[key].shape) for key in store.keys()]
        if sorted(shapes) == sorted(tuple(v.shape) for v in self.weights):
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def check_by_loss(argument: str, given: Any, **bounds: float) -> dict[str, float] | None:
    """A dict of numbers by loss name, within the bounds of `check_number`; or None."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"`{argument}` must be a dict by loss name. Received: {argument}={given!r}")
    return {name: check.check_number(f"{argument}[{name!r}]", value, **bounds) for name, value in given.items()}


def masked_softmax(x: Any, active: Any) -> Any:
    """Softmax over the active entries, 0 elsewhere."""
    # Inactive entries may hold anything, and there may be no others.
    exponent = active * ops.exp(ops.where(active > 0, x - ops.max(ops.where(active > 0, x, -1e30)), 0.0))
    return exponent / ops.maximum(ops.sum(exponent), TINY)
