from __future__ import annotations

from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units


@register_model(
    "shared_bottom",
    paper="Caruana, Machine Learning 28, 1997",
    year=1997,
    reference="doi:10.1023/A:1007379606734",
    kind="hard sharing",
    good_for="tasks that are close to each other, and the smallest and fastest of models",
    not_for="tasks that conflict",
    fails="negative transfer: a weakly related task takes capacity and pulls the bottom its way",
    cost="one bottom: D b_1 + b_1 b_2 + ..., and T towers",
)
class SharedBottom(MultiTaskModel):
    """Shared-bottom: one network under all tasks, and one tower for each task.

    With `x` the concatenated feature vectors and `h_k` the tower of task k:

        u = f(x)
        y_k = h_k(u)

    It is the simplest way to share, and what the other models are compared with. Tasks that have little in common can
    harm each other.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        bottom_units: Layer widths of `f`, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, SharedBottom
    >>> model = SharedBottom([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")])
    >>> sorted(model.output)
    ['click', 'like']

    Reference: Caruana, "Multitask Learning", Machine Learning 28, 1997, doi:10.1023/A:1007379606734; as eq. 1 of
    Ma et al., KDD 2018, doi:10.1145/3219819.3220007.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)
        bottom = DenseStack(bottom_units, name="bottom")(x)
        towers = dict.fromkeys(plan.towers, bottom)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.bottom_units = bottom_units
