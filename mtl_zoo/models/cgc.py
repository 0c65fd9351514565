from __future__ import annotations

from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._extraction import SHARED, check_extraction, make_experts, select
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "cgc",
    paper="Tang et al., RecSys 2020",
    year=2020,
    reference="doi:10.1145/3383313.3412236",
    kind="shared and private experts",
    good_for="tasks that conflict, or a sparse task beside strong ones, which keeps experts of its own",
    not_for="many tasks, each of which brings its own experts",
    fails="shared experts that one strong task captures; sparse tasks that ignore their own experts",
    cost="T m_k + m_s experts of D e_1 + e_1 e_2 + ..., T (m_k + m_s) D for the gates, T towers",
)
class CGC(MultiTaskModel):
    """Customized gate control: private experts for each task beside shared ones, weighed by a gate for each task.

    With `x` the concatenated feature vectors, task k's own experts `E_k,1 .. E_k,m_k`, the shared ones
    `E_s,1 .. E_s,m_s`, and tower `h_k`:

        S_k(x) = [E_k,1(x), .., E_k,m_k(x), E_s,1(x), .., E_s,m_s(x)]
        y_k = h_k(softmax(W_k x) S_k(x))

    The loss of one task never reaches the private experts of another. Without private experts (`num_task_experts=0`)
    the model is `MMoE`; with one for each task and none shared, it is a set of independent networks on one embedding.
    `PLE` stacks several such levels.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_task_experts: The number of private experts, m_k, the same for every task; may be 0.
        num_shared_experts: The number of shared experts, m_s; may be 0.
        expert_units: Layer widths of each expert, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task is named `shared`, sizes are not known, there are no
            experts at all, or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("cgc", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_shared_experts=1)
    >>> model.get_layer("click_gate").expert_names
    ('click_0', 'click_1', 'shared_0')

    Reference: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020, doi:10.1145/3383313.3412236.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_task_experts: int = 2,
        num_shared_experts: int = 4,
        expert_units: Units = (256, 128),
        tower_units: Units = (64,),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        check_extraction(plan.towers, num_task_experts, num_shared_experts)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        shared = make_experts(SHARED, num_shared_experts, expert_units, x)
        private = {tower: make_experts(tower, num_task_experts, expert_units, x) for tower in plan.towers}
        towers = {tower: select(tower, x, [private[tower], shared], gate) for tower in plan.towers}
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_task_experts = num_task_experts
        self.num_shared_experts = num_shared_experts
        self.expert_units = expert_units
        self.gate = gate
