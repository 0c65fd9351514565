from __future__ import annotations

from typing import Any

from mtl_zoo._space import Choice, FloatRange
from mtl_zoo._types import Config
from mtl_zoo.heads import CounterfactualTwin
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._on_backbone import on_backbone
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Units


@register_model(
    "dcmt",
    paper="Zhu et al., ICDE 2023",
    year=2023,
    reference="arXiv:2302.06141",
    kind="funnel",
    good_for="conversion rates on all impressions, with the rows that were not clicked used as well",
    not_for="click rates that are badly calibrated, since they are the propensities",
    fails="the twin sees one class only and soon says 1; then the constraint pulls the conversion rate down",
    cost="its backbone's, with one tower more than tasks",
    requires=("funnel",),
    space={
        "constraint": FloatRange(1e-5, 1e-1, log=True),
        "min_propensity": FloatRange(1e-3, 1e-1, log=True),
        "backbone_options.bottom_units": Choice((360, 200, 80), (64,), (128, 64), (256, 128)),
    },
)
class DCMT(MultiTaskModel):
    """Direct entire-space causal multi-task model: ESMM, a conversion loss on clicked rows, and a twin on the others.

    With `o` the click, `o_hat` its score, `r` the conversion (0 where there is no click), `r_hat` its score, `r_twin`
    the score of a twin tower, and `sg` a stopped gradient:

        loss = L_CTR + L_CTCVR
             + lambda_c * mean of o * BCE(r, r_hat) / sg(o_hat)
             + lambda_c * mean of (1 - o) * BCE(1 - r, r_twin) / sg(1 - o_hat)
             + constraint * mean of |1 - (r_hat + r_twin)|

    where all means are over impressions. Neither conversion loss has a gradient with respect to the click's tower.
    Without these two losses and the constraint the model is ESMM on the same backbone. The formula that is known has no
    `lambda_c`, that is, 1: then the first of the two, a mean over impressions of errors of conversions, is several
    times as large as the click's loss, and its few clicked rows are learned by heart. On 20,000 rows of the synthetic
    funnel the click AUC is 0.716 with 0.1 and 0.700 with 1, and that of the product 0.807 and 0.777
    (benchmarks/results/bench/causes.csv, three seeds).

    Names, for tasks `click` and `conversion` (see `mtl_zoo.heads.CounterfactualTwin`): outputs and metrics `click`,
    `conversion`, `click_and_conversion`; losses and loss weights `click`, `conversion`, `conversion_twin`,
    `click_and_conversion`; labels `click`, `conversion`. The twin is not an output, and the constraint is a penalty,
    not among the losses.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: A click task, a conversion task whose `sample_space` is the click, and any other tasks, which get towers
            of their own. Default: those of the transform.
        lambda_c: The default loss weight of the two conversion losses, which is multiplied by the conversion task's.
        constraint: The factor of the constraint.
        min_propensity: Lower bound of `o_hat` and of `1 - o_hat` in the two conversion losses.
        self_normalized: Whether each of the two is divided by the sum of its weights instead of the number of
            impressions.
        backbone: Name of the model under the head. Default: `"single_task"` with shared embeddings.
        backbone_options: The arguments of that model, as a dict.
        tower_units: Layer widths of each tower above the backbone, or an `MLP`. Default: the linear layer alone.
        name: The model's name in Keras.

    Raises:
        ValueError: If the tasks hold no pair of click and conversion, a factor is below 0, a bound is outside (0, 1],
            or the backbone refuses its arguments.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> model = create_model("dcmt", [Categorical("user_id", size=9)], tasks)
    >>> sorted(model.loss_names)
    ['click', 'click_and_conversion', 'conversion', 'conversion_twin']

    Reference: Zhu et al., "DCMT: A Direct Entire-Space Causal Multi-Task Framework for Post-Click Conversion
    Estimation", ICDE 2023, arXiv:2302.06141. The formula is that of a public re-implementation; as far as is
    remembered, the paper normalises the weights (`self_normalized=True`). Neither was checked against its text, and the
    bound is ours.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        lambda_c: float = 0.1,
        constraint: float = 1e-3,
        min_propensity: float = 0.01,
        self_normalized: bool = False,
        backbone: str = "single_task",
        backbone_options: dict[str, Any] | None = None,
        tower_units: Units = (),
        name: str | None = None,
    ) -> None:
        head = CounterfactualTwin(
            lambda_c=lambda_c, constraint=constraint, min_propensity=min_propensity, self_normalized=self_normalized
        )
        base = on_backbone(head, backbone, backbone_options, features, tasks, tower_units)
        super().__init__(base._plan, base.input, logits=base.output, tower_units=tower_units, name=name)
        self.lambda_c = lambda_c
        self.constraint = constraint
        self.min_propensity = min_propensity
        self.self_normalized = bool(self_normalized)
        self.backbone = backbone
        self.backbone_options = backbone_options

    @classmethod
    def upgrade_arguments(cls, arguments: Config, saved: int) -> Config:
        # Files that do not say it are of before it was an argument.
        return {"lambda_c": 1.0, **arguments}
