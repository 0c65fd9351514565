"""The gates in a model's graph, the experts that they weigh, and their weights on data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mtl_zoo._progress import Bar
from mtl_zoo.layers import BaseGate, StopGradient

# The number of rows whose weights are in memory at once.
_ROWS = 65_536


@dataclasses.dataclass
class GateSums:
    """Sums over the rows of each segment (the first axis)."""

    rows: np.ndarray
    weights: dict[str, np.ndarray]
    entropy: dict[str, np.ndarray]
    overlap: dict[tuple[str, str], np.ndarray]


class GateReader:
    """Reads the weights of all gates in a model's graph.

    Args:
        model: A model of the zoo.

    Attributes:
        gates: The gate layers by name.
        experts: For each gate, a key for each expert that it weighs; gates that weigh the same expert have the same key
            for it.
        pairs: For each pair of gates, the positions of the experts that both weigh, in the one and in the other.

    Raises:
        ValueError: If the model has no gates.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.gates = {layer.name: layer for layer in model.layers if isinstance(layer, BaseGate)}
        if not self.gates:
            raise ValueError(
                "`model` must have gates over experts (as mmoe, cgc and ple have). "
                f"Received: {type(model).__name__}, which has none"
            )
        self.experts = _experts_by_gate(model, self.gates)
        self.pairs = {}
        for first, second in itertools.combinations(self.gates, 2):
            other = {expert: i for i, expert in enumerate(self.experts[second])}
            common = [(i, other[expert]) for i, expert in enumerate(self.experts[first]) if expert in other]
            if common:
                at, there = zip(*common, strict=True)
                self.pairs[first, second] = (list(at), list(there))
        self._network = keras.Model(model.input, {name: gate.output for name, gate in self.gates.items()})

    def read(
        self, inputs: Mapping[str, np.ndarray], codes: np.ndarray, segments: int, batch_size: int, verbose: int = 0
    ) -> GateSums:
        """Sums of weights, entropies and overlaps over the rows of each segment; `codes` holds each row's segment."""
        sums = GateSums(
            np.bincount(codes, minlength=segments).astype("float64"),
            {name: np.zeros((segments, gate.num_experts)) for name, gate in self.gates.items()},
            {name: np.zeros(segments) for name in self.gates},
            {pair: np.zeros(segments) for pair in self.pairs},
        )
        with Bar("Reading gates", len(codes), verbose) as bar:
            for start in range(0, len(codes), _ROWS):
                at = slice(start, start + _ROWS)
                chunk = {name: values[at] for name, values in inputs.items()}
                weights = self._network.predict(chunk, batch_size=batch_size, verbose=0)
                self._add(sums, {name: w.astype("float64") for name, w in weights.items()}, codes[at])
                bar.advance(len(codes[at]))
        return sums

    def by_row(self, inputs: Mapping[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
        """The weights of each gate, (rows, experts)."""
        return self._network.predict(dict(inputs), batch_size=batch_size, verbose=0)

    def _add(self, sums: GateSums, weights: Mapping[str, np.ndarray], codes: np.ndarray) -> None:
        for name, rows in weights.items():
            np.add.at(sums.weights[name], codes, rows)
            np.add.at(sums.entropy[name], codes, normalized_entropy(rows))
        for (first, second), (at, there) in self.pairs.items():
            both = np.minimum(weights[first][:, at], weights[second][:, there])
            np.add.at(sums.overlap[first, second], codes, both.sum(axis=1))


def normalized_entropy(weights: np.ndarray) -> np.ndarray:
    """`-sum w log w / log n` over the last axis; 1 where n = 1."""
    n = weights.shape[-1]
    if n == 1:
        return np.ones(weights.shape[:-1])
    return -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=-1) / np.log(n)


def _experts_by_gate(model: Any, gates: Mapping[str, BaseGate]) -> dict[str, tuple[Any, ...]]:
    makers = {id(tensor): op for op in model.operations for tensor in _tensors(op, "output")}
    weights = {id(gate.output) for gate in gates.values()}
    experts = {}
    for name, gate in gates.items():
        readers = [op for op in model.operations if any(t is gate.output for t in _tensors(op, "input"))]
        # The experts of a gate are the stack of as many experts that is read together with its weights.
        stacks = [
            tensor
            for op in readers
            for tensor in _tensors(op, "input")
            if id(tensor) not in weights and len(tensor.shape) == 3 and tensor.shape[1] == gate.num_experts
        ]
        experts[name] = tuple(_members(stacks[0], makers) if stacks else [(name, i) for i in range(gate.num_experts)])
    return experts


def _members(stack: Any, makers: Mapping[int, Any]) -> list[Any]:
    """The experts in a (batch, experts, units) tensor, each as the tensor that it comes from and its position there."""
    maker = makers.get(id(stack))
    if isinstance(maker, keras.layers.Concatenate):
        return [expert for part in _tensors(maker, "input") for expert in _members(part, makers)]
    if isinstance(maker, StopGradient):
        return _members(maker.input, makers)
    return [(id(stack), i) for i in range(stack.shape[1])]


def _tensors(operation: Any, end: str) -> list[Any]:
    """The tensors at one end of an operation of the graph."""
    try:
        return keras.tree.flatten(getattr(operation, end))
    except (AttributeError, ValueError):  # called several times, or never
        return []
