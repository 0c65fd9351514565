"""A Llama in a GGUF file, written as a folder of Hugging Face layout: for tests and studies of real models.

python -m benchmarks.studies._gguf SmolLM2-135M-Instruct.Q4_1.gguf FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_llama(path: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors and tokenizer.json. It needs the packages gguf and safetensors."""
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(path)

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    heads, few = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if stem in _WHOLE:
            tensors[f"{_WHOLE[stem]}.weight"] = value
            continue
        _, number, kind = stem.split(".")
        if kind in ("attn_q", "attn_k"):
            value = _unpermuted(value, heads if kind == "attn_q" else few)
        tensors[f"model.layers.{number}.{_BLOCK[kind]}.weight"] = np.ascontiguousarray(value)
    config = {
        "model_type": "llama",
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": few,
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": 1e-5,
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(_tokenizer(field).to_str(), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config))


def _unpermuted(value: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp keeps the pairs that rotate together side by side, Hugging Face half a head apart."""
    rows, inputs = value.shape
    return value.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def _tokenizer(field: Callable[[str], Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return tokenizer


if __name__ == "__main__":
    write_llama(Path(sys.argv[1]), Path(sys.argv[2]))
