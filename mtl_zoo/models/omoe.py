from __future__ import annotations

from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertBank, ExpertMixture, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "omoe",
    paper="Ma et al., KDD 2018",
    year=2018,
    reference="doi:10.1145/3219819.3220007",
    kind="gated experts",
    good_for="closely related tasks; and as the baseline that shows what a gate for each task adds",
    not_for="tasks that conflict: all read the same mix (see mmoe)",
    fails="a gate that settles on one expert for all rows, which leaves a shared bottom",
    cost="n (D e_1 + e_1 e_2 + ...) for the experts, n D for the gate, T towers",
)
class OMoE(MultiTaskModel):
    """One-gate mixture-of-experts: shared experts, and one gate for all tasks that weighs them row by row.

    With `x` the concatenated feature vectors, experts `f_1 .. f_n`, the gate `g` and, for task k, tower `h_k`:

        g(x) = softmax(W x)
        f(x) = sum_i g(x)_i f_i(x)
        y_k = h_k(f(x))

    The model is `MMoE` with one gate in place of a gate for each task. The gate reads the raw model input and has no
    bias.

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

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("omoe", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_experts=4)
    >>> model.get_layer("shared_gate").output.shape
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
        mixed = ExpertMixture(name="shared_mixture")(make_gate(num_experts, gate, name="shared_gate")(x), experts)
        towers = dict.fromkeys(plan.towers, mixed)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_experts = num_experts
        self.expert_units = expert_units
        self.gate = gate
