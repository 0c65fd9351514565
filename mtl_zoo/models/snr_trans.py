from __future__ import annotations

from mtl_zoo._space import FloatRange
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.models._routing import route_experts
from mtl_zoo.options import Embedding, Units


@register_model(
    "snr_trans",
    paper="Ma et al., AAAI 2019",
    year=2019,
    reference="doi:10.1609/aaai.v33i01.3301216",
    kind="routed sub-networks",
    good_for="finding by itself which sub-networks each task needs; closed connections cost nothing when served",
    not_for="small data: the matrices of the connections are most of the weights",
    fails="connections that close early and stay closed; sampled gates make training noisy",
    cost="S sub-networks of D e_1 + e_1 e_2 + .. (further levels: e_n e_1 + ..), e_n^2 a connection, T towers",
    space={"l0": FloatRange(1e-6, 1e-2, log=True)},
)
class SNRTrans(MultiTaskModel):
    """SNR-Trans: layers of sub-networks, connected by matrices whose gates learn to close.

    With `x` the concatenated feature vectors, sub-networks `f_j^l` of level l, and a gate `z` in [0, 1] for each
    connection:

        u_j^0 = f_j^0(x)
        v_i^l = sum_j z_ij^l W_ij^l u_j^(l-1),   u_i^l = f_i^l(v_i^l)
        y_k = h_k(v_k^L),  the last level being the towers

    The matrices map the output of each sub-network before the outputs are summed; `snr_aver` is the same without them.

    Every gate is a hard-concrete gate with a `log_alpha` of its own. It is sampled anew at each training step and fixed
    at inference (`mtl_zoo.layers.SubNetworkRouting` has the formula). A gate at exactly 0 cuts its connection, for
    values and for gradients. The expected number of open gates, times `l0`, is among the model's `losses` and belongs
    to no task. `get_layer("routes_1").gates()` and `get_layer("tower_routes").gates()` show what has closed.

    What is uncertain: the layout is from memory of the paper's figure (levels of parallel sub-networks, with the towers
    routed like a level), and the constants of the gates are, from memory, those of Louizos et al.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels of sub-networks below the towers.
        num_experts: The number of sub-networks in each level.
        expert_units: Layer widths of each sub-network, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        l0: The factor of the expected number of open gates. Default: 1e-4.
        beta: The temperature of the gates. Default: two thirds.
        gamma: The lower end of the stretched gate, below 0.
        zeta: The upper end of the stretched gate, above 1.
        log_alpha: Where every gate's parameter starts. With 0.0 gates start at 0.5; larger numbers start them more
            open.
        seed: Seed of the samples. Default: one drawn from Keras' global seed.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, units are not whole numbers >= 1, or
            constants of the gates are out of their range.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import SNRTrans
    >>> tasks = [BinaryTask("click"), BinaryTask("like")]
    >>> model = SNRTrans([Categorical("user_id", size=9)], tasks, num_experts=3)
    >>> tuple(model.get_layer("tower_routes").kernel.shape)  # two towers, three sub-networks
    (2, 3, 128, 128)

    Reference: Ma et al., "SNR: Sub-Network Routing for Flexible Parameter Sharing in Multi-Task Learning", AAAI 2019,
    doi:10.1609/aaai.v33i01.3301216; the gates: Louizos et al., "Learning Sparse Neural Networks through L0
    Regularization", ICLR 2018, arXiv:1712.01312.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 2,
        num_experts: int = 4,
        expert_units: Units = (128,),
        tower_units: Units = (64,),
        l0: float = 1e-4,
        beta: float = 2 / 3,
        gamma: float = -0.1,
        zeta: float = 1.1,
        log_alpha: float = 0.0,
        seed: int | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        constants = {"l0": l0, "beta": beta, "gamma": gamma, "zeta": zeta, "log_alpha": log_alpha}
        towers = route_experts(plan, inputs, num_levels, num_experts, expert_units, True, seed, constants)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.num_levels = num_levels
        self.num_experts = num_experts
        self.expert_units = expert_units
        self.l0 = l0
        self.beta = beta
        self.gamma = gamma
        self.zeta = zeta
        self.log_alpha = log_alpha
        self.seed = seed
