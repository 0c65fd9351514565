"""Which rows negative down-sampling leaves of tables and streams: the same ones, whatever the files and the epoch."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl_zoo import BinaryTask, FeatureTransform, NegativeSampling, Numeric, RegressionTask
from mtl_zoo.features import TableStream
from mtl_zoo.features.sampling import _uniform

ROWS = 3000
CLICK, BUY = BinaryTask("click"), BinaryTask("buy", sample_space="click")
SAMPLING = NegativeSampling("click", rate=0.2, seed=3)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    click = (rng.random(ROWS) < 0.05).astype("float64")
    buy = click * (rng.random(ROWS) < 0.3)
    click[::50] = np.nan
    return pd.DataFrame({"row": np.arange(ROWS, dtype="float64"), "click": click, "buy": buy})


def test_a_share_of_the_negatives_stays_and_all_others(table):
    kept = SAMPLING.sample(table, (CLICK, BUY))
    negative = table["click"] == 0
    assert set(table.index[~negative]) <= set(kept.index)
    share = (kept["click"] == 0).sum() / negative.sum()
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / negative.sum()))
    again = SAMPLING.sample(pa.Table.from_pandas(table), CLICK)
    assert again["row"].to_pylist() == kept["row"].tolist()
    arrays = SAMPLING.sample({"row": table["row"].to_numpy(), "click": table["click"].to_numpy()}, CLICK)
    assert arrays["row"].tolist() == kept["row"].tolist()
    other = NegativeSampling("click", rate=0.2, seed=4).sample(table, CLICK)
    assert other["row"].tolist() != kept["row"].tolist()
    assert NegativeSampling("click", rate=1.0).sample(table, CLICK).equals(table)


def test_negatives_outside_of_the_sample_space_stay(table):
    kept = NegativeSampling("buy", rate=1e-9).sample(table, BUY)
    dropped = table.drop(kept.index)
    assert len(dropped) and (dropped["click"] == 1).all() and (dropped["buy"] == 0).all()
    assert not ((kept["click"] == 1) & (kept["buy"] == 0)).any()


def test_positions_give_uniform_and_independent_numbers():
    u = _uniform(7, 0, 20_000)
    assert (u >= 0).all() and (u < 1).all() and len(np.unique(u)) == len(u)
    assert u.mean() == pytest.approx(0.5, abs=0.01) and abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03
    np.testing.assert_array_equal(_uniform(7, 5000, 10), u[5000:5010])
    assert abs(np.corrcoef(u, _uniform(8, 0, 20_000))[0, 1]) < 0.03


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_stream_has_the_rows_of_the_table_and_goes_on_where_it_was(table, kind, tmp_path):
    transform = FeatureTransform(Numeric("row", normalization=None), (CLICK, BUY)).fit(table)
    for i, part in enumerate(np.array_split(np.arange(ROWS), 2)):
        piece = table.iloc[part]
        if kind == "csv":
            piece.to_csv(tmp_path / f"{i}.csv", index=False)
        else:
            pq.write_table(pa.Table.from_pandas(piece), tmp_path / f"{i}.parquet", row_group_size=400)
    whole = TableStream(tmp_path, transform, shuffle_rows=500)
    stream = whole.sampled(SAMPLING)
    expected = SAMPLING.sample(table, CLICK)["row"].tolist()
    assert stream.rows == len(expected) and whole.rows == ROWS and whole.sampling is None

    def rows(**arguments):
        return [batch["row"].numpy().tolist() for batch, _ in stream.batches(64, **arguments)]

    assert np.concatenate(rows()).tolist() == expected
    assert len(rows()) == stream.num_batches(64)
    shuffled = rows(shuffle=True, seed=1, epoch=2)
    assert sorted(np.concatenate(shuffled).tolist()) == expected and np.concatenate(shuffled).tolist() != expected
    assert rows(shuffle=True, seed=1, epoch=2, start=3) == shuffled[3:]


@pytest.mark.tensorflow
def test_what_cannot_be_sampled_is_refused(table, tmp_path):
    for make, words in (
        (lambda: NegativeSampling("click", rate=0), "`rate` must be a finite number and <= 1 and > 0"),
        (lambda: NegativeSampling("click", rate=0.1, seed=-1), "`seed` must be a whole number"),
        (lambda: NegativeSampling("", rate=0.1), "`task` must be the name of a task"),
        (lambda: SAMPLING.sample(table, BUY), r"must name a task with labels 0 and 1.*one of \['buy'\]"),
        (lambda: NegativeSampling("row", rate=0.1).sample(table, RegressionTask("row")), r"Expected: one of \[\]"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    table = table.assign(click=0.0)
    table.to_parquet(tmp_path / "a.parquet")
    transform = FeatureTransform(Numeric("row"), CLICK).fit(table)
    stream = TableStream(tmp_path / "a.parquet", transform)
    with pytest.raises(ValueError, match="must leave at least one row"):
        stream.sampled(NegativeSampling("click", rate=1e-12))
    with pytest.raises(ValueError, match="a stream with labels and all of its rows. Received: a stream with sampling"):
        stream.sampled(SAMPLING).sampled(SAMPLING)
    inputs = TableStream(tmp_path / "a.parquet", transform, labels=False)
    with pytest.raises(ValueError, match="Received: labels=False"):
        inputs.sampled(SAMPLING)
