from __future__ import annotations

from mtl_zoo._types import Config
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertBank, ExpertMixture, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.models.omoe import OMoE
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "mmoe",
    paper="Ma et al., KDD 2018",
    year=2018,
    reference="doi:10.1145/3219819.3220007",
    kind="gated experts",
    good_for="several tasks of unclear relation; the usual first choice",
    not_for="a sparse task beside strong ones, which can capture all experts (see cgc, ple)",
    fails="gates that settle on one expert, or that become alike for all tasks",
    cost="n (D e_1 + e_1 e_2 + ...) for the experts, T n D for the gates, T towers",
)
class MMoE(MultiTaskModel):
    """Multi-gate mixture-of-experts: shared experts, and a gate for each task that weighs them row by row.

    With `x` the concatenated feature vectors, experts `f_1 .. f_n` and, for task k, gate `g_k` and tower `h_k`:

        g_k(x) = softmax(W_k x)
        f^k(x) = sum_i g_k(x)_i f_i(x)
        y_k = h_k(f^k(x))

    The gates read the raw model input and have no bias, as in the paper. With one gate for all tasks the
    model is `OMoE`.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_experts: The number of experts, n.
        expert_units: Layer widths of each `f_i`, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, MMoE
    >>> model = MMoE([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")], num_experts=4)
    >>> model.get_layer("click_gate").output.shape
    (None, 4)

    Reference: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
    KDD 2018, doi:10.1145/3219819.3220007.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_experts: int = 8,
        expert_units: Units = (256, 128),
        tower_units: Units = (64,),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        experts = ExpertBank(num_experts, expert_units, name="experts")(x)
        gates = {tower: make_gate(num_experts, gate, name=f"{tower}_gate")(x) for tower in plan.towers}
        towers = {tower: ExpertMixture(name=f"{tower}_mixture")(gates[tower], experts) for tower in plan.towers}
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_experts = num_experts
        self.expert_units = expert_units
        self.gate = gate

    @classmethod
    def from_config(cls, config: Config) -> MultiTaskModel:
        # Files of 0.1.0 hold `share_gate`: where it is true, they describe what is now `OMoE`.
        config = dict(config)
        if config.pop("share_gate", False):
            return OMoE.from_config(config)
        return super().from_config(config)
