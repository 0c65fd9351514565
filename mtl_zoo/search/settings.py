"""From what a search draws to the configuration of a run, and where it starts."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo._space import Choice, Domain, FloatRange, as_domain
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.datasets import Dataset
from mtl_zoo.models import model_info
from mtl_zoo.options import MLP

EMBEDDING_DIM, DROPOUT = "embedding_dim", "dropout"
# What is tried of training, whatever the model is.
TRAINING: dict[str, Domain] = {
    "learning_rate": FloatRange(1e-4, 1e-2, log=True),
    "batch_size": Choice(512, 1024, 2048, 4096),
    EMBEDDING_DIM: Choice(4, 8, 16, 32),
    DROPOUT: Choice(0.0, 0.1, 0.2, 0.3, 0.5),
}
_OF_RUN = ("learning_rate", "batch_size", "optimizer", "schedule", "balancing")
_DICTS_OF_RUN = ("loss_weights", "balancing_options")
# The layers that drop out; towers and gates are narrow.
_STACKS = ("bottom_units", "expert_units", "column_units", "stage_units")


def default_space(model: str) -> dict[str, Domain]:
    """What `tune` tries for a model of the catalogue: its hyperparameters, and four of training.

    Those of training are the learning rate, the batch size, the width of the embeddings, and the dropout in experts and
    bottoms where the model has any that take one.

    Args:
        model: A name of `list_models()`.

    Raises:
        ValueError: No such model.

    Example:

    >>> from mtl_zoo.search import default_space
    >>> sorted(default_space("mmoe"))
    ['batch_size', 'dropout', 'embedding_dim', 'expert_units', 'learning_rate', 'num_experts', 'tower_units']
    """
    found = {**TRAINING, **model_info(model).search_space}
    if DROPOUT not in model_info(model).arguments and not _with_dropout(model, {}, 0.5):
        del found[DROPOUT]
    return found


def space_of(
    config: RunConfig, dataset: Dataset, given: Mapping[str, Any] | None, fixed: Collection[str], known: bool
) -> dict[str, Domain]:
    """What is searched, with the value that the configuration has among it.

    Args:
        config: Where the search starts.
        dataset: What it is on.
        given: Domains by name. None: those of the model.
        fixed: Names that stay as they are.
        known: Whether the model is one of the catalogue.
    """
    if given is None and not known:
        raise ValueError("`space` must be given for a model of your own. Received: space=None")
    space = {n: as_domain(n, d) for n, d in (default_space(config.model) if given is None else given).items()}
    if given is None and not _has_width(dataset):
        del space[EMBEDDING_DIM]
    for name in fixed:
        check.check_choice("fixed", name, tuple(space))
        del space[name]
    if not space:
        raise ValueError("`space` must leave something to search. Received: nothing that is not fixed")
    for name in space:
        _check_name(name, config, dataset, known)
    start = start_values(config, dataset, space, known)
    return {name: domain.including(start[name]) if name in start else domain for name, domain in space.items()}


def _has_width(dataset: Dataset) -> bool:
    width = dataset.options.get(EMBEDDING_DIM)
    return width is not None and any(getattr(feature, "dim", None) == width for feature in dataset.features)


def _check_name(name: str, config: RunConfig, dataset: Dataset, known: bool) -> None:
    first, _, rest = name.partition(".")
    if first == EMBEDDING_DIM and not _has_width(dataset):
        raise ValueError(
            f"`space` must leave out {name!r} where no feature has the width that the data set was made with. "
            f"Received: options {dict(dataset.options)}"
        )
    if not known or name in (*_OF_RUN, EMBEDDING_DIM, DROPOUT) or (first in _DICTS_OF_RUN and rest):
        return
    arguments = model_info(config.model).arguments
    check.check_choice("space", first, (*_OF_RUN, *_DICTS_OF_RUN, EMBEDDING_DIM, DROPOUT, *arguments))


def start_values(config: RunConfig, dataset: Dataset, space: Mapping[str, Domain], known: bool) -> dict[str, Any]:
    """The value of each name that the configuration stands for; without those of a model that nobody knows."""
    found: dict[str, Any] = {}
    for name, domain in space.items():
        first, *rest = name.split(".")
        given: Any = config.hyperparameters.get(first)
        for part in rest:
            given = given.get(part) if isinstance(given, Mapping) else None
        if name in _OF_RUN:
            found[name] = getattr(config, name)
        elif first in _DICTS_OF_RUN:
            found[name] = getattr(config, first).get(".".join(rest), 1.0)
        elif name == EMBEDDING_DIM:
            found[name] = dataset.options[EMBEDDING_DIM]
        elif given is not None:
            found[name] = given
        elif name == DROPOUT and (not known or name not in model_info(config.model).arguments):
            found[name] = 0.0
        elif known:
            found[name] = _default(config.model, first, rest, domain)
    return found


def _default(model: str, first: str, rest: list[str], domain: Domain) -> Any:
    """Of an argument of a model, or of one that it hands on."""
    info = model_info(model)
    if not rest:
        return info.arguments[first]
    name = ".".join((first, *rest))
    if isinstance(domain, Choice) and name in info.space:
        return domain.options[0]
    if first == "backbone_options":
        return model_info(info.arguments["backbone"]).arguments.get(rest[0])
    return getattr(info.arguments[first], rest[0], None)


def configured(config: RunConfig, values: Mapping[str, Any], known: bool) -> RunConfig:
    """The configuration with what was drawn.

    Args:
        config: Where the search starts.
        values: By name, as in the space.
        known: Whether the model is one of the catalogue; if not, all that is not of the run is an argument of it.
    """
    changes: dict[str, Any] = {}
    arguments = _copied(config.hyperparameters)
    own = model_info(config.model).arguments if known else values
    for name, value in values.items():
        first, _, rest = name.partition(".")
        if name in _OF_RUN:
            changes[name] = value
        elif first in _DICTS_OF_RUN:
            changes[first] = {**getattr(config, first), **changes.get(first, {}), rest: value}
        elif name == EMBEDDING_DIM:
            changes["dataset_options"] = {**config.dataset_options, EMBEDDING_DIM: value}
        elif name != DROPOUT or name in own:
            _put(arguments, name.split("."), value)
    rate = values.get(DROPOUT, 0.0)
    if known and rate and DROPOUT not in own:
        arguments = _with_dropout(config.model, arguments, rate)
    return dataclasses.replace(config, hyperparameters=arguments, **changes)


def _copied(value: Any) -> Any:
    return {name: _copied(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _put(arguments: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = arguments.get(part)
        arguments[part] = inner = inner if isinstance(inner, dict) else {}
        arguments = inner
    arguments[path[-1]] = value


def _with_dropout(model: str, given: Mapping[str, Any], rate: float) -> dict[str, Any]:
    info, found = model_info(model), dict(given)
    takes = typing.get_type_hints(info.cls.__init__)  # type: ignore[misc]
    for name in _STACKS:
        # The layers of some stacks, such as MoSE's LSTMs, are no `MLP`.
        if name in info.arguments and MLP in typing.get_args(takes[name]):
            found[name] = _dropping(found.get(name, info.arguments[name]), rate)
    if "backbone" in info.arguments:
        backbone = found.get("backbone", info.arguments["backbone"])
        inner = dict(found.get("backbone_options") or {})
        for name, domain in info.space.items():
            # Its own default, which its backbone's takes the place of.
            if name.startswith("backbone_options.") and backbone == info.arguments["backbone"]:
                inner.setdefault(name.split(".")[1], getattr(domain, "options", [None])[0])
        found["backbone_options"] = _with_dropout(backbone, inner, rate)
    return found


def _dropping(units: Any, rate: float) -> Any:
    if isinstance(units, MLP):
        return {"MLP": {**units.get_config(), "dropout": rate}}
    return {**units, "dropout": rate} if isinstance(units, Mapping) else {"units": units, "dropout": rate}


def with_width(dataset: Dataset, width: int | None) -> Dataset:
    """The data set with embeddings of another width, where they have that of its option `embedding_dim`."""
    before = dataset.options.get(EMBEDDING_DIM)
    if width is None or before in (None, width):
        return dataset
    features = tuple(
        dataclasses.replace(feature, dim=width) if getattr(feature, "dim", None) == before else feature
        for feature in dataset.features
    )
    return dataclasses.replace(dataset, features=features, options={**dataset.options, EMBEDDING_DIM: width})
