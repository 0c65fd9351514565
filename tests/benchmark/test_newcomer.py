"""A newcomer at a terminal: a CSV file never seen, wrong inputs on the way, and the leaderboard at the end."""

import sys

import pytest

from benchmarks.studies import newcomer
from benchmarks.studies._terminal import Terminal

# Reads lines as a shell does, in one process, so that what is imported is imported once.
SHELL = """
import shlex, mtl_zoo_cli
while True:
    words = shlex.split(input("$ "))
    try:
        code = mtl_zoo_cli.main(words[1:])
    except SystemExit as stop:
        code = stop.code
    print("exit code", code)
"""
TINY = "--batch-size 256 --epochs 1 --models shared_bottom esmm --baselines constant,popularity --out results/"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    newcomer.visits(600).to_csv(folder / "visits.csv", index=False)
    environ = {"PYTHONPATH": str(newcomer.frame.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    made = Terminal([sys.executable, "-u", "-c", SHELL], "$ ", folder, environ)
    yield made, folder
    made.close()


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("--table visit.csv --task click", ("must be a table, or a file that is there. Received: visit.csv",)),
        ("--table visits.csv --task clicked", ("Received: 'clicked' (did you mean 'click'?)", "'visitor_id'")),
        ("--table visits.csv --task city:binary", ("`city`", "'city'", "0 and 1")),
        ("--table visits.csv --task price:binary", ("`price`", "must be 0 or 1")),
        ("--table visits.csv --task booking@clck", ("clck",)),
        ("--table visits.csv --task click:yesno", ("must be of a known kind", "regression")),
        ("--table visits.csv --task click --models mmoe plee", ("model='plee' (did you mean 'ple'?)", "mmoe")),
        ("--table visits.csv --task click --baselines boost", ("`--baselines` must be all, none or names among",)),
        ("--table visits.csv --task click --split group", ("`--group` must name the column",)),
        ("--table visits.csv --task click --time day", ("`time` must name columns", "'days_ahead'")),
    ],
)
def test_wrong_inputs_are_named_before_anything_is_trained(terminal, words, answers):
    shell, folder = terminal
    said = " ".join(shell.type(f"mtl-zoo bench run {words} --out wrong").split())
    assert said.endswith("exit code 2") and "error:" in said and "Traceback" not in said
    assert all(answer in said for answer in answers), said
    assert not (folder / "wrong").exists()


def test_the_leaderboard_comes_and_the_same_command_goes_on(terminal):
    shell, folder = terminal
    line = f"mtl-zoo bench run --table visits.csv --task click --task booking@click {TINY}"
    said = shell.type(line)
    assert said.endswith("exit code 0") and "4 finished, 0 skipped, 0 failed" in said and "Traceback" not in said
    for text in ("click AUC", "booking|click AUC", "popularity (baseline)", "esmm", "95 %", "left", "drawn at random"):
        assert text in said
    assert sorted(path.name for path in (folder / "results").iterdir()) == [
        "visits", "visits.csv", "visits.html", "visits.md",
    ]  # fmt: skip
    assert "0 finished, 4 skipped, 0 failed" in shell.type(line)
    assert shell.transcript.count("$ mtl-zoo bench run") >= 2 and " min]" in shell.transcript
