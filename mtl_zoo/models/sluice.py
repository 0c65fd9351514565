from __future__ import annotations

from mtl_zoo._space import Choice, FloatRange
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertBank, LayerMixture, SluiceUnit, UnstackColumns
from mtl_zoo.layers.dense_stack import one_layer
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units, as_mlp


@register_model(
    "sluice",
    paper="Ruder et al., AAAI 2019",
    year=2019,
    reference="arXiv:1705.08142",
    kind="soft sharing by layers",
    good_for="a few loosely related tasks, where a part of each layer should be shared and tasks need different depths",
    not_for="many tasks (a column each), or sharing that should depend on the row",
    fails="one mix for all rows; alpha learns slowly from where it starts",
    cost="T columns: T (D b + (L - 1) b^2), T towers, (G T)^2 numbers a layer and L T for the skips",
    space={"column_units": Choice((64, 64), (128, 128), (256, 256)), "diagonal": FloatRange(0.5, 0.99)},
)
class Sluice(MultiTaskModel):
    """Sluice network: one column for each task, subspaces mixed after every layer, and towers that read all layers.

    With `x_k^0 = x`, the concatenated feature vectors, layer l of column k called `f_k^l`, and every layer's output cut
    into G subspaces of equal width:

        h_k^l = f_k^l(x_k^(l-1)) = [h_k1^l ; .. ; h_kG^l]
        x^l = alpha^l h^l,  over all T G subspaces, alpha^l (T G, T G)
        y_k = h_k(sum_l beta_kl x_k^l)

    and, with `orthogonality` nu, the penalty `nu sum_kl ||h_k1^l^T h_k2^l / batch size||_F^2` (over all pairs of
    subspaces), which belongs to no task and acts in training only.

    What is uncertain: the penalty is written from memory of the paper, here over the batch and divided by its size; the
    authors' code applies it to the weights of the layers instead, and leaves it off unless asked, as here. That code
    starts alpha at 1 / (T G) everywhere or, on request, with large and small entries in a pattern made for two tasks;
    here it starts as in cross-stitch. Beta starts as in their script, with 0.9 on the last layer.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        column_units: Layer widths of each column, which must all be equal, or an `MLP` of that kind; a mix follows
            every layer.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        num_subspaces: The number of subspaces, G, which must divide the width. With 1 the mix is that of cross-stitch.
        diagonal: Where the diagonal of alpha starts; rows sum to 1.
        last_layer: Where beta starts for the last layer; the layers below share the rest evenly.
        orthogonality: The factor of the penalty, nu. Default: 0.0, which is no penalty.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, units are not whole numbers >= 1, layers
            differ in width, or `num_subspaces` does not divide the width.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import Sluice
    >>> model = Sluice([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")])
    >>> tuple(model.get_layer("sluice_0").alpha.shape)
    (4, 4)

    Reference: Ruder et al., "Latent Multi-task Architecture Learning", AAAI 2019, arXiv:1705.08142.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        column_units: Units = (128, 128),
        tower_units: Units = (64,),
        num_subspaces: int = 2,
        diagonal: float = 0.9,
        last_layer: float = 0.9,
        orthogonality: float = 0.0,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        column = as_mlp("column_units", column_units)
        if len(set(column.units)) > 1:
            raise ValueError(
                "`column_units` must be layers of one width, since towers read a sum of all layers. "
                f"Received: column_units={column_units!r}"
            )
        columns, layers = plan.embed(inputs), []
        for i in range(len(column.units)):
            columns = ExpertBank(len(plan.towers), one_layer(column, i), name=f"columns_{i}")(columns)
            columns = SluiceUnit(num_subspaces, diagonal, orthogonality, name=f"sluice_{i}")(columns)
            layers.append(columns)
        mixed = LayerMixture(last_layer, name="layer_mixture")(layers)
        towers = dict(zip(plan.towers, UnstackColumns(name="columns")(mixed), strict=True))
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.column_units = column_units
        self.num_subspaces = num_subspaces
        self.diagonal = diagonal
        self.last_layer = last_layer
        self.orthogonality = orthogonality
