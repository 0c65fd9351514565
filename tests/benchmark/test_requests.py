import pytest

import mtl_zoo_cli
from mtl_zoo.benchmark.requests import asked_baselines, configs_of, tasks_from_text


def asked(words):
    return configs_of(mtl_zoo_cli.parser().parse_args(["bench", "run", *words.split()]))


def test_tasks_as_a_command_line_names_them():
    assert tasks_from_text(["click", "stars"]) == ("click", "stars")
    assert tasks_from_text(["click", "booking@click", "stars:regression", "paid:regression@booking"]) == {
        "click": {},
        "booking": {"kind": "binary", "sample_space": "click"},
        "stars": {"kind": "regression"},
        "paid": {"kind": "regression", "sample_space": "booking"},
    }
    for text, message in (("a@b@c", "must be COLUMN, COLUMN:KIND or COLUMN@SPACE"), ("a:odd", "of a known kind")):
        with pytest.raises(ValueError, match=message):
            tasks_from_text([text])
    with pytest.raises(ValueError, match="must name each column once. Received twice: 'a'"):
        tasks_from_text(["a", "a:binary"])


def test_networks_on_a_table_are_trained_until_they_gain_no_more():
    (config,) = asked("--table a.csv --model mmoe --baselines none --epochs 7")
    assert (config.epochs, config.patience, config.batch_size) == (7, 3, 256)
    (config,) = asked("--dataset synthetic_funnel --model mmoe")
    assert (config.epochs, config.patience, config.batch_size) == (5, None, 1024)


def test_how_rows_are_split():
    def options(words):
        return asked(f"--table a.csv --model mmoe --baselines none {words}")[0].dataset_options

    assert options("") == {}
    assert options("--time day") == {"time": "day"}
    assert options("--time day --split random") == {"exclude": ("day",)}
    assert options("--group user_id") == {}
    assert options("--group user_id --split group") == {"together": "user_id"}
    assert options("--folds 3 --folds-by group --group u")["together"] == "u"
    for words, message in (("--split time", "`--time` must name"), ("--split group", "`--group` must name")):
        with pytest.raises(ValueError, match=message):
            options(words)


def test_models_of_a_command_line_keep_what_a_file_says_of_them(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("dataset: a.csv\nbaselines: []\nmodels: {mmoe: {num_experts: 3}, ple: {}}\n")
    found = asked(f"{file} --models mmoe esmm --baselines linear")
    assert [(config.model, dict(config.hyperparameters)) for config in found] == [
        ("linear", {}), ("mmoe", {"num_experts": 3}), ("esmm", {}),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`--model` and `--models` must not both be given"):
        asked("--table a.csv --model mmoe --models ple")
    assert asked_baselines("all") is True and asked_baselines("none") is False
    assert asked_baselines("linear,constant") == ["linear", "constant"]
    with pytest.raises(ValueError, match=r"must be all, none or names among .*\['mmoe'\]"):
        asked_baselines("mmoe")
