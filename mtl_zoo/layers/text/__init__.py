"""Layers that read the vectors of a text's tokens, (batch, length, dim), and give one vector a text.

Each takes `mask`, (batch, length) booleans: which tokens are real. Padding changes nothing, wherever a batch is cut, and a
text without any token is a vector of zeros.
"""

from mtl_zoo.layers.text.attention import TextAttention
from mtl_zoo.layers.text.cnn import TextCNN
from mtl_zoo.layers.text.gru import TextGRU
from mtl_zoo.layers.text.lstm import TextLSTM
from mtl_zoo.layers.text.registry import TEXT_ENCODERS, make_text_encoder
from mtl_zoo.layers.text.transformer import TextTransformer

__all__ = [
    "TEXT_ENCODERS",
    "TextAttention",
    "TextCNN",
    "TextGRU",
    "TextLSTM",
    "TextTransformer",
    "make_text_encoder",
]
