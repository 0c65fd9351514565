"""`parameter_matched`: models of one size, over the whole registry."""

import keras
import numpy as np
import pytest
from toys import TASKS, tasks_of

import mtl_zoo
from mtl_zoo import MLP, Categorical, Embedding, RegressionTask, Sequence
from mtl_zoo.models import parameter_count, parameter_matched
from mtl_zoo.models._matching import _bracket

WIDE = [Categorical("user_id", size=8, dim=100)]
WITH_ALL_NEEDS = [
    Categorical("user_id", size=30, dim=20),
    Categorical("domain", size=3),
    Sequence("history", size=6, length=5),
]
TWO = [RegressionTask("y1"), RegressionTask("y2")]
SMALL = {"num_experts": 2, "num_task_experts": 1, "num_shared_experts": 1, "num_group_experts": 1, "tower_units": (4,)}


@pytest.fixture(scope="module")
def mmoe():
    return mtl_zoo.MMoE(WIDE, TWO, num_experts=8, expert_units=(16,), tower_units=(8,))


def test_the_rule_of_the_mmoe_paper(mmoe):
    assert parameter_count(mmoe, "kernels") == 100 * 8 * 16 + 2 * 16 * 8 == 13_056
    matched = parameter_matched(
        "shared_bottom", WIDE, TWO, like=mmoe, count="kernels", bottom_units=(9,), tower_units=(8,)
    )
    assert matched.bottom_units == (113,) and matched.tower_units == (8,)
    by_number = parameter_matched(
        "shared_bottom", WIDE, TWO, like=13_056, count="kernels", bottom_units=(500,), tower_units=(8,)
    )
    assert by_number.bottom_units == (113,)


def test_counts_of_a_model_by_hand(mmoe):
    dense = 8 * (100 * 16 + 16) + 2 * 8 * 100 + 2 * (16 * 8 + 8) + 2 * (8 + 1)
    assert parameter_count(mmoe) == dense
    assert parameter_count(mmoe, "all") == dense + (8 + 2) * 100
    with_table = mtl_zoo.SharedBottom([Categorical("u", size=8, dim=3)], TWO, bottom_units=(5,), tower_units=())
    assert parameter_count(with_table) == 3 * 5 + 5 + 2 * (5 + 1)
    assert parameter_count(with_table, "all") == parameter_count(with_table) + 10 * 3
    assert parameter_count(with_table, "kernels") == 15


def test_nothing_comes_nearer(mmoe):
    width = parameter_matched("shared_bottom", WIDE, TWO, like=mmoe, bottom_units=(1,), tower_units=(8,)).bottom_units[
        0
    ]
    target = parameter_count(mmoe)

    def distance(units):
        model = mtl_zoo.SharedBottom(WIDE, TWO, bottom_units=(units,), tower_units=(8,))
        return abs(parameter_count(model) - target)

    assert distance(width) < min(distance(width - 1), distance(width + 1))


@pytest.mark.extended
@pytest.mark.parametrize("name", mtl_zoo.list_models())
def test_every_model_comes_within_two_percent(name):
    like = mtl_zoo.MMoE(WIDE, TWO, num_experts=2, expert_units=(150, 60))
    known = mtl_zoo.model_info(name).cls._hyperparameters()
    options = {argument: value for argument, value in SMALL.items() if argument in known}
    matched = parameter_matched(name, WITH_ALL_NEEDS, tasks_of(name, TASKS[:2]), like=like, **options)
    assert type(matched) is mtl_zoo.model_info(name).cls
    assert abs(parameter_count(matched) / parameter_count(like) - 1) <= 0.02
    assert all(getattr(matched, argument) == value for argument, value in options.items())
    assert matched.embedding == Embedding(), "the tables of zeros are for counting only"
    assert any(np.any(keras.ops.convert_to_numpy(w)) for w in matched.get_layer(index=0).weights or matched.weights)


def test_a_head_scales_its_backbone(mmoe):
    tasks = [mtl_zoo.BinaryTask("click"), mtl_zoo.BinaryTask("conversion", sample_space="click")]
    matched = parameter_matched(
        "esmm",
        WIDE,
        tasks,
        like=3 * 20_000,
        backbone="mmoe",
        backbone_options={"num_experts": 2, "expert_units": (8, 4)},
    )
    wide, narrow = matched.backbone_options["expert_units"]
    assert matched.backbone_options["num_experts"] == 2 and wide == 2 * narrow > 8
    default = parameter_matched("esmm", WIDE, tasks, like=60_000)
    assert default.backbone_options == {"bottom_units": (148, 82, 33)}, "in the proportions of ESMM's 360, 200, 80"


