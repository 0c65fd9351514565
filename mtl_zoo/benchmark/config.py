"""What a benchmark run is: checked values from the command line and from YAML files."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtl_zoo import _validation as check
from mtl_zoo.balancing import list_balancing
from mtl_zoo.benchmark.baselines import BASELINES, list_baselines
from mtl_zoo.datasets import list_datasets
from mtl_zoo.datasets._base import TABLES, is_table
from mtl_zoo.optimizers import OPTIMIZER_NAMES

SCHEDULES = ("constant", "cosine")
# What `balancing` may be beside the names of `list_balancing()`.
EQUAL, STATIC_SWEEP = "equal", "static_sweep"
OPTIMIZERS = ("adam", "adamw", "adagrad", "rmsprop", "sgd", *OPTIMIZER_NAMES)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One model on one data set, trained once for each seed.

    Args:
        dataset: A name of `list_datasets()`, or the path of a table of your own (`.csv`, `.parquet`).
        model: A name of `list_models()`, or of `list_baselines()`.
        hyperparameters: Keywords of `create_model`.
        dataset_options: Keywords of `load_dataset`, such as `variant`, `group`, `size`; of a table those of
            `Dataset.from_table`, of which `tasks` is needed.
        seeds: A number n for the seeds 0 .. n - 1, or a list of seeds. A seed draws the weights and the order of the
            rows; the split is drawn by the data set's own option `seed`.
        epochs: The most epochs trained; the best one on the validation split is taken.
        patience: Stop after this many epochs without improvement. None: train all.
        batch_size: Rows a step.
        steps_per_execution: Steps that are compiled into one call. It saves time where steps are short, and changes no
            result but in rounding: runs that differ in it alone are the same run.
        optimizer: `"adam"`, `"adamw"`, `"adagrad"`, `"rmsprop"` or `"sgd"` of Keras, which update whole tables, or
            `"auto"` (LazyAdam), `"lazy_adam"`, `"lazy_adagrad"`, `"lazy_ftrl"`, `"lazy_sgd"`, `"row_wise_adagrad"`.
        learning_rate: Its learning rate.
        schedule: `"constant"`, or `"cosine"`: from `learning_rate` to 0 over all epochs along half a cosine.
        balancing: How task losses are weighed: `"equal"`, the sum with the tasks' own loss weights; a name of
            `list_balancing()`; or `"static_sweep"`, the best of a grid of static weights on the validation split.
        balancing_options: Keywords of the method; of the sweep `steps` and `ratio`, as in `static_grid`. Without its
            `frequencies`, `data_based` takes those of the training labels.
        loss_weights: Loss weights by loss name that replace the tasks' own. A model without a loss of a task's name
            (ESMM has none on the conversion itself) leaves that one out.
        leave_out: Names of features that the model does not get.
        group: A column of `split.groups`, for the AUC within groups.
        train_fraction: Share of the training rows that is used, drawn at random by the data set's `seed` and so the
            same for every model and run. Validation and test rows are all used.
        parameter_matched: A reference model whose size this model is brought to by `mtl_zoo.parameter_matched`, as
            {`model`: its name, `hyperparameters`: its keywords, `count`: what counts}; the last two may be left out.
            `hyperparameters` then give proportions of widths. Where no width comes within 2 %, the nearest is taken;
            the rows say what became of it.

    Raises:
        ValueError: A value is out of its range, or not known.

    Example:

    >>> from mtl_zoo.benchmark.config import RunConfig
    >>> RunConfig("synthetic_funnel", "mmoe", seeds=2).seeds
    (0, 1)
    """

    dataset: str
    model: str
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dataset_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int | tuple[int, ...] = 1
    epochs: int = 5
    patience: int | None = None
    batch_size: int = 1024
    steps_per_execution: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    balancing: str = EQUAL
    balancing_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    group: str | None = None
    train_fraction: float = 1.0
    parameter_matched: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether `model` is a name of `list_baselines()`, and not of a network."""
        return self.model in BASELINES

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds; of a baseline that draws nothing the first alone."""
        seeds = _seeds(self.seeds)
        return seeds[:1] if self.is_baseline and not BASELINES[self.model].draws else seeds

    def __post_init__(self) -> None:
        if not is_table(self.dataset):
            if not isinstance(self.dataset, str) or "/" in self.dataset:
                raise ValueError(
                    f"`dataset` must be a name, or the path of a table. Received: dataset={self.dataset!r}. "
                    f"Expected: one of {', '.join(list_datasets())}, or a path that ends with {', '.join(TABLES)}"
                )
            check.check_name("dataset", self.dataset)
        check.check_name("model", self.model)
        for argument in (
            *("hyperparameters", "dataset_options", "balancing_options", "loss_weights", "parameter_matched"),
        ):
            value = getattr(self, argument)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ValueError(f"`{argument}` must map names to values. Received: {argument}={value!r}")
            object.__setattr__(self, argument, {key: as_tuples(item) for key, item in value.items()})
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        check.check_int("epochs", self.epochs)
        if self.patience is not None:
            check.check_int("patience", self.patience)
        check.check_int("batch_size", self.batch_size)
        check.check_int("steps_per_execution", self.steps_per_execution)
        check.check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check.check_number("learning_rate", self.learning_rate, above=0)
        check.check_choice("schedule", self.schedule, SCHEDULES)
        names = (self.leave_out,) if isinstance(self.leave_out, str) else tuple(self.leave_out)
        object.__setattr__(self, "leave_out", names)
        for task, weight in self.loss_weights.items():
            check.check_number(f"loss_weights[{task!r}]", weight, minimum=0)
        check.check_choice("balancing", self.balancing, (EQUAL, STATIC_SWEEP, *list_balancing()))
        if self.balancing == EQUAL and self.balancing_options:
            raise ValueError(
                f"`balancing_options` must be empty without a method. Received: {self.balancing_options!r}"
            )
        check.check_number("train_fraction", self.train_fraction, above=0, maximum=1)
        if self.parameter_matched:
            for key in self.parameter_matched:
                check.check_choice("parameter_matched", key, ("model", "hyperparameters", "count"))
            check.check_name("parameter_matched['model']", self.parameter_matched.get("model"))


