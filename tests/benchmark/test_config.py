import dataclasses
from pathlib import Path

import pytest

import mtl_zoo_cli
from mtl_zoo.balancing import list_balancing
from mtl_zoo.benchmark.balancing import check_balancing, sweep_points
from mtl_zoo.benchmark.command import configs_of
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict, load_configs, parse_assignments, parse_value
from mtl_zoo.benchmark.demo import demo_configs
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.datasets import dataset_info
from mtl_zoo.models import list_models

FOLDER = Path(__file__).parents[2] / "benchmarks" / "configs"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
CATALOGUE = FOLDER / "catalogue"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1e-3", 0.001),
        ("-0.5", -0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("128,64", (128, 64)),
        ("32,", (32,)),
        ("[[1, 2], []]", ((1, 2), ())),
        ('{"units": [64], "norm": "batch"}', {"units": (64,), "norm": "batch"}),
        ("nominal", "nominal"),
        ('"8"', "8"),
        ("a,b", ("a", "b")),
    ],
)
def test_values_as_one_writes_them(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_value("NaN"), "`value` must be a finite number. Received: value=NaN"),
        (lambda: parse_value("[1, 2"), r"`value` looks like JSON but is not. Received: value='\[1, 2'"),
        (lambda: parse_assignments("--set", ["experts"]), "`--set` must be NAME=VALUE. Received: 'experts'"),
        (lambda: parse_assignments("--set", ["a=1", "a=2"]), "`--set` must give each name once. Received twice: 'a'"),
        (lambda: RunConfig("d", "m", seeds=0), "`seeds` must be a whole number >= 1. Received: seeds=0"),
        (lambda: RunConfig("d", "m", seeds=(1, 1)), r"`seeds` must be different numbers.*Received: seeds=\[1, 1\]"),
        (lambda: RunConfig("d", "m", epochs=0), "`epochs` must be a whole number >= 1"),
        (lambda: RunConfig("d", "m", patience=0), "`patience` must be a whole number >= 1"),
        (lambda: RunConfig("d", "m", batch_size=0.5), "`batch_size` must be a whole number >= 1"),
        (lambda: RunConfig("d", "m", optimizer="adm"), "`optimizer` must be one of the known values"),
        (lambda: RunConfig("d", "m", learning_rate=0), "`learning_rate` must be a finite number and > 0"),
        (lambda: RunConfig("d", "m", balancing="best"), "`balancing` must be one of the known values"),
        (
            lambda: RunConfig("d", "m", balancing_options={"steps": 3}),
            "`balancing_options` must be empty without a method",
        ),
        (lambda: RunConfig("d", "m", balancing="dwa", balancing_options=[3]), "`balancing_options` must map names"),
        (lambda: RunConfig("d", "m", hyperparameters=[1]), "`hyperparameters` must map names to values"),
        (lambda: RunConfig("d", ""), "`model` must be a non-empty string"),
        (lambda: RunConfig("d", "m", train_fraction=0), "`train_fraction` must be a finite number and <= 1 and > 0"),
        (lambda: RunConfig("d", "m", parameter_matched="m"), "`parameter_matched` must map names to values"),
        (
            lambda: RunConfig("d", "m", parameter_matched={"model": "m", "units": 3}),
            "`parameter_matched` must be one of the known values. Received: parameter_matched='units'",
        ),
        (
            lambda: RunConfig("d", "m", parameter_matched={"count": "all"}),
            r"`parameter_matched\['model'\]` must be a non-empty string. Received: .*None",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_file_and_what_overrides_it(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "dataset: synthetic_funnel\nmodel: mmoe\nhyperparameters: {num_experts: 4, expert_units: [8, 4]}\nepochs: 7\n"
    )
    (config,) = load_configs(path)
    assert config.hyperparameters == {"num_experts": 4, "expert_units": (8, 4)} and config.epochs == 7
    (config,) = load_configs(path, epochs=None, seeds=(3, 4), hyperparameters={"num_experts": 2})
    assert config.hyperparameters == {"num_experts": 2, "expert_units": (8, 4)}
    assert (config.epochs, config.seeds) == (7, (3, 4))


def test_several_models_in_one_file():
    content = {"dataset": "d", "models": {"mmoe": {"num_experts": 2}, "single_task": None}, "epochs": 3}
    mmoe, single = configs_from_dict(dict(content))
    assert mmoe.hyperparameters == {"num_experts": 2} and single.hyperparameters == {}
    (one,) = configs_from_dict(dict(content), model="mmoe", hyperparameters={"tower_units": (8,)})
    assert one.model == "mmoe" and one.hyperparameters == {"num_experts": 2, "tower_units": (8,)}


def test_a_suite_lays_each_of_its_runs_over_what_they_share():
    content = {
        "dataset": "d", "epochs": 3, "dataset_options": {"size": "small"}, "seeds": 2,
        "runs": [
            {"models": {"mmoe": {"num_experts": 2}, "ple": None}},
            {"models": {"mmoe": None}, "dataset_options": {"cart": True}, "epochs": 9},
        ],
    }  # fmt: skip
    found = configs_from_dict(dict(content), epochs=None, dataset_options={"seed": 1})
    assert [(c.model, c.epochs, c.dataset_options) for c in found] == [
        ("mmoe", 3, {"size": "small", "seed": 1}),
        ("ple", 3, {"size": "small", "seed": 1}),
        ("mmoe", 9, {"size": "small", "seed": 1, "cart": True}),
    ]
    assert [c.hyperparameters for c in configs_from_dict(dict(content), model="mmoe")] == [{"num_experts": 2}, {}]
    (one,) = configs_from_dict(dict(content), model="ple", seeds=1)
    assert (one.model, one.seeds) == ("ple", (0,))
    with pytest.raises(ValueError, match="`model` must be one of the known values.*Expected: one of 'mmoe', 'ple'"):
        configs_from_dict(dict(content), model="single_task")


def test_several_methods_in_one_file():
    content = {"dataset": "d", "models": {"a": None, "b": None}, "balancings": {"equal": None, "dwa": {"steps": 4}}}
    found = [(c.model, c.balancing, c.balancing_options) for c in configs_from_dict(dict(content))]
    assert found == [(m, *b) for m in "ab" for b in (("equal", {}), ("dwa", {"steps": 4}))]
    (one,) = configs_from_dict(dict(content), model="a", balancing="dwa", balancing_options={"window": 1})
    assert (one.model, one.balancing, one.balancing_options) == ("a", "dwa", {"steps": 4, "window": 1})
    assert len(configs_from_dict(dict(content), balancing=None, balancing_options={})) == 4  # a bare command line
    (other,) = configs_from_dict(dict(content), model="a", balancing="rlw")
    assert (other.balancing, other.balancing_options) == ("rlw", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: d\nmodel: m\nruns: {a: 1}\n", "`runs` must be a list of `key: value` mappings.*Received: runs="),
        ("dataset: d\nmodel: m\nruns: []\n", "`runs` must be a list of `key: value` mappings"),
        ("dataset: d\nruns:\n  - {model: m, epoch: 3}\n", "`config` has an unknown key. Received: 'epoch'"),
        ("dataset: d\nmodel: m\nbalancings: [dwa]\n", "`balancings` must map names of methods to their options"),
        ("dataset: d\nmodel: m\nbalancings: {dwa: }\nbalancing: rlw\n", "takes `balancing` or `balancings`, not both"),
        ("dataset: d\nmodel: m\nepoch: 3\n", "`config` has an unknown key. Received: 'epoch' .did you mean 'epochs'"),
        ("dataset: d\n", "`config` must give `model`, or `models`"),
        ("model: m\n", "`config` must give `dataset`"),
        ("dataset: d\nmodel: m\nmodels: {m: {}}\n", "`config` takes `model` or `models`, not both"),
        ("- 1\n", "`config` must hold `key: value` lines.*list"),
        ("a: [1\n", "`config` must be a YAML file"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_configs(path)
    assert str(path) in str(error.value)


def test_command_line():
    words = "--dataset census_income --model mmoe --seeds 3 --epochs 5 --data-dir D --out F.csv --set num_experts=8"
    words += " --set expert_units=128,64 --dataset-set variant=nominal group=1 --patience 2"
    args = mtl_zoo_cli.parser().parse_args(["bench", "run", *words.split()])
    (config,) = configs_of(args)
    assert config.hyperparameters == {"num_experts": 8, "expert_units": (128, 64)}
    assert config.dataset_options == {"variant": "nominal", "group": 1}
    assert (config.seeds, config.epochs, config.patience, config.batch_size) == ((0, 1, 2), 5, 2, 1024)
    assert str(args.out) == "F.csv"
    words = "bench run --dataset d --model m --out f --seeds 4,7 --train-fraction 0.25"
    (config,) = configs_of(mtl_zoo_cli.parser().parse_args(words.split()))
    assert config.seeds == (4, 7) and config.train_fraction == 0.25


def test_demo_can_run():
    configs = demo_configs(3)
    few_conversions = ["single_task", "shared_bottom", "esmm"]
    every = ["single_task", "shared_bottom", "cross_stitch", "mmoe", "esmm"]
    assert [config.model for config in configs] == [*every, *few_conversions]
    for config in configs:
        assert config.seeds == (0, 1, 2)
        resolve_hyperparameters(config.model, config.hyperparameters)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configs_of_the_repository_can_run_and_lie_where_their_names_say(path):
    configs = load_configs(path)
    for config in configs:
        resolve_hyperparameters(config.model, config.hyperparameters)
        check_balancing(config)
        assert set(config.dataset_options) <= set(dataset_info(config.dataset).options)
    if path.parent.name == "catalogue":
        assert {config.dataset for config in configs} == {path.stem.rpartition("_")[0]}
        assert {config.parameter_matched["model"] for config in configs} == {"shared_bottom"}
        assert all(config.seeds == (0, 1, 2) for config in configs)
    elif path.parent.name == "balancing":
        assert path.stem.startswith(configs[0].dataset)
        # All differ in nothing but the method.
        alike = [dataclasses.replace(config, balancing="equal", balancing_options={}) for config in configs]
        assert all(config == alike[0] for config in alike) and configs[0].seeds == (0, 1, 2)
    else:
        (config,) = configs
        assert (config.dataset, config.model) == (path.parent.name, path.stem)


def test_suites_hold_the_models_they_say():
    def models(suite):
        return [config.model for config in load_configs(CATALOGUE / f"{suite}.yaml")]

    assert set(models("synthetic_funnel_small")) == set(list_models())
    without = ("esmm", "esm2", "escm2_dr", "escm2_ips", "dcmt", "aitm", "star", "pepnet", "m3oe", "mose")
    assert set(models("census_income_quarter")) == set(list_models()) - set(without)
    for suite in ("synthetic_funnel_full", "census_income_full"):
        assert len(set(models(suite))) == len(models(suite)) == 8
    for suite in ("synthetic_funnel_small", "synthetic_funnel_full", "census_income_quarter", "census_income_full"):
        assert {"single_task", "shared_bottom"} <= set(models(suite))


@pytest.mark.parametrize("suite", ["synthetic_funnel_small", "synthetic_regression_conflict", "census_income"])
def test_suites_of_balancing_hold_every_method_and_the_tuned_grid(suite):
    configs = load_configs(FOLDER / "balancing" / f"{suite}.yaml")
    methods = [config.balancing for config in configs]
    (sweep,) = (config for config in configs if config.balancing == "static_sweep")
    assert len(sweep_points(sweep, ["a", "b"])) == (5 if suite == "census_income" else 9)
    if suite == "census_income":
        assert len(methods) == len(set(methods)) == 10 and "equal" in methods
    else:
        # `static` is what the sweep runs.
        assert sorted([*methods, "static"]) == sorted([*list_balancing(), "equal", "static_sweep", "famo"])
        exact = [config.balancing_options for config in configs if config.balancing == "famo"]
        assert exact == [{}, {"reevaluates": True}]
