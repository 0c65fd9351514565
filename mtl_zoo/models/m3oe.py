from __future__ import annotations

import keras

from mtl_zoo._space import Choice, IntRange
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import (
    BalancedMixture,
    DenseStack,
    DomainBlocks,
    ExpertBank,
    ExpertMixture,
    StarDense,
    StopGradient,
    make_gate,
)
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._domain import domain_feature, domain_shares
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import MLP, DSelectK, Embedding, Gate, Units, as_mlp


@register_model(
    "m3oe",
    paper="Zhang et al., SIGIR 2024",
    year=2024,
    reference="arXiv:2404.18465",
    kind="several domains, gated experts",
    good_for="a few domains and a few tasks at once, each with rows enough for experts of its own",
    not_for="many domains or tasks (experts, gates and towers for each); a single domain",
    fails="sparse pairs of a domain and a task, whose gate and tower see only their own rows; with the paper's "
    '`norm="layer"` small tables, on which validation soon falls',
    cost="(M + 1) D s + (s + D) b for M domains, (n + M + T) b e for the experts, T M (n b + e h) for gates and towers",
    requires=("domain",),
    space={"num_experts": IntRange(2, 8), "star_units": Choice(128, 256, 512)},
)
class M3oE(MultiTaskModel):
    """M3oE: experts for all, for each domain and for each task, over a layer of star weights.

    With `x` the concatenated feature vectors, d the row's domain, n shared experts `S_i`, an expert `D_d` for each
    domain and `T_t` for each task, and `e_d`, `e_t`, `b_d`, `b_t` learned numbers in (0, 1):

        r = bottom(x (W * W_d) + b + b_d) + skip(x)
        Dmix_d = b_d D_d + (1 - b_d) / (#D - 1) sum_(d' != d) D_d',   Tmix_t alike with b_t
        f_(d,t) = sum_i softmax(sg(r) V_(d,t) + c_(d,t))_i S_i + e_d Dmix_d + e_t Tmix_t
        y_t = h_(d,t)(f_(d,t))

    The gates send no gradient into `r`. With a single domain (or a single task) the mix is that domain's (or task's)
    own expert. A row whose domain is missing or unknown gets the mean over the domains: of their star weights, experts,
    gate logits and towers.

    `e` and `b` start at 0.5 and are trained with all other weights; the paper searches for them on validation data with
    a learning rate of their own, and the authors' code takes their start as an argument. `W_d` starts as ones (in the
    authors' code it is drawn like `W`). `tower_units` are the layers of the head's tower for each task, above the
    towers `h_(d,t)`; by default it has none, and its linear layer is by domain as well.

    The authors' code has layer normalisation in all of these networks, `norm="layer"`; here they have none unless it is
    asked for, since it loses on small tables: on 20,000 rows of the synthetic funnel the click AUC is 0.651 with it and
    0.715 without, the conversion's 0.487, below chance, and 0.591
    (benchmarks/results/catalogue/synthetic_funnel_normalisation.csv.gz, three seeds). With layers of 44 and 11 units on
    those rows the click AUC is 0.723 without and 0.618 with it; 0.697 with it in the bottoms alone, which is what it
    costs a shared bottom too, 0.677 in the experts and 0.596 in the pairs, whose 11 units are all that is left below a
    logit. With four times those widths it is 0.691 with it in the pairs and 0.687 in all. An epsilon of 1, which cures
    `STAR`, gives 0.643 (benchmarks/results/bench/causes.csv, three seeds).

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        domain: Name of the `Categorical` feature that holds each row's domain. Default: the one called `"domain"`.
        star_units: Width of the star layer.
        bottom_units: Layer widths of `bottom` and of `skip`, or an `MLP`. Default: one layer of 256 units.
        num_experts: The number of shared experts, n.
        expert_units: Layer widths of every expert, or an `MLP`. Default: one layer of 64 units.
        pair_units: Layer widths of each `h_(d,t)`, or an `MLP`; a linear layer to the logit follows. Default: those of
            the experts.
        norm: The normalisation of those networks above that are given as widths: None, or `"layer"`, which is the
            authors', or `"batch"`. Its epsilon is 1e-5, as in their code. An `MLP` is taken as it is.
        tower_units: Layer widths of the head's tower above them, or an `MLP`. Default: the linear layer alone.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy). Default: `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If no feature holds the domain, names are duplicate or illegal, sizes are not known, or units are
            not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical
    >>> from mtl_zoo.models import M3oE
    >>> features = [Categorical("user_id", size=9), Categorical("domain", size=3)]
    >>> model = M3oE(features, [BinaryTask("click"), BinaryTask("like")])
    >>> round(float(model.get_layer("domain_mixture").balance), 2)
    0.5

    Reference: Zhang et al., "M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework", SIGIR 2024,
    arXiv:2404.18465; formulas and defaults are those of the authors' code, Applied-Machine-Learning-Lab/M3oE.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        domain: str | None = None,
        star_units: int = 512,
        bottom_units: Units = (256,),
        num_experts: int = 4,
        expert_units: Units = (64,),
        pair_units: Units = (64,),
        norm: str | None = None,
        tower_units: Units = (),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        of_domain = domain_feature(plan, domain)
        inputs = make_inputs(plan.features)
        shares = domain_shares(of_domain, inputs)
        num_domains = shares.shape[-1]
        x = plan.embed(inputs)
        bottom, expert = _network("bottom_units", bottom_units, norm), _network("expert_units", expert_units, norm)
        star = StarDense(star_units, name="star")(x, shares)
        sides = [DenseStack(bottom, name="bottom")(star), DenseStack(bottom, name="skip")(x)]
        r = keras.layers.Add(name="representation")(sides)

        shared = ExpertBank(num_experts, expert, name="shared_experts")(r)
        of_domains = ExpertBank(num_domains, expert, name="domain_experts")(r)
        of_tasks = ExpertBank(len(plan.towers), expert, name="task_experts")(r)
        by_domain = BalancedMixture(name="domain_mixture")(of_domains, shares)
        by_task = BalancedMixture(name="task_mixture")(of_tasks)

        gate_input = DomainBlocks(name="gate_input")(StopGradient(name="detached")(r), shares)
        names = [f"shared_{i}" for i in range(num_experts)]
        pairs = _network("pair_units", pair_units, norm)
        towers = {}
        for tower, own in zip(plan.towers, by_task, strict=True):
            weights = make_gate(num_experts, gate, expert_names=names, name=f"{tower}_gate")(gate_input)
            mixed = ExpertMixture(name=f"{tower}_mixture")(weights, shared)
            fused = keras.layers.Add(name=f"{tower}_fused")([mixed, by_domain, own])
            if pairs.units:
                fused = ExpertBank(num_domains, pairs, name=f"{tower}_pairs")(fused)
                fused = ExpertMixture(name=f"{tower}_pair")(shares, fused)
            towers[tower] = DomainBlocks(name=f"{tower}_blocks")(fused, shares)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.domain = domain
        self.star_units = star_units
        self.bottom_units = bottom_units
        self.num_experts = num_experts
        self.expert_units = expert_units
        self.pair_units = pair_units
        self.norm = norm
        self.gate = gate


def _network(argument: str, units: Units, norm: str | None) -> MLP:
    """An `MLP` as it is, and widths with the normalisation that was asked for."""
    mlp = as_mlp(argument, units, allow_empty=argument == "pair_units")
    return mlp if isinstance(units, MLP) else MLP(mlp.units, norm=norm, epsilon=1e-5)
