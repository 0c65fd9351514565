"""The catalogue: models by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo._space import USUAL, Domain

# What a model may need beyond features and tasks of any kind.
NEEDS = {
    "funnel": "a click task, and a conversion task with the click as its sample space",
    "middle_action": "a click task, an action after it (a cart) with the click as its sample space, and a conversion",
    "domain": "a Categorical feature that names each row's domain",
    "sequence": "a Sequence feature",
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What the catalogue knows of a model.

    Args:
        name: Its name for `create_model`.
        cls: Its class.
        paper: Authors, venue and year.
        year: Of the paper.
        reference: DOI or arXiv id.
        kind: What its architecture shares, in a word or two.
        good_for: When to use it.
        not_for: When not to.
        fails: What goes wrong with it in practice.
        cost: Its parameters above the embedding, as a formula.
        requires: What it needs beyond features and tasks: keys of `NEEDS`.
        space: What a search tries of the arguments that are its own; `search_space` has the usual ones beside them.

    Example:

    >>> from mtl_zoo import model_info
    >>> info = model_info("mmoe")
    >>> info.cls.__name__, info.year, info.paper
    ('MMoE', 2018, 'Ma et al., KDD 2018')
    """

    name: str
    cls: type
    paper: str
    year: int
    reference: str
    kind: str
    good_for: str
    not_for: str
    fails: str
    cost: str
    requires: tuple[str, ...] = ()
    space: Mapping[str, Domain] = dataclasses.field(default_factory=dict)

    @property
    def search_space(self) -> dict[str, Domain]:
        """What a search tries of each hyperparameter, its default always among it.

        It is what the model's file says, and the usual for the arguments that many models share. What a model hands to
        a backbone goes by `backbone_options.<argument>`; where its file says that, the first choice is its default.
        """
        arguments = self.arguments
        found = {
            name: domain.including(arguments[name])
            for name, domain in USUAL.items()
            if isinstance(arguments.get(name), (int, tuple))
        }
        inner = arguments.get("backbone")
        if inner is not None:
            of_backbone = model_info(inner).search_space
            found |= {f"backbone_options.{n}": d for n, d in of_backbone.items() if n in USUAL}
            del found["backbone_options.tower_units"]
        return {**found, **self.space}

    @property
    def needs(self) -> str:
        """What it needs beyond features and tasks, in words; empty if nothing."""
        return "; ".join(NEEDS[key] for key in self.requires)

    @property
    def summary(self) -> str:
        """The first line of the model's docstring."""
        return (self.cls.__doc__ or "").strip().splitlines()[0]

    @property
    def arguments(self) -> dict[str, Any]:
        """The hyperparameters of its class, with their defaults."""
        parameters = inspect.signature(self.cls).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in ("features", "tasks", "name")}

    def __str__(self) -> str:
        facts = {
            "class": f"{self.cls.__module__.rpartition('.')[0]}.{self.cls.__name__}",
            "paper": f"{self.paper}, {self.reference}",
            "shares": self.kind,
            "good for": self.good_for,
            "not for": self.not_for,
            "goes wrong": self.fails,
            "parameters": self.cost,
            "needs": self.needs,
            "arguments": ", ".join(f"{argument}={default!r}" for argument, default in self.arguments.items()),
        }
        lines = [f"  {fact + ':':<12}{text}" for fact, text in facts.items() if text]
        return "\n".join([f"{self.name}: {self.summary}", *lines])


_MODELS: dict[str, ModelInfo] = {}


def register_model(
    name: str,
    *,
    paper: str,
    year: int,
    reference: str,
    kind: str,
    good_for: str = "",
    not_for: str = "",
    fails: str = "",
    cost: str = "",
    requires: tuple[str, ...] = (),
    space: Mapping[str, Domain] | None = None,
) -> Callable[[Any], Any]:
    """Decorator that enters a model into the catalogue and registers it for saving. The arguments are `ModelInfo`'s.

    Example:

    >>> from mtl_zoo import SharedBottom
    >>> from mtl_zoo.models import register_model
    >>> @register_model("mmoe", paper="Mine", year=2026, reference="arXiv:0000.00000", kind="hard sharing")
    ... class Mine(SharedBottom):
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'mmoe', the name of MMoE
    """
    check.check_name("name", name)
    for key in requires:
        check.check_choice("requires", key, tuple(NEEDS))

    def register(cls: Any) -> Any:
        if name in _MODELS and _MODELS[name].cls.__qualname__ != cls.__qualname__:
            raise ValueError(f"`name` must not be taken. Received: {name!r}, the name of {_MODELS[name].cls.__name__}")
        _MODELS[name] = ModelInfo(
            name, cls, paper, year, reference, kind, good_for, not_for, fails, cost, tuple(requires), dict(space or {})
        )
        cls.model_name = name
        return keras.saving.register_keras_serializable(package="mtl_zoo")(cls)

    return register


def list_models() -> list[str]:
    """The names that `create_model` knows, sorted.

    Example:

    >>> import mtl_zoo
    >>> "mmoe" in mtl_zoo.list_models()
    True
    """
    return sorted(_MODELS)


def model_info(model: str) -> ModelInfo:
    """What the catalogue knows of a model: paper, year, kind, needs, what it is good for, its cost in parameters.

    Args:
        model: One of `list_models()`.

    Raises:
        ValueError: An unknown name.

    Example:

    >>> import mtl_zoo
    >>> mtl_zoo.model_info("mmoe").reference
    'doi:10.1145/3219819.3220007'
    """
    check.check_choice("model", model, list_models())
    return _MODELS[model]


def create_model(
    model: str, /, features: Any, tasks: Any = None, *, name: str | None = None, **hyperparameters: Any
) -> Any:
    """A model of the catalogue by name.

    Args:
        model: One of `list_models()`.
        features: Feature specs, or a fitted `FeatureTransform`.
        tasks: The tasks. Default: those of the transform.
        name: The Keras model's name.
        hyperparameters: Arguments of the model's class.

    Raises:
        ValueError: An unknown model (the known ones are listed), or what the model's class refuses.
        TypeError: An unknown hyperparameter (the known ones are listed).

    Example:

    >>> import mtl_zoo
    >>> features = [mtl_zoo.Categorical("user_id", size=100), mtl_zoo.Numeric("age")]
    >>> tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("like")]
    >>> model = mtl_zoo.create_model("mmoe", features, tasks, num_experts=4, expert_units=(16,))
    >>> sorted(model.output)
    ['click', 'like']
    """
    cls = model_info(model).cls
    known = [p for p in inspect.signature(cls).parameters if p not in ("features", "tasks", "name")]
    unknown = [argument for argument in hyperparameters if argument not in known]
    if unknown:
        raise TypeError(f"`{unknown[0]}` is not an argument of {model!r}. Expected: one of {known}")
    return cls(features, tasks, name=name, **hyperparameters)
