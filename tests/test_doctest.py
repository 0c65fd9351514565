"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import mtl_zoo

MODULES = [
    "mtl_zoo",
    *(m.name for m in pkgutil.walk_packages(mtl_zoo.__path__, "mtl_zoo.") if "__main__" not in m.name),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    outcome = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert outcome.failed == 0, (
        f"{outcome.failed} of {outcome.attempted} examples in {name} failed; see the output above"
    )
