from __future__ import annotations

from mtl_zoo.heads import Head
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._registry import register_model
from mtl_zoo.models.adatt import AdaTT
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "adatt_sp",
    paper="Li et al., KDD 2023",
    year=2023,
    reference="doi:10.1145/3580305.3599769",
    kind="experts of tasks, read by all",
    good_for="tasks that should learn from each other row by row and level by level; the paper's best variant",
    not_for="tasks that conflict: the experts of each are open to the gradients of all",
    fails="gates that settle on one expert; the authors call the native residual crucial",
    cost="T m_t experts of D e_1 + e_1 e_2 + ... at the first level, the same with D = e at each further one, "
    "T gates of T m_t columns a level, T towers",
)
class AdaTTSp(AdaTT):
    """AdaTT without shared experts: each task gates the experts of all tasks and adds its own, level by level.

    With `x` the concatenated feature vectors, `f_k^0 = x`, and at level l = 1 .. L task k's experts `E_k^l`, which read
    `f_k^(l-1)`, and `E^l` those of all tasks:

        f_k^l = softmax(W_k^l f_k^(l-1)) E^l + v_k^l E_k^l
        y_k = h_k(f_k^L)

    `AdaTT` explains `v` and where the official code differs.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        num_levels: The number of levels, L.
        num_task_experts: The number of experts of each task, at every level.
        expert_units: Layer widths of each expert, or an `MLP`, at every level. Default: one layer, as in the paper.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        native_residual: False leaves `v_k^l E_k^l` out, as in the paper's ablation.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a `DSelectK`. Default:
            `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task is named `shared`, sizes are not known, or the numbers of
            levels, experts or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("adatt_sp", [mtl_zoo.Categorical("user_id", size=9)], tasks)
    >>> model.get_layer("like_gate_1").expert_names
    ('click_0', 'click_1', 'like_0', 'like_1')

    Reference: Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations",
    KDD 2023, doi:10.1145/3580305.3599769.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        num_levels: int = 2,
        num_task_experts: int = 2,
        expert_units: Units = (128,),
        tower_units: Units = (64,),
        native_residual: bool = True,
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            features,
            tasks,
            num_levels=num_levels,
            num_task_experts=num_task_experts,
            num_shared_experts=0,
            expert_units=expert_units,
            tower_units=tower_units,
            native_residual=native_residual,
            gate=gate,
            embedding=embedding,
            head=head,
            name=name,
        )
