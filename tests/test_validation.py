"""Files of models may ask for anything: limits of what is made of them."""

import pytest

import mtl_zoo
from mtl_zoo import MLP, BinaryTask, Categorical, DSelectK, Embedding
from mtl_zoo import _validation as check

FEATURES, TASKS = [Categorical("user", size=9)], [BinaryTask("a"), BinaryTask("b")]


# fault 32
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("mmoe", {"num_experts": 10**9}),
        ("omoe", {"num_experts": 10**9}),
        ("mose", {"num_experts": 10**9}),
        ("ple", {"num_levels": 10**9}),
        ("cgc", {"num_task_experts": 10**9}),
        ("stem", {"num_shared_experts": 10**9}),
        ("home", {"num_group_experts": 10**9}),
        ("adatt", {"num_task_experts": 10**9}),
        ("ml_mmoe", {"num_levels": 10**9}),
    ],
)
def test_a_model_of_a_billion_parts_is_refused_at_once(model, arguments):
    features = [*FEATURES, mtl_zoo.Sequence("items", size=9, length=3)] if model == "mose" else FEATURES
    with pytest.raises(ValueError, match=rf"`{next(iter(arguments))}` must be a whole number <= 4,096. Rec"):
        mtl_zoo.create_model(model, features, TASKS, **arguments)


# fault 32
def test_options_have_limits():
    for make in (
        lambda: MLP((10**9,)),
        lambda: MLP((1,) * 5000),
        lambda: DSelectK(num_selected=10**9),
        lambda: Embedding(cross_layers=10**9),
        lambda: Embedding(shards=10**9),
    ):
        with pytest.raises(ValueError, match="<= |at most"):
            make()


def test_limits_are_told_to_those_who_pass_them():
    assert check.check_count("n", 4096) == 4096 and check.check_int("n", 3, maximum=3) == 3
    with pytest.raises(ValueError, match=r"`n` must be a whole number >= 1. Received: n=0"):
        check.check_count("n", 0)
    with pytest.raises(ValueError, match=r"`n` must be a whole number <= 3. Received: n=4"):
        check.check_int("n", 4, maximum=3)
