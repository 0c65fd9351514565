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
    "single_task",
    paper="the baseline of Ma et al., KDD 2018",
    year=2018,
    reference="doi:10.1145/3219819.3220007",
    kind="no sharing",
    good_for="few tasks, or tasks that harm each other; and as the baseline of every comparison",
    not_for="sparse tasks that need the data of dense ones",
    fails="nothing of its own; the sparse task overfits",
    cost="T networks: T (D b_1 + b_1 b_2 + ...) and T towers; tables T times over",
)
class SingleTask(MultiTaskModel):
    """Single-task: independent networks side by side, the baseline of every comparison.

    With `x_k` task k's own feature vectors:

        y_k = h_k(f_k(x_k))

    The tasks share nothing (with `share_embeddings`, the embedding tables alone), so training them together is training
    them apart, as long as the optimizer treats parameters one by one (clipping by the global norm does not). A
    comparison is fair when each task keeps its own best epoch: `independent_tasks` tells trainers so.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks. Default: those of the transform.
        bottom_units: Layer widths of each `f_k`, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        share_embeddings: One embedding under all networks instead of one each.
        embedding: An `Embedding`: sharded tables, L2 on what is looked up, cross layers. Default: `Embedding()`.
        head: Default: `Towers()`.
        name: Keras name of the model.

    Raises:
        ValueError: Duplicate or illegal names, sizes that are not known, units that are not whole numbers >= 1.

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
        """Whether each output has all its variables to itself."""
        return not self.share_embeddings and len(self.outputs_info) == len(self.loss_names)
