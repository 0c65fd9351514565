"""Splits of one's own table: whole groups, time, folds; and what a leaderboard says of folds."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mtl_zoo_cli
from mtl_zoo.benchmark.config import configs_from_dict
from mtl_zoo.benchmark.leaderboard import leaderboard
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.summary import fold_ratio
from mtl_zoo.datasets import Dataset
from mtl_zoo.evaluation import bootstrap_auc_difference, fold_interval

ROWS = 300


def table():
    rng = np.random.default_rng(0)
    made = pd.DataFrame(
        {"user_id": rng.integers(0, 40, ROWS), "day": rng.permutation(ROWS), "x": rng.normal(size=ROWS)}
    )
    return made.assign(click=(rng.random(ROWS) < 1 / (1 + np.exp(-made["x"]))).astype(int), row=np.arange(ROWS))


def parts(**options):
    data = Dataset.from_table(table(), tasks=["click"], exclude=["row"], **options)
    return data, {name: split.raw for name, split in data.splits.items()}


@pytest.mark.parametrize("folds", [None, 4])
def test_groups_stay_whole(folds):
    tested = []
    for fold in range(folds or 1):
        data, raw = parts(together="user_id", **({} if folds is None else {"folds": folds, "fold": fold}))
        users = [set(rows["user_id"]) for rows in raw.values()]
        assert not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2]) and all(users)
        assert sum(map(len, raw.values())) == ROWS and "'user_id'" in data.split_rule
        tested += list(raw["test"]["row"])
    assert folds is None or sorted(tested) == list(range(ROWS))


@pytest.mark.parametrize("folds", [None, 3])
def test_time_goes_forward(folds):
    ends = []
    for fold in range(folds or 1):
        data, raw = parts(time="day", **({} if folds is None else {"folds": folds, "fold": fold}))
        days = [rows["day"] for rows in raw.values()]
        assert days[0].max() < days[1].min() and days[1].max() < days[2].min()
        assert "day" not in {feature.name for feature in data.features}
        ends.append(days[2].max())
    assert ends == sorted(ends) and ends[-1] == ROWS - 1


def test_random_folds_test_each_row_once_and_are_one_data_set():
    found = [parts(folds=5, fold=fold) for fold in range(5)]
    tested = np.concatenate([raw["test"]["row"] for _, raw in found])
    assert sorted(tested) == list(range(ROWS))
    assert len({(data.version, data.split_rule) for data, _ in found}) == 1
    assert [data.options["fold"] for data, _ in found] == list(range(5))
    assert "folds" not in parts()[0].options and "together" not in parts()[0].options  # earlier rows keep their keys


def test_wrong_splits_are_named():
    for options, message in (
        ({"together": "usr_id"}, r"`together` must name columns .*'usr_id' \(did you mean 'user_id'\?\)"),
        ({"together": "user_id", "time": "day"}, "`together` must be None where `time` says the split"),
        ({"folds": 1}, "`folds` must be a whole number >= 2"),
        ({"folds": 3, "fold": 3}, "`fold` must be a whole number <= 2"),
        ({"folds": 60, "together": "user_id"}, "`together` must have at least 120 different values for 60 folds"),
    ):
        with pytest.raises(ValueError, match=message):
            parts(**options)
    late = table().assign(day=lambda t: t["day"].where(t["day"] > 0))
    with pytest.raises(ValueError, match="`time` must be known of every row. Received: 1 missing"):
        Dataset.from_table(late, tasks=["click"], time="day")


def test_fold_interval_is_the_corrected_t_interval():
    d = np.array([0.01, 0.02, 0.015, 0.03])
    found = fold_interval(d, ratio=1 / 3)
    reach = stats.t.ppf(0.975, 3) * np.sqrt((1 / 4 + 1 / 3) * d.var(ddof=1))
    np.testing.assert_allclose(found, [d.mean(), d.mean() - reach, d.mean() + reach])
    plain = fold_interval(d, ratio=0)
    np.testing.assert_allclose(plain[1:], stats.t.interval(0.95, 3, d.mean(), stats.sem(d)))
    assert plain.high < found.high
    with pytest.raises(ValueError, match="`differences` must be finite, of at least 2 folds"):
        fold_interval([0.1], ratio=0)


def test_a_bootstrap_over_runs_is_of_the_mean_auc():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    a, b = rng.normal(size=(200, 2)), y[:, None] + rng.normal(size=(200, 3))
    found = bootstrap_auc_difference(y, a, b, resamples=50)
    ones = [bootstrap_auc_difference(y, a[:, 0], b[:, run], resamples=2).auc_b for run in range(3)]
    np.testing.assert_allclose(found.auc_b, np.mean(ones))
    same = bootstrap_auc_difference(y, a[:, [0, 0]], b[:, [1, 1]], resamples=50)
    np.testing.assert_allclose(same, bootstrap_auc_difference(y, a[:, 0], b[:, 1], resamples=50))


@pytest.mark.extended
def test_folds_of_a_file_are_runs_of_one_section(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table().to_csv("visits.csv", index=False)
    words = "--table visits.csv --task click --models constant popularity --baselines none --folds 3 --folds-by group"
    assert mtl_zoo_cli.main(["bench", "run", *words.split(), "--group", "user_id", "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert "6 finished" in shown.err and "3 folds" in shown.out
    rows = ResultStore("out/visits.csv").read()
    (section,) = leaderboard(rows)
    assert section.folds == 3 and section.ratio == 1 / 2 and {line.seeds for line in section.lines} == {3}
    assert list(section.rows.values()) == [ROWS]  # each row is tested once
    (other,) = [line for line in section.lines if line is not section.baseline]
    ((column, cell),) = other.cells.items()
    own = dict(zip(cell.runs, cell.values, strict=True))
    base = dict(zip(section.baseline.cells[column].runs, section.baseline.cells[column].values, strict=True))
    expected = fold_interval([own[run] - base[run] for run in sorted(own)], 1 / 2)
    np.testing.assert_allclose((cell.gain, *cell.interval), expected, atol=1e-12)
    assert (tmp_path / "out" / "visits.html").exists() and (tmp_path / "out" / "visits.md").exists()


def test_folds_come_one_after_another():
    configs = configs_from_dict({"dataset": "a.csv", "models": ["mmoe", "ple"], "baselines": [], "folds": 2})
    assert [(config.dataset_options["fold"], config.model) for config in configs] == [
        (0, "mmoe"), (0, "ple"), (1, "mmoe"), (1, "ple"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`folds` must be a whole number >= 2"):
        configs_from_dict({"dataset": "a.csv", "models": ["mmoe"], "folds": 1})


def test_features_may_be_given_as_a_file_has_them():
    plain, _ = parts()
    data, _ = parts(features=[{"kind": "numeric", "name": "user_id", "normalization": "log"}])
    kinds = {feature.name: feature.kind for feature in data.features}
    assert kinds["user_id"] == "numeric" != {feature.name: feature.kind for feature in plain.features}["user_id"]
    assert data.options["features"][0]["normalization"] == "log" and "features" not in plain.options


def test_how_much_folds_share_depends_on_how_they_are_cut():
    def ratio(**options):
        return fold_ratio({"dataset_options": json.dumps(options)})

    assert ratio(folds=5) == ratio(folds=5, time=None) == 1 / 4 and ratio(seed=0) == 0.0
    assert ratio(folds=3, time="day") == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
