"""What a picture of a model shows: its layers as blocks, and which block reads which."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import keras

from mtl_zoo.layers import BaseGate, FeatureEmbedding, StackColumns, StopGradient, UnstackColumns

# Layers that only pass on what they read, which an arrow shows as well.
_HANDED_ON = (keras.layers.Concatenate, keras.layers.Reshape, StackColumns, StopGradient, UnstackColumns)
_SUMS = ("Mixture", "Mixtures", "Fusion")
# This many blocks with the same sources and readers are drawn as one.
_TWINS = 4


@dataclasses.dataclass
class Block:
    """A layer of the picture.

    Args:
        name: The layer's name; for several layers, that of the first.
        kind: `"embedding"`, `"experts"`, `"expert"`, `"network"`, `"gate"`, `"tower"`, `"sign"` (a sum or product) or
            `"output"`.
        title, subtitle: The text in the block.
        hint: The text that appears under the mouse.
        sources: The blocks that it reads, by name, and whether gradients flow back to each.
    """

    name: str
    kind: str
    title: str
    subtitle: str
    hint: str
    sources: dict[str, bool]


def read_blocks(model: Any) -> list[Block]:
    """Returns the blocks of a model's graph, each after those that it reads."""
    made_by: dict[int, dict[str, bool]] = {}
    blocks: dict[str, Block] = {}
    for op in _in_order(model):
        sources = _joined(made_by.get(id(tensor), {}) for tensor in keras.tree.flatten(op.input))
        if not isinstance(op, keras.layers.InputLayer):
            if isinstance(op, StopGradient):
                sources = dict.fromkeys(sources, False)
            elif isinstance(op, keras.Layer) and not isinstance(op, _HANDED_ON):
                blocks[op.name] = _block(op, sources)
                sources = {op.name: True}
            for tensor in keras.tree.flatten(op.output):
                made_by[id(tensor)] = sources
    _join_heads_to_towers(blocks)
    for name, tensor in model.output.items():
        sources = {_alias(blocks, source): flows for source, flows in made_by[id(tensor)].items()}
        blocks[f"{name} (output)"] = Block(f"{name} (output)", "output", name, "", "an output", sources)
    return list(_join_twins(blocks).values())


def _in_order(model: Any) -> list[Any]:
    """The operations, each after those that it reads, in the order in which they were made where that is known."""
    ready: set[int] = set()
    waiting, ordered = list(model.operations), []
    while waiting:
        for op in waiting:
            if isinstance(op, keras.layers.InputLayer) or all(id(t) in ready for t in keras.tree.flatten(op.input)):
                break
        waiting.remove(op)
        ordered.append(op)
        ready.update(id(tensor) for tensor in keras.tree.flatten(op.output))
    return ordered


def _joined(many: Iterable[dict[str, bool]]) -> dict[str, bool]:
    joined: dict[str, bool] = {}
    for sources in many:
        for name, flows in sources.items():
            joined[name] = joined.get(name, False) or flows
    return joined


def _block(layer: Any, sources: dict[str, bool]) -> Block:
    kind = _kind(layer)
    words = layer.name.replace("_", " ")
    subtitle = _subtitle(layer)
    if kind == "sign":
        words, subtitle = _sign(layer), ""
    elif subtitle == words:
        subtitle = ""
    return Block(layer.name, kind, words, subtitle, f"{layer.name}: {type(layer).__name__}", sources)


def _kind(layer: Any) -> str:
    made_of = type(layer).__name__
    if isinstance(layer, FeatureEmbedding):
        return "embedding"
    if made_of.endswith(_SUMS) or isinstance(layer, keras.layers.Add | keras.layers.Multiply) or "Product" in made_of:
        return "sign"
    if isinstance(layer, BaseGate) or "Gate" in made_of or "gate" in layer.name.split("_"):
        return "gate"
    if hasattr(layer, "num_experts"):
        return "experts" if layer.num_experts > 1 else "expert"
    if layer.name.endswith(("_tower", "_head")):
        return "tower"
    return "network"


def _sign(layer: Any) -> str:
    if isinstance(layer, keras.layers.Add):
        return "+"
    if isinstance(layer, keras.layers.Multiply) or "Product" in type(layer).__name__:
        return "×"  # noqa: RUF001
    return "Σ"


def _subtitle(layer: Any) -> str:
    if isinstance(layer, FeatureEmbedding):
        return "all features"
    if isinstance(layer, BaseGate):
        return f"{layer.num_experts} weights" if layer.num_experts > 1 else "1 weight"
    if isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear:
        return "linear"
    widths = getattr(getattr(layer, "mlp", None) or layer, "units", None)
    if widths is not None:
        widths = " → ".join(map(str, widths if isinstance(widths, Iterable) else [widths])) or "as it is"
        return f"{layer.num_experts} × {widths}" if getattr(layer, "num_experts", 1) > 1 else widths  # noqa: RUF001
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(layer).__name__).lower()


def _join_heads_to_towers(blocks: dict[str, Block]) -> None:
    """Joins a tower and the linear layer to its logit into one block, under the head's name."""
    for name, head in list(blocks.items()):
        tower = blocks.get(name.removesuffix("_head") + "_tower")
        if name.endswith("_head") and tower is not None and list(head.sources) == [tower.name]:
            readers = [block for block in blocks.values() if tower.name in block.sources]
            if len(readers) == 1:
                head.title, head.subtitle = tower.title, f"{tower.subtitle} → logit"
                head.sources = tower.sources
                del blocks[tower.name]


def _alias(blocks: dict[str, Block], name: str) -> str:
    return name if name in blocks else name.removesuffix("_tower") + "_head"


def _join_twins(blocks: dict[str, Block]) -> dict[str, Block]:
    readers: dict[str, list[str]] = {name: [] for name in blocks}
    for block in blocks.values():
        for source in block.sources:
            readers[source].append(block.name)
    groups: dict[Any, list[str]] = {}
    for name, block in blocks.items():
        key = (block.kind, block.subtitle, tuple(block.sources.items()), tuple(readers[name]))
        groups.setdefault(key, []).append(name)
    kept = {name: (name, len(names)) for names in groups.values() for name in names}
    for names in groups.values():
        if len(names) >= _TWINS:
            first = blocks[names[0]]
            first.title = f"{len(names)} × {_common_words([blocks[n].title for n in names])}"  # noqa: RUF001
            kept.update({name: (names[0], len(names)) for name in names})
    for block in blocks.values():
        block.sources = {kept[source][0]: flows for source, flows in block.sources.items()}
    return {name: block for name, block in blocks.items() if kept[name][0] == name}


def _common_words(titles: list[str]) -> str:
    """Turns `expert 0 gate` and `expert 1 gate` into `expert i gate`."""
    return " ".join(
        words[0] if len(set(words)) == 1 else "i" for words in zip(*(t.split() for t in titles), strict=False)
    )
