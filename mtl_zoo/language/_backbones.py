"""Networks of keras-hub, one function a family, and the names that their weights have in a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mtl_zoo.language._folder import Tensors


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight of the network and its place in a file.

    Args:
        name: Of the tensor.
        variable: The network's.
        shape: Of the tensor.
        is_kernel: Whether the tensor is (outputs, inputs), the transpose of the variable.
        skipped: Rows at the start of the tensor that the variable lacks.
    """

    name: str
    variable: Any
    shape: tuple[int, ...]
    is_kernel: bool
    skipped: int = 0

    def from_tensor(self, tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.T if self.is_kernel else tensor[self.skipped :]
        return tensor.reshape(self.variable.shape)

    def to_tensor(self) -> np.ndarray:
        value = np.asarray(self.variable, dtype=np.float32)
        return np.ascontiguousarray(value.reshape(self.shape[::-1]).T if self.is_kernel else value.reshape(self.shape))


def hub() -> Any:
    """keras-hub, or an error that says how to get it."""
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(f"`LanguageModel` needs the extra: pip install mtl-zoo[text] ({error})") from error
    return keras_hub


def build(architecture: dict[str, Any], dtype: Any = None, dropout: float = 0.0, head: bool = False) -> Any:
    """The backbone with random weights.

    Args:
        architecture: What `architecture_of` gives.
        dtype: A name or policy of Keras.
        dropout: Share of activations that training drops.
        head: Whether a decoder has weights of its own for the tokens that it predicts, if its embeddings are not tied.
    """
    if architecture["family"] == "llama":
        return _llama(architecture, dtype, dropout, head)
    return _bert(architecture, dtype, dropout)


def _bert(a: dict[str, Any], dtype: Any, dropout: float) -> Any:
    import keras

    backbone = hub().models.BertBackbone(
        vocabulary_size=a["vocabulary"],
        num_layers=a["layers"],
        num_heads=a["heads"],
        hidden_dim=a["width"],
        intermediate_dim=a["inner_width"],
        max_sequence_length=a["positions"],
        num_segments=a["segments"],
        dropout=dropout,
        dtype=dtype,
    )
    # keras-hub has the approximate GELU and one epsilon for all, which is off by 1e-3 for most published weights.
    activation = {
        "gelu": functools.partial(keras.activations.gelu, approximate=False),
        "gelu_tanh": functools.partial(keras.activations.gelu, approximate=True),
    }.get(a["activation"]) or keras.activations.get(a["activation"])
    backbone.embeddings_layer_norm.epsilon = a["epsilon"]
    for block in backbone.transformer_layers:
        block._feedforward_intermediate_dense.activation = activation
        block._self_attention_layer_norm.epsilon = a["epsilon"]
        block._feedforward_layer_norm.epsilon = a["epsilon"]
    return backbone


def _llama(a: dict[str, Any], dtype: Any, dropout: float, head: bool) -> Any:
    rope = a["rope"]
    options: dict[str, Any] = {}
    if "llama3" in rope:
        names = ("frequency_adjustment_factor", "low_freq_factor", "high_freq_factor", "pretraining_sequence_length")
        options |= {f"rope_{name}": value for name, value in zip(names, rope["llama3"], strict=True)}
    return hub().models.LlamaBackbone(
        vocabulary_size=a["vocabulary"],
        num_layers=a["layers"],
        num_query_heads=a["heads"],
        num_key_value_heads=a["key_heads"],
        hidden_dim=a["width"],
        intermediate_dim=a["inner_width"],
        rope_max_wavelength=rope["theta"],
        layer_norm_epsilon=a["epsilon"],
        tie_word_embeddings=a["tied"] or not head,
        dropout=dropout,
        dtype=dtype,
        **options,
    )


def attention_denses(block: Any, family: str) -> dict[str, Any]:
    """The layers of a block that make queries and values, by name."""
    attention = block._self_attention_layer
    if family == "llama":
        return {"query": attention._query_dense, "value": attention._value_dense}
    return {"query": attention.query_dense, "value": attention.value_dense}


def check_mode(mode: str, family: str) -> None:
    """Refuses a learned prompt in front of an encoder."""
    if mode == "prompt" and family != "llama":
        raise ValueError(
            "`mode` must be 'lora' or 'full' for an encoder: a learned prompt stands in front of a decoder, of the "
            f"Llama family. Received: mode='prompt' for a model of the {family} family"
        )


def checkpoint(backbone: Any) -> None:
    """Makes training keep the input of each block alone, and compute the rest of it again for the gradient.

    `keras.RematScope` does that by whole calls, which TensorFlow refuses in a graph where they have keywords.
    """
    for block in backbone.transformer_layers:
        block.call = _checkpointed(block.call)


def _checkpointed(plain: Any) -> Any:
    import keras

    def call(sequence: Any, **named: Any) -> Any:
        if not named.get("training"):
            return plain(sequence, **named)
        tensors = {name: value for name, value in named.items() if name.endswith("mask") and value is not None}
        others = {name: value for name, value in named.items() if name not in tensors}

        def run(x: Any, *masks: Any) -> Any:
            return plain(x, **dict(zip(tensors, masks, strict=True)), **others)

        return keras.remat(run)(sequence, *tensors.values())

    return call


# Weights by name.


def weights(backbone: Any, architecture: dict[str, Any], head: bool = False) -> Iterator[Weight]:
    """Every weight that the folder's files hold, with its name there, the prefix of the whole model left out."""
    if architecture["family"] == "llama":
        return _llama_weights(backbone, head)
    return _bert_weights(backbone, architecture.get("offset", 0))


def _whole(name: str, variable: Any) -> Weight:
    return Weight(name, variable, tuple(variable.shape), is_kernel=False)


def _flat(name: str, variable: Any) -> Weight:
    return Weight(name, variable, (int(np.prod(variable.shape)),), is_kernel=False)


def _kernel(name: str, variable: Any, inputs: int) -> Weight:
    outputs = int(np.prod(variable.shape)) // inputs
    return Weight(name, variable, (outputs, inputs), is_kernel=True)


def _dense(name: str, layer: Any, inputs: int) -> Iterator[Weight]:
    yield _kernel(f"{name}.weight", layer.kernel, inputs)
    if layer.bias is not None:
        yield _flat(f"{name}.bias", layer.bias)


def _norm(name: str, layer: Any) -> Iterator[Weight]:
    yield _whole(f"{name}.weight", layer.gamma)
    yield _whole(f"{name}.bias", layer.beta)


def _bert_weights(backbone: Any, offset: int) -> Iterator[Weight]:
    width, inner = backbone.hidden_dim, backbone.intermediate_dim
    yield _whole("embeddings.word_embeddings.weight", backbone.token_embedding.embeddings)
    positions = backbone.position_embedding.position_embeddings
    shape = (positions.shape[0] + offset, width)
    yield Weight("embeddings.position_embeddings.weight", positions, shape, is_kernel=False, skipped=offset)
    yield _whole("embeddings.token_type_embeddings.weight", backbone.segment_embedding.embeddings)
    yield from _norm("embeddings.LayerNorm", backbone.embeddings_layer_norm)
    for i, block in enumerate(backbone.transformer_layers):
        attention, stem = block._self_attention_layer, f"encoder.layer.{i}"
        yield from _dense(f"{stem}.attention.self.query", attention.query_dense, width)
        yield from _dense(f"{stem}.attention.self.key", attention.key_dense, width)
        yield from _dense(f"{stem}.attention.self.value", attention.value_dense, width)
        yield from _dense(f"{stem}.attention.output.dense", attention.output_dense, width)
        yield from _norm(f"{stem}.attention.output.LayerNorm", block._self_attention_layer_norm)
        yield from _dense(f"{stem}.intermediate.dense", block._feedforward_intermediate_dense, width)
        yield from _dense(f"{stem}.output.dense", block._feedforward_output_dense, inner)
        yield from _norm(f"{stem}.output.LayerNorm", block._feedforward_layer_norm)


def _llama_weights(backbone: Any, head: bool) -> Iterator[Weight]:
    width, inner = backbone.hidden_dim, backbone.intermediate_dim
    yield _whole("embed_tokens.weight", backbone.token_embedding.embeddings)
    for i, block in enumerate(backbone.transformer_layers):
        attention, stem = block._self_attention_layer, f"layers.{i}"
        yield _whole(f"{stem}.input_layernorm.weight", block._self_attention_layernorm.scale)
        yield from _dense(f"{stem}.self_attn.q_proj", attention._query_dense, width)
        yield from _dense(f"{stem}.self_attn.k_proj", attention._key_dense, width)
        yield from _dense(f"{stem}.self_attn.v_proj", attention._value_dense, width)
        yield from _dense(f"{stem}.self_attn.o_proj", attention._output_dense, width)
        yield _whole(f"{stem}.post_attention_layernorm.weight", block._feedforward_layernorm.scale)
        yield from _dense(f"{stem}.mlp.gate_proj", block._feedforward_gate_dense, width)
        yield from _dense(f"{stem}.mlp.up_proj", block._feedforward_intermediate_dense, width)
        yield from _dense(f"{stem}.mlp.down_proj", block._feedforward_output_dense, inner)
    yield _whole("norm.weight", backbone.layer_norm.scale)
    if head and not backbone.tie_word_embeddings:
        variable = backbone.token_embedding.reverse_embeddings
        yield Weight("lm_head.weight", variable, tuple(variable.shape)[::-1], is_kernel=True)


_PREFIXES = {"bert": ("", "bert."), "roberta": ("", "roberta."), "llama": ("model.", "")}
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def load(backbone: Any, architecture: dict[str, Any], tensors: Tensors, head: bool = False) -> None:
    """Gives the backbone the weights of the files, which are held one at a time.

    Raises:
        DamagedFile: One is missing or has another shape.
    """
    assign(weights(backbone, architecture, head), architecture["family"], tensors)


def assign(weights: Iterable[Weight], family: str, tensors: Tensors) -> None:
    """Gives each weight its tensor."""
    for weight in weights:
        name = _name_in(tensors, weight.name, family)
        weight.variable.assign(weight.from_tensor(tensors.read(name, weight.shape)))


def _name_in(tensors: Tensors, name: str, family: str) -> str:
    """What the files call a tensor: published models differ in a prefix and in the names of norms."""
    old = name
    for new, before in _OLD_NAMES.items():
        old = old.replace(new, before)
    prefixes = _PREFIXES[family]
    for candidate in (prefix + spelled for prefix in (*prefixes, "") for spelled in (name, old)):
        if candidate in tensors:
            return candidate
    return prefixes[0] + name