def _seeds(seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        found = tuple(check.check_int(f"seeds[{i}]", seed, minimum=0) for i, seed in enumerate(seeds))
        if not found or check.duplicates(found):
            raise ValueError(f"`seeds` must be different numbers, at least one. Received: seeds={list(found)}")
        return found
    return tuple(range(check.check_int("seeds", seeds)))


def as_tuples(value: Any) -> Any:
    """Lists of JSON and YAML as the tuples that models take."""
    if isinstance(value, (list, tuple)):
        return tuple(as_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: as_tuples(item) for key, item in value.items()}
    return value


def parse_value(text: str) -> Any:
    """A value as one writes it on a command line: numbers, true/false, null, JSON, `128,64` for a tuple, else text.

    Example:

    >>> from mtl_zoo.benchmark.config import parse_value
    >>> [parse_value(text) for text in ("8", "1e-3", "true", "null", "128,64", "32,", '{"units": [64]}', "nominal")]
    [8, 0.001, True, None, (128, 64), (32,), {'units': (64,)}, 'nominal']
    """
    text = text.strip()
    try:
        return as_tuples(json.loads(text, parse_constant=_refuse_constant))
    except json.JSONDecodeError:
        pass
    known = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    if text[:1] in "[{":
        raise ValueError(f"`value` looks like JSON but is not. Received: value={text!r}")
    if "," in text:
        return tuple(parse_value(part) for part in text.removesuffix(",").split(","))
    return text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"`value` must be a finite number. Received: value={name}")


