from __future__ import annotations

from mtl_zoo._space import FloatRange
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import StackColumns, TiedBank, UnstackColumns
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units


@register_model(
    "l2_constrained",
    paper="Duong et al., ACL 2015",
    year=2015,
    reference="doi:10.3115/v1/P15-2139",
    kind="soft sharing by weights",
    good_for="few tasks that are alike, one of them with little data",
    not_for="many tasks (a network each), or tasks that need different features",
    fails="one alpha for all layers and pairs of tasks; too large it is one network, too small none is shared",
    cost="T bottoms: T (D b_1 + b_1 b_2 + ...) and T towers",
    space={"alpha": FloatRange(1e-6, 1e-1, log=True)},
)
class L2Constrained(MultiTaskModel):
    """L2-constrained: one network for each task, with their weights pulled towards each other.

    With bottoms `f_k` of the same shape and `theta_k` their kernels and biases:

        y_k = h_k(f_k(x))
        loss = sum of the tasks' losses + alpha sum_(a<b) ||theta_a - theta_b||^2

    The penalty belongs to no task: it is among the model's `losses`, in training and evaluation, like Keras' weight
    regularisers. With `alpha=0` the networks are independent; the larger alpha is, the nearer they are to one shared
    bottom. Towers and embeddings are left out of the penalty: towers may differ in shape, and a penalty on a table
    would touch all its rows at every step (Duong et al. leave out word embeddings as well). Tables are shared by
    default; in the MMoE paper, which has this model as a baseline, there are none.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        bottom_units: Layer widths of each `f_k`, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        alpha: The factor of the penalty, which must be tuned.
        share_embeddings: Whether all networks read one embedding instead of one each.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, units are not whole numbers >= 1, or `alpha`
            is below 0.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import L2Constrained
    >>> model = L2Constrained([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")], alpha=0.01)
    >>> len(model.losses)  # kernels and biases of two layers
    4

    Reference: Duong et al., "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network
    Parser", ACL 2015, doi:10.3115/v1/P15-2139; as in Ma et al., KDD 2018, doi:10.1145/3219819.3220007, section 6.1.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        alpha: float = 1e-3,
        share_embeddings: bool = True,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        if share_embeddings:
            x = plan.embed(inputs)
        else:
            x = StackColumns(name="inputs")([plan.embed(inputs, f"{tower}_embedding") for tower in plan.towers])
        bottoms = TiedBank(len(plan.towers), bottom_units, alpha, name="bottoms")(x)
        towers = dict(zip(plan.towers, UnstackColumns(name="columns")(bottoms), strict=True))
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.bottom_units = bottom_units
        self.alpha = alpha
        self.share_embeddings = bool(share_embeddings)
