"""Versions in a folder: the newest whole one is loaded beside the old one and takes over, or the old one stays."""

import gc
import os
import time
import weakref

import numpy as np
import pytest
from service_case import Sums, run

from mtl_zoo.service import Settings
from mtl_zoo.service.errors import RequestError
from mtl_zoo.service.metrics import Metrics
from mtl_zoo.service.servables import load_servable
from mtl_zoo.service.versions import Versions, look


def write(folder, number, text="1"):
    path = folder / str(number)
    path.mkdir(exist_ok=True)
    (path / "plus").write_text(text)
    return path


def read(path):
    """A servable that adds what its folder says, or fails as it says."""
    text = (path / "plus").read_text()
    if text == "bad":
        raise ValueError("no model in it")
    return Sums(plus=float(text))


def versions_of(folder, **settings):
    return Versions(folder, Settings(**{"settle": 0.0, **settings}), Metrics(), read)


async def settle(versions):
    """Looks until there is nothing more to load."""
    for _ in range(20):
        if not await versions.step():
            return
    raise AssertionError("it loads for ever")


def served(versions):
    return versions.current.number, versions.current.servable.plus


def states(versions):
    return {v.number: v.state for v in versions.tried}


def test_the_newest_version_answers_and_a_newer_one_takes_over(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        await settle(versions)
        with pytest.raises(RequestError, match="No version is loaded yet") as caught:
            versions.get(None)
        assert caught.value.status == 503
        for number in (2, 10, 9):
            write(tmp_path, number, str(number))
        await settle(versions)
        assert served(versions) == (10, 10.0) and states(versions) == {10: "AVAILABLE"}
        _, old = versions.get(None)
        write(tmp_path, 11, "11")
        await settle(versions)
        assert served(versions) == (11, 11.0) and states(versions) == {11: "AVAILABLE"}
        assert old.plus == 10, "whoever holds the old one can still score with it"
        with pytest.raises(RequestError, match=r"Expected: one of \['11'\]") as caught:
            versions.get("10")
        assert caught.value.status == 404

    run(check())


def test_a_version_that_fails_changes_nothing_and_is_tried_again_once_it_is_another(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        write(tmp_path, 1)
        await settle(versions)
        write(tmp_path, 2, "bad")
        await settle(versions)
        assert served(versions) == (1, 1.0)
        assert versions.failed == {"2": "ValueError: no model in it"}
        status = versions.tried[0].status()
        assert status["state"] == "END" and status["status"]["error_message"] == "ValueError: no model in it"
        assert not await versions.step(), "the same content is not tried again"
        write(tmp_path, 2, "2.5")
        await settle(versions)
        assert served(versions) == (2, 2.5) and versions.failed == {}

    run(check())


def test_with_no_older_one_loaded_the_next_older_that_works_answers(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        write(tmp_path, 1)
        write(tmp_path, 2, "2")
        write(tmp_path, 3, "bad")
        await settle(versions)
        assert served(versions) == (2, 2.0) and set(versions.failed) == {"3"}

    run(check())


def test_a_folder_that_is_still_written_is_left_alone(tmp_path):
    async def check():
        versions = versions_of(tmp_path, settle=0.3)
        path = write(tmp_path, 1)
        assert not await versions.step() and versions.current is None
        time.sleep(0.2)
        (path / "more").write_text("x")  # a copy that goes on; its times may be those of the source
        os.utime(path / "more", (1, 1))
        time.sleep(0.2)
        assert not await versions.step()
        time.sleep(0.2)
        await settle(versions)
        assert served(versions) == (1, 1.0)

    run(check())


def test_a_version_that_is_written_anew_is_loaded_anew_or_stays(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        write(tmp_path, 1)
        write(tmp_path, 2, "2")
        await settle(versions)
        write(tmp_path, 2, "bad")
        await settle(versions)
        assert served(versions) == (2, 2.0), "neither what is wrong nor version 1"
        assert set(versions.failed) == {"2"} and states(versions) == {2: "AVAILABLE"}
        write(tmp_path, 2, "2.25")
        await settle(versions)
        assert served(versions) == (2, 2.25) and versions.failed == {}

    run(check())


def test_taking_a_version_away_goes_back_to_the_one_before(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        write(tmp_path, 1)
        path = write(tmp_path, 2, "2")
        await settle(versions)
        path.rename(tmp_path / "taken-away")
        await settle(versions)
        assert served(versions) == (1, 1.0)
        (tmp_path / "1").rename(tmp_path / "taken-away-too")
        await settle(versions)
        assert served(versions) == (1, 1.0), "nothing else is there: what is loaded goes on"

    run(check())


def test_what_is_unloaded_is_freed(tmp_path):
    async def check():
        versions = versions_of(tmp_path)
        write(tmp_path, 1)
        await settle(versions)
        servable = versions.current.servable
        servable.itself = servable  # as a model is
        old = weakref.ref(servable)
        del servable
        gc.disable()
        try:
            write(tmp_path, 2, "2")
            await settle(versions)
            await versions.step()
            assert old() is None
        finally:
            gc.enable()

    run(check())


def test_older_versions_stay_loaded_as_far_as_asked(tmp_path):
    async def check():
        versions = versions_of(tmp_path, keep=2)
        for number in (1, 2, 3):
            write(tmp_path, number, str(number))
            await settle(versions)
        assert versions.get("2")[1].plus == 2 and versions.get("3")[1].plus == 3 and versions.get(None)[0] == 3
        with pytest.raises(RequestError, match=r"one of \['2', '3'\]"):
            versions.get("1")

    run(check())


@pytest.mark.parametrize("name", ["01", "-1", "1.part", "v1", "1" * 19, "latest"])
def test_other_names_are_no_versions(tmp_path, name):
    write(tmp_path, name)
    assert look(tmp_path) == {}


def test_files_and_empty_folders_are_no_versions(tmp_path):
    (tmp_path / "1").write_text("a file")
    (tmp_path / "2").mkdir()
    assert look(tmp_path) == {}
    assert look(tmp_path / "nowhere") == {}


def test_what_holds_nothing_that_is_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold one of: .*\.keras.*a SavedModel. Received: '1'"):
        load_servable(write(tmp_path, 1))


def test_scores_that_are_not_finite_fail_the_warm_up():
    class Broken(Sums):
        def score(self, arrays):
            return {name: values * np.nan for name, values in super().score(arrays).items()}

    Sums().warm_up()
    with pytest.raises(ValueError, match="must give 1 finite scores of 1 units for 'sum' in its warm-up"):
        Broken().warm_up()
