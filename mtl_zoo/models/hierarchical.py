from __future__ import annotations

from collections.abc import Sequence

from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack
from mtl_zoo.layers.dense_stack import one_layer
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units, as_mlp


@register_model(
    "hierarchical",
    paper="Søgaard and Goldberg, ACL 2016",
    year=2016,
    reference="doi:10.18653/v1/P16-2038",
    kind="hard sharing by depth",
    good_for="simple tasks with much data that prepare the ground for a harder one",
    not_for="tasks of like difficulty, where all should read the last layer",
    fails="a shallow task on too shallow a layer underfits, and shapes what deeper ones can see",
    cost="one bottom: D b_1 + b_1 b_2 + ..., and T towers, each on a layer of its own choice",
)
class Hierarchical(MultiTaskModel):
    """Hierarchical: one stack of layers, with simple tasks supervised at shallow layers and hard ones at deep layers.

    With `u^0 = x`, the concatenated feature vectors, and `l_k` the level of task k:

        u^(l+1) = act(A^l u^l)
        y_k = h_k(u^(l_k + 1))

    The loss of a task trains the layers up to its level and none above. With all tasks at the last level the model is
    `shared_bottom`, in which all towers read the same layer.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        levels: The level of every task, as a dict by name, where 0 is the first layer. If the head has other towers
            than the tasks, the names are theirs. Default: the levels are spread evenly in the order of the tasks, with
            the last task at the last layer.
        bottom_units: Layer widths of the stack, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, units are not whole numbers >= 1, or
            `levels` leaves out a task or the last layer, or names one that does not exist.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import Hierarchical
    >>> tasks = [BinaryTask("click"), BinaryTask("like"), BinaryTask("conversion")]
    >>> levels = {"click": 0, "like": 0, "conversion": 1}
    >>> model = Hierarchical([Categorical("user_id", size=9)], tasks, levels=levels)
    >>> model.get_layer("click_tower").input.shape, model.get_layer("conversion_tower").input.shape
    ((None, 256), (None, 128))

    Reference: Søgaard and Goldberg, "Deep multi-task learning with low level tasks supervised at lower layers", ACL
    2016, doi:10.18653/v1/P16-2038.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        levels: dict[str, int] | None = None,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        stack = as_mlp("bottom_units", bottom_units)
        level_of = _checked_levels(levels, plan.towers, len(stack.units))
        inputs = make_inputs(plan.features)
        u, layers = plan.embed(inputs), []
        for i in range(len(stack.units)):
            u = DenseStack(one_layer(stack, i), name=f"level_{i}")(u)
            layers.append(u)
        towers = {tower: layers[level_of[tower]] for tower in plan.towers}
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.levels = levels
        self.bottom_units = bottom_units


def _checked_levels(levels: dict[str, int] | None, towers: Sequence[str], depth: int) -> dict[str, int]:
    if levels is None:
        # The first task at the first layer, the last at the last; one task alone at the last.
        steps = max(len(towers) - 1, 1)
        return {tower: (depth - 1) * (i + (len(towers) == 1)) // steps for i, tower in enumerate(towers)}
    if not isinstance(levels, dict) or set(levels) != set(towers):
        raise ValueError(
            f"`levels` must give a level for every task. Received: levels={levels!r}. Expected: the keys {list(towers)}"
        )
    known = set(range(depth))
    if not set(levels.values()) <= known or max(levels.values()) != depth - 1:
        raise ValueError(
            "`levels` must be whole numbers that name a layer of `bottom_units`, and the last layer among them, which "
            f"would be idle otherwise. Received: levels={levels!r}. Expected: values from 0 to {depth - 1}"
        )
    return levels
