from __future__ import annotations

from collections.abc import Sequence

import keras

from mtl_zoo import _validation as check
from mtl_zoo._space import Choice
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.features.spec import Categorical
from mtl_zoo.heads import Head
from mtl_zoo.layers import DenseStack, GateUnit
from mtl_zoo.layers.dense_stack import one_layer
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._domain import domain_feature
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import Embedding, Units, as_mlp


@register_model(
    "pepnet",
    paper="Chang et al., KDD 2023",
    year=2023,
    reference="arXiv:2302.01115",
    kind="several domains",
    good_for="several domains and tasks whose scores should follow the user and the item closely, at a small cost",
    not_for="data without ids of users or items to gate by; many tasks (a network each)",
    fails="gates on ids seen a few times memorise them",
    cost="T networks: T (D b_1 + ... + b_L); gates: (L + 1) g (P + D) + g T (D + b_1 + ...) with P the prior's width",
    requires=("domain",),
    space={"gate_units": Choice(16, 32, 64, 128)},
)
class PEPNet(MultiTaskModel):
    """PEPNet: one network for each task, its input gated by the domain and its layers gated by user and item.

    With `x` the concatenated feature vectors, `v_domain` and `v_prior` those of the domain and of the prior features,
    `sg` a stop of the gradient, and gates in (0, 2) from `G(p, x) = 2 sigmoid(relu([p, sg(x)] W + b) W' + b')`:

        o = G(v_domain, x) * x                          (EPNet)
        H_k^0 = o
        H_k^(l+1) = act((G_k^l(v_prior, o) * H_k^l) W_k^l + b_k^l)      (PPNet)
        y_k = h_k(G_k^L(v_prior, o) * H_k^L)

    The input of every layer is gated, that of the head included. One hidden layer makes the gates of a layer for all
    tasks. The gates start at 1 (`W'` and `b'` start as zeros, which is ours), so the model starts as plain networks on
    shared embeddings. Gates send no gradient into `x`, though the vectors of the domain and of the prior features learn
    through them. A missing or unknown domain has an embedding of its own, as missing and unknown values of every
    feature have.

    The formulas are from a secondary source. That the network's input `H^0` is gated as well is our reading of them,
    and the width of the gates' hidden layer is ours.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        domain: Name of the `Categorical` feature that holds each row's domain. Default: the one called `"domain"`.
        prior: Names of the features that gate the layers: user, item, author. Default: every `Categorical` but the
            domain, or the domain if there is no other.
        bottom_units: Layer widths of each task's gated network, or an `MLP`.
        gate_units: Width of the gates' hidden layer.
        tower_units: Layer widths of each `h_k`, which is not gated, or an `MLP`. Default: the linear layer alone.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If no feature holds the domain, `prior` names no feature, names are duplicate or illegal, sizes are
            not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import PEPNet
    >>> features = [Categorical("user_id", size=9), Categorical("domain", size=3)]
    >>> model = PEPNet(features, [BinaryTask("click"), BinaryTask("like")], bottom_units=(8,))
    >>> [tuple(gate.shape) for gate in model.get_layer("gates_1").output]
    [(None, 8), (None, 8)]

    Reference: Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
    Information", KDD 2023, arXiv:2302.01115.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        domain: str | None = None,
        prior: str | Sequence[str] | None = None,
        bottom_units: Units = (256, 128),
        gate_units: int = 64,
        tower_units: Units = (),
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        of_domain = domain_feature(plan, domain)
        inputs = make_inputs(plan.features)
        lookup = plan.embedding_layer()
        vectors = lookup(inputs)
        x = plan.cross(lookup.concatenate(vectors))
        (by_domain,) = GateUnit(x.shape[-1], gate_units, name="domain_gate")(vectors[of_domain.name], x)
        gated = keras.layers.Multiply(name="gated_embedding")([x, by_domain])
        names = _prior_names(plan, prior, of_domain, list(vectors))
        of_prior = lookup.concatenate({feature: vectors[feature] for feature in names})
        network = as_mlp("bottom_units", bottom_units)
        towers = dict.fromkeys(plan.towers, gated)
        for i in range(len(network.units) + 1):
            width = network.units[i - 1] if i else x.shape[-1]
            gates = GateUnit(width, gate_units, len(towers), name=f"gates_{i}")(of_prior, gated)
            for (tower, hidden), gate in zip(tuple(towers.items()), gates, strict=True):
                towers[tower] = keras.layers.Multiply(name=f"{tower}_gated_{i}")([hidden, gate])
                if i < len(network.units):
                    towers[tower] = DenseStack(one_layer(network, i), name=f"{tower}_layer_{i}")(towers[tower])
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.domain = domain
        self.prior = prior
        self.bottom_units = bottom_units
        self.gate_units = gate_units


def _prior_names(
    plan: ModelPlan, prior: str | Sequence[str] | None, of_domain: Categorical, known: list[str]
) -> list[str]:
    if prior is None:
        prior = [f.name for f in plan.read_features if f.is_id and f is not of_domain and f.name in known]
        return prior or [of_domain.name]
    names = [prior] if isinstance(prior, str) else list(prior)
    unknown = [n for n in names if n not in known]
    if unknown or not names:
        raise ValueError(
            f"`prior` must name at least one feature, and features only. Received: prior={prior!r}. "
            f"Expected: some of {known}"
        )
    check.check_unique_names("prior", names)
    return names
