from __future__ import annotations

from collections.abc import Sequence

import keras

from mtl_zoo import _validation as check
from mtl_zoo._space import Choice
from mtl_zoo._types import Tensor
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head, Towers
from mtl_zoo.heads._base import task_tower
from mtl_zoo.layers import DenseStack, StopGradient
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._biases import biases_of
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units

TRANSFERS = ("hidden", "logit", "probability")
COMBINATIONS = ("concat", "add")
_ACTIVATIONS = {"identity": "linear"}  # Keras' names of links, where they differ


@register_model(
    "serial",
    paper="the chain of tasks of Hashimoto et al., EMNLP 2017",
    year=2017,
    reference="doi:10.18653/v1/D17-1206",
    kind="a chain of towers",
    good_for="tasks with a natural order, each a hint for the next (click, cart, purchase)",
    not_for="tasks without an order; many tasks, since towers run one after another",
    fails="errors of early tasks reach all later ones; without a stop, late losses bend the early towers",
    cost="one bottom, T stages of (b + s) s_1 + s_1 s_2 + ..., T towers",
    space={"stage_units": Choice((32,), (64,), (128,))},
)
class Serial(MultiTaskModel):
    """Serial: one network under all tasks, and a chain of towers in which each reads what the one before passes on.

    With `x` the concatenated feature vectors, tasks in the order 1 .. T, stage `s_t` the hidden part of tower t and
    `h_t` the rest of it:

        u = f(x)
        r_t = s_t([u ; c_t]),   y_t = h_t(r_t)
        c_1 nothing,  c_(t+1) = r_t  or  y_t  or  link(y_t)

    This is a general structure rather than the model of one paper. The cascades of the funnel models (`aitm`, `esmm`)
    are special cases with losses of their own. With zero weights on all `c_t` the towers are parallel,
    `y_t = h_t(s_t(u))`, as in `shared_bottom`.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        order: Names of the tasks (of the head's towers, if these are not the tasks) from first to last. Default: the
            order in which they are given.
        transfer: What is passed on: `"hidden"`, which is `r_t`; `"logit"`; or `"probability"`, the logit through the
            task's link (for a regression the predicted number). The last two need the default head.
        stop_gradient: Whether the losses of later tasks are kept from training earlier towers through what is passed
            on. All of them still train `f`.
        combine: With `"concat"` stages read `[u ; c_t]`; with `"add"` they read `u + P_t c_t`, where `P_t` is a matrix.
        bottom_units: Layer widths of `f`, or an `MLP`.
        stage_units: Layer widths of each `s_t`, or an `MLP`.
        tower_units: Layer widths of each `h_t`, or an `MLP`. Default: the linear layer alone.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, units are not whole numbers >= 1, `order`
            does not hold every task once, or the head does not allow the transfer.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import Serial
    >>> tasks = [BinaryTask("like"), BinaryTask("click")]
    >>> model = Serial([Categorical("user_id", size=9)], tasks, order=("click", "like"), transfer="logit")
    >>> model.get_layer("like_input").output.shape  # the bottom's 128 units and the logit of click
    (None, 129)

    Reference: the chain of Hashimoto et al., "A Joint Many-Task Model: Growing a Neural Network for Multiple NLP
    Tasks", EMNLP 2017, doi:10.18653/v1/D17-1206, where layers also read the predictions of the tasks below.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        order: Sequence[str] | None = None,
        transfer: str = "hidden",
        stop_gradient: bool = False,
        combine: str = "concat",
        bottom_units: Units = (256, 128),
        stage_units: Units = (64,),
        tower_units: Units = (),
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        check.check_choice("transfer", transfer, TRANSFERS)
        check.check_choice("combine", combine, COMBINATIONS)
        if transfer != "hidden" and type(plan.given_head) is not Towers:
            raise ValueError(
                "`transfer` must be 'hidden' under a head of its own kind, whose logits are made together. "
                f"Received: transfer={transfer!r} with head={head!r}"
            )
        chain = _checked_order(order, plan.towers)
        inputs = make_inputs(plan.features)
        u = DenseStack(bottom_units, name="bottom")(plan.embed(inputs))
        by_name = {task.name: task for task in plan.tasks}
        stages: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        passed: Tensor | None = None
        biases = biases_of(plan, inputs)
        for tower in chain:
            z = u if passed is None else _combine(tower, u, passed, combine)
            stages[tower] = passed = DenseStack(stage_units, name=f"{tower}_stage")(z)
            if transfer != "hidden":
                task = by_name[tower]
                logits[tower] = passed = task_tower(tower, task.units, stages[tower], tower_units, biases)
            if tower == chain[-1]:
                break
            if transfer == "probability":
                link = _ACTIVATIONS.get(task.link, task.link)
                passed = keras.layers.Activation(link, name=f"{tower}_score", dtype="float32")(passed)
            if stop_gradient:
                passed = StopGradient(name=f"{tower}_stop")(passed)
        towers = {tower: stages[tower] for tower in plan.towers}
        # In the order of the tasks, not of the chain.
        ordered = {tower: logits[tower] for tower in plan.towers} if logits else None
        super().__init__(plan, inputs, towers, logits=ordered, tower_units=tower_units, name=name)
        self.order = order
        self.transfer = transfer
        self.stop_gradient = bool(stop_gradient)
        self.combine = combine
        self.bottom_units = bottom_units
        self.stage_units = stage_units


def _checked_order(order: Sequence[str] | None, towers: Sequence[str]) -> tuple[str, ...]:
    if order is None:
        return tuple(towers)
    if isinstance(order, str) or sorted(order) != sorted(towers):
        raise ValueError(
            f"`order` must hold every task once. Received: order={order!r}. Expected: an order of {list(towers)}"
        )
    return tuple(order)


def _combine(tower: str, u: Tensor, passed: Tensor, combine: str) -> Tensor:
    if combine == "concat":
        return keras.layers.Concatenate(name=f"{tower}_input")([u, passed])
    projected = keras.layers.Dense(u.shape[-1], use_bias=False, name=f"{tower}_transfer")(passed)
    return keras.layers.Add(name=f"{tower}_input")([u, projected])
