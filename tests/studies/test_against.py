import pandas as pd
import pytest

from benchmarks.studies import _frame as frame
from benchmarks.studies import _work, against


@pytest.mark.tensorflow
@pytest.mark.extended
def test_a_checkout_is_timed_against_another(tmp_path):
    out = tmp_path / "against.csv"
    cases = ["model esmm", "balancing data_based"]
    command = ["--base", str(frame.ROOT), "--rounds", "2", "--cases", *cases, "--out", str(out)]
    assert against.main(command) == 0 and against.main(command) == 0
    table = pd.read_csv(out)
    assert list(table["case"]) == cases and (table[["base_seconds", "seconds"]] > 0).all(axis=None)
    assert (table["ratio_low"] <= table["ratio"]).all() and (table["ratio"] <= table["ratio_high"]).all()


@pytest.mark.tensorflow
def test_a_method_gets_what_it_asks_for(monkeypatch):
    monkeypatch.setattr(_work, "_STEP_ROWS", 64)
    _work._inputs.cache_clear()
    try:
        history = _work.fit_of("balancing", "data_based")()
    finally:
        _work._inputs.cache_clear()
    assert history.history["loss"][0] > 0
