from __future__ import annotations

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
)
class MTAN(MultiTaskModel):
    """MTAN: a shared trunk, and for each task masks that select, by row, from every layer of it.

    With `u^0 = x`, the concatenated feature vectors, `*` elementwise, and biases left out:

        u^l = act(A^l u^(l-1))
        a_k^l = sigmoid(V_k^l relu(W_k^l [u^l ; t_k^(l-1)])),  for l = 1 of u^1 alone
        t_k^l = act(F^l (a_k^l * u^l))
        y_k = h_k(t_k^L)

    The paper's network is convolutional; this is its form for dense layers, written from memory and set against the
    authors' code. There a mask is made of the first half of a block and laid over its second half; a dense layer has no
    halves. There `F` is shared by the tasks, as here by default, and the variant for ResNets has none after the last
    layer, where here it follows every layer. Masks have batch normalisation there, none here.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks. Default: those of the transform.
        bottom_units: Layer widths of the trunk, or an `MLP`, whose activation, norm and dropout `F` has too.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        mask_units: Width of the hidden layer of each mask. Default: that of the trunk's layer.
        mask_bias: Start of the bias under the sigmoid. Above 0.0 masks start nearer to 1, the model nearer to
            shared-bottom.
        share_transforms: One `F^l` for all tasks instead of one each.
        embedding: An `Embedding`: sharded tables, L2 on what is looked up, cross layers. Default: `Embedding()`.
        head: Default: `Towers()`.
        name: Keras name of the model.

    Raises:
        ValueError: Duplicate or illegal names, sizes that are not known, units that are not whole numbers >= 1.

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
