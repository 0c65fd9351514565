"""Large tables lie in memory pages of 2 MB, and hold the same numbers."""

import mmap
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import mtl_zoo
from mtl_zoo import _backend, _pages

ROWS = 600_000  # of 16 numbers, 38 MB
MOST = ROWS * 64 / 1024 / 2  # kilobytes; where memory is in pieces, the system has no large page for some


def huge_kilobytes(variable) -> int:
    """What of a variable's memory lies in pages of 2 MB, as Linux says."""
    (part,) = _backend.parts_of(variable)
    start, stop = _pages._whole_pages(part)
    found = 0
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            if "-" in line.split()[0] and not line.split()[0].endswith(":"):
                first, last = (int(part, 16) for part in line.split()[0].split("-"))
                inside = first < stop and last > start
            elif inside and line.startswith("AnonHugePages"):
                found += int(line.split()[1])
    return found


def large_model(**options):
    keras.utils.set_random_seed(0)
    return mtl_zoo.SharedBottom(
        [mtl_zoo.Categorical("item", size=ROWS, dim=16)], [mtl_zoo.BinaryTask("click")], bottom_units=(4,), **options
    )


def rows(count: int = 512):
    rng = np.random.default_rng(0)
    return {"item": rng.integers(2, ROWS, count)}, {"click": rng.integers(0, 2, count).astype("float32")}


@pytest.fixture
def advised(monkeypatch):
    """What is asked of the system, on systems too where it would not be."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's variables")
    asked = []
    monkeypatch.setattr(_pages, "may_use_huge_pages", lambda: True)
    monkeypatch.setattr(_pages, "_advise", lambda *given: not asked.append(given))
    return asked


def test_large_tables_and_their_slots_are_asked_for_in_large_pages(advised):
    model = large_model()
    model.compile("auto", metrics=None)
    model.fit(*rows(), verbose=0)
    fresh = [given[2] for given in advised[:6]]
    # A table, filled after its pages were given back, and two slots that are still zeros.
    assert fresh == [mmap.MADV_HUGEPAGE, mmap.MADV_DONTNEED] * 3
    # `fit` asks for all of them again, of which nothing is lost.
    assert {given[2] for given in advised[6:]} == {mmap.MADV_HUGEPAGE, 25} and len(advised) == 12
    for start, stop, _ in advised:
        assert start % 2**21 == stop % 2**21 == 0 and ROWS * 64 - 2**22 < stop - start <= (ROWS + 2) * 64


@pytest.mark.parametrize("optimizer", ["adam", "auto"])
def test_small_tables_and_optimizers_that_walk_tables_are_left_alone(advised, optimizer):
    model = (
        large_model()
        if optimizer == "adam"
        else mtl_zoo.SharedBottom([mtl_zoo.Categorical("item", size=9)], [mtl_zoo.BinaryTask("click")])
    )
    del advised[:]
    model.compile(optimizer, metrics=None)
    inputs, labels = rows()
    model.fit({"item": inputs["item"] % 9}, labels, verbose=0)
    assert not advised


def test_slots_that_do_not_start_from_zero_are_not_given_back(advised):
    model = large_model()
    del advised[:]
    model.compile("lazy_adagrad", metrics=None)
    model.optimizer.build(model.trainable_variables)
    assert [given[2] for given in advised] == [mmap.MADV_HUGEPAGE, 25]
    assert float(keras.ops.min(model.optimizer.variables[-1].value)) >= 0


@pytest.mark.skipif(not _pages.may_use_huge_pages(), reason="this system gives large pages to all or to none")
def test_large_pages_hold_the_same_numbers(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's variables")
    models = []
    for may in (True, False):
        monkeypatch.setattr(_pages, "may_use_huge_pages", lambda may=may: may)
        model = large_model()
        model.compile("auto", metrics=None)
        model.fit(*rows(), verbose=0)
        models.append(model)
    tables = [next(w for w in model.weights if _backend.is_table(w)) for model in models]
    assert huge_kilobytes(tables[0]) > MOST and huge_kilobytes(tables[1]) < MOST / 4
    for mine, plain in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(mine, plain)
    for mine, plain in zip(models[0].optimizer.variables, models[1].optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, plain)
    # What was loaded lies elsewhere, until it is trained.
    models[0].set_weights(models[1].get_weights())
    monkeypatch.setattr(_pages, "may_use_huge_pages", lambda: True)
    models[0].fit(*rows(), verbose=0)
    assert huge_kilobytes(tables[0]) > MOST


def test_large_pages_can_be_turned_off():
    code = "from mtl_zoo import _pages; print(_pages.may_use_huge_pages())"
    env = {**os.environ, "MTL_ZOO_HUGE_PAGES": "0"}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "False\n"
