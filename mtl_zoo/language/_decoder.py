"""A decoder that says how probable answers are after prompts; what all prompts start with is computed once."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_zoo.language import _backbones
from mtl_zoo.language._tokenizers import BytePairs
from mtl_zoo.language.model import LanguageModel


@functools.lru_cache(maxsize=2)
def decoder_of(model: LanguageModel, content: str) -> Decoder:
    """The decoder of a model; one for all scorers of it. `content` is the hash of its weights."""
    return Decoder(model)


class Decoder:
    """A Llama with its head, and its tokenizer.

    Args:
        model: Where it lies, and its dtype and layers.

    Raises:
        ValueError: It is no decoder.
    """

    def __init__(self, model: LanguageModel) -> None:
        architecture = model.known_architecture
        tokenizer = model.tokenizer()
        if architecture["family"] != "llama" or not isinstance(tokenizer, BytePairs):
            raise ValueError(
                "`language_model` must be a decoder, of the Llama family: an encoder says nothing of the next word. "
                f"Received: {model.path!r}, of the {architecture['family']} family"
            )
        self.tokenizer = tokenizer
        self.positions = architecture["positions"]
        self._backbone = _backbones.build(architecture, model.dtype, head=True)
        _backbones.load(self._backbone, architecture, model.folder().tensors(), head=True)
        heads, size = architecture["key_heads"], architecture["width"] // architecture["heads"]
        self._cache_shape = (len(self._backbone.transformer_layers), 1, 2, 0, heads, size)
        self._functions: dict[str, Any] = {}

    def answer_log_probabilities(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], batch_size: int
    ) -> np.ndarray:
        """float32 (prompts, answers): log p(answer | prompt), the sum over the answer's tokens."""
        found = np.zeros((len(prompts), len(answers)), dtype=np.float32)
        shared = _shared(prompts)
        caches = self._cached(prompts[0][:shared])
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            rests = [list(prompts[row][shared:]) for row in rows]
            # Answers of one token are read off the same pass.
            for head, group in _by_head(answers):
                log_probabilities = self._after(rests, head, caches)
                before = sum(log_probabilities[:, i, token] for i, token in enumerate(head))
                for number in group:
                    found[rows, number] = before + log_probabilities[:, len(head), answers[number][-1]]
        return found

    def _cached(self, ids: Sequence[int]) -> Any:
        """Keys and values (blocks, 1, 2, tokens, heads, size) of a text."""
        import keras

        empty = keras.ops.zeros(self._cache_shape, self._backbone.compute_dtype)
        if not ids:
            return empty
        return self._call("cache", self._run_blocks, keras.ops.convert_to_tensor([list(ids)], "int32"), empty)[1]

    def _after(self, rests: Sequence[list[int]], head: Sequence[int], caches: Any) -> np.ndarray:
        """(texts, len(head) + 1, vocabulary) log-probabilities of each token after the text, and after the head."""
        import keras

        lengths = [len(rest) for rest in rests]
        ids = np.zeros((len(rests), max(lengths) + len(head)), dtype=np.int32)
        for row, rest in zip(ids, rests, strict=True):
            row[: len(rest) + len(head)] = [*rest, *head]
        at = np.array(lengths)[:, None] - 1 + np.arange(len(head) + 1)
        tensors = (keras.ops.convert_to_tensor(ids), caches, keras.ops.convert_to_tensor(at, "int32"))
        return keras.ops.convert_to_numpy(self._call("after", self._log_probabilities, *tensors))

    def _log_probabilities(self, ids: Any, caches: Any, at: Any) -> Any:
        from keras import ops

        hidden, _ = self._run_blocks(ids, caches)
        read = ops.take_along_axis(hidden, at[..., None], axis=1)
        logits = self._backbone.token_embedding(read, reverse=True)
        return ops.log_softmax(ops.cast(logits, "float32"), axis=-1)

    def _run_blocks(self, ids: Any, caches: Any) -> tuple[Any, Any]:
        """Hidden states of texts that go on from the cached one, and the keys and values of all of it."""
        from keras import ops

        known, rows, new = ops.shape(caches)[3], ops.shape(ids)[0], ops.shape(ids)[1]
        x = self._backbone.token_embedding(ids)
        written = []
        for number, block in enumerate(self._backbone.transformer_layers):
            before = ops.repeat(caches[number], rows, axis=0)
            room = ops.zeros((rows, 2, new, *self._cache_shape[4:]), before.dtype)
            cache = ops.concatenate([before, room], axis=2)
            x, cache = block(x, self_attention_cache=cache, self_attention_cache_update_index=known)
            written.append(cache)
        return self._backbone.layer_norm(x), ops.stack(written, axis=0)

    def _call(self, name: str, function: Any, *tensors: Any) -> Any:
        """The function, traced once for all numbers of texts and tokens where there are graphs."""
        from mtl_zoo import _backend

        if name not in self._functions:
            self._functions[name] = function
            if _backend.is_tensorflow():
                import tensorflow as tf

                kinds = [tf.TensorSpec((None, None), tf.int32), self._cache_spec()]
                kinds += [tf.TensorSpec((None, None), tf.int32)] * (len(tensors) - 2)
                self._functions[name] = tf.function(function, kinds, autograph=False)
        return self._functions[name](*tensors)

    def _cache_spec(self) -> Any:
        import tensorflow as tf

        shape: list[int | None] = [*self._cache_shape]
        shape[3] = None
        return tf.TensorSpec(shape, self._backbone.compute_dtype)


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts start with, one less than the shortest has at most."""
    shortest, first = min(len(prompt) for prompt in prompts), prompts[0]
    for i in range(shortest - 1):
        if any(prompt[i] != first[i] for prompt in prompts):
            return i
    return shortest - 1


def _by_head(answers: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[int]]]:
    """All tokens of answers but the last, with the answers that begin so."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, answer in enumerate(answers):
        groups.setdefault(tuple(answer[:-1]), []).append(number)
    for head, group in groups.items():
        yield list(head), group
