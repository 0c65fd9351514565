from __future__ import annotations

import keras

from mtl_zoo._space import Choice
from mtl_zoo._types import Config
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack, PartitionedNormalization, StarStack
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._domain import domain_feature, domain_shares
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units


@register_model(
    "star",
    paper="Sheng et al., CIKM 2021",
    year=2021,
    reference="arXiv:2101.11427",
    kind="several domains",
    good_for="one model for a few domains (apps, countries, pages) whose users or items overlap",
    not_for="many domains, each of which costs as much as the shared network; a single domain",
    fails="a domain with few rows in a batch has noisy moments, one with few rows at all overfits its factors; small "
    "tables with the paper's `normalization_epsilon`, whose rows it then learns by heart",
    cost="(M + 1)(D b_1 + b_1 b_2 + ...) for M domains, D a_1 + ... for the auxiliary network, T towers",
    requires=("domain",),
    space={"auxiliary_units": Choice((32,), (64,), (128,))},
)
class STAR(MultiTaskModel):
    """STAR: a network that all tasks share, with its weights multiplied by factors of the row's domain.

    With `z` the feature vectors without the domain's own, `x` all of them, and p the row's domain:

        z' = gamma gamma_p (z - mu_p) / sqrt(var_p + epsilon) + beta + beta_p
        u^l = act(u^(l-1) (W^l * W_p^l) + b^l + b_p^l),   u^0 = z'
        y_k = h_k([u^L, auxiliary(x)])

    `gamma_p` and `W_p` start as 1, `beta_p` and `b_p` as 0, so all domains start as the shared network. A batch may mix
    domains: the moments are those of each domain's rows in it, and in inference running moments (see
    `PartitionedNormalization`). A row whose domain is missing or unknown gets the mean of the domains' factors and the
    moments of all rows.

    The paper has one task, and its last layer is a star as well; the towers above, which all domains share, are ours.
    With `tower_units=()` a logit is, as in the paper, the sum of the star's and the auxiliary network's. The domain's
    own vector goes to the auxiliary network only: it is constant within a domain, so the normalisation would turn it
    into zeros.

    `epsilon` is 1 here. Embeddings start within 0.05 of zero, and that small start keeps a model from learning its rows
    by heart, since a vector must grow before it matters; a normalisation with a small `epsilon`, as the paper's, makes
    all of them matter at once. With 1 it centres a domain's vectors at first, and normalises what has grown. On 20,000
    rows of the synthetic funnel the click AUC is 0.725 with 1 and 0.705 with 1e-3, although that of the training rows
    is 0.789 and 0.843 (benchmarks/results/bench/causes.csv, three seeds).

    The formulas are from memory; how the paper treats the domain's vector in `z` is not certain.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        domain: Name of the `Categorical` feature that holds each row's domain. Default: the one called `"domain"`.
        bottom_units: Layer widths of the star network, or an `MLP`; `norm="batch"` normalises by domain here.
        auxiliary_units: Layer widths of the auxiliary network, or an `MLP`.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        normalization_epsilon: The number that the normalisation of `z` adds to the variance. 1e-3 is the paper's.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If no feature holds the domain or there is no other feature, names are duplicate or illegal, sizes
            are not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import STAR
    >>> features = [Categorical("user_id", size=9), Categorical("domain", size=3)]
    >>> model = STAR(features, [BinaryTask("click"), BinaryTask("like")], bottom_units=(8,))
    >>> tuple(model.get_layer("star").dense[0].domain_kernel.shape)
    (3, 16, 8)

    Reference: Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
    Prediction", CIKM 2021, arXiv:2101.11427.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        domain: str | None = None,
        bottom_units: Units = (256, 128),
        auxiliary_units: Units = (64,),
        tower_units: Units = (64,),
        normalization_epsilon: float = 1.0,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        of_domain = domain_feature(plan, domain)
        if len(plan.read_features) == 1:
            raise ValueError(f"`features` must hold more than the domain. Received: {[of_domain.name]}")
        inputs = make_inputs(plan.features)
        shares = domain_shares(of_domain, inputs)
        lookup = plan.embedding_layer()
        vectors = lookup(inputs)
        others = {feature: vector for feature, vector in vectors.items() if feature != of_domain.name}
        z = plan.cross(lookup.concatenate(others))
        normal = PartitionedNormalization(epsilon=normalization_epsilon, name="normalization")(z, shares)
        star = StarStack(bottom_units, name="star")(normal, shares)
        auxiliary = DenseStack(auxiliary_units, name="auxiliary")(lookup.concatenate(vectors))
        both = keras.layers.Concatenate(name="star_and_auxiliary")([star, auxiliary])
        super().__init__(plan, inputs, dict.fromkeys(plan.towers, both), tower_units=tower_units, name=name)
        self.domain = domain
        self.bottom_units = bottom_units
        self.auxiliary_units = auxiliary_units
        self.normalization_epsilon = normalization_epsilon

    @classmethod
    def upgrade_arguments(cls, arguments: Config, saved: int) -> Config:
        # Files that do not say it are of before it was an argument.
        return {"normalization_epsilon": 1e-3, **arguments}
