"""The study of daily training, on a small world."""

import pytest

from benchmarks.studies import continual

pytestmark = pytest.mark.tensorflow


def test_new_ids_come_every_day_and_probabilities_are_true():
    days = continual.world(0, days=3, rows=20_000, new_share=0.05)
    known: set = set()
    for number, (table, truth) in enumerate(days):
        new = set(table["user"]) - known
        assert number == 0 or 0.03 < len(new) / len(known) < 0.07
        known |= new
        for task in continual.TASKS:
            assert abs(table[task].mean() - truth[task].mean()) < 0.015


def test_ways_write_rows_and_ids_stay(tmp_path):
    out = tmp_path / "continual.csv"
    arguments = ["--out", str(out), "--seeds", "0", "--days", "2", "--rows", "600", "--epochs", "1"]
    assert continual.main([*arguments, "--ways", "never", "extended"]) == 0
    table = continual.frame.Rows(out, continual.COLUMNS).read()
    assert len(table) == 2 * 2 * 2 and set(table["way"]) == {"never", "extended"}
    assert (table["moved"].astype(int) == 0).all() and (table["unknown"].astype(float) > 0).all()
