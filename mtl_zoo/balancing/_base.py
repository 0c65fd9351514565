"""What balancing methods share: their state, the guards, and the record that reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check

# Below this a gradient counts as zero: its task is left out of the step's weighing.
TINY = 1e-20
# What a smaller loss counts as, where one divides by it or takes its logarithm.
SMALL_LOSS = 1e-8


class _StepSeed(keras.random.SeedGenerator):
    """Seeds that follow from a number and the step alone: the same on every replica, and after a restart."""

    def __init__(self, seed, step):
        # Without a variable of its own, which replicas would move apart and files would not hold.
        self.seed, self.step = seed, step

    def next(self, ordered=True):
        dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
        return ops.stack([ops.cast(self.seed, dtype), ops.cast(self.step, dtype)])


class Balancing(keras.layers.Layer):
    """Base of all methods. Subclass `LossBalancing`, `GramBalancing`, `GradientBalancing` or
    `RepresentationBalancing`.

    `compile` calls `prepare` with the losses' names and kinds; the state is made there, as weights that do not train,
    so saving, mirroring and resuming need nothing else. The losses that a method sees are those of the model times its
    `loss_weights`, over the global batch.

    A task without an observed row in the batch, or whose gradient is zero or not finite, is inactive for the step: the
    method weighs the others as if it were not there, its coefficient is 0, and `skipped` counts it.
    """

    method_name: ClassVar[str] = ""
    # Whether a step takes the gradient of each task's loss, and not only that of their sum.
    needs_task_gradients: ClassVar[bool] = False
    # Whether the losses of a batch are wanted once more, after the update (TensorFlow only).
    reevaluates: bool = False

    def __init__(self, name=None):
        super().__init__(name=name or "balancing", dtype="float32")
        self.loss_names: tuple[str, ...] = ()
        self.kinds: tuple[str, ...] = ()

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

    def record(self, coefficients, active) -> None:
        """Keeps what reports show of a step."""
        self.step.assign_add(1.0)
        self.skipped.assign_add(1.0 - active)
        self.last_coefficients.assign(coefficients)
        self.sum_coefficients.assign_add(coefficients)

    def load_own_variables(self, store):
        # Weights of a model that was compiled with another method, or with none: the state starts anew.
        shapes = [tuple(store[key].shape) for key in store.keys()]
        if sorted(shapes) == sorted(tuple(v.shape) for v in self.weights):
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def compute_output_shape(self, input_shape):
        return input_shape


class LossBalancing(Balancing):
    """A method that weighs the losses themselves: one forward, one backward pass, on any backend.

    A subclass gives `coefficients(losses, active)`. The step's objective is `sum_k c_k L_k` with the `c_k` held
    constant, for shared and private weights alike.
    """

    def coefficients(self, losses, active):
        """`c`, (losses,), from the losses, (losses,), and which are active, (losses,) of 0 and 1. May update state."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients(losses, active)`.")

    def after_step(self, losses, active) -> None:
        """Called with the losses of the same batch after the update, if `reevaluates`."""

    def objective(self, losses):
        """What a training step differentiates, from the losses, (losses,), of this replica's rows.

        A loss that is not finite is left out of the gradient but not of the value: it must be seen.
        """
        everywhere = _backend.sum_over_replicas(losses)
        coefficients = self.weigh(everywhere, ops.cast(everywhere != 0, "float32"))
        fine = ops.isfinite(everywhere)
        spoiled = ops.stop_gradient(ops.sum(ops.where(fine, 0.0, losses)))
        return ops.sum(coefficients * ops.where(fine, losses, 0.0)) + spoiled

    def weigh(self, losses, active):
        """The coefficients of a training step, guarded and recorded."""
        losses, active = _finite(losses, active)
        given = ops.where(active > 0, self.coefficients(losses, active), 0.0)
        coefficients = ops.stop_gradient(ops.where(ops.all(ops.isfinite(given)), given, active))
        self.record(coefficients, active)
        return coefficients

    def see_again(self, losses) -> None:
        """`after_step` with the losses, (losses,), of this replica's rows."""
        everywhere = _backend.sum_over_replicas(losses)
        self.after_step(*_finite(everywhere, ops.cast(everywhere != 0, "float32")))


class _GradientMethod(Balancing):
    """What methods of gradients share. TensorFlow only.

    A task's private weights receive its own gradient, unweighed. Where the losses share nothing that could be weighed,
    each weight receives the plain sum, with a warning.
    """

    needs_task_gradients = True
    # What the tasks' gradients are taken of: "weight", those that several losses depend on, "layer", the last of them,
    # or "representation", what lies between shared layers and private ones.
    taken_of: ClassVar[str] = "weight"
    # The model in two, below the representation and above it; set by `compile` where gradients are taken of it.
    halves: Any = None

    def prepare(self, names, kinds):
        super().prepare(names, kinds)
        count = len(self.loss_names)
        self.last_norms = self.state("last_norms", (count,), 0.0)
        self.last_cosines = self.state("last_cosines", (count, count), 0.0)
        # Sums over the steps in which both tasks were active and gradients were at hand, and how many those were.
        self.sum_norms = self.state("sum_norms", (count,), 0.0)
        self.sum_cosines = self.state("sum_cosines", (count, count), 0.0)
        self.conflicts = self.state("conflicts", (count, count), 0.0)
        self.compared = self.state("compared", (count, count), 0.0)

    def record_gram(self, gram, active) -> None:
        norms = ops.sqrt(ops.maximum(ops.diagonal(gram), 0.0))
        both = active[:, None] * active[None, :]
        cosines = both * gram / ops.maximum(norms[:, None] * norms[None, :], TINY)
        self.last_norms.assign(norms)
        self.last_cosines.assign(cosines)
        self.sum_norms.assign_add(norms)
        self.sum_cosines.assign_add(cosines)
        self.conflicts.assign_add(ops.cast(cosines < 0, "float32"))
        self.compared.assign_add(both)


