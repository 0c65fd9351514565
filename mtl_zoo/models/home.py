from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo._space import Choice, IntRange
from mtl_zoo._types import Config
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertMixture, LowRankFeatureGate, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._extraction import SHARED, Experts, make_experts, select
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import MLP, DSelectK, Embedding, Gate, Units, as_mlp

GROUP = "group"


@register_model(
    "home",
    paper="Wang et al., arXiv 2024",
    year=2024,
    reference="arXiv:2408.05430",
    kind="experts shared by all, by groups of tasks, and private",
    good_for="many tasks that fall into groups, some of them sparse",
    not_for="two or three tasks without groups: ple does the same with fewer parts",
    fails='groups that do not fit the tasks; with the paper\'s `norm="batch"` small batches, and small tables, whose '
    "rows the normalised experts learn by heart",
    cost="with C groups: m_s + C m_g experts of D e_1 + e_1 e_2 + ..., m_s + C m_g + T m_k of D = e or 2 e, a gate for "
    "each reader, a feature gate of about 2 R q D for each owner of experts, T towers",
    space={
        "feature_gate": Choice(True, False),
        "self_gate": Choice(True, False),
        "lora_rank": IntRange(2, 32, log=True),
    },
)
class HoME(MultiTaskModel):
    """Hierarchy of multi-gate experts: tasks in groups, normalised experts, and gates that keep sparse ones in use.

    Experts are shared by all tasks (s), shared by a group c of tasks, or private to a task k. With `x` the concatenated
    feature vectors, `c` the group of k, `E'` a set of experts that reads its input through its feature gate, and
    `[ ; ]` several sets side by side:

        E(v) = swish(norm(v W + b))
        E'(v) = E(v * 2 sigmoid(sum_r a_r(v) B_r A_r v))
        z_c = softmax(W_c x) [E'_c(x) ; E'_s(x)] + self_c(x)
        z_s = softmax(W_s x) [E'_1(x) ; .. ; E'_C(x) ; E'_s(x)] + self_s(x)
        m_c = z_c || z_s
        f_k = softmax(W_k m_c) [E'_k(m_c) ; E'_c(m_c) ; E'_s(z_s)] + self_k(m_c)
        y_k = h_k(f_k)

    Task k never sees the private experts of other tasks nor, at the second level, the experts of other groups. A self
    gate is a residual connection to the reader's own set, `self_c(v) = softmax(U_c v) E'_c`, and likewise for s and k;
    with one expert it has a sigmoid in place of the softmax. It keeps a path to that set when the gate prefers others.
    `B` starts at zero, so that a feature gate starts as the identity.

    The paper was not at hand, and the model follows descriptions of it. They agree on the form of the experts, the
    groups, what a task may see, `z_c || z_s` as its selector, `2 sigmoid` of a low-rank map, and self gates over a
    set's own outputs. What is uncertain: how `a` combines several maps (inside of the sigmoid here), their number and
    ranks; that each expert set has a feature gate; what the self gates read and that they are added; what the shared
    experts of the second level read (`z_s` here, so that one set normalises one distribution); which experts the gate
    of `z_s` covers (all of its level here, as in PLE).

    The paper's experts have batch normalisation, `norm="batch"`; here they have none unless it is asked for, since
    small tables are learned by heart with it: on 20,000 rows of the synthetic funnel the click AUC is 0.673 with it and
    0.714 without (benchmarks/results/catalogue/synthetic_funnel_normalisation.csv.gz, three seeds).

    Each of these parts can be left out. With `feature_gate=False`, `self_gate=False` and an `MLP` for `expert_units`,
    what is left resembles PLE with two levels: it is exactly PLE if each task is its own group, and the group's experts
    and the half `z_s` of `m_c` are ignored.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        task_groups: For each group, by name, the names of its tasks. With a head whose towers are not the tasks (see
            `Head.tower_names`), the names of the towers. Default: one group of all tasks, called `group`.
        num_task_experts: The number of private experts of each task.
        num_group_experts: The number of experts of each group, at both levels.
        num_shared_experts: The number of experts that all tasks share, at both levels.
        expert_units: Layer widths of each expert, where every layer has `norm` and Swish; or an `MLP`, which is taken
            as it is. Default: one layer.
        norm: The normalisation of experts that are given as widths: None, or `"batch"`, which is the paper's, or
            `"layer"`. Its epsilon is 1e-5, as in the authors' code.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        feature_gate: Whether there are feature gates.
        num_loras: The number of low-rank maps in a feature gate.
        lora_rank: The rank of each of these maps.
        self_gate: Whether there are self gates.
        gate: How all gates but the self gates weigh experts: a `Gate` (temperature, dropout, entropy, bias) or a
            `DSelectK`. Default: `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If names are duplicate or illegal, a task or group is named `shared`, sizes are not known, the
            groups do not hold each task once, or the numbers of experts or units are not whole numbers >= 1.

    Example:

    >>> import mtl_zoo
    >>> tasks = [mtl_zoo.BinaryTask(name) for name in ("click", "long_view", "like")]
    >>> groups = {"watch": ("click", "long_view"), "interact": ("like",)}
    >>> features = [mtl_zoo.Categorical("user_id", size=9)]
    >>> model = mtl_zoo.create_model("home", features, tasks, task_groups=groups, num_shared_experts=1)
    >>> model.get_layer("click_gate_1").expert_names
    ('click_0', 'click_1', 'watch_0', 'watch_1', 'shared_0')

    Reference: Wang et al., "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", 2024,
    arXiv:2408.05430.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        task_groups: Mapping[str, Sequence[str]] | None = None,
        num_task_experts: int = 2,
        num_group_experts: int = 2,
        num_shared_experts: int = 2,
        expert_units: Units = (128,),
        norm: str | None = None,
        tower_units: Units = (64,),
        feature_gate: bool = True,
        num_loras: int = 2,
        lora_rank: int = 8,
        self_gate: bool = True,
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        groups = _check_groups(task_groups, plan.towers)
        check.check_count("num_task_experts", num_task_experts)
        check.check_count("num_group_experts", num_group_experts)
        check.check_count("num_shared_experts", num_shared_experts)
        loras = (num_loras, lora_rank) if feature_gate else None
        parts = _Parts(_expert(expert_units, norm), loras, bool(self_gate), gate)
        inputs = make_inputs(plan.features)
        x = plan.embed(inputs)

        shared = parts.experts(SHARED, num_shared_experts, x, "_0")
        of_groups = {group: parts.experts(group, num_group_experts, x, "_0") for group in groups}
        meta_shared = parts.read(SHARED, x, [*of_groups.values(), shared], shared, "_0")
        meta = {group: parts.read(group, x, [experts, shared], experts, "_0") for group, experts in of_groups.items()}

        towers = {}
        shared = parts.experts(SHARED, num_shared_experts, meta_shared, "_1")
        for group, members in groups.items():
            both = keras.layers.Concatenate(name=f"{group}_meta")([meta[group], meta_shared])
            of_group = parts.experts(group, num_group_experts, both, "_1")
            for tower in members:
                private = parts.experts(tower, num_task_experts, both, "_1")
                towers[tower] = parts.read(tower, both, [private, of_group, shared], private, "_1")
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.task_groups = task_groups
        self.num_task_experts = num_task_experts
        self.num_group_experts = num_group_experts
        self.num_shared_experts = num_shared_experts
        self.expert_units = expert_units
        self.norm = norm
        self.feature_gate = bool(feature_gate)
        self.num_loras = num_loras
        self.lora_rank = lora_rank
        self.self_gate = bool(self_gate)
        self.gate = gate

    @classmethod
    def upgrade_arguments(cls, arguments: Config, saved: int) -> Config:
        # Files that do not say it are of before it was an argument, and had the paper's.
        arguments = {"norm": "batch", **arguments}
        if saved < 2 and not isinstance(arguments["expert_units"], MLP):
            # Files of 0.1.0 were trained with Keras' epsilon.
            old = dataclasses.replace(_expert(arguments["expert_units"], arguments["norm"]), epsilon=1e-3)
            return {**arguments, "expert_units": old}
        return arguments


@dataclasses.dataclass(frozen=True)
class _Parts:
    """How HoME makes and reads a set of experts, whether it belongs to all tasks, a group or a task."""

    expert: MLP
    loras: tuple[int, int] | None
    self_gate: bool
    gate: Any

    def experts(self, owner: str, count: int, v: Any, at: str) -> Experts:
        """`E'(v)`: experts behind a feature gate."""
        if self.loras is not None:
            v = LowRankFeatureGate(*self.loras, name=f"{owner}_feature_gate{at}")(v)
        return make_experts(owner, count, self.expert, v, at)

    def read(self, reader: str, selector: Any, groups: Sequence[Experts], residual: Experts, at: str) -> Any:
        """The gated sum of `groups`, plus the self gate's sum of `residual`, the experts of the reader itself."""
        mixed = select(reader, selector, groups, self.gate, at)
        if not self.self_gate:
            return mixed
        name = f"{reader}_self_gate{at}"
        if len(residual.names) > 1:
            weights = make_gate(len(residual.names), expert_names=residual.names, name=name)(selector)
        else:
            # A softmax over one expert would be 1 for every row.
            weights = keras.layers.Dense(1, "sigmoid", use_bias=False, name=name)(selector)
        alone = ExpertMixture(name=f"{reader}_self{at}")(weights, residual.outputs)
        return keras.layers.Add(name=f"{reader}_sum{at}")([mixed, alone])


