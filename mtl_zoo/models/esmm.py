from __future__ import annotations

from typing import Any

from mtl_zoo._space import Choice
from mtl_zoo.heads import EntireSpace
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._on_backbone import on_backbone
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Units


@register_model(
    "esmm",
    paper="Ma et al., SIGIR 2018",
    year=2018,
    reference="arXiv:1804.07931",
    kind="funnel",
    good_for="conversions that are seen after clicks only, few of them, and used on all impressions",
    not_for="tasks without a funnel; scores that must be calibrated on clicked rows",
    fails="its conversion rate is biased where clickers convert differently from others (see escm2)",
    cost="its backbone's",
    requires=("funnel",),
    space={"backbone_options.bottom_units": Choice((360, 200, 80), (64,), (128, 64), (256, 128))},
)
class ESMM(MultiTaskModel):
    """Entire-space multi-task model: the conversion rate is learned on all impressions, through pCTR * pCVR.

    With click logit `a`, conversion logit `b`, `pCTR = sigmoid(a)`, `pCVR = sigmoid(b)` and `pCTCVR = pCTR * pCVR`:

        loss = BCE(click, pCTR) + BCE(click and conversion, pCTCVR), each over all impressions.

    No loss acts on pCVR itself, so it is trained on the rows on which it will be used, and not on clicked rows alone.
    In the paper the two networks share their embeddings and nothing else, which is the default here; with `backbone`
    the same head goes on any other model of the zoo.

    Names, for tasks `click` and `conversion` (see `mtl_zoo.heads.EntireSpace`): outputs and metrics `click`,
    `conversion`, `click_and_conversion`; losses and loss weights `click`, `click_and_conversion`; labels `click`,
    `conversion`.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: A click task, a conversion task whose `sample_space` is the click, and any other tasks, which get towers
            of their own. Default: those of the transform.
        backbone: Name of the model under the head. Default: `"single_task"` with shared embeddings.
        backbone_options: The arguments of that model, as a dict.
        tower_units: Layer widths of each tower above the backbone, or an `MLP`. Default: the linear layer alone.
        name: The model's name in Keras.

    Raises:
        ValueError: If the tasks hold no pair of click and conversion, or the backbone refuses its arguments.

    Example:

    >>> from mtl_zoo import ESMM, BinaryTask, Categorical
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> model = ESMM([Categorical("user_id", size=9)], tasks, backbone="mmoe", backbone_options={"num_experts": 4})
    >>> sorted(model.output)
    ['click', 'click_and_conversion', 'conversion']

    Reference: Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion
    Rate", SIGIR 2018, arXiv:1804.07931.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        backbone: str = "single_task",
        backbone_options: dict[str, Any] | None = None,
        tower_units: Units = (),
        name: str | None = None,
    ) -> None:
        base = on_backbone(EntireSpace(), backbone, backbone_options, features, tasks, tower_units)
        super().__init__(base._plan, base.input, logits=base.output, tower_units=tower_units, name=name)
        self.backbone = backbone
        self.backbone_options = backbone_options
