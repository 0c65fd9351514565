from __future__ import annotations

from mtl_zoo import _validation as check
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._extraction import SHARED, check_extraction, make_experts, select
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "ple",
    paper="Tang et al., RecSys 2020",
    year=2020,
    reference="doi:10.1145/3383313.3412236",
    kind="shared and private experts",
    good_for="tasks that conflict, with data enough for several levels of experts",
    not_for="many tasks, each of which brings its own experts at every level; small data",
    fails="shared experts that one strong task captures; sparse tasks that ignore their own experts",
    cost="a level: T m_k + m_s experts of D e_1 + e_1 e_2 + ..., T (m_k + m_s) D for the tasks' gates and, below the "
    "last, (T m_k + m_s) D for the shared one (above the first level e in place of D); T towers",
)
class PLE(MultiTaskModel):
    """Progressive layered extraction: levels of private and shared experts that separate step by step.

    With `x` the concatenated feature vectors, `g_k^0 = g_s^0 = x`, and at level j = 1 .. N task k's own experts
    `E_k^j`, which read `g_k^(j-1)`, and shared experts `E_s^j`, which read `g_s^(j-1)`:

        g_k^j = softmax(W_k^j g_k^(j-1)) [E_k^j ; E_s^j]
        g_s^j = softmax(W_s^j g_s^(j-1)) [E_1^j ; .. ; E_T^j ; E_s^j]   for j < N
        y_k = h_k(g_k^N)

    The gates of a level read what the level below put together, not x; the shared gate sees the experts of all tasks,
    and the last level has none. So tasks meet at the lower levels, while at the last level the loss of one task never
    reaches the experts of another. With one level the model is `CGC`.

    The paper's schedule of loss weights (its eq. 10) is not part of the architecture and is not set here; the balancing
    method `scheduled` has it. Without shared experts (`num_shared_experts=0`) nothing would read `g_s`, so there is no
    shared gate and the tasks have independent networks.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels, N.
        num_task_experts: The number of experts in `E_k^j`, the same for every task and level; may be 0.
        num_shared_experts: The number of experts in `E_s^j`, at every level; may be 0.
        expert_units: Layer widths of each expert, or an `MLP`, at every level. Default: one layer, as in the paper.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task is named `shared`, sizes are not known, there are no
            experts at all, or the numbers of levels or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("ple", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_shared_experts=1)
    >>> model.get_layer("shared_gate_0").expert_names
    ('click_0', 'click_1', 'like_0', 'like_1', 'shared_0')
    >>> model.get_layer("click_gate_1").expert_names
    ('click_0', 'click_1', 'shared_0')

    Reference: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020, doi:10.1145/3383313.3412236.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 2,
        num_task_experts: int = 2,
        num_shared_experts: int = 4,
        expert_units: Units = (128,),
        tower_units: Units = (64,),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        check.check_count("num_levels", num_levels)
        plan = ModelPlan(features, tasks, head, embedding)
        check_extraction(plan.towers, num_task_experts, num_shared_experts)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        fused, fused_shared = dict.fromkeys(plan.towers, x), x
        for level in range(num_levels):
            at = f"_{level}"
            shared = make_experts(SHARED, num_shared_experts, expert_units, fused_shared, at)
            private = {tower: make_experts(tower, num_task_experts, expert_units, fused[tower], at) for tower in fused}
            fused = {tower: select(tower, fused[tower], [private[tower], shared], gate, at) for tower in fused}
            if num_shared_experts and level < num_levels - 1:
                fused_shared = select(SHARED, fused_shared, [*private.values(), shared], gate, at)
        super().__init__(plan, inputs, fused, tower_units=tower_units, name=name)
        self.num_levels = num_levels
        self.num_task_experts = num_task_experts
        self.num_shared_experts = num_shared_experts
        self.expert_units = expert_units
        self.gate = gate