def _expert(expert_units: Any, norm: str | None) -> MLP:
    mlp = as_mlp("expert_units", expert_units)
    return mlp if isinstance(expert_units, MLP) else MLP(mlp.units, activation="silu", norm=norm, epsilon=1e-5)


def _check_groups(task_groups: Any, towers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group name -> its towers, every tower in one group."""
    if task_groups is None:
        task_groups = {GROUP: tuple(towers)}
    if not isinstance(task_groups, Mapping) or any(isinstance(names, str) for names in task_groups.values()):
        raise TypeError(
            f"`task_groups` must be a dict of group name -> names of its tasks. Received: task_groups={task_groups!r}"
        )
    groups = {check.check_name("task_groups", group): tuple(names) for group, names in task_groups.items()}
    grouped = [name for names in groups.values() for name in names]
    if sorted(grouped) != sorted(towers) or not all(groups.values()):
        raise ValueError(
            f"`task_groups` must hold each task once, and no empty group. Received: task_groups={groups!r}. "
            f"Expected: the tasks {list(towers)}"
        )
    taken = sorted({SHARED} & {*towers, *groups} | set(towers) & set(groups))
    if taken:
        raise ValueError(
            "`tasks` and `task_groups` must have names that differ from each other and from "
            f"{SHARED!r}, since each names its experts. Received twice: {taken}"
        )
    return groups
