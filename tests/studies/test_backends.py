"""Processes that take turns, and the study of backends on a small model."""

import pandas as pd
import pytest

from benchmarks.studies import _frame as frame
from benchmarks.studies import backends
from benchmarks.studies._turns import Worker


def test_a_process_answers_in_turn_and_its_end_is_told():
    code = "from benchmarks.studies._turns import serve; serve(lambda word: print('noise') or len(word))"
    worker = Worker(code, {"PYTHONPATH": str(frame.ROOT)})
    assert [worker.ask(word) for word in ("one", "three")] == [3, 5]
    worker.close()
    with pytest.raises(RuntimeError, match="ended with code 3. It said last:\nno more"):
        Worker("import sys; print('no more', file=sys.stderr); raise SystemExit(3)")


@pytest.mark.slow
def test_both_backends_are_timed(tmp_path):
    pytest.importorskip("jax")
    path = tmp_path / "rows.csv"
    backends.main(["--vocabulary", "50", "--rounds", "1", "--steps", "2", "--slow-steps", "1", "--out", str(path)])
    table = pd.read_csv(path)
    assert list(zip(table["backend"], table["optimizer"], strict=True)) == list(backends.CONTESTANTS)
    assert (table["step_ms"] > 0).all() and table["ratio"][0] == 1
