"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest
from toys import sample_of

import mtl_zoo

MODULES = [
    "mtl_zoo",
    *(m.name for m in pkgutil.walk_packages(mtl_zoo.__path__, "mtl_zoo.") if "__main__" not in m.name),
]
# Their examples train for long.
TRAIN = ("benchmark.pareto", "balancing.moco", "evaluation.balancing_report", "training.balancing_callback")
LONG = [
    f"mtl_zoo.{name}"
    for name in (*TRAIN, "training.callbacks", "training.gate_callback", "search.tune", "search.result")
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of(MODULES, [name for name in MODULES if name not in LONG]))
def test_examples_run(name, tmp_path, monkeypatch, request):
    if name not in (*LONG, "mtl_zoo.evaluation.calibrate"):  # whose many steps are worth a trace
        request.getfixturevalue("untraced")
    monkeypatch.chdir(tmp_path)  # examples may write files
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    outcome = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert outcome.failed == 0, (
        f"{outcome.failed} of {outcome.attempted} examples in {name} failed; see the output above"
    )
