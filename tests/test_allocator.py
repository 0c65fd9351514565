"""The C library's allocator keeps the memory of freed tensors, although TensorFlow sets it otherwise."""

import os
import subprocess
import sys
import textwrap

import pytest

# Says whether a block of 1 MB is mapped by itself, after batches from a generator were read.
SCRIPT = textwrap.dedent(
    """
    import ctypes, sys
    import keras, numpy as np
    from mtl_zoo.features import make_batches

    class MallInfo(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype, libc.malloc.restype = MallInfo, ctypes.c_void_p
    if len(sys.argv) > 1:
        from mtl_zoo.training import keep_freed_memory
        keep_freed_memory(sys.argv[1] == "on")
    for _ in range(2):
        assert len(list(make_batches({"x": np.arange(5)}, batch_size=2))) == 3
    before = libc.mallinfo2().hblks
    blocks = [libc.malloc(ctypes.c_size_t(2**20)) for _ in range(8)]
    assert all(blocks)
    print(libc.mallinfo2().hblks - before)
    """
)


def mapped_blocks(*arguments, **env) -> int:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env={**cleared, **env}, capture_output=True, text=True
    )
    if "mallinfo2" in done.stderr:
        pytest.skip("the C library is not glibc, or older than 2.33")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is set")


@pytest.mark.extended
@pytest.mark.parametrize(
    "env",
    [
        pytest.param({}, id="plain"),
        pytest.param({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, id="huge_pages", marks=pytest.mark.slow),
    ],
)
def test_tensors_take_memory_that_was_freed(env):
    assert mapped_blocks(**env) == 0


@pytest.mark.extended
@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"MALLOC_MMAP_THRESHOLD_": "131072"}, id="variable", marks=pytest.mark.slow),
        pytest.param({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, id="tunable"),
    ],
)
def test_a_setting_of_the_users_own_is_left_alone(env):
    assert mapped_blocks(**env) == 8


# fault 38
@pytest.mark.extended
@pytest.mark.parametrize(
    ("arguments", "env", "mapped"),
    [((), {"MTL_ZOO_KEEP_FREED_MEMORY": "0"}, 8), (("off",), {}, 8), (("on",), {"MTL_ZOO_KEEP_FREED_MEMORY": "0"}, 0)],
    ids=["environment", "function", "both"],
)
def test_it_can_be_turned_off(arguments, env, mapped):
    assert mapped_blocks(*arguments, **env) == mapped
