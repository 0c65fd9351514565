"""A reservoir of rows of past days."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.continual import ReplayBuffer


def numbers(start, count):
    return pd.DataFrame(
        {"row": np.arange(start, start + count), "text": [f"r{i}" for i in range(start, start + count)]}
    )


def test_days_give_what_a_loop_over_rows_gives():
    buffer, rng = ReplayBuffer(5, seed=3), np.random.default_rng(3)
    kept = {}
    start = 0
    for count in (3, 4, 11, 1, 30):
        buffer.add(numbers(start, count))
        drawn = rng.integers(0, np.arange(start, start + count) + 1)
        for i in range(count):
            place = start + i if start + i < 5 else drawn[i]
            if place < 5:
                kept[place] = start + i
        start += count
        assert buffer.rows["row"].tolist() == [kept[place] for place in sorted(kept)]
        assert buffer.rows["text"].tolist() == [f"r{kept[place]}" for place in sorted(kept)]
    assert buffer.rows_seen == start and len(buffer) == 5


@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_kept_alike(seed):
    buffer = ReplayBuffer(800, seed)
    for day in range(4):
        buffer.add({"row": np.arange(1000 * day, 1000 * day + 1000)})
    # Of each 1000 rows 200 are kept, with a deviation of 11; the middle of a day is no better off than its end.
    kept = buffer.rows["row"].to_numpy()
    assert len(np.unique(kept)) == 800
    for part in (kept // 1000, kept % 1000 // 250):
        assert np.abs(np.bincount(part, minlength=4) - 200).max() < 50


def test_mixed_rows_are_the_days_and_a_share_of_the_past(tmp_path):
    buffer = ReplayBuffer(6, seed=1)
    today = numbers(100, 10)
    assert buffer.mixed(today, 0.5).equals(today)
    buffer.add(numbers(0, 50))
    mixed = buffer.mixed(today, 0.3)
    assert mixed["row"].tolist()[:10] == today["row"].tolist()
    assert len(mixed) == 13 and set(mixed["row"][10:]) <= set(buffer.rows["row"]) and mixed["row"][10:].is_unique
    assert len(buffer.mixed(today, 5.0)) == 16


def test_a_saved_buffer_goes_on_with_the_same_draws(tmp_path):
    one = ReplayBuffer(6, seed=1)
    one.add(numbers(0, 20))
    one.save(tmp_path / "buffer")
    two = ReplayBuffer.load(tmp_path / "buffer")
    for buffer in (one, two):
        buffer.add(numbers(20, 20))
    pd.testing.assert_frame_equal(one.rows, two.rows)
    assert one.mixed(numbers(0, 5), 1.0).equals(two.mixed(numbers(0, 5), 1.0))
    ReplayBuffer(2).save(tmp_path / "buffer")
    assert len(ReplayBuffer.load(tmp_path / "buffer")) == 0


def test_what_is_wrong_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`size` must be a whole number >= 1"):
        ReplayBuffer(0)
    buffer = ReplayBuffer(2)
    buffer.add({"a": [1]})
    with pytest.raises(ValueError, match="`table` must have the columns of the rows before it"):
        buffer.add({"b": [1]})
    with pytest.raises(ValueError, match="`table` must have the columns of the rows before it"):
        buffer.mixed({"a": [1], "b": [1]}, 1)
    with pytest.raises(ValueError, match="`ratio` must be"):
        buffer.mixed({"a": [1]}, -1)
    with pytest.raises(FileNotFoundError, match="must hold a replay buffer"):
        ReplayBuffer.load(tmp_path)
    buffer.save(tmp_path / "buffer")
    meta = tmp_path / "buffer" / "replay.json"
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ValueError, match="format 9, written by a newer version"):
        ReplayBuffer.load(tmp_path / "buffer")
