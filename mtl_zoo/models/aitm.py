from __future__ import annotations

from typing import Any

from mtl_zoo._space import Choice, FloatRange
from mtl_zoo.heads import TransferChain
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._on_backbone import on_backbone
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Units


@register_model(
    "aitm",
    paper="Xi et al., KDD 2021",
    year=2021,
    reference="arXiv:2105.08489",
    kind="funnel",
    good_for="funnels of several steps whose last one is rare, when end-to-end probabilities are wanted",
    not_for="conversion rates given a click, which it does not model",
    fails="steps that cross (a conversion scored above its click) when the calibrator is off",
    cost="its backbone's, and 4 h^2 + h for each later step (h: a tower's width): transfer and attention",
    space={
        "alpha": FloatRange(0.05, 2.0, log=True),
        "backbone_options.bottom_units": Choice((128, 64, 32), (64,), (128, 64), (256, 128)),
    },
)
class AITM(MultiTaskModel):
    """Adaptive information transfer: each step of a funnel attends to what the step before passes on.

    With `q_t` the output of the tower of step t, where the `sample_space` of each step is the step before it:

        z_1 = q_1
        p_(t-1) = dropout(relu(Dense(z_(t-1))))
        z_t = attention over [q_t ; p_(t-1)], each row scored against itself
        y_t = sigmoid(Dense(z_t))
        loss = sum_t BCE_t + alpha * sum_(t>1) mean of max(y_t - y_(t-1), 0)

    `y_t` is the probability of step t and all before it, over all impressions. With a funnel of one task the model is
    its backbone.

    Names, for tasks `click` and `conversion` (see `mtl_zoo.heads.TransferChain`): outputs, metrics, losses and loss
    weights `click`, `click_and_conversion`; labels `click`, `conversion`. There is no output `conversion`, since the
    probability given the click is not modelled. The calibrator is a penalty, and not among the losses.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: Binary tasks, each with the one before it as its `sample_space`, and any other tasks, which get towers of
            their own. Default: those of the transform.
        alpha: The factor of the calibrator.
        dropout: The share of the passed-on units that is dropped in training.
        backbone: Name of the model under the head. Default: `"single_task"` with shared embeddings.
        backbone_options: The arguments of that model, as a dict.
        tower_units: Layer widths of each tower above the backbone, or an `MLP`. Default: the linear layer alone.
        name: The model's name in Keras.

    Raises:
        ValueError: If sample spaces lead back to their own task, a factor is below 0, or the backbone refuses its
            arguments.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> cart, conversion = BinaryTask("cart", sample_space="click"), BinaryTask("conversion", sample_space="cart")
    >>> model = create_model("aitm", [Categorical("user_id", size=9)], [BinaryTask("click"), cart, conversion])
    >>> [output.name for output in model.outputs_info]
    ['click', 'click_and_cart', 'click_and_conversion']

    Reference: Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising", KDD 2021, arXiv:2105.08489; widths, `alpha` and the kernels without bias
    from the authors' code, which also drops out 0.1 to 0.3 of the units (an `MLP` for `bottom_units`, and `dropout`).
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        alpha: float = 0.6,
        dropout: float = 0.0,
        backbone: str = "single_task",
        backbone_options: dict[str, Any] | None = None,
        tower_units: Units = (),
        name: str | None = None,
    ) -> None:
        head = TransferChain(alpha=alpha, dropout=dropout)
        base = on_backbone(head, backbone, backbone_options, features, tasks, tower_units, bottom_units=(128, 64, 32))
        super().__init__(base._plan, base.input, logits=base.output, tower_units=tower_units, name=name)
        self.alpha = alpha
        self.dropout = dropout
        self.backbone = backbone
        self.backbone_options = backbone_options