def parse_assignments(argument: str, assignments: Iterable[str]) -> dict[str, Any]:
    """`["num_experts=8"]` as `{"num_experts": 8}`.

    Raises:
        ValueError: An assignment has no `=` or no name; a name is given twice.
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(f"`{argument}` must be NAME=VALUE. Received: {assignment!r}")
        if name.strip() in found:
            raise ValueError(f"`{argument}` must give each name once. Received twice: {name.strip()!r}")
        found[name.strip()] = parse_value(value)
    return found


_FIELDS = tuple(field.name for field in dataclasses.fields(RunConfig))
_FILE_KEYS = (*_FIELDS, "models", "baselines", "balancings", "folds", "runs")
# What a baseline has of a configuration: all but how a network is trained.
_OF_BASELINES = ("dataset", "seeds", "leave_out", "group", "train_fraction")


def load_configs(path: str | Path, **overrides: Any) -> list[RunConfig]:
    """The runs that a YAML file describes.

    Its keys are the arguments of `RunConfig`. Instead of `model` and `hyperparameters` it may hold `models`, which maps
    names of models to their hyperparameters, or lists their names: one run for each. Instead of `balancing` and
    `balancing_options` it may hold `balancings`, which maps names of methods to their options: one run of each network
    for each. `baselines` lists names of `list_baselines()`; a table of one's own gets all of them, unless it says
    otherwise (`[]`). `folds` is a number: one run of each for each fold of a table (see `Dataset.from_table`). A suite
    holds `runs`, a list of such mappings, each of which is laid over the other keys of the file (dicts are merged):
    models on several data sets, or on one data set with several options.

    Args:
        path: The file.
        **overrides: Arguments of `RunConfig` that replace those of the file; None replaces nothing, and dicts are
            merged. Of a suite, `model` takes the runs that list this model.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not YAML, has an unknown key, lacks `dataset` or a model, or a value is refused.

    Example:

    >>> import pathlib, tempfile
    >>> from mtl_zoo.benchmark import load_configs
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "compare.yaml"
    >>> _ = file.write_text("dataset: visits.csv\\nbaselines: [linear]\\nmodels: [mmoe, ple]\\n")
    >>> [config.model for config in load_configs(file)]
    ['linear', 'mmoe', 'ple']
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"`config` must be a YAML file. Received: {path}: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"`config` must hold `key: value` lines. Received: {path} with {type(content).__name__}")
    return configs_from_dict(_tables_beside(path, dict(content)), source=str(path), **overrides)


