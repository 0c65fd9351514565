from __future__ import annotations

from mtl_zoo._space import Choice
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units


@register_model(
    "single_task",
    paper="the baseline of Ma et al., KDD 2018",
    year=2018,
    reference="doi:10.1145/3219819.3220007",
    kind="no sharing",
    good_for="few tasks, or tasks that harm each other; and as the baseline of every comparison",
    not_for="sparse tasks that need the data of dense ones",
    fails="nothing of its own; the sparse task overfits",
    cost="T networks: T (D b_1 + b_1 b_2 + ...) and T towers; tables T times over",
    space={"share_embeddings": Choice(False, True)},
)
class SingleTask(MultiTaskModel):
    """Single-task: independent networks side by side, the baseline of every comparison.

    With `x_k` the feature vectors of task k's own embedding:

        y_k = h_k(f_k(x_k))

    The tasks share nothing (with `share_embeddings`, the embedding tables alone), so training them together is the same
    as training them one by one, as long as the optimizer treats parameters separately (clipping by the global norm does
    not). A comparison is fair when each task keeps its own best epoch: `independent_tasks` tells trainers to do so.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        bottom_units: Layer widths of each `f_k`, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        share_embeddings: Whether all networks read one embedding instead of one each.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, sizes are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, SingleTask
    >>> model = SingleTask([Categorical("user_id", size=9)], [BinaryTask("click"), BinaryTask("like")])
    >>> len(model.task_variables("click")) == len(model.trainable_variables) // 2
    True

    Reference: the single-task baseline of Ma et al., KDD 2018, doi:10.1145/3219819.3220007, section 6.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        bottom_units: Units = (256, 128),
        tower_units: Units = (64,),
        share_embeddings: bool = False,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        inputs = make_inputs(plan.features)
        towers = {}
        shared = plan.embed(inputs) if share_embeddings else None
        for tower in plan.towers:
            x = plan.embed(inputs, f"{tower}_embedding") if shared is None else shared
            towers[tower] = DenseStack(bottom_units, name=f"{tower}_bottom")(x)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.bottom_units = bottom_units
        self.share_embeddings = bool(share_embeddings)

    @property
    def independent_tasks(self) -> bool:  # type: ignore[override]
        """Whether no two outputs share a variable."""
        return not self.share_embeddings and len(self.outputs_info) == len(self.loss_names)
