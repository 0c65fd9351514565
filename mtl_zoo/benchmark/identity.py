"""What tells one run from another: the columns that its rows share, and the key that they are found by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.balancing import balancing_spec, balancing_text
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import as_json
from mtl_zoo.datasets import Dataset
from mtl_zoo.datasets._base import is_table


def dataset_name(config: RunConfig) -> str:
    """What rows of results call the data set of a configuration."""
    if is_table(config.dataset):
        return check.suggest_name(
            str(config.dataset_options.get("name") or Path(config.dataset).name.partition(".")[0])
        )
    return config.dataset


def about_run(config: RunConfig, dataset: Dataset, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The columns that a run's rows share and that are known before it starts, `key` among them."""
    options = dict(dataset.options)
    if config.leave_out:
        options["leave_out"] = config.leave_out
    identity = {
        "dataset": dataset.name,
        "variant": dataset.variant,
        "data_version": dataset.version,
        "split_rule": dataset.split_rule,
        "dataset_options": as_json(options),
        "model": config.model,
        "hyperparameters": as_json(arguments),
        "seed": seed,
        **_training(config),
    }
    # What was not known to earlier rows has no part in their keys.
    matched = {"parameter_matched": config.parameter_matched} if config.parameter_matched else {}
    matched |= {"balancing_options": config.balancing_options} if config.balancing_options else {}
    commit, dirty = environment.commit()
    return {
        "key": hashlib.sha256(as_json(identity | matched).encode()).hexdigest()[:16],
        **identity,
        "balancing_spec": "{}" if config.is_baseline else as_json(balancing_spec(config)),
        "commit": commit,
        "dirty": "" if dirty is None else dirty,
        "versions": as_json(environment.versions_of_result()),
        "hardware": environment.hardware(),
    }


def _training(config: RunConfig) -> dict[str, Any]:
    """How a network is trained; a baseline has nothing of it."""
    if config.is_baseline:
        return {"epochs": 0, "patience": "", "optimizer": "", "batch_size": 0, "balancing": ""}
    return {
        "epochs": config.epochs,
        "patience": "" if config.patience is None else config.patience,
        "optimizer": _optimizer_text(config),
        "batch_size": config.batch_size,
        "balancing": balancing_text(config),
    }


def _optimizer_text(config: RunConfig) -> str:
    schedule = "" if config.schedule == "constant" else f", schedule={config.schedule}"
    return f"{config.optimizer}(learning_rate={config.learning_rate:g}{schedule})"
