"""A pretrained language model as a Keras layer from token ids to a vector."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.language import _backbones
from mtl_zoo.language._folder import open_folder

_log = logging.getLogger(__name__)

MODES = ("frozen", "lora", "prompt", "full")
POOLINGS = ("mean", "cls", "last")


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LanguageEncoder(keras.layers.Layer):
    """A pretrained language model that turns token ids into one vector a text.

    With `h_t` the last hidden state of token t of n, the vector is

        mean: (1 / n) sum_t h_t        cls: h_1        last: h_n

    divided by its length if `normalize`, and 0 for a text without tokens. In mode `"lora"` each layer that makes
    queries or values, W x + b, becomes

        W x + b + (alpha / rank) B A x,        A: (rank, inputs) random, B: (outputs, rank) zeros at first

    and only the A and B are trained. In mode `"prompt"` learned rows P, (prompt_length, width), stand in front of the
    embeddings of the tokens of a decoder, whose own weights stay, and only they are trained; the vector is that of the
    text's tokens, which see the rows before them. They start as rows of random tokens.

    Its architecture is known before there are weights; `LanguageModel.layer()` gives one with the weights of a folder.

    Args:
        architecture: Plain data that describes the network, as `LanguageModel(...).known_architecture` gives.
        mode: `"frozen"` trains nothing, `"lora"` the low-rank updates, `"prompt"` rows in front of a decoder's tokens,
            `"full"` everything. Default: `"frozen"`.
        rank: Of the updates. Default: 8.
        alpha: Scale of the updates. Default: `rank`.
        pooling: `"mean"`, `"cls"` or `"last"`. Default: `"mean"`.
        normalize: Whether vectors have length 1. Default: False.
        dropout: Share of activations that training drops. Default: 0.0.
        checkpointing: Whether training keeps the input of each block alone, and computes the rest again.
            Default: False.
        units: Width of a trained projection after it. Default: none.
        prompt_length: Rows of a learned prompt. Default: 16.
        source: A folder whose weights it starts from when it is built. Default: random weights.
        source_required: Whether a `source` that is gone is an error, and not a warning: what is read from a file has
            its weights from there. Default: True.

    Raises:
        ValueError: An unknown mode or pooling, or numbers out of their range; mode `"prompt"` of an encoder.
        FileNotFoundError: `source` is gone, when it is built.

    Input: int32 (batch, length), 0 where there is no token; ids of byte pairs are one more than in their vocabulary.
    Output: (batch, width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.language import LanguageEncoder
    >>> tiny = {"family": "bert", "vocabulary": 9, "layers": 1, "heads": 2, "width": 4, "inner_width": 8,
    ...         "positions": 5, "segments": 2, "activation": "gelu", "epsilon": 1e-12}
    >>> encoder = LanguageEncoder(tiny, mode="lora", rank=2)
    >>> encoder(np.array([[2, 5, 3], [0, 0, 0]], "int32")).shape, len(encoder.trainable_weights)
    (TensorShape([2, 4]), 4)

    Reference: Devlin et al., arXiv:1810.04805 (BERT); Hu et al., arXiv:2106.09685 (LoRA); Lester et al.,
    arXiv:2104.08691 (learned prompts).
    """

    def __init__(
        self,
        architecture: dict[str, Any],
        mode: str = "frozen",
        rank: int = 8,
        alpha: float | None = None,
        pooling: str = "mean",
        normalize: bool = False,
        dropout: float = 0.0,
        checkpointing: bool = False,
        units: int | None = None,
        prompt_length: int = 16,
        source: str | None = None,
        source_required: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.architecture = dict(architecture)
        self.mode = check.check_choice("mode", mode, MODES)
        self.rank = check.check_int("rank", rank)
        self.alpha = alpha if alpha is None else check.check_number("alpha", alpha, above=0)
        self.pooling = check.check_choice("pooling", pooling, POOLINGS)
        self.normalize = bool(normalize)
        self.dropout = check.check_number("dropout", dropout, minimum=0, below=1)
        self.checkpointing = bool(checkpointing)
        self.units = units if units is None else check.check_int("units", units)
        self.prompt_length = check.check_int("prompt_length", prompt_length)
        _backbones.check_mode(self.mode, self.architecture["family"])
        self.source = source
        self.source_required = bool(source_required)
        self._is_decoder = self.architecture["family"] == "llama"
        # Ids of word pieces are those of the vocabulary, in which 0 is padding.
        self._shift = 0 if self.architecture["family"] == "bert" else 1
        self.network: Any = None
        self.prompt: Any = None
        self.projection = (
            None if units is None else keras.layers.Dense(units, dtype=self.dtype_policy, name="projection")
        )
        # In a function, since Keras would take what is held for further parts of the layer, and save it twice.
        self._updates: Callable[[], list[Any]] = list

    @property
    def updates(self) -> list[Any]:
        """(A, B, layer) of each low-rank update, as (inputs, rank) and (rank, outputs)."""
        return self._updates()

    def build(self, input_shape: Any = None) -> None:
        if self.network is not None:
            return
        backbone = _backbones.build(self.architecture, self.dtype_policy, self.dropout)
        if self.checkpointing:
            _backbones.checkpoint(backbone)
        self._weights_by_name = lambda: _backbones.weights(backbone, self.architecture)
        if self.source is not None:
            self._load_source()
        # BERT's pooler stands beside the hidden states, and is not read.
        hidden = backbone.output if self._is_decoder else backbone.output["sequence_output"]
        self.network = keras.Model(backbone.input, hidden, name="network")
        self.network.trainable = self.mode == "full"
        if self.projection is not None:
            self.projection.build((None, self.architecture["width"]))
        for variable in backbone.variables:
            _backend.mark_pretrained(variable)
        if self.mode == "prompt":
            shape = (self.prompt_length, self.architecture["width"])
            # float32 whatever the policy: half precision would lose small updates.
            self.prompt = self.add_weight(shape, "zeros", "float32", name="prompt")
            _backend.mark_pretrained(self.prompt)
            self._backbone = lambda: backbone
            self._start_prompt()
        if self.mode == "lora":
            updates = [
                self._update(f"block_{i}_{name}", dense)
                for i, block in enumerate(backbone.transformer_layers)
                for name, dense in _backbones.attention_denses(block, self.architecture["family"]).items()
            ]
            self._updates = lambda: updates

    def _load_source(self) -> None:
        try:
            self.load_tensors(open_folder(str(self.source)).tensors())
        except FileNotFoundError:
            if self.source_required:
                raise
            _log.warning(
                "The language model at %s is gone: its weights must come from the file that is being read", self.source
            )

    def _update(self, name: str, dense: Any) -> tuple[Any, Any, Any]:
        """The two weights of an update of `dense`, which applies them from then on."""
        inputs, outputs = dense.kernel.shape[0], tuple(dense.kernel.shape[1:])
        columns = int(outputs[0] * outputs[1])
        # float32 whatever the policy: half precision would lose small updates.
        down = self.add_weight((inputs, self.rank), "he_uniform", "float32", name=f"{name}_down")
        up = self.add_weight((self.rank, columns), "zeros", "float32", name=f"{name}_up")
        for weight in (down, up):
            _backend.mark_pretrained(weight)
        plain, scale = dense.call, self._scale

        def updated(inputs: Any, training: bool | None = None) -> Any:
            low = ops.matmul(inputs, ops.cast(down, inputs.dtype))
            change = ops.matmul(low, ops.cast(up, inputs.dtype)) * scale
            return plain(inputs) + ops.reshape(change, (*ops.shape(change)[:-1], *outputs))

        dense.call = updated
        return down, up, dense

    @property
    def _scale(self) -> float:
        return (self.rank if self.alpha is None else self.alpha) / self.rank

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.units or self.architecture["width"]

    def load_tensors(self, tensors: Any) -> None:
        """Gives the network the weights of files in the layout of Hugging Face."""
        _backbones.assign(self._weights_by_name(), self.architecture["family"], tensors)
        self._start_prompt()

    def _start_prompt(self) -> None:
        """Gives the prompt the rows of random tokens, since those that the decoder knows are the better start."""
        if self.prompt is not None:
            table = self._backbone().token_embedding.embeddings
            tokens = keras.random.randint((self.prompt_length,), 0, table.shape[0])
            self.prompt.assign(ops.cast(ops.take(ops.convert_to_tensor(table), tokens, axis=0), "float32"))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        ids = ops.cast(inputs, "int32")
        if _backend.is_tensorflow():
            ids = _trimmed(ids)
        is_token = ops.cast(ids != 0, "int32")
        tensors = {"token_ids": ops.maximum(ids - self._shift, 0), "padding_mask": is_token}
        if not self._is_decoder:
            tensors["segment_ids"] = ops.zeros_like(ids)
        if self.prompt is not None:
            return self._pooled(self._prompted(tensors["token_ids"], is_token, training), is_token)
        return self._pooled(self.network(tensors, training=training), is_token)

    def _prompted(self, ids: Any, is_token: Any, training: bool | None) -> Any:
        """Hidden states of the tokens, behind the learned rows."""
        backbone = self._backbone()
        x = backbone.token_embedding(ids)
        shape = (ops.shape(ids)[0], self.prompt_length)
        prompt = ops.broadcast_to(ops.cast(self.prompt, x.dtype)[None], (*shape, x.shape[-1]))
        x = ops.concatenate([prompt, x], axis=1)
        mask = ops.concatenate([ops.ones(shape, is_token.dtype), is_token], axis=1)
        for block in backbone.transformer_layers:
            x = block(x, decoder_padding_mask=mask, training=training)
        return backbone.layer_norm(x)[:, self.prompt_length :]

    def _pooled(self, hidden: Any, is_token: Any) -> Any:
        weights = ops.cast(is_token, hidden.dtype)
        count = ops.sum(weights, axis=1, keepdims=True)
        if self.pooling == "cls":
            vector = hidden[:, 0] * weights[:, :1]
        else:
            if self.pooling == "last":
                following = ops.concatenate([weights[:, 1:], ops.zeros_like(weights[:, :1])], axis=1)
                weights, count = weights * (1 - following), ops.ones_like(count)
            vector = ops.sum(hidden * weights[..., None], axis=1) / ops.maximum(count, 1)
        if self.normalize:
            square = ops.sum(ops.square(vector), axis=1, keepdims=True)
            vector = vector / ops.sqrt(ops.maximum(square, 1e-12))
        vector = ops.cast(vector, self.compute_dtype)
        return vector if self.projection is None else self.projection(vector)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[0], self.width)

    def merge_lora(self) -> None:
        """Adds the low-rank updates to the weights that they belong to: the same function, and no update left.

        Training may go on, from updates of zero.
        """
        for down, up, dense in self.updates:
            change = ops.matmul(down, up) * self._scale
            kernel = dense.kernel
            kernel.assign(kernel + ops.cast(ops.reshape(change, kernel.shape), kernel.dtype))
            up.assign(ops.zeros_like(up))

    def get_config(self) -> dict[str, Any]:
        names = ("architecture", "mode", "rank", "alpha", "pooling", "normalize", "dropout", "checkpointing", "units")
        start = {} if self.source is None else {"source": self.source, "source_required": self.source_required}
        prompt = {"prompt_length": self.prompt_length} if self.mode == "prompt" else {}
        return {**super().get_config(), **{name: getattr(self, name) for name in names}, **prompt, **start}


def _trimmed(ids: Any) -> Any:
    """The ids without the columns in which every row is padded, one left at least."""
    used = ops.max(ops.where(ids != 0, ops.arange(1, ops.shape(ids)[1] + 1), 0))
    return ids[:, : ops.maximum(used, 1)]


def merge_lora(model: Any) -> int:
    """Adds the low-rank updates of every language model within `model` to its weights, before an export.

    Scores stay the same to 1e-5, and what is exported computes no update.

    Args:
        model: A model of the zoo, or any Keras layer.

    Returns:
        How many language models had updates.

    Example:

    >>> import keras
    >>> from mtl_zoo.language import merge_lora
    >>> merge_lora(keras.Sequential([keras.layers.Dense(2)]))
    0
    """
    found = [layer for layer in _layers_within(model) if isinstance(layer, LanguageEncoder) and layer.updates]
    for layer in found:
        layer.merge_lora()
    return len(found)


def _layers_within(model: Any) -> list[Any]:
    """The layer and those that it holds at any depth, each once."""
    found: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) in found:
            continue
        found[id(layer)] = layer
        for value in vars(layer).values():
            held = list(value.values()) if isinstance(value, dict) else value
            parts = held if isinstance(held, list | tuple) else [held]
            waiting += [part for part in parts if isinstance(part, keras.layers.Layer)]
    return list(found.values())
