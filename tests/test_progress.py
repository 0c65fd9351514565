import io
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mtl_zoo import Categorical, FeatureTransform, _progress
from mtl_zoo._progress import Bar
from mtl_zoo.evaluation import bootstrap_interval, evaluate
from mtl_zoo.explanations import permutation_importance
from mtl_zoo.recommend import ExactIndex
from mtl_zoo.training import generate_rows


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


def test_a_bar_appears_by_itself_where_a_step_is_long(shown, monkeypatch):
    monkeypatch.setattr(_progress, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(_progress, "_has_terminal", lambda: True)
    with Bar("One long step") as bar:
        bar._timer.join(20)
        assert bar._bar is not None
    assert "One long step" in shown() and bar._bar is None


def test_a_bar_that_has_ended_does_not_appear(shown, monkeypatch):
    monkeypatch.setattr(_progress, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(_progress, "_has_terminal", lambda: True)
    with Bar("Short work") as bar:
        pass
    bar._timer.join(20)  # it was called off
    bar._show()
    assert shown() == "" and bar._bar is None


def test_encode_tells_of_features(shown):
    table = {"city": ["Rome", "Oslo"], "shop": ["a", "b"]}
    transform = FeatureTransform([Categorical("city"), Categorical("shop")]).fit(table, verbose=0)
    transform.encode(table, verbose=0)
    transform.encode_quietly(table)
    assert shown() == ""
    transform.encode(table)
    assert "Encoding features" in shown()


def test_an_index_tells_that_it_is_built(shown, monkeypatch):
    class Slow(ExactIndex):
        def _rebuild(self):
            super()._rebuild()
            timer = Bar._open and Bar._open._timer
            if timer:
                timer.join(20)

    monkeypatch.setattr(_progress, "_has_terminal", lambda: True)
    Slow().build([1, 2], np.eye(2), verbose=0)
    assert shown() == ""
    Slow().build([1, 2], np.eye(2))
    assert "Building the index" in shown()


class Told(Bar):
    """A bar that keeps what was shown, and of what."""

    bars: ClassVar[list] = []

    def __init__(self, text, total=None, verbose=1):
        super().__init__(text, total, 0)
        Told.bars.append((text, verbose))


@pytest.mark.tensorflow
@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("name", ["explain", "permutation_importance", "generate_rows"])
def test_long_work_tells_that_it_goes_on(name, verbose, monkeypatch):
    import mtl_zoo
    from mtl_zoo.training import WGANGP

    table = pd.DataFrame({"age": [20, 30, 40, 50], "click": [0, 1, 0, 0]})
    transform = FeatureTransform(mtl_zoo.Numeric("age"), mtl_zoo.BinaryTask("click")).fit(table)
    model = mtl_zoo.create_model("shared_bottom", transform, bottom_units=(2,), tower_units=())
    few = WGANGP(steps=1, batch_size=4, units=(2,), critic_steps=1)
    work = {
        "explain": ("explanations", lambda: mtl_zoo.explain(model, table, verbose=verbose)),
        "permutation_importance": (
            "explanations",
            lambda: permutation_importance(model, table, repeats=1, resamples=0, verbose=verbose),
        ),
        "generate_rows": (
            "training",
            lambda: generate_rows(table, transform, labels={"click": 1}, rows=2, method=few, verbose=verbose),
        ),
    }
    folder, call = work[name]
    file = "importance" if name == "permutation_importance" else name
    monkeypatch.setattr(sys.modules[f"mtl_zoo.{folder}.{file}"], "Bar", Told)
    monkeypatch.setattr(sys.modules["mtl_zoo.features._fitted"], "Bar", Told)
    monkeypatch.setattr(Told, "bars", [])
    call()
    texts = {"explain": "Explaining rows", "permutation_importance": "Features", "generate_rows": "Generating rows"}
    assert (texts[name], verbose) in Told.bars
    assert {asked for _, asked in Told.bars} == {verbose}, "what encodes within it is as quiet"


@pytest.mark.tensorflow
def test_distill_tells_of_the_teacher(shown):
    import mtl_zoo
    from mtl_zoo.training import distill

    features, tasks = [mtl_zoo.Numeric("age")], [mtl_zoo.BinaryTask("click")]
    teacher, student = (
        mtl_zoo.create_model("shared_bottom", features, tasks, bottom_units=(2,), tower_units=()) for _ in range(2)
    )
    student.compile("adam", run_eagerly=True)
    age = np.linspace(-1, 1, 5000, dtype="float32")
    arrays = {"age": age}, {"click": 1.0 * (age > 0)}
    distill(teacher, student, *arrays, batch_size=5000, verbose=0)
    assert shown() == ""
    distill(teacher, student, *arrays, batch_size=5000, verbose=2)
    assert "Scoring rows" in shown()
