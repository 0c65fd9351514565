"""Options that travel as one value: frozen, validated, serialised with the model that holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import keras

from mtl_zoo import _validation as check

NORMS = ("batch", "layer")
TABLE_DTYPES = ("float32", "int8")


class _Option:
    """Serialisation by fields: argument == attribute == config key."""

    def get_config(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class MLP(_Option):
    """A stack of dense layers: `x -> dropout(activation(norm(x W + b)))`, layer by layer.

    Args:
        units: The width of each layer.
        activation: The name of the Keras activation after every layer, the last one included.
        norm: The normalisation before the activation: `"batch"`, `"layer"` or None. The running moments of `"batch"`
            keep 0.9 of their value at each step.
        dropout: The share of units that is dropped in training after each activation, in [0, 1).
        residual: Whether a layer's input is added to its output where the two have the same width.
        epsilon: The number that a normalisation adds to the variance. Default: 1e-3, as in Keras. The default widths of
            models whose authors' code is in PyTorch have 1e-5 (`HoME`, `M3oE`).

    Example:

    >>> from mtl_zoo import MLP
    >>> MLP((128, 64), norm="batch", dropout=0.1).units
    (128, 64)
    """

    units: tuple[int, ...]
    activation: str = "relu"
    norm: str | None = None
    dropout: float = 0.0
    residual: bool = False
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", check.check_units("units", self.units, allow_empty=True))
        if not isinstance(self.activation, str):
            raise ValueError(f"`activation` must be a Keras name. Received: activation={self.activation!r}")
        keras.activations.get(self.activation)
        check.check_choice("norm", self.norm, (*NORMS, None))
        check.check_number("dropout", self.dropout, minimum=0, below=1)
        check.check_number("epsilon", self.epsilon, above=0)


# What an argument such as `tower_units` takes: layer widths, or an `MLP` that says more than widths.
Units: TypeAlias = MLP | Sequence[int]


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class Gate(_Option):
    """How a gate turns its input into weights of the experts: `softmax(x W / temperature)`.

    Args:
        temperature: A temperature above 1 flattens the weights, one below 1 sharpens them.
        dropout: The probability with which, in training, each weight is set to 0, by row and expert. The others are
            renormalised to sum to 1, and a row whose weights would all be 0 keeps them. Zhao et al., RecSys 2019,
            doi:10.1145/3298689.3346997, describe it as a remedy for gates that settle on few experts.
        entropy: The factor of a penalty, `-entropy * mean over rows of H(weights)` (in nats), which rewards even
            weights.
        use_bias: Whether a bias is added to `x W`; the MMoE paper has none.

    Example:

    >>> from mtl_zoo import Gate
    >>> Gate(temperature=2.0, dropout=0.1).use_bias
    False
    """

    temperature: float = 1.0
    dropout: float = 0.0
    entropy: float = 0.0
    use_bias: bool = False

    def __post_init__(self) -> None:
        check.check_number("temperature", self.temperature, above=0)
        check.check_number("dropout", self.dropout, minimum=0, below=1)
        check.check_number("entropy", self.entropy, minimum=0)


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class DSelectK(_Option):
    """How a DSelect-k gate turns its input into weights of experts: a mixture of `num_selected` selectors.

    In training each selector settles on one expert, so that in the end at most `num_selected` experts have a weight.
    Wherever a model takes `gate=`, this is the sparse alternative to a `Gate`. `mtl_zoo.layers.DSelectKGate` has the
    formula.

    Args:
        num_selected: The number of selectors, k.
        gamma: The width of the step over which a selector's bit goes from 0 to 1. Selectors start within `gamma / 100`
            of its middle. A bit outside of the step no longer gets a gradient, so smaller widths settle sooner.
        entropy: The factor of a penalty, `entropy * mean over rows of sum_i H(selector i)` (in nats), which makes
            selectors settle. Its sign is the opposite of that of `Gate`, which rewards even weights.
        per_example: Whether the selection depends on the row. If not, it is the same for all rows, and the gate's input
            is not used.

    Example:

    >>> import mtl_zoo
    >>> features, tasks = [mtl_zoo.Categorical("user_id", size=9)], [mtl_zoo.BinaryTask("click")]
    >>> model = mtl_zoo.create_model("mmoe", features, tasks, gate=mtl_zoo.DSelectK(num_selected=2))
    >>> model.get_layer("click_gate").gate.num_selected
    2

    Reference: Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
    Multi-Task Learning", NeurIPS 2021, arXiv:2106.03760.
    """

    num_selected: int = 2
    gamma: float = 1.0
    entropy: float = 0.0
    per_example: bool = True

    def __post_init__(self) -> None:
        check.check_count("num_selected", self.num_selected)
        check.check_number("gamma", self.gamma, above=0)
        check.check_number("entropy", self.entropy, minimum=0)


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class FeatureFusion(_Option):
    """Several features of one thing, its text, picture and numbers, that become one vector in their place.

    Without it they stand side by side (early fusion).

    Args:
        name: Names the vector.
        features: Two features or more, each one vector.
        how: `"gated"` (`mtl_zoo.layers.GatedFusion`: a mixture whose weights follow from all of them) or `"attention"`
            (`mtl_zoo.layers.AttentionFusion`).
        units: Width of the vector.
        num_heads: Of `"attention"`: its heads.
        query: Of `"attention"`: the feature that looks at the others, such as the user's id. It stays beside them.
            Default: they look at each other.

    Example:

    >>> from mtl_zoo import Embedding, FeatureFusion
    >>> Embedding(fusions=[FeatureFusion("content", ("title", "poster"))]).fusions[0].how
    'gated'
    """

    name: str
    features: tuple[str, ...]
    how: str = "gated"
    units: int = 32
    num_heads: int = 2
    query: str | None = None

    def __post_init__(self) -> None:
        check.check_name("name", self.name)
        if isinstance(self.features, str) or not all(isinstance(name, str) for name in self.features):
            raise ValueError(f"`features` must be names of features. Received: features={self.features!r}")
        object.__setattr__(self, "features", tuple(self.features))
        check.check_unique_names("features", self.features)
        if len(self.features) < 2:
            raise ValueError(f"`features` must name two features or more. Received: features={self.features!r}")
        check.check_choice("how", self.how, ("gated", "attention"))
        check.check_int("units", self.units, maximum=check.MAX_UNITS)
        check.check_count("num_heads", self.num_heads)
        if self.how == "attention" and self.units % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide `units`. Received: num_heads={self.num_heads}, units={self.units}"
            )
        if self.query is not None and (self.how != "attention" or self.query in self.features):
            raise ValueError(
                "`query` must name another feature, for how='attention'. "
                f"Received: query={self.query!r}, how={self.how!r}, features={self.features!r}"
            )


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class Embedding(_Option):
    """How features become the vector `x` that a model reads: looked up, concatenated and, on request, crossed.

    Args:
        initializer: The name of the Keras initializer of the embedding tables.
        shards: The number of weights into which each table is split by row.
        l2: The factor of a penalty, `l2 * sum ||v||^2 / batch size` over the vectors `v` that are looked up, duplicates
            counted.
        cross_layers: The number of DCN-v2 cross layers over `x`, `x_(l+1) = x_0 * (W_l x_l + b_l) + x_l`, made by
            `keras_rs.layers.FeatureCross`. Wang et al., WWW 2021, arXiv:2008.13535.
        cross_rank: The inner width of `W_l = U_l V_l`. Default: full matrices.
        fusions: Each a `FeatureFusion`, which makes one vector of several features'. Default: (), side by side.
        missing_rates: By feature: with this probability a row's value is read as missing in training, so that the model
            learns to do without it (modality dropout). Default: None, for none.
        table_dtype: How tables are held: `"float32"`, or `"int8"` with a float32 scale for each row, as
            `mtl_zoo.export.quantize` makes them; these start as zeros and are not trained. Default: "float32".

    Example:

    >>> from mtl_zoo import Embedding
    >>> Embedding(cross_layers=2).cross_rank is None
    True
    """

    initializer: str = "uniform"
    shards: int = 1
    l2: float = 0.0
    cross_layers: int = 0
    cross_rank: int | None = None
    fusions: tuple[FeatureFusion, ...] = ()
    missing_rates: Mapping[str, float] | None = dataclasses.field(default=None, hash=False)
    table_dtype: str = "float32"

    def __post_init__(self) -> None:
        fusions = (self.fusions,) if isinstance(self.fusions, FeatureFusion) else tuple(self.fusions)
        if not all(isinstance(fusion, FeatureFusion) for fusion in fusions):
            raise TypeError(f"`fusions` must be FeatureFusions. Received: fusions={self.fusions!r}")
        object.__setattr__(self, "fusions", fusions)
        check.check_unique_names("fusions", [fusion.name for fusion in fusions])
        rates = None if self.missing_rates is None else check_missing_rates(self.missing_rates)
        object.__setattr__(self, "missing_rates", rates)
        if not isinstance(self.initializer, str):
            raise ValueError(f"`initializer` must be a Keras name. Received: initializer={self.initializer!r}")
        keras.initializers.get(self.initializer)
        check.check_choice("table_dtype", self.table_dtype, TABLE_DTYPES)
        check.check_count("shards", self.shards)
        check.check_number("l2", self.l2, minimum=0)
        check.check_count("cross_layers", self.cross_layers, minimum=0)
        if self.cross_rank is not None:
            check.check_int("cross_rank", self.cross_rank)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["fusions"] = [fusion.get_config() for fusion in self.fusions]
        for name in ("fusions", "missing_rates"):
            if not config[name]:
                del config[name]  # what 0.1.0 wrote
        if self.table_dtype == "float32":
            del config["table_dtype"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        fusions = tuple(FeatureFusion.from_config(one) for one in config.get("fusions", ()))
        return cls(**{**config, "fusions": fusions})


def check_missing_rates(rates: Any) -> dict[str, float]:
    """Probabilities by feature, 0 <= p < 1."""
    if not isinstance(rates, Mapping):
        raise TypeError(f"`missing_rates` must be a dict by feature. Received: missing_rates={rates!r}")
    return {name: check.check_number(f"missing_rates[{name!r}]", p, minimum=0, below=1) for name, p in rates.items()}


def as_mlp(argument: str, value: Units | int | Iterable[int], *, allow_empty: bool = False) -> MLP:
    """`value` as an MLP: layer widths are sugar for `MLP(widths)`."""
    if isinstance(value, MLP):
        check.check_units(argument, value.units, allow_empty=allow_empty)
        return value
    return MLP(check.check_units(argument, value, allow_empty=allow_empty))


def as_gate(value: Gate | DSelectK | None) -> Gate | DSelectK:
    if value is None:
        return Gate()
    if not isinstance(value, Gate | DSelectK):
        raise TypeError(f"`gate` must be a Gate or a DSelectK. Received: gate={value!r}")
    return value


def as_embedding(value: Embedding | None) -> Embedding:
    if value is None:
        return Embedding()
    if not isinstance(value, Embedding):
        raise TypeError(f"`embedding` must be an Embedding. Received: embedding={value!r}")
    return value
