from __future__ import annotations

import keras

from mtl_zoo import _validation as check
from mtl_zoo._types import Tensor
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertMixture, NativeFusion, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._extraction import SHARED, Experts, check_extraction, make_experts
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "adatt",
    paper="Li et al., KDD 2023",
    year=2023,
    reference="doi:10.1145/3580305.3599769",
    kind="experts of tasks, read by all",
    good_for="tasks that should learn from each other row by row and level by level",
    not_for="tasks that conflict: the experts of each are open to the gradients of all",
    fails="gates that settle on one expert; the authors call the native residual crucial",
    cost="T m_t + m_s experts of D e_1 + e_1 e_2 + ... at the first level, the same with D = e at each further one, "
    "T + 1 gates of T m_t + m_s columns a level (T at the last), T towers",
)
class AdaTT(MultiTaskModel):
    """Adaptive task-to-task fusion: each unit gates the experts of all units and adds its own, level by level.

    There is a unit for each task and one shared unit. With `x` the concatenated feature vectors, `f_u^0 = x`, and at
    level l = 1 .. L the experts `E_u^l` of unit u, which read `f_u^(l-1)`, and `E^l` those of all units:

        f_u^l = softmax(W_u^l f_u^(l-1)) E^l + v_u^l E_u^l
        y_k = h_k(f_k^L)

    `v_u^l` weighs the unit's own experts, in the same way for every row. It is learned, from a start within
    `sqrt(1 / m_u)` of 0, or fixed at 1 where the unit has one expert. At the last level the shared unit only
    contributes its experts. Without shared experts the model is `AdaTTSp`, which the paper found best.

    The official code differs in two points: its gates have a bias (`gate=Gate(use_bias=True)` here), and where some
    unit has several experts it also learns `v` for units with one.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels, L.
        num_task_experts: The number of experts of each task's unit, at every level.
        num_shared_experts: The number of experts of the shared unit, at every level; may be 0.
        expert_units: Layer widths of each expert, or an `MLP`, at every level. Default: one layer, as in the paper.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        native_residual: False leaves `v_u^l E_u^l` out, as in the paper's ablation.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task is named `shared`, sizes are not known, or the numbers of
            levels, experts or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("adatt", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_task_experts=1)
    >>> model.get_layer("click_gate_0").expert_names
    ('click_0', 'like_0', 'shared_0')

    Reference: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations",
    KDD 2023, doi:10.1145/3580305.3599769.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 2,
        num_task_experts: int = 2,
        num_shared_experts: int = 1,
        expert_units: Units = (128,),
        tower_units: Units = (64,),
        native_residual: bool = True,
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        check.check_count("num_levels", num_levels)
        check.check_count("num_task_experts", num_task_experts)
        plan = ModelPlan(features, tasks, head, embedding)
        check_extraction(plan.towers, num_task_experts, num_shared_experts)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        fused, fused_shared = dict.fromkeys(plan.towers, x), x
        for level in range(num_levels):
            at = f"_{level}"
            native = {tower: make_experts(tower, num_task_experts, expert_units, fused[tower], at) for tower in fused}
            shared = make_experts(SHARED, num_shared_experts, expert_units, fused_shared, at)
            every = _side_by_side([*native.values(), shared], at)
            if num_shared_experts and level < num_levels - 1:
                fused_shared = _fuse(SHARED, fused_shared, every, shared, native_residual, gate, at)
            fused = {
                tower: _fuse(tower, fused[tower], every, native[tower], native_residual, gate, at) for tower in fused
            }
        super().__init__(plan, inputs, fused, tower_units=tower_units, name=name)
        self.num_levels = num_levels
        self.num_task_experts = num_task_experts
        self.num_shared_experts = num_shared_experts
        self.expert_units = expert_units
        self.native_residual = bool(native_residual)
        self.gate = gate


def _side_by_side(groups: list[Experts], at: str) -> Experts:
    groups = [group for group in groups if group.names]
    if len(groups) == 1:
        return groups[0]
    names = tuple(name for group in groups for name in group.names)
    return Experts(names, keras.layers.Concatenate(axis=1, name=f"all_experts{at}")([g.outputs for g in groups]))


def _fuse(
    unit: str,
    selector: Tensor,
    every: Experts,
    native: Experts,
    native_residual: bool,
    gate: Gate | DSelectK | None,
    at: str,
) -> Tensor:
    """`softmax(W selector)` over the experts of all units, plus the unit's own: (batch, units)."""
    weights = make_gate(len(every.names), gate, expert_names=every.names, name=f"{unit}_gate{at}")(selector)
    if native_residual:
        return NativeFusion(name=f"{unit}_fusion{at}")(weights, every.outputs, native.outputs)
    return ExpertMixture(name=f"{unit}_mixture{at}")(weights, every.outputs)
