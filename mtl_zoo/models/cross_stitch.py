from __future__ import annotations

from mtl_zoo._space import FloatRange
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import CrossStitchUnit, DenseStack
from mtl_zoo.layers.dense_stack import one_layer
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units, as_mlp


@register_model(
    "cross_stitch",
    paper="Misra et al., CVPR 2016",
    year=2016,
    reference="arXiv:1604.03539",
    kind="soft sharing by layers",
    good_for="a few related tasks, where how much each layer should share is not known",
    not_for="many tasks (a column each), or sharing that should depend on the row",
    fails="one mix for all rows; results depend on how alpha starts and how fast it learns",
    cost="T bottoms and T towers, and T^2 numbers a layer (T^2 b_l per channel)",
    space={"diagonal": FloatRange(0.5, 0.99), "stitch_learning_rate": FloatRange(1.0, 100.0, log=True)},
)
class CrossStitch(MultiTaskModel):
    """Cross-stitch: one column of layers a task, mixed after every layer by a learned matrix.

    With `x_k^0 = x`, the concatenated feature vectors, and layer l of column k called `f_k^l`:

        z_k^l = f_k^l(x_k^(l-1))
        x_k^l = sum_j alpha^l_kj z_j^l
        y_k = h_k(x_k^L)

    `alpha^l` starts near the identity, with `diagonal` on its diagonal and rows that sum to 1: the model starts near
    independent columns on shared embeddings. The mix is the same for every row of the data.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        bottom_units: Layer widths of each column, or an `MLP`; a stitch follows every layer.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        per_channel: Whether every unit of a layer has an alpha of its own, instead of one for the whole layer.
        diagonal: Where the diagonal of alpha starts.
        stitch_learning_rate: The multiple of the optimizer's learning rate at which alpha learns. The paper used 10^2
            to 10^3 with SGD on images; with Adam, whose steps are of the size of the learning rate, far less is needed.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, CrossStitch
    >>> model = CrossStitch([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")])
    >>> [[round(float(alpha), 2) for alpha in row] for row in model.get_layer("stitch_0").matrix]
    [[0.9, 0.1], [0.1, 0.9]]

    Reference: Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016, arXiv:1604.03539.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        per_channel: bool = False,
        diagonal: float = 0.9,
        stitch_learning_rate: float = 10.0,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        column = as_mlp("bottom_units", bottom_units)
        columns = [x for _ in plan.towers]
        for i in range(len(column.units)):
            layer = one_layer(column, i)
            columns = [
                DenseStack(layer, name=f"{tower}_column_{i}")(z) for tower, z in zip(plan.towers, columns, strict=True)
            ]
            columns = CrossStitchUnit(per_channel, diagonal, stitch_learning_rate, name=f"stitch_{i}")(columns)
        towers = dict(zip(plan.towers, columns, strict=True))
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.bottom_units = bottom_units
        self.per_channel = bool(per_channel)
        self.diagonal = diagonal
        self.stitch_learning_rate = stitch_learning_rate
