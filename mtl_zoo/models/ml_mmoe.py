from __future__ import annotations

from mtl_zoo import _validation as check
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertBank, ExpertMixture, StackedMixtures, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "ml_mmoe",
    paper="Tang et al., RecSys 2020",
    year=2020,
    reference="doi:10.1145/3383313.3412236",
    kind="gated experts",
    good_for="a deeper MMoE; and as the baseline that shows what the private experts of ple add",
    not_for="wide inputs or many experts: each inner level has a gate on the input for every expert",
    fails="as mmoe: gates that settle on one expert, or that become alike for all tasks",
    cost="a level: n (D e_1 + e_1 e_2 + ...) for the experts (above the first e in place of D); "
    "((L - 1) n + T) n D for the gates, T towers",
)
class MLMMoE(MultiTaskModel):
    """Multi-level MMoE: levels of shared experts, each expert reading its own gated mix of the level below.

    With `x` the concatenated feature vectors and experts `f_1^l .. f_n^l` at levels l = 1 .. L:

        z_i^1 = f_i^1(x)
        z_e^l = f_e^l(sum_i softmax(W_e^(l-1) x)_i z_i^(l-1))   for l > 1
        y_k = h_k(sum_i softmax(W_k x)_i z_i^L)

    An inner level has a gate for every expert of the next level, the last level a gate for every task, and all gates
    read x. The PLE paper uses this model as a baseline; with one level it is `MMoE`.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels, L.
        num_experts: The number of experts at every level, n.
        expert_units: Layer widths of each `f_i^l`, or an `MLP`, at every level. Default: one layer, as in the paper.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or the numbers of levels, experts or units
            are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("ml_mmoe", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_experts=2)
    >>> [layer.name for layer in model.layers if "gate" in layer.name]
    ['expert_0_gate_0', 'expert_1_gate_0', 'click_gate', 'like_gate']

    Reference: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020, doi:10.1145/3383313.3412236.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 2,
        num_experts: int = 8,
        expert_units: Units = (128,),
        tower_units: Units = (64,),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        check.check_count("num_levels", num_levels)
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        experts = ExpertBank(num_experts, expert_units, name="experts_0")(x)
        for level in range(1, num_levels):
            below = level - 1
            inner = [make_gate(num_experts, gate, name=f"expert_{e}_gate_{below}")(x) for e in range(num_experts)]
            mixed = StackedMixtures(name=f"mixtures_{below}")(inner, experts)
            experts = ExpertBank(num_experts, expert_units, name=f"experts_{level}")(mixed)
        gates = {tower: make_gate(num_experts, gate, name=f"{tower}_gate")(x) for tower in plan.towers}
        towers = {tower: ExpertMixture(name=f"{tower}_mixture")(gates[tower], experts) for tower in plan.towers}
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_levels = num_levels
        self.num_experts = num_experts
        self.expert_units = expert_units
        self.gate = gate
