from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceABC

import keras

from mtl_zoo import _validation as check
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.heads import Head
from mtl_zoo.layers import ExpertMixture, LSTMBank, PaddingMask, make_gate
from mtl_zoo.models._arguments import Features, Tasks
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._plan import ModelPlan
from mtl_zoo.models._registry import register_model
from mtl_zoo.options import DSelectK, Embedding, Gate, Units


@register_model(
    "mose",
    paper="Qin et al., KDD 2020",
    year=2020,
    reference="research.google/pubs/pub49274",
    kind="gated experts on a sequence",
    good_for="tasks that depend on the order of what a user did: sessions, activity streams",
    not_for="features without an order; long sequences on a CPU (a step of every LSTM for each value)",
    fails="gates that settle on one expert; short histories, from which LSTMs learn little that a mean does not say",
    cost="4 b (d + b + 1) for the bottom, 4 n e (b + e + 1) for the experts, T n b for the gates, T towers",
    requires=("sequence",),
)
class MoSE(MultiTaskModel):
    """MoSE: a mixture of sequential experts (LSTMs over a shared LSTM that reads a sequence), weighed by a gate a task.

    With `s_1 .. s_L` the vectors of the sequence's values and `x` those of all other features:

        u_1 .. u_L = LSTM(s_1 .. s_L)
        e_i = last state of LSTM_i(u_1 .. u_L),   i = 1 .. n
        y_k = h_k([sum_i softmax(W_k u_L)_i e_i, x])

    Padding (id 0) does not count as a step: states are carried over it, and an empty sequence has the state 0.

    The formulas are from memory and were not confirmed. As far as is remembered, the paper mixes the experts' states
    after every step and may read them with an LSTM for each task; here a row has one label, so only the last step is
    mixed, and the towers are those of the head. In the paper all inputs are steps of a sequence; that other features go
    straight to the towers is ours.

    Args:
        features: Feature specs with known sizes, or a fitted `FeatureTransform`.
        tasks: The tasks to learn. Default: those of the transform.
        sequence: Name of the `Sequence` feature that is read in order. Default: the only one, or the one called
            `"sequence"`.
        num_experts: The number of experts, n.
        bottom_units: Widths of the states of the shared LSTM, one for each layer.
        expert_units: Widths of the states of each expert, one for each layer.
        tower_units: Layer widths of each `h_k`, or an `MLP`; a linear layer to the logit follows.
        gate: How gates weigh experts: a `Gate` (temperature, dropout, entropy, bias). Default: `Gate()`.
        embedding: How features become vectors: sharded tables, an L2 penalty on the vectors looked up, cross layers.
            Default: `Embedding()`.
        head: The `Head` that turns each task's representation into logits. Default: `Towers()`.
        name: The model's name in Keras.

    Raises:
        ValueError: If there is no sequence, or several and none is named; if names are duplicate or illegal, sizes are
            not known, or units are not whole numbers >= 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, Sequence
    >>> from mtl_zoo.models import MoSE
    >>> features = [Categorical("user_id", size=9), Sequence("history", size=9, length=5)]
    >>> model = MoSE(features, [BinaryTask("click"), BinaryTask("like")], num_experts=3, expert_units=(8,))
    >>> model.get_layer("experts").output.shape
    (None, 3, 8)

    Reference: Qin et al., "Multitask Mixture of Sequential Experts for User Activity Streams", KDD 2020.
    """

    def __init__(
        self,
        features: Features,
        tasks: Tasks | None = None,
        *,
        sequence: str | None = None,
        num_experts: int = 4,
        bottom_units: SequenceABC[int] = (64,),
        expert_units: SequenceABC[int] = (64,),
        tower_units: Units = (64,),
        gate: Gate | DSelectK | None = None,
        embedding: Embedding | None = None,
        head: Head | None = None,
        name: str | None = None,
    ) -> None:
        plan = ModelPlan(features, tasks, head, embedding)
        read = plan.feature("sequence", sequence, "is_ordered", "that the experts read in order", by_default=True)
        inputs = make_inputs(plan.features)
        in_order = [dataclasses.replace(f, pooling=None) if f is read else f for f in plan.read_features]
        lookup = plan.embedding_layer(features=in_order)
        vectors = lookup(inputs)
        steps = vectors.pop(read.name)
        mask = PaddingMask(name="real_steps")(inputs[read.name])

        for i, width in enumerate(check.check_units("bottom_units", bottom_units)):
            lstm = keras.layers.LSTM(width, return_sequences=True, return_state=True, name=f"bottom_{i}")
            steps, last, _ = lstm(steps, mask=mask)
        experts = LSTMBank(num_experts, expert_units, name="experts")(steps, mask)
        names = [f"expert_{i}" for i in range(num_experts)]
        others = [plan.cross(lookup.concatenate(vectors))] if vectors else []
        towers = {}
        for tower in plan.towers:
            weights = make_gate(num_experts, gate, expert_names=names, name=f"{tower}_gate")(last)
            towers[tower] = ExpertMixture(name=f"{tower}_mixture")(weights, experts)
            if others:
                both = [towers[tower], *others]
                towers[tower] = keras.layers.Concatenate(name=f"{tower}_and_others")(both)
        super().__init__(plan, inputs, towers, tower_units=tower_units, name=name)
        self.sequence = sequence
        self.num_experts = num_experts
        self.bottom_units = bottom_units
        self.expert_units = expert_units
        self.gate = gate
