from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_zoo._space import Choice
from mtl_zoo.heads import Cascade
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._on_backbone import on_backbone
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Units


@register_model(
    "dbmtl",
    paper="Wang et al., arXiv 2019",
    year=2019,
    reference="arXiv:1902.09154",
    kind="cascade",
    good_for="tasks that follow from one another: a comment after a read, a purchase after a click",
    not_for="tasks in no order",
    fails="a sparse task that others depend on passes its noise on, and their gradients move it",
    cost="its backbone's, and for each task k (h + r |D_k|) r (h: a tower's width, r: that of one relation layer)",
    space={"relation_units": Choice((16,), (32,), (64,))},
)
class DBMTL(MultiTaskModel):
    """Deep Bayesian multi-target learning: a task also reads the hidden layers of the tasks that it depends on.

    With `s_k` the output of task k's tower, `f_k` its relation MLP and `D_k` the tasks that k depends on:

        h_k = f_k([s_k ; h_j for j in D_k])
        y_k = Dense(h_k)

    which follows `p(tasks | x) = prod_k p(k | tasks that k depends on, x)`. Tasks depend on each other through hidden
    layers, not through labels. The loss of a task trains the towers of the tasks that it depends on, never the other
    way round. Without dependencies the towers stand side by side.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        relation_units: Layer widths of each `f_k`, or an `MLP`. With no layers, `h_k` is the hidden layers side by
            side.
        depends_on: For each task, by name, the list of the tasks that it depends on. Default: a task depends on the one
            whose label is its sample space.
        backbone: Name of the model under the head. Default: `"shared_bottom"`.
        backbone_options: The arguments of that model, as a dict.
        tower_units: Layer widths of each `s_k` above the backbone, or an `MLP`.
        name: The model's name in Keras.

    Raises:
        ValueError: If `depends_on` names something that is not a task or leads back to the same task, or the backbone
            refuses its arguments.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> tasks = [BinaryTask("click"), BinaryTask("read"), BinaryTask("comment")]
    >>> graph = {"read": ["click"], "comment": ["click", "read"]}
    >>> model = create_model("dbmtl", [Categorical("user_id", size=9)], tasks, depends_on=graph)
    >>> model.get_layer("comment_evidence").output.shape
    (None, 128)

    Reference: Wang et al., "Deep Bayesian Multi-Target Learning for Recommender Systems", 2019, arXiv:1902.09154. The
    formulas follow its abstract and published descriptions, not the paper's text; the widths are ours.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        relation_units: Units = (32,),
        depends_on: Mapping[str, Sequence[str]] | None = None,
        backbone: str = "shared_bottom",
        backbone_options: dict[str, Any] | None = None,
        tower_units: Units = (64,),
        name: str | None = None,
    ) -> None:
        head = Cascade(relation_units=relation_units, depends_on=depends_on)
        base = on_backbone(head, backbone, backbone_options, features, tasks, tower_units)
        super().__init__(base._plan, base.input, logits=base.output, tower_units=tower_units, name=name)
        self.relation_units = relation_units
        self.depends_on = depends_on
        self.backbone = backbone
        self.backbone_options = backbone_options
