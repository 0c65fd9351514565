"""What a configuration says of its model, as arguments of the model: from text, and brought to a reference's size."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.baselines import BASELINES, list_baselines
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.datasets import Dataset
from mtl_zoo.features.spec import Feature
from mtl_zoo.models import create_model, list_models, model_info, parameter_count, parameter_matched
from mtl_zoo.options import MLP, DSelectK, Embedding, Gate

# What a comparison at one size tolerates; a model that comes no nearer runs as near as it comes, and its rows say so.
TOLERANCE = 0.02


def resolve_hyperparameters(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a model: those given, as text can give them, over its defaults.

    A dict given for `gate` becomes a `Gate`, for `embedding` an `Embedding`, for `*_units` an `MLP`. The name of an
    option over its fields makes it that option, as results spell them: `{"DSelectK": {"num_selected": 2}}`.

    Raises:
        ValueError: No such model or argument, or a value object is refused.

    Example:

    >>> from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
    >>> resolve_hyperparameters("mmoe", {"gate": {"temperature": 2.0}})["gate"].temperature
    2.0
    """
    parameters = inspect.signature(_made_by(model)).parameters
    known = {name: p.default for name, p in parameters.items() if name not in ("features", "tasks", "name", "head")}
    for name in given:
        if name not in known:
            raise ValueError(
                f"`hyperparameters` must be arguments of {model!r}. Received: {name!r}. "
                f"Expected: any of {', '.join(known)}"
            )
    return {**known, **{name: _as_option(name, value) for name, value in given.items()}}


def _made_by(model: str) -> type:
    """The class of a model or a baseline."""
    if model in BASELINES:
        return BASELINES[model]
    known = [*list_models(), *list_baselines()]
    if model not in known:
        close = difflib.get_close_matches(model, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"`model` must be one of the known values. Received: model={model!r}{hint}. "
            f"Expected: one of {', '.join(known)}"
        )
    return model_info(model).cls


_OPTIONS = {option.__name__: option for option in (Gate, DSelectK, Embedding, MLP)}


def _as_option(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    option = {"gate": Gate, "embedding": Embedding}.get(name, MLP if name.endswith("_units") else None)
    if len(value) == 1 and next(iter(value)) in _OPTIONS:
        ((chosen, value),) = value.items()
        option = _OPTIONS[chosen]
    if option is None:
        return {key: _as_option(key, item) for key, item in value.items()}
    try:
        return option(**value)
    except TypeError as error:
        fields = ", ".join(field.name for field in dataclasses.fields(option))
        raise ValueError(f"`{name}` must be {option.__name__}({fields}). Received: {dict(value)!r}") from error


def resolve_reference(config: RunConfig) -> dict[str, Any]:
    """All arguments of the reference model, which a configuration with `parameter_matched` has."""
    reference = config.parameter_matched
    return resolve_hyperparameters(reference["model"], reference.get("hyperparameters") or {})


def as_json(value: Any) -> str:
    """JSON of a value with options in it, which are spelled by their names."""

    def plain(item: Any) -> Any:
        if hasattr(item, "get_config"):
            return {type(item).__name__: item.get_config()}
        return item.item() if isinstance(item, np.generic) else str(item)

    return json.dumps(value, sort_keys=True, default=plain)


def features_of(config: RunConfig, dataset: Dataset) -> tuple[Feature, ...]:
    """The data set's features without those that the configuration leaves out."""
    for name in config.leave_out:
        check.check_choice("leave_out", name, [feature.name for feature in dataset.features])
    return tuple(feature for feature in dataset.features if feature.name not in config.leave_out)


def sized(config: RunConfig, dataset: Dataset, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The arguments at the size of the reference model, and what came of it; as they are if there is no reference."""
    reference = config.parameter_matched
    if not reference:
        return dict(arguments), None
    given = (features_of(config, dataset), dataset.tasks)
    count = reference.get("count", "dense")
    target = parameter_count(create_model(reference["model"], *given, **resolve_reference(config)), count)
    # The nearest size, however far.
    model = parameter_matched(config.model, *given, like=target, count=count, tolerance=1e9, **arguments)
    found = parameter_count(model, count)
    match = {"like": reference["model"], "count": count, "target": target, "parameters": found}
    match["within_tolerance"] = abs(found - target) <= TOLERANCE * target
    return {name: getattr(model, name) for name in arguments}, match
