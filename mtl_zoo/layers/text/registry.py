"""The encoders of texts by name, in their usual sizes."""

from __future__ import annotations

from collections.abc import Callable

from mtl_zoo._registry import Registry
from mtl_zoo.layers.text._base import TextEncoder
from mtl_zoo.layers.text.attention import TextAttention
from mtl_zoo.layers.text.cnn import TextCNN
from mtl_zoo.layers.text.gru import TextGRU
from mtl_zoo.layers.text.lstm import TextLSTM
from mtl_zoo.layers.text.transformer import TextTransformer

_POSITIONS, _HEADS = 512, (4, 2, 1)

# By name: (width of the tokens' vectors, most tokens, name of the layer) -> the layer.
TEXT_ENCODERS: Registry[Callable[[int, int, str], TextEncoder]] = Registry("encoder")
TEXT_ENCODERS.add("cnn", lambda dim, length, name: TextCNN(dim, name=name), TextCNN)
TEXT_ENCODERS.add("gru", lambda dim, length, name: TextGRU(dim, name=name), TextGRU)
TEXT_ENCODERS.add("lstm", lambda dim, length, name: TextLSTM(dim, name=name), TextLSTM)
TEXT_ENCODERS.add("attention", lambda dim, length, name: TextAttention(dim, name=name), TextAttention)


@TEXT_ENCODERS.register("transformer")
def _transformer(dim: int, length: int, name: str) -> TextEncoder:
    heads = next(heads for heads in _HEADS if dim % heads == 0)
    return TextTransformer(num_heads=heads, hidden_units=4 * dim, max_positions=max(length, _POSITIONS), name=name)


def make_text_encoder(encoder: str, dim: int, length: int, name: str = "text_encoder") -> TextEncoder:
    """The encoder of this name for tokens of width `dim`.

    Args:
        encoder: `"cnn"` (3 widths of `dim` filters), `"gru"`, `"lstm"` (`dim` units each way), `"attention"`, or
            `"transformer"` (2 blocks of 4 heads, where `dim` can be divided by 4).
        dim: Width of the tokens' vectors.
        length: The most tokens of a text.
        name: The layer's name.

    Raises:
        ValueError: There is no encoder of this name.

    Example:

    >>> from mtl_zoo.layers.text import make_text_encoder
    >>> make_text_encoder("cnn", dim=8, length=64).width
    24
    """
    return TEXT_ENCODERS[encoder](dim, length, name)
