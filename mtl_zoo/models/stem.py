from __future__ import annotations

import keras

from mtl_zoo import _validation as check
from mtl_zoo._types import Tensor
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack, StopGradient
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._extraction import SHARED, Experts, check_extraction, make_experts, select
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units, as_mlp


@register_model(
    "stem",
    paper="Su et al., AAAI 2024",
    year=2024,
    reference="arXiv:2308.13537",
    kind="embeddings and experts of tasks, read by all",
    good_for="tasks that want different things of the same ids, with many rows for each id",
    not_for="large vocabularies on small memory: the tables are there T + 1 times",
    fails="rare ids, whose rows in a sparse task's own table hardly train",
    cost="T + 1 times the embedding tables; T m_k + m_s experts of D e_1 + e_1 e_2 + ... and T gates of D u_1 + "
    "u_1 u_2 + ... + u (T m_k + m_s), T + 1 gates at all levels but the last, T towers",
)
class STEM(MultiTaskModel):
    """Shared and task-specific embeddings: every task reads all experts but trains only its own and the shared ones.

    Each task k has its own embedding tables, which give `x_k`, beside the shared tables, which give `x_s`. At each
    level its experts `E_k` read `x_k` and the shared experts `E_s` read `x_s`. With `sg` a stopped gradient:

        g_k = softmax(W_k MLP_k(x_k + x_s))
        f_k = g_k [sg(E_1) ; .. ; E_k ; .. ; sg(E_T) ; E_s]
        y_k = h_k(f_k)

    With several levels `f_k` is the `x_k` of the next level, and the next level's `x_s` is what a shared gate makes of
    all experts:

        f_s = softmax(W_s MLP_s(x_s)) [sg(E_1) ; .. ; sg(E_T) ; E_s]

    So the tables and experts of task k learn from its labels alone, and serve all tasks. In the official code the
    shared gate does not stop gradients, so with two levels or more the loss of every task reaches the tables of all;
    `stop_at_shared_gate=False` does the same.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels of experts. Default: one, as in the official code.
        num_task_experts: The number of experts in `E_k`, the same for every task and level.
        num_shared_experts: The number of experts in `E_s`, at every level.
        expert_units: Layer widths of each expert, or an `MLP`, at every level.
        gate_units: Layer widths of the MLP before each gate, or an `MLP`; `()` leaves it out.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        stop_at_shared_gate: Whether gradients stop between the shared gate and the experts of tasks.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors, for the tables of each task and the shared ones. Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task is named `shared`, sizes are not known, or the numbers of
            levels, experts or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("stem", [mtl_zoo.Categorical("user_id", size=9)], tasks, num_shared_experts=1)
    >>> [layer.name for layer in model.layers if layer.name.endswith("_embedding")]
    ['click_embedding', 'shared_embedding', 'like_embedding']
    >>> model.get_layer("click_gate_0").expert_names
    ('click_0', 'like_0', 'shared_0')

    Reference: Su et al., "STEM: Unleashing the Power of Embeddings for Multi-task Recommendation", AAAI 2024,
    arXiv:2308.13537.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 1,
        num_task_experts: int = 1,
        num_shared_experts: int = 4,
        expert_units: Units = (256, 128),
        gate_units: Units = (128, 64),
        tower_units: Units = (64,),
        stop_at_shared_gate: bool = True,
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        check.check_count("num_levels", num_levels)
        check.check_count("num_task_experts", num_task_experts)
        check.check_count("num_shared_experts", num_shared_experts)
        plan = ModelPlan(features, tasks, head, embedding)
        check_extraction(plan.towers, num_task_experts, num_shared_experts)
        inputs = make_inputs(plan.features)
        towers = {tower: plan.embed(inputs, name=f"{tower}_embedding") for tower in plan.towers}
        common = plan.embed(inputs, name=f"{SHARED}_embedding")
        for level in range(num_levels):
            at = f"_{level}"
            shared = make_experts(SHARED, num_shared_experts, expert_units, common, at)
            experts = {
                tower: make_experts(tower, num_task_experts, expert_units, towers[tower], at) for tower in towers
            }
            stopped = {tower: _stop(tower, experts[tower], at) for tower in towers}
            sums = {
                tower: keras.layers.Add(name=f"{tower}_gate_input{at}")([towers[tower], common]) for tower in towers
            }
            if level < num_levels - 1:
                seen = stopped if stop_at_shared_gate else experts
                selector = _hidden(SHARED, common, gate_units, at)
                common = select(SHARED, selector, [*seen.values(), shared], gate, at)
            for tower in towers:
                seen = {**stopped, tower: experts[tower]}
                selector = _hidden(tower, sums[tower], gate_units, at)
                towers[tower] = select(tower, selector, [*seen.values(), shared], gate, at)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_levels = num_levels
        self.num_task_experts = num_task_experts
        self.num_shared_experts = num_shared_experts
        self.expert_units = expert_units
        self.gate_units = gate_units
        self.stop_at_shared_gate = bool(stop_at_shared_gate)
        self.gate = gate


def _stop(tower: str, experts: Experts, at: str) -> Experts:
    """The experts of a task as the gates of others see them: no gradient flows back."""
    return Experts(experts.names, StopGradient(name=f"{tower}_stopped{at}")(experts.outputs))


def _hidden(reader: str, x: Tensor, gate_units: Units, at: str) -> Tensor:
    mlp = as_mlp("gate_units", gate_units, allow_empty=True)
    return DenseStack(mlp, name=f"{reader}_gate_hidden{at}")(x) if mlp.units else x
