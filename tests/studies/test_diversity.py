import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import diversity
from benchmarks.studies.diversity import VECTORS, compare, picture
from mtl_zoo.recommend import Candidates


def lists(users=20, films=30):
    rng = np.random.default_rng(0)
    made = []
    for _ in range(users):
        score = np.sort(rng.random(films))[::-1]
        columns = {VECTORS: rng.integers(0, 2, (films, 4)) * 1.0, "hit": (rng.random(films) < score) * 1.0}
        made.append(Candidates(np.arange(films), score, columns))
    return made


def test_rows_are_measured_against_the_order_without_re_ranking():
    found = pd.DataFrame(compare(lists(), [0.2, 0.9], k=5, resamples=50, seed=0)).set_index(["stage", "trade_off"])
    assert set(found.index.get_level_values("stage")) == {"none", *diversity.STAGES}
    plain = np.mean([one.numbers("hit")[:5].mean() for one in lists()])
    assert found.loc[("none", 1.0), "precision"] == pytest.approx(plain, abs=1e-5)
    assert found.loc[("none", 1.0), "difference"] == 0
    for stage in diversity.STAGES:
        assert found.loc[(stage, 0.2), "diversity"] > found.loc[("none", 1.0), "diversity"]
        assert found.loc[(stage, 0.2), "score"] < found.loc[("none", 1.0), "score"]
        gap = found.loc[(stage, 0.2), "precision"] - plain
        assert found.loc[(stage, 0.2), "difference"] == pytest.approx(gap, abs=2e-5)
    figure = picture(found.reset_index().assign(seed=0), 5)
    assert figure.axes[0].get_ylabel() == "precision@5 of likes" and len(figure.axes[0].lines) == 3


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.tensorflow
def test_the_command_writes_rows_and_a_picture(data_dir, tmp_path):
    out = tmp_path / "diversity.csv"
    options = ["--seeds", "1", "--epochs", "1", "--users", "5", "--trade-offs", "0.5", "--resamples", "10"]
    assert diversity.main([*options, "--model", "shared_bottom", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert list(table["stage"]) == ["none", "MMR", "DPP"] and set(table["users"]) == {5}
    assert out.with_suffix(".png").stat().st_size > 5000
