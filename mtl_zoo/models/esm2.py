from __future__ import annotations

from typing import Any

from mtl_zoo._space import Choice
from mtl_zoo.heads import ActionFunnel
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._on_backbone import on_backbone
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Units


@register_model(
    "esm2",
    paper="Wen et al., SIGIR 2020",
    year=2020,
    reference="arXiv:1910.07099",
    kind="funnel",
    good_for="rare conversions that mostly follow a more frequent action, such as a cart or a wish list",
    not_for="funnels without an action between click and conversion (see esmm)",
    fails="its two conversion rates, with and without the action, are seen only through their mixture",
    cost="its backbone's, with one tower more than tasks where a conversion needs no action",
    requires=("middle_action",),
    space={"backbone_options.bottom_units": Choice((360, 200, 80), (64,), (128, 64), (256, 128))},
)
class ESM2(MultiTaskModel):
    """Elaborated entire-space multi-task model: a conversion follows an action after the click, or comes without it.

    With `y1 = p(click)`, `y2 = p(action given click)`, `y3 = p(conversion given action)` and `y4 = p(conversion given
    click, without action)`:

        pCTAVR = y1 y2
        pCVR   = y2 y3 + (1 - y2) y4
        pCTCVR = y1 pCVR
        loss   = BCE(click, y1) + BCE(click and action, pCTAVR) + BCE(click and conversion, pCTCVR)

    where each loss is over all impressions and computed from logits. With `y2 = 1`, or `y3 = y4`, the conversion is
    that of ESMM.

    Names, for tasks `click`, `cart` and `conversion` (see `mtl_zoo.heads.ActionFunnel`): outputs and metrics `click`,
    `cart`, `conversion` (pCVR), `click_and_cart`, `click_and_conversion`; losses and loss weights `click`,
    `click_and_cart`, `click_and_conversion`; labels `click`, `cart`, `conversion`.

    Where the conversion's own `sample_space` is the action, no conversion comes without it: `y4` is 0 and has no tower,
    and the output `conversion` is `y3`.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: A click task, an action task whose `sample_space` is the click, a conversion task whose `sample_space` is
            the click (then it stands after the action) or the action, and any other tasks, which get towers of their
            own. Default: those of the transform.
        action: Name of the action's task, needed where several tasks could be it.
        backbone: Name of the model under the head. Default: `"single_task"` with shared embeddings.
        backbone_options: The arguments of that model, as a dict.
        tower_units: Layer widths of each tower above the backbone, or an `MLP`. Default: the linear layer alone.
        name: The model's name in Keras.

    Raises:
        ValueError: If the tasks hold no such three tasks, or several sets of them, or the backbone refuses its
            arguments.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> cart, conversion = (BinaryTask(name, sample_space="click") for name in ("cart", "conversion"))
    >>> model = create_model("esm2", [Categorical("user_id", size=9)], [BinaryTask("click"), cart, conversion])
    >>> model.loss_names
    ('click', 'click_and_cart', 'click_and_conversion')

    Reference: Wen et al., "Entire Space Multi-Task Modeling via Post-Click Behavior Decomposition for Conversion Rate
    Prediction", SIGIR 2020, arXiv:1910.07099. The formulas were not checked against the paper's text; the widths of its
    towers are not known here, so those of ESMM are used.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        action: str | None = None,
        backbone: str = "single_task",
        backbone_options: dict[str, Any] | None = None,
        tower_units: Units = (),
        name: str | None = None,
    ) -> None:
        head = ActionFunnel(action=action)
        base = on_backbone(head, backbone, backbone_options, features, tasks, tower_units)
        super().__init__(base._plan, base.input, logits=base.output, tower_units=tower_units, name=name)
        self.action = action
        self.backbone = backbone
        self.backbone_options = backbone_options
