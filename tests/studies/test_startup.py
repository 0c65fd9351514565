import pandas as pd
import pytest

from benchmarks.studies import startup


def test_a_row_for_each_case(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "CODE", {"python": "", startup.BASE: "sum(range(10**6))"})
    out = tmp_path / "startup.csv"
    assert startup.main(["--rounds", "2", "--cases", "python", "mtl-zoo --version", "--out", str(out)]) == 0
    rows = pd.read_csv(out).set_index("case")
    assert list(rows.index) == ["python", startup.BASE, "mtl-zoo --version"]
    assert (rows["cpu_seconds"] > 0).all() and rows.loc[startup.BASE, "ratio"] == 1
    with pytest.raises(ValueError, match=r"`--cases` must be of .* Received: \['cobol'\]"):
        startup.main(["--cases", "cobol", "--out", str(out)])
