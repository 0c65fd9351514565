from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import mean_of_real, real_tokens, without_padding
from mtl_zoo.layers._places import call_encoder, largest

_POOLINGS = ("mean", "sum", "max")


@keras.saving.register_keras_serializable(package="mtl_zoo")
class EntityListEncoder(keras.layers.Layer):
    """One vector of a list of entities, each of which is a list of vectors or an input of a layer.

    With `x_i` what is known of entity i of a row's list, `n` of them:

        v_i = item(x_i)
        y   = history(v_1, ..., v_n)

    An entity is padding if nothing is known of it: no token is real, or all numbers of its first input are 0. Padding
    takes no part in `history`, and a list of padding alone gives zeros.

    Args:
        length: Entities a row.
        item: From what is known of an entity to a vector: `"mean"`, `"sum"` or `"max"` of its vectors, or a Keras
            layer, called with `mask` if its `call` takes one.
        history: From the vectors of the entities to one: `"mean"`, `"sum"` or `"max"`, or a Keras layer, such as those
            of `mtl_zoo.layers.history`.
        tokens: Vectors an entity, which stand one behind the other for all entities of a row. Default: None, `item`
            takes what is known of an entity as it is.

    Raises:
        ValueError: `length` is no whole number >= 1, or a word is none of these.

    Input: vectors (batch, length * tokens, dim) with `mask` (batch, length * tokens); or, without `tokens`, what `item`
    takes with (batch, length) in place of (batch,), a tensor or a dict of them. `query` (batch, dim) goes to `history`.
    Output: (batch, width of `history`).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import EntityListEncoder
    >>> tokens = np.array([[[1.0], [3.0], [5.0], [0.0], [0.0], [0.0]]], "float32")
    >>> real = np.array([[True, True, True, False, False, False]])
    >>> np.asarray(EntityListEncoder(3, "mean", "mean", tokens=2)(tokens, mask=real)).tolist()
    [[3.5]]
    """

    def __init__(self, length: int, item: Any, history: Any, tokens: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = check.check_int("length", length)
        self.tokens = tokens if tokens is None else check.check_int("tokens", tokens)
        if self.tokens is None and isinstance(item, str):
            raise ValueError(f"`item` must be a layer where entities have no tokens. Received: item={item!r}")
        for argument, value in (("item", item), ("history", history)):
            if isinstance(value, str):
                check.check_choice(argument, value, _POOLINGS)
        self.item, self.history = item, history

    def build(self, inputs_shape: Any, query_shape: Shape | None = None) -> None:
        if not isinstance(self.item, str) and not self.item.built:
            self.item.build(self._item_shape(inputs_shape))
        if not isinstance(self.history, str) and not self.history.built:
            self.history.build(self._vectors_shape(inputs_shape), *([] if query_shape is None else [query_shape]))

    def _item_shape(self, shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: self._item_shape(one) for name, one in shape.items()}
        return (None, *shape[2:]) if self.tokens is None else (None, self.tokens, shape[-1])

    def _vectors_shape(self, shape: Any) -> Shape:
        inner = self._item_shape(shape)
        width = inner[-1] if isinstance(self.item, str) else self.item.compute_output_shape(inner)[-1]
        return (None, self.length, width)

    def call(
        self, inputs: Any, query: Tensor | None = None, mask: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        made, is_there = self._alone(inputs) if self.tokens is None else self._of_tokens(inputs, mask)
        real = ops.reshape(is_there, (-1, self.length))
        vectors = without_padding(ops.reshape(made, (-1, self.length, made.shape[-1])), real)
        if isinstance(self.history, str):
            return _pooled(vectors, real, self.history)
        return call_encoder(self.history, vectors, real, query)

    def _of_tokens(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(batch * length, width) vectors of entities, and which are no padding."""
        rows = ops.reshape(inputs, (-1, self.tokens, inputs.shape[-1]))
        real = ops.reshape(real_tokens(inputs, mask), (-1, self.tokens))
        made = _pooled(rows, real, self.item) if isinstance(self.item, str) else call_encoder(self.item, rows, real)
        return made, ops.any(real, axis=1)

    def _alone(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The same, from what `item` takes."""
        by_name = inputs if isinstance(inputs, dict) else {"": inputs}
        alone = {name: ops.reshape(x, (-1, *x.shape[2:])) for name, x in by_name.items()}
        first = next(iter(alone.values()))
        is_there = ops.any(ops.not_equal(first, 0), axis=tuple(range(1, len(first.shape))))
        return self.item(alone if isinstance(inputs, dict) else first), is_there

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # the output is no list

    def compute_output_shape(self, inputs_shape: Any, query_shape: Shape | None = None) -> Shape:
        vectors = self._vectors_shape(inputs_shape)
        first = next(iter(inputs_shape.values())) if isinstance(inputs_shape, dict) else inputs_shape
        if isinstance(self.history, str):
            return (first[0], vectors[-1])
        shapes = [vectors] if query_shape is None else [vectors, query_shape]
        return (first[0], self.history.compute_output_shape(*shapes)[-1])

    def get_config(self) -> Config:
        parts = {name: getattr(self, name) for name in ("item", "history")}
        kept = {n: x if isinstance(x, str) else keras.saving.serialize_keras_object(x) for n, x in parts.items()}
        return {**super().get_config(), "length": self.length, "tokens": self.tokens, **kept}

    @classmethod
    def from_config(cls, config: Config) -> EntityListEncoder:
        parts = {name: config[name] for name in ("item", "history")}
        made = {n: x if isinstance(x, str) else keras.saving.deserialize_keras_object(x) for n, x in parts.items()}
        return cls(**{**config, **made})


def _pooled(rows: Tensor, real: Tensor, pooling: str) -> Tensor:
    if pooling == "mean":
        return mean_of_real(rows, real)
    return largest(rows, real) if pooling == "max" else ops.sum(without_padding(rows, real), axis=1)
