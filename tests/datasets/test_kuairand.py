import numpy as np
import pandas as pd
import pytest
from published import check_same, write

from mtl_zoo.datasets import kuairand, load_dataset, verify_dataset

USERS, VIDEOS, ROWS = 20, 30, 200
# As published: outcomes of watching stand among the columns.
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
).split(",")


def log(days, seed, is_rand=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.integers(0, 2, ROWS) for name in LOG})
    table["user_id"], table["video_id"] = rng.integers(0, USERS, ROWS), rng.integers(0, VIDEOS, ROWS)
    table["date"] = np.resize(days, ROWS)
    table["time_ms"] = 1_649_347_200_000 + np.arange(ROWS)
    table["hourmin"], table["duration_ms"] = rng.integers(0, 24, ROWS) * 100, rng.integers(0, 10**5, ROWS)
    return table.assign(play_time_ms=123_456, is_rand=is_rand, tab=rng.integers(0, 15, ROWS))


def users():
    table = pd.DataFrame({"user_id": range(USERS), "user_active_degree": "full_active"})
    for name in kuairand.USER_FIELDS[1:]:
        table[name] = np.arange(USERS) % 3
    table["onehot_feat4"] = np.where(np.arange(USERS) % 5 == 0, np.nan, 1.0)
    return table.assign(follow_user_num=5, fans_user_num_range="[1k,5k)")


def videos():
    table = pd.DataFrame({"video_id": range(VIDEOS), "author_id": np.arange(VIDEOS) // 2, "video_type": "NORMAL"})
    tags = ["39,12", "", "7"]
    return table.assign(upload_dt="2022-03-29", upload_type="ShortImport", music_id=1e15, music_type=9.0,
                        visible_status=1, tag=[tags[i % 3] for i in range(VIDEOS)])  # fmt: skip


def files(variant="pure"):
    tables = {
        f"log_standard_4_08_to_4_21_{variant}.csv": log([20220408, 20220421], 0),
        f"log_standard_4_22_to_5_08_{variant}.csv": log([20220422, 20220428, 20220429, 20220508], 1),
        f"log_random_4_22_to_5_08_{variant}.csv": log([20220422, 20220508], 2, is_rand=1),
        f"user_features_{variant}.csv": users(),
        f"video_features_basic_{variant}.csv": videos(),
    }
    return {name: table.to_csv(index=False).encode() for name, table in tables.items()}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "kuairand" / "KuaiRand-Pure" / "data", files()).parents[2]


def test_days_are_the_splits(folder):
    data = load_dataset("kuairand", folder)
    assert [len(split) for split in data.splits.values()] == [ROWS, ROWS // 2, ROWS // 2]
    days = [set(split.raw["date"]) for split in data.splits.values()]
    assert days == [{20220408, 20220421}, {20220422, 20220428}, {20220429, 20220508}]
    assert [task.name for task in data.tasks] == ["click", "like", "follow", "comment", "forward", "hate", "long_view"]
    expected = log([20220408, 20220421], 0)
    for task, column in kuairand.TASKS.items():
        np.testing.assert_array_equal(data.train.labels[task], expected[column])
    np.testing.assert_array_equal(data.train.raw["hour"], expected["hourmin"] // 100)
    np.testing.assert_allclose(data.train.raw["duration"], expected["duration_ms"] / 1000, rtol=1e-6)
    check_same(data, load_dataset("kuairand", folder))


def test_random_exposure_is_the_test_if_asked(folder):
    data = load_dataset("kuairand", folder, test="random")
    assert (data.test.raw["is_rand"] == 1).all() and len(data.test) == ROWS and data.variant == "pure,random_test"
    np.testing.assert_array_equal(data.test.labels["click"], log([20220422, 20220508], 2)["is_click"])
    assert (data.train.raw["is_rand"] == 0).all() and (data.validation.raw["is_rand"] == 0).all()


def test_no_outcome_is_a_feature_or_kept(folder):
    data = load_dataset("kuairand", folder)
    outcomes = {"play_time_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter", *kuairand.TASKS}
    assert not outcomes & {feature.source for feature in data.features} and "is_rand" not in data.train.inputs
    assert set(data.table("test").columns) & outcomes == set(kuairand.TASKS)
    tags = data.train.inputs["tag"]
    assert set((tags > 0).sum(1)) == {0, 1, 2}
    missing = data.train.raw["user_id"] % 5 == 0
    np.testing.assert_array_equal(data.train.inputs["onehot_feat4"] == 0, missing)


def test_1k_and_max_rows(tmp_path):
    folder = write(tmp_path / "KuaiRand-1K" / "data", files("1k")).parents[1]
    data = load_dataset("kuairand", folder, variant="1k", max_rows=60)
    assert [len(split) for split in data.splits.values()] == [60, 30, 30]
    assert len(data.entities["video_id"]) == pd.concat([s.raw for s in data.splits.values()])["video_id"].nunique()
    assert len(verify_dataset("kuairand", folder)) == 3
    with pytest.raises(
        FileNotFoundError, match="Expected: log_standard_4_08_to_4_21_pure.csv, .*Licence: CC BY-SA 4.0"
    ):
        load_dataset("kuairand", folder)


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        (
            "log_standard_4_08_to_4_21",
            lambda t: t.drop(columns="long_view"),
            r"must have the columns .*without \['long_view'\]",
        ),
        (
            "log_standard_4_08_to_4_21",
            lambda t: t.assign(is_like=2),
            r"`is_like` must be 0 or 1. Received 200 others in",
        ),
        (
            "log_standard_4_08_to_4_21",
            lambda t: t.assign(date=20220508),
            "must end with 20220421. Received: 200 rows of later",
        ),
        (
            "log_standard_4_22_to_5_08",
            lambda t: t.assign(date=20220508),
            "`validation` must have rows. Received: none in",
        ),
    ],
)
def test_other_files_are_refused(folder, name, change, text):
    path = folder / "kuairand" / "KuaiRand-Pure" / "data" / f"{name}_pure.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=text):
        load_dataset("kuairand", folder)


def test_refuses(folder):
    for options, text in (({"variant": "27k"}, "Received: variant='27k'"), ({"test": "both"}, "Received: test='both'")):
        with pytest.raises(ValueError, match=text):
            load_dataset("kuairand", folder, **options)
