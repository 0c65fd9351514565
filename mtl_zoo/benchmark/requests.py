"""From a command line, a YAML file or both to configurations."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import Any

from mtl_zoo.benchmark.baselines import list_baselines
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict, load_configs, parse_assignments
from mtl_zoo.datasets._base import is_table
from mtl_zoo.tasks import TASKS

# What is compared where no model is named.
_USUAL_MODELS: dict[str, dict[str, Any]] = {"single_task": {}, "shared_bottom": {}, "mmoe": {}}
# How networks are trained on a table of one's own, which often has few rows: until the validation rows gain no more.
_OF_TABLES = {"epochs": 20, "patience": 3, "batch_size": 256}
_TASK = re.compile(r"(?P<name>[^:@]+)(?::(?P<kind>[^:@]+))?(?:@(?P<space>[^:@]+))?")


def tasks_from_text(texts: Iterable[str]) -> tuple[str, ...] | dict[str, dict[str, Any]]:
    """Tasks as a command line names them: `click`, `rating:regression`, `conversion@click`.

    After a colon stands the kind, after an `@` the column that is 1 where the task is defined. Names alone stay names.

    Raises:
        ValueError: If a text is none of these, or its kind is not known.

    Example:

    >>> from mtl_zoo.benchmark.requests import tasks_from_text
    >>> tasks_from_text(["click", "conversion@click"])
    {'click': {}, 'conversion': {'kind': 'binary', 'sample_space': 'click'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = _TASK.fullmatch(text)
        if match is None:
            raise ValueError(f"`--task` must be COLUMN, COLUMN:KIND or COLUMN@SPACE. Received: {text!r}")
        name, kind, space = match["name"], match["kind"], match["space"]
        if name in found:
            raise ValueError(f"`--task` must name each column once. Received twice: {name!r}")
        if kind is not None and kind not in TASKS:
            raise ValueError(f"`--task` must be of a known kind. Received: {text!r}. Expected: one of {TASKS.names()}")
        # What happens after a click, say, is an event.
        kind = "binary" if kind is None and space is not None else kind
        about = {"kind": kind, "sample_space": space}
        found[name] = {argument: value for argument, value in about.items() if value is not None}
    return found if any(found.values()) else tuple(found)


def configs_of(args: argparse.Namespace) -> list[RunConfig]:
    """The configurations that a command line asks for."""
    names = ("dataset", "model", "seeds", "epochs", "patience", "batch_size", "optimizer", "learning_rate", "schedule")
    given = {name: getattr(args, name) for name in (*names, "balancing", "group", "train_fraction", "leave_out")}
    given |= {name: getattr(args, name) for name in ("models", "folds")}
    if given["model"] and given["models"]:
        raise ValueError(f"`--model` and `--models` must not both be given. Received: {args.model}, {args.models}")
    if args.baselines is not None:
        given["baselines"] = asked_baselines(args.baselines)
    given["hyperparameters"] = parse_assignments("--set", args.set)
    given["dataset_options"] = {**parse_assignments("--dataset-set", args.dataset_set), **_split_options(args)}
    given["balancing_options"] = parse_assignments("--balancing-set", args.balancing_set)
    given["loss_weights"] = parse_assignments("--loss-weights", args.loss_weights)
    if args.tasks:
        given["dataset_options"]["tasks"] = tasks_from_text(args.tasks)
    file = args.config or args.config_option
    if file is not None:
        return load_configs(file, **given)
    if is_table(given["dataset"]):
        given |= {name: value for name, value in _OF_TABLES.items() if given[name] is None}
    named = given["model"] or given["models"]
    return configs_from_dict({} if named else {"models": _USUAL_MODELS}, **given)


def _split_options(args: argparse.Namespace) -> dict[str, Any]:
    """How the rows of a table are split: `--time`, `--split`, `--group`."""
    time, split = args.time, args.split
    if split == "time" and time is None:
        raise ValueError("`--time` must name the column that rows are split by. Received: --split time alone")
    if split == "group" and args.group is None:
        raise ValueError("`--group` must name the column whose values stay whole. Received: --split group alone")
    found: dict[str, Any] = {}
    if time is not None:
        # Without being told otherwise, the rows that are tested come last; the column is no feature in any case.
        found |= {"time": time} if split in (None, "time") else {"exclude": (time,)}
    if split == "group":
        found["together"] = args.group
    return found


def asked_baselines(text: str) -> bool | list[str]:
    """What `--baselines` says: all, none, or some names."""
    if text in ("all", "none"):
        return text == "all"
    names = text.split(",")
    unknown = [name for name in names if name not in list_baselines()]
    if unknown:
        raise ValueError(f"`--baselines` must be all, none or names among {list_baselines()}. Received: {unknown}")
    return names