def _tables_beside(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A table that is not in the working folder is looked for beside the file that names it."""
    name = content.get("dataset")
    if is_table(name) and not Path(str(name)).exists() and (path.parent / str(name)).exists():
        content["dataset"] = str(path.parent / str(name))
    return content


def configs_from_dict(content: dict[str, Any], source: str = "", **overrides: Any) -> list[RunConfig]:
    """`load_configs` of a dict in hand."""
    where = f" in {source}" if source else ""
    for name in content:
        if name not in _FILE_KEYS:
            close = difflib.get_close_matches(str(name), _FILE_KEYS, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(
                f"`config` has an unknown key. Received: {name!r}{hint}{where}. "
                f"Expected: any of {', '.join(_FILE_KEYS)}"
            )
    runs = content.pop("runs", None)
    if runs is not None:
        return _configs_of_suite(content, runs, source, overrides)
    for name, value in overrides.items():
        if name == "models" and value:
            value = {model: _named(content.get("models")).get(model) for model in value}
            content.pop("models", None)
        if value is not None:
            content[name] = _laid_over(content.get(name), value)
    if overrides.get("model"):
        models = _named(content.pop("models", None))
        content["hyperparameters"] = {**(models.get(content["model"]) or {}), **(content.get("hyperparameters") or {})}
    if "models" in content and "model" in content:
        raise ValueError(f"`config` takes `model` or `models`, not both{where}. Received: both")
    models = _named(content.pop("models", None)) or ({content.pop("model"): {}} if "model" in content else {})
    if not models or "dataset" not in content:
        missing = "`dataset`" if "dataset" not in content else "`model`, or `models` with {name: hyperparameters}"
        raise ValueError(f"`config` must give {missing}{where}. Received keys: {sorted(content)}")
    return _expanded(content, models, _balancings(content, overrides.get("balancing"), where))


def _expanded(content: dict[str, Any], models: Mapping[str, Any], balancings: list[dict[str, Any]]) -> list[RunConfig]:
    """A run for each fold, and in it for each baseline, network and balancing."""
    baselines = content.pop("baselines", None)
    # Who has a table of his own wants to know whether a network is worth it.
    baselines = is_table(content["dataset"]) if baselines is None else baselines
    asked = dict.fromkeys(list_baselines()) if baselines is True else _named(baselines)
    for name in asked:
        check.check_choice("baselines", name, list_baselines())
    asked |= {name: own for name, own in models.items() if name in BASELINES}
    shared = content.pop("hyperparameters", None) or {}
    options, folds = content.pop("dataset_options", None) or {}, content.pop("folds", None)
    parts = [{}] if folds is None else [{"folds": folds, "fold": i} for i in range(check.check_int("folds", folds, 2))]
    plain = {name: content[name] for name in _OF_BASELINES if name in content}
    found = []
    for part in parts:
        data: dict[str, Any] = {"dataset_options": {**options, **part}}
        found += [RunConfig(model=name, hyperparameters=own or {}, **plain, **data) for name, own in asked.items()]
        found += [
            RunConfig(model=name, hyperparameters={**(own or {}), **shared}, **balancing, **content, **data)
            for name, own in models.items()
            if name not in BASELINES
            for balancing in balancings
        ]
    return found


def _named(models: Any) -> dict[str, Any]:
    """{name: options} of a mapping, or of a list of names."""
    return (
        dict(models)
        if isinstance(models, Mapping)
        else dict.fromkeys((models,) if isinstance(models, str) else models or ())
    )


def _balancings(content: dict[str, Any], chosen: str | None, where: str) -> list[dict[str, Any]]:
    """The keywords about balancing, once for each method; `chosen` is one that was asked for by name."""
    methods = content.pop("balancings", None)
    given: dict[str, Any] = {name: content.pop(name) for name in ("balancing", "balancing_options") if name in content}
    if methods is None:
        return [given]
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError(f"`balancings` must map names of methods to their options{where}. Received: {methods!r}")
    if chosen is not None:
        options = {**(methods.get(chosen) or {}), **(given.get("balancing_options") or {})}
        return [{"balancing": chosen, "balancing_options": options}]
    if any(given.values()):
        raise ValueError(f"`config` takes `balancing` or `balancings`, not both{where}. Received: both")
    return [{"balancing": name, "balancing_options": options or {}} for name, options in methods.items()]


def _laid_over(below: Any, value: Any) -> Any:
    return {**(below or {}), **value} if isinstance(value, Mapping) else value


def _configs_of_suite(content: dict[str, Any], runs: Any, source: str, overrides: dict[str, Any]) -> list[RunConfig]:
    where = f" in {source}" if source else ""
    if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
        raise ValueError(f"`runs` must be a list of `key: value` mappings{where}. Received: runs={runs!r}")
    suite = [{**content, **{name: _laid_over(content.get(name), value) for name, value in run.items()}} for run in runs]
    model = overrides.get("model")
    if model is not None:
        listed = [{*(run.get("models") or ()), run.get("model")} for run in suite]
        check.check_choice("model", model, sorted(name for name in set().union(*listed) if name))
        suite = [run for run, names in zip(suite, listed, strict=True) if model in names]
    return [config for run in suite for config in configs_from_dict(run, source, **overrides)]
