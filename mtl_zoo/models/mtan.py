from __future__ import annotations

from mtl_zoo._space import Choice
from mtl_zoo._types import Tensor
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack, ExpertBank, FeatureMask, UnstackColumns
from mtl_zoo.layers.dense_stack import one_layer
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units, as_mlp


@register_model(
    "mtan",
    paper="Liu et al., CVPR 2019",
    year=2019,
    reference="arXiv:1803.10704",
    kind="attention over a shared trunk",
    good_for="tasks that use different parts of one representation, by row",
    not_for="tasks that conflict in the trunk itself: masks select, they do not separate",
    fails="masks that stay near a half, or the same for all tasks: a shared bottom at a higher price",
    cost="one trunk, T masks a layer (2 m b_l + m b_(l-1) with m hidden units), b_l^2 for each transform, T towers",
    space={"share_transforms": Choice(True, False)},
)
class MTAN(MultiTaskModel):
    """MTAN: a shared trunk, and masks for each task that select, row by row, from every layer of it.

    With `u^0 = x`, the concatenated feature vectors, `*` elementwise, and biases left out:

        u^l = act(A^l u^(l-1))
        a_k^l = sigmoid(V_k^l relu(W_k^l [u^l ; t_k^(l-1)])),  for l = 1 of u^1 alone
        t_k^l = act(F^l (a_k^l * u^l))
        y_k = h_k(t_k^L)

    The paper's network is convolutional; this is its form for dense layers, written from memory and compared with the
    authors' code. In that code a mask is computed from the first half of a block and applied to its second half, and a
    dense layer has no halves. `F` is shared by the tasks, as it is here by default; the variant for ResNets has no `F`
    after the last layer, where here it follows every layer. Masks have batch normalisation there and none here.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        bottom_units: Layer widths of the trunk, or an `MLP`; `F` has the same activation, norm and dropout.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        mask_units: Width of the hidden layer of each mask. Default: that of the trunk's layer.
        mask_bias: Where the bias under the sigmoid starts. Above 0.0 masks start nearer to 1, and the model starts
            nearer to shared-bottom.
        share_transforms: Whether all tasks share one `F^l` instead of having one each.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import MTAN
    >>> model = MTAN([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")])
    >>> model.get_layer("masked_0").output.shape  # a row for each of the two tasks
    (None, 2, 256)

    Reference: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019, arXiv:1803.10704.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        mask_units: int | None = None,
        mask_bias: float = 0.0,
        share_transforms: bool = True,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        trunk, num_towers = as_mlp("bottom_units", bottom_units), len(plan.towers)
        u = plan.embed(inputs)
        columns: tuple[Tensor, ...] = ()  # what each task has selected so far; the first masks read the trunk alone
        for i, units in enumerate(trunk.units):
            layer = one_layer(trunk, i)
            u = DenseStack(layer, name=f"trunk_{i}")(u)
            hidden_units = units if mask_units is None else mask_units
            masked = FeatureMask(num_towers, units, hidden_units, mask_bias, name=f"masked_{i}")(u, *columns)
            if share_transforms:
                columns = (DenseStack(layer, name=f"transform_{i}")(masked),)
            else:
                columns = (ExpertBank(num_towers, layer, name=f"transform_{i}")(masked),)
        towers = dict(zip(plan.towers, UnstackColumns(name="columns")(*columns), strict=True))
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.bottom_units = bottom_units
        self.mask_units = mask_units
        self.mask_bias = mask_bias
        self.share_transforms = bool(share_transforms)