class GramBalancing(_GradientMethod):
    """A method that needs the tasks' gradients only through their products: `A_kl = g_k . g_l` over shared weights.

    A subclass gives `coefficients(gram, losses, active)`; shared weights, embedding tables among them, receive
    `sum_k c_k g_k`.

    Args:
        include_tables: Whether the touched rows of embedding tables count as shared parameters. By default they are
            left out of the weighing, and receive the combination that it found.
        update_every: Coefficients are found anew every so many steps, and kept in between, at the cost of one backward
            pass. A task that is inactive when they are found keeps the one it had. With several replicas the
            gradients are computed at every step all the same.
    """

    # Whether private weights receive their task's gradient times its coefficient.
    weighs_private: ClassVar[bool] = False

    def __init__(self, include_tables=False, update_every=1, name=None):
        super().__init__(name)
        self.include_tables = bool(include_tables)
        self.update_every = check.check_int("update_every", update_every)

    def prepare(self, names, kinds):
        super().prepare(names, kinds)
        self.kept_coefficients = self.state("kept_coefficients", (len(self.loss_names),), 1.0)

    def coefficients(self, gram, losses, active):
        """`c`, (losses,), from A, (losses, losses), the losses and which are active. May update state.

        Rows and columns of inactive tasks are 0; what is returned for them is ignored.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients(gram, losses, active)`.")

    def weigh(self, gram, losses, active):
        """The coefficients of a training step, guarded."""
        coefficients = ops.where(active > 0, self.coefficients(gram, losses, active), 0.0)
        # A solver that fails must not spoil the weights: the plain sum of what is active in its place.
        coefficients = ops.where(ops.all(ops.isfinite(coefficients)), coefficients, active)
        return ops.stop_gradient(coefficients)

    def put_in_force(self, coefficients, active) -> None:
        """Keeps coefficients for the steps that find none; inactive tasks keep theirs."""
        self.kept_coefficients.assign(ops.where(active > 0, coefficients, self.kept_coefficients))

    def get_config(self):
        return {**super().get_config(), "include_tables": self.include_tables, "update_every": self.update_every}


class GradientBalancing(_GradientMethod):
    """A method that needs the gradients of shared weights themselves, tables aside.

    A subclass gives `direction(gradients, losses, active, sizes)`. Tables receive `sum_k c_k g_k`.
    """

    # Whether the method has state by parameter: then `sizes` must be known when it is made.
    keeps_gradients: ClassVar[bool] = False

    def __init__(self, name=None):
        super().__init__(name)
        # How many parameters each shared weight has, tables aside; set before `prepare` if the method keeps gradients.
        self.sizes: tuple[int, ...] = ()

    def direction(self, gradients, losses, active, sizes):
        """What the shared weights receive, and the coefficients that tables receive. May update state.

        Args:
            gradients: (losses, parameters), of the global batch; rows of inactive tasks are 0.
            losses: (losses,); 0 for inactive tasks.
            active: (losses,) of 0 and 1.
            sizes: How many of the parameters belong to each variable, in order.

        Returns:
            (parameters,) and (losses,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `direction(gradients, losses, active, sizes)`.")

    def combine(self, gradients, losses, active, sizes):
        """The direction of a training step, guarded."""
        shared, coefficients = self.direction(gradients, losses, active, sizes)
        fine = ops.logical_and(ops.all(ops.isfinite(shared)), ops.all(ops.isfinite(coefficients)))
        shared = ops.where(fine, shared, ops.matmul(active[None, :], gradients)[0])
        return shared, ops.where(fine, coefficients * active, active)


class RepresentationBalancing(_GradientMethod):
    """A method that mixes the gradients of the shared representation: what lies between shared layers and private ones.

    A subclass gives `mix(gradients, values, losses, active)`; shared weights, tables among them, receive what flows
    down from the mixture in one backward pass.
    """

    taken_of = "representation"

    def mix(self, gradients, values, losses, active):
        """One gradient of the representation from those of the tasks. May update state.

        Args:
            gradients: (losses, batch, features), of this replica's rows; 0 for inactive tasks.
            values: (batch, features), the representation itself.
            losses: (losses,); 0 for inactive tasks.
            active: (losses,) of 0 and 1.

        Returns:
            (batch, features).
        """
        raise NotImplementedError(f"{type(self).__name__} must define `mix(gradients, values, losses, active)`.")


def check_by_loss(argument: str, given: Any, **bounds: float) -> dict[str, float] | None:
    """A dict of numbers by loss name, within the bounds of `check_number`; or None."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"`{argument}` must be a dict by loss name. Received: {argument}={given!r}")
    return {name: check.check_number(f"{argument}[{name!r}]", value, **bounds) for name, value in given.items()}


def _finite(losses, active):
    """The losses with 0 for what is not finite, which is inactive then."""
    fine = ops.isfinite(losses)
    return ops.where(fine, losses, 0.0), active * ops.cast(fine, "float32")


def masked_softmax(x, active):
    """Softmax over the active entries, 0 elsewhere."""
    # Inactive entries may hold anything, and there may be no others.
    exponent = active * ops.exp(ops.where(active > 0, x - ops.max(ops.where(active > 0, x, -1e30)), 0.0))
    return exponent / ops.maximum(ops.sum(exponent), TINY)
