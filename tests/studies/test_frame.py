"""What the studies stand on: processes of their own, rows that are kept, options by their defaults."""

import os

import pandas as pd
import pytest

from benchmarks.studies import _frame as frame


def add(a, b):
    return {"sum": a + b, "process": os.getpid(), "task": frame.task_of_process()["type"], "leads": frame.leads()}


def fail(word):
    raise KeyError(word)


def test_a_function_is_called_in_another_process_and_its_failure_is_told():
    found, done = frame.run(add, 1, 2)
    assert (found["sum"], found["leads"], done.attempts) == (3, True, 1) and found["process"] != os.getpid()
    with pytest.raises(RuntimeError, match=r"worker-0: exit code 1: (?s:.*)KeyError: 'no such thing'"):
        frame.run(fail, "no such thing")


@pytest.mark.slow
def test_the_chief_answers_for_a_cluster_and_logs_are_kept(tmp_path):
    found, _ = frame.run(add, "a", "b", workers=1, servers=1, logs=tmp_path / "logs")
    assert (found["sum"], found["task"]) == ("ab", "chief")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"chief-0.log", "worker-0.log", "ps-0.log"}


def test_rows_are_added_and_found_again(tmp_path):
    rows = frame.Rows(tmp_path / "new" / "rows.csv", ("model", "times", "value"))
    assert not rows.has(model="mmoe")
    rows.add({"model": "mmoe", "times": 2, "value": 0.5})
    rows.add({"model": "ple", "times": 2, "error": "it broke", "unknown": 1})
    assert rows.has(model="mmoe", times=2) and not rows.has(model="mmoe", times=3)
    table = rows.read()
    assert list(table["error"]) == ["", "it broke"] and "python" in table["versions"][0]


def test_options_come_from_their_defaults(tmp_path):
    defaults = {"some_sizes": (0.5,), "steps": 3, "quick": False, "core": int}
    parser = frame.parser("What it does.\n\nMore.", defaults)
    args = parser.parse_args(["--out", "x.csv"])
    assert (args.some_sizes, args.steps, args.quick, args.core) == ([0.5], 3, False, None)
    args = parser.parse_args("--some-sizes 1 2 --steps 4 --quick --core 1 --out x.csv".split())
    assert (args.some_sizes, args.steps, args.quick, args.core) == ([1.0, 2.0], 4, True, 1)


def test_ratios_are_those_of_neighbours_in_time(tmp_path, capsys):
    found = frame.ratios([2.0, 6.0, 3.0], [1.0, 2.0, 2.0])
    assert found == {"ratio": 2.0, "ratio_low": 1.5, "ratio_high": 3.0}
    table = frame.write(tmp_path / "a" / "rows.csv", [{"model": "mmoe", **found}])
    assert list(pd.read_csv(tmp_path / "a" / "rows.csv")["ratio_high"]) == [3.0]
    frame.show(table, ("model", "ratio", "absent"))
    assert "2.000 (1.500-3.000)" in capsys.readouterr().out
