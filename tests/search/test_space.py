import json

import pytest
from toys import features, inputs, sample_of

import mtl_zoo
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.models import model_info
from mtl_zoo.search import Choice, FloatRange, IntRange, default_space
from mtl_zoo.search.settings import TRAINING, as_domain, configured, space_of, start_values, with_width


class Drawn:
    """A trial that draws the first or the last of everything."""

    def __init__(self, last):
        self.last = last

    def suggest_int(self, name, low, high, *, log):
        return high if self.last else low

    suggest_float = suggest_int

    def suggest_categorical(self, name, choices):
        assert all(choice is None or isinstance(choice, (bool, int, float, str)) for choice in choices)
        return choices[-1 if self.last else 0]


@pytest.mark.parametrize("domain", [IntRange(2, 9, log=True), FloatRange(0.1, 3.0), Choice(None, "a", (8, 4), (), 0.5)])
def test_what_is_drawn_is_held_and_comes_back(domain):
    for last in (False, True):
        value = domain.suggest(Drawn(last), "x")
        assert domain.holds(value)
        held = domain.encoded(value)
        assert domain.decoded(json.loads(json.dumps(held))) == value


def test_a_domain_is_widened_for_where_a_search_starts():
    assert IntRange(2, 4).including(8) == IntRange(2, 8)
    assert IntRange(2, 4).including(3) == IntRange(2, 4)
    assert FloatRange(0.1, 1.0, log=True).including(0.01) == FloatRange(0.01, 1.0, log=True)
    assert Choice((64,)).including((32, 16)).options == ((64,), (32, 16))
    assert Choice((64,)).including([64]).options == ((64,),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[64], [128, 64]], Choice((64,), (128, 64))),
        ({"choices": ["adam", "sgd"]}, Choice("adam", "sgd")),
        ({"low": 1, "high": 8}, IntRange(1, 8)),
        ({"low": 1e-4, "high": 1e-2, "log": True}, FloatRange(1e-4, 1e-2, log=True)),
    ],
)
def test_domains_as_yaml_says_them(given, expected):
    assert as_domain("x", given) == expected


@pytest.mark.parametrize(
    "given", [3, {"low": 1}, [], {"low": 3, "high": 1}, {"low": 0.0, "high": 1.0, "log": True}, [1, 1]]
)
def test_what_is_no_domain_is_refused_by_name(given):
    with pytest.raises(ValueError, match=r"`space\['x'\]` must be"):
        as_domain("x", given)


@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_each_models_space_holds_its_defaults(name, data):
    info = model_info(name)
    assert set(info.space) <= set(info.search_space)
    plain = [n for n in info.search_space if "." not in n]
    assert all(info.search_space[n].holds(info.arguments[n]) for n in plain)
    config = RunConfig("synthetic_funnel", name, dataset_options=data.options)
    space = space_of(config, data, None, (), True)
    start = start_values(config, data, space, True)
    assert set(start) == set(space) and all(space[n].holds(value) for n, value in start.items())
    same = configured(config, start, True)
    assert (same.learning_rate, same.batch_size, same.dataset_options["embedding_dim"]) == (1e-3, 1024, 16)
    resolve_hyperparameters(name, same.hyperparameters)


@pytest.mark.tensorflow
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), always=("shared_bottom", "esmm")))
def test_the_ends_of_each_models_space_are_models(name, last):
    from toys import CART, CLICK, CONVERSION

    space = default_space(name)
    values = {n: domain.suggest(Drawn(last), n) for n, domain in space.items() if n != "embedding_dim"}
    if name == "mose":  # whose LSTMs take none
        assert "dropout" not in space
    else:
        values |= {"dropout": 0.3 if last else 0.0}
    arguments = resolve_hyperparameters(name, configured(RunConfig("d", name), values, True).hyperparameters)
    given = features()
    if "domain" in model_info(name).requires:
        arguments["domain"] = "domain"
    tasks = [CLICK, CART, CONVERSION] if "middle_action" in model_info(name).requires else [CLICK, CONVERSION]
    model = mtl_zoo.create_model(name, given, tasks, **arguments)
    scores = model({n: value[:4] for n, value in inputs().items() if n in model.input})
    assert all(len(score) == 4 for score in scores.values())
    stacks = {"bottom_units", "expert_units", "column_units", "stage_units"} & {n.split(".")[-1] for n in space}
    assert ("dropout=0.3" in repr(arguments)) == (last and bool(stacks) and name not in ("aitm", "mose"))


def test_a_part_of_an_option_and_of_a_backbone():
    config = RunConfig("d", "esmm", {"backbone_options": {"share_embeddings": False}})
    found = configured(config, {"backbone_options.bottom_units": (8,), "loss_weights.click": 2.0}, True)
    assert found.hyperparameters == {"backbone_options": {"share_embeddings": False, "bottom_units": (8,)}}
    assert found.loss_weights == {"click": 2.0} and config.hyperparameters == {
        "backbone_options": {"share_embeddings": False}
    }
    gates = configured(RunConfig("d", "mmoe"), {"gate.temperature": 2.0}, True)
    assert resolve_hyperparameters("mmoe", gates.hyperparameters)["gate"].temperature == 2.0


def test_dropout_goes_into_experts_and_bottoms_and_not_into_towers():
    found = configured(RunConfig("d", "mmoe"), {"dropout": 0.2}, True).hyperparameters
    assert found == {"expert_units": {"units": (256, 128), "dropout": 0.2}}
    inner = configured(RunConfig("d", "esmm"), {"dropout": 0.2}, True).hyperparameters["backbone_options"]
    assert inner == {"bottom_units": {"units": (360, 200, 80), "dropout": 0.2}}
    own = configured(RunConfig("d", "aitm"), {"dropout": 0.2}, True).hyperparameters
    assert own == {"dropout": 0.2}, "a model with a dropout of its own has that"
    assert configured(RunConfig("d", "mmoe"), {"dropout": 0.0}, True).hyperparameters == {}


def test_the_width_of_embeddings_is_what_loading_with_it_gives(data):
    wide = mtl_zoo.load_dataset("synthetic_funnel", size=1000, embedding_dim=4)
    assert with_width(data, 4).features == wide.features[2:5]
    assert with_width(data, 4).options == wide.options
    assert with_width(data, 16) is data


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nonsense": [1, 2]}, "`space` must be .*nonsense"),
        ({"learning_rate": 3}, r"`space\['learning_rate'\]` must be"),
        ({}, "`space` must leave something"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(data, given, message):
    with pytest.raises(ValueError, match=message):
        space_of(RunConfig("d", "mmoe"), data, given, (), True)


def test_fixed_names_are_left_out(data):
    space = space_of(RunConfig("d", "mmoe"), data, None, ("batch_size", "dropout"), True)
    assert set(TRAINING) - set(space) == {"batch_size", "dropout"}
    with pytest.raises(ValueError, match="`fixed` must be .*other"):
        space_of(RunConfig("d", "mmoe"), data, None, ("other",), True)