def test_what_is_scaled_and_in_which_form(mmoe):
    given = MLP((10, 5), activation="tanh", norm="layer")
    matched = parameter_matched("shared_bottom", WIDE, TWO, like=mmoe, bottom_units=given)
    assert isinstance(matched.bottom_units, MLP) and matched.bottom_units.activation == "tanh"
    assert matched.bottom_units.units[0] == pytest.approx(2 * matched.bottom_units.units[1], abs=1)
    towers = parameter_matched("shared_bottom", WIDE, TWO, like=mmoe, bottom_units=(50,), scale=["tower_units"])
    assert towers.bottom_units == (50,) and towers.tower_units[0] > 64
    sluice = parameter_matched("sluice", WIDE, TWO, like=mmoe, num_subspaces=4)
    assert all(units % 4 == 0 for units in sluice.column_units)


def test_all_parameters_can_be_matched():
    few, many = ([Categorical("u", size=size, dim=8)] for size in (100, 1000))
    like = mtl_zoo.SharedBottom(many, TWO, bottom_units=(16,), tower_units=())
    matched = parameter_matched("shared_bottom", few, TWO, like=like, count="all", bottom_units=(16,), tower_units=())
    assert matched.count_params() == pytest.approx(like.count_params(), rel=0.02)
    assert matched.bottom_units[0] > 600


@pytest.mark.parametrize(
    "curve", [lambda w: 3 * w + 7, lambda w: w * w + 5 * w, lambda w: w**3, lambda w: round(10 * 1.1**w)]
)
@pytest.mark.parametrize("start", [1, 64])
def test_the_search_finds_the_neighbours_with_few_counts(curve, start):
    asked = []

    def count(width):
        asked.append(width)
        return curve(width)

    for target in (curve(1), curve(13) + 1, curve(13), curve(30) - 1):
        asked.clear()
        below, above = _bracket(count, target, start, 1)
        assert below[1] <= target <= above[1] and above[0] - below[0] in (0, 1)
        assert len(asked) <= 24 and len(set(asked)) == len(asked)


def test_errors(mmoe):
    with pytest.raises(
        ValueError,
        match=r"`like` must have a size .* within 2.0% of. Received: 40 parameters "
        r"\(count='dense'\). Nearest: 105 \(bottom_units=\(1,\)\)",
    ):
        parameter_matched("shared_bottom", WIDE, TWO, like=40, bottom_units=(8,), tower_units=())
    with pytest.raises(ValueError, match=r"Nearest: 311 \(bottom_units=\(3,\)\) and 414 \(bottom_units=\(4,\)\)"):
        parameter_matched("shared_bottom", WIDE, TWO, like=360, bottom_units=(8,), tower_units=())
    with pytest.raises(ValueError, match=r"`scale` must be one of .*Expected: one of 'expert_units', 'tower_units'"):
        parameter_matched("mmoe", WIDE, TWO, like=mmoe, scale=["bottom_units"])
    with pytest.raises(ValueError, match="`scale` must name widths of 'shared_bottom', which has none but"):
        parameter_matched("shared_bottom", WIDE, TWO, like=mmoe, bottom_units=())
    with pytest.raises(ValueError, match="`count` must be one of the known values"):
        parameter_matched("mmoe", WIDE, TWO, like=mmoe, count="weights")
    with pytest.raises(ValueError, match="`count` must be one of the known values"):
        parameter_count(mmoe, "weights")
    with pytest.raises(ValueError, match="`tolerance` must be a finite number and > 0"):
        parameter_matched("mmoe", WIDE, TWO, like=mmoe, tolerance=0)
    with pytest.raises(ValueError, match="`like` must be a whole number >= 1"):
        parameter_matched("mmoe", WIDE, TWO, like="mmoe")
    with pytest.raises(TypeError, match="`num_expert5` is not an argument of 'mmoe'"):
        parameter_matched("mmoe", WIDE, TWO, like=mmoe, num_expert5=2)
    with pytest.raises(ValueError, match="`model` must be one of the known values"):
        parameter_matched("mmoee", WIDE, TWO, like=mmoe)
