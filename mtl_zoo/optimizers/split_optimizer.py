from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from mtl_zoo import _backend, _keras_private
from mtl_zoo._types import Config, Tensor
from mtl_zoo.optimizers.lazy_adam import LazyAdam

_NOT_OF_A_PART = {
    "gradient_accumulation_steps": "the two parts would take their steps at different times",
    "loss_scale_factor": "one loss has one scale. Wrap the SplitOptimizer in SparseLossScaleOptimizer",
}


@keras.saving.register_keras_serializable(package="mtl_zoo")
class SplitOptimizer(keras.optimizers.Optimizer):
    """One optimizer for the embedding tables of a model, another for its other weights.

    The tables are those of `FeatureEmbedding`. A third may be given for the weights of pretrained language models,
    their low-rank updates included, which want smaller steps. Each part has its own learning rate, schedule and
    clipping (a `global_clipnorm` counts the weights of its part only), and all take their steps together.
    `learning_rate` reads that of the dense part; to set one, use `split.embeddings` and `split.dense`.

    Args:
        embeddings: The Keras optimizer of the tables. Default: `LazyAdam()`.
        dense: The Keras optimizer of the other weights. Default: `LazyAdam()`, which is Adam for them.
        encoders: The Keras optimizer of the weights of pretrained models. Default: that of the dense part.
        name: The optimizer's name in Keras.

    Raises:
        TypeError: If a part is not a Keras optimizer.
        ValueError: If a part scales the loss or accumulates gradients, two parts are one object, or `learning_rate` is
            set.

    Example:

    >>> import keras
    >>> from mtl_zoo.optimizers import RowWiseAdagrad, SplitOptimizer
    >>> split = SplitOptimizer(embeddings=RowWiseAdagrad(0.05), dense=keras.optimizers.AdamW(1e-3))
    >>> [round(float(part.learning_rate), 4) for part in (split.embeddings, split.dense)]
    [0.05, 0.001]
    """

    def __init__(
        self, embeddings: Any = None, dense: Any = None, encoders: Any = None, name: str | None = None
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.embeddings = LazyAdam() if embeddings is None else embeddings
        self.dense = LazyAdam() if dense is None else dense
        self.encoders = encoders
        parts = self.parts()
        for argument, part in parts.items():
            _check_part(argument, part)
        if len({id(part) for part in parts.values()}) < len(parts):
            names = " and ".join(f"`{argument}`" for argument in parts)
            raise ValueError(f"{names} must be different optimizers. Received: one object for two of them.")

    def parts(self) -> dict[str, Any]:
        """The optimizers by the name of their part."""
        parts = {"embeddings": self.embeddings, "dense": self.dense}
        return parts if self.encoders is None else {**parts, "encoders": self.encoders}

    def _part_of(self, variable: Any) -> str:
        if _backend.is_table(variable):
            return "embeddings"
        return "encoders" if self.encoders is not None and _backend.is_pretrained(variable) else "dense"

    def _parts(self, variables: Sequence[Any], *values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Each part that has variables, with those and the values that belong to them."""
        for name, part in self.parts().items():
            rows = [row for row in zip(variables, *values, strict=True) if self._part_of(row[0]) == name]
            if rows:
                yield part, *(list(column) for column in zip(*rows, strict=True))

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        if self.encoders is not None and not any(self._part_of(variable) == "encoders" for variable in variables):
            raise ValueError(
                "`encoders` must have weights of a pretrained model to train, and the model has none: use "
                "LanguageModel(..., mode='lora') or mode='full', or leave `encoders` out. "
                f"Received: {len(variables)} weights to train, all of tables or dense layers"
            )
        super().build(variables)
        for part, part_variables in self._parts(variables):
            part.build(part_variables)

    @property
    def own_variables(self) -> list[Any]:
        """The step counter and other variables that belong to no part."""
        return super().variables

    @property
    def variables(self) -> list[Any]:
        return [*self.own_variables, *(variable for part in self.parts().values() for variable in part.variables)]

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        grads = list(grads)
        variables = _keras_private.built_variables(self) if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self.build(variables)
        for part, part_variables, gradients in self._parts(variables, grads):
            # If no loss depends on a part's variables there is nothing to do, which Keras would call an error.
            if any(gradient is not None for gradient in gradients):
                part.apply(gradients, part_variables)
        self.iterations.assign_add(1)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        for part, part_variables in self._parts(var_list):
            part.finalize_variable_values(part_variables)

    @property
    def learning_rate(self) -> Any:
        return self.dense.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        raise ValueError(
            "`learning_rate` of a SplitOptimizer has two values: set `optimizer.embeddings.learning_rate` and "
            f"`optimizer.dense.learning_rate`. Received: learning_rate={learning_rate!r}"
        )

    # Only the variables of no part: Keras saves the parts by itself, and would write theirs twice.

    def save_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self.own_variables):
            store[str(i)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self.own_variables):
            variable.assign(store[str(i)])

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {"name": self.name, **{name: serialize(part) for name, part in self.parts().items()}}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Mapping[str, Any] | None = None) -> SplitOptimizer:
        config = dict(config)
        for part in set(config) - {"name"}:
            config[part] = keras.saving.deserialize_keras_object(config[part], custom_objects=custom_objects)
        return cls(**config)


def _check_part(argument: str, part: Any) -> None:
    if not isinstance(part, keras.optimizers.Optimizer) or isinstance(
        part, SplitOptimizer | keras.optimizers.LossScaleOptimizer
    ):
        raise TypeError(
            f"`{argument}` must be a Keras optimizer that is no SplitOptimizer or LossScaleOptimizer. "
            f"Received: {argument}={part!r}"
        )
    for name, reason in _NOT_OF_A_PART.items():
        if getattr(part, name) is not None:
            raise ValueError(f"`{argument}` must have no `{name}`: {reason}. Received: {name}={getattr(part, name)!r}")
