import io

import numpy as np
import pytest
from rich.console import Console

from mtl_zoo import _progress
from mtl_zoo._progress import Bar
from mtl_zoo.evaluation import bootstrap_interval, evaluate


@pytest.fixture
def shown(monkeypatch):
    """What a terminal would show of bars, of which none waits."""
    screen = io.StringIO()
    monkeypatch.setattr(_progress, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    return screen.getvalue


def test_a_bar_waits_for_two_seconds(shown, monkeypatch):
    monkeypatch.setattr(_progress, "QUIET_SECONDS", 2.0)
    clock = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock, 3.0))
    with Bar("Work", 4) as bar:
        bar.advance()
        assert shown() == ""
        monkeypatch.undo()


def test_a_bar_shows_what_is_done(shown):
    with Bar("Work", 4) as bar:
        bar.advance()
        assert bar._bar.tasks[0].completed == 1 and bar._bar.tasks[0].total == 4
        with Bar("Part of it", 9) as part:
            part.advance()
            assert part._bar is None, "one bar at a time"
    assert "Work" in shown() and "Part of it" not in shown()
    with Bar("After it", 2) as bar:
        bar.advance()
    assert "After it" in shown()


def test_it_is_quiet_when_told_or_where_no_terminal_is(shown, capsys):
    with Bar("Work", 4, verbose=0) as bar:
        bar.advance()
    assert shown() == ""
    bootstrap_interval(np.mean, [1.0, 2.0], resamples=5, verbose=0)
    assert shown() == ""
    bootstrap_interval(np.mean, [1.0, 2.0], resamples=5)
    assert "Resamples" in shown()


def test_nothing_is_written_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "QUIET_SECONDS", -1.0)
    with Bar("Work", 4) as bar:
        bar.advance()
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "")


@pytest.mark.tensorflow
def test_evaluate_tells_of_rows(shown):
    import mtl_zoo

    data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    model = mtl_zoo.create_model("shared_bottom", data.features[:2], data.tasks, bottom_units=(2,), tower_units=())
    evaluate(model, data.test, batch_size=25, verbose=0)
    assert shown() == ""
    evaluate(model, data.test, batch_size=25)
    assert "Scoring rows" in shown()
