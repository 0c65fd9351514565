"""What all tests share: quiet, single-threaded TensorFlow, one seed a test, and the folder of real data."""

from __future__ import annotations

import gc
import os
import sys

# Read when TensorFlow and matplotlib are first imported, so they are set before any test module is.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get("KERAS_BACKEND") == "jax":
    # Compiling takes nearly all of the time there.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

from pathlib import Path

import pytest

NO_DATA = "MTL_ZOO_DATA is not set"
NOT_TENSORFLOW = "needs the TensorFlow backend"


# What is about the project rather than the package, and what needs several processes or devices.
EXTENDED = (
    *("distribute", "studies", "test_docs.py", "test_doctest.py", "test_recipe.py", "test_site.py"),
    "test_tutorials.py",
)


def pytest_collection_modifyitems(items):
    import keras

    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in EXTENDED:
            item.add_marker(pytest.mark.extended)
    if keras.backend.backend() == "tensorflow":
        return
    for item in items:
        if item.get_closest_marker("tensorflow"):
            item.add_marker(pytest.mark.skip(reason=NOT_TENSORFLOW))


def pytest_collection_finish():
    """What was imported or made stays: searching through it, or making it anew, would take a third of a small test."""
    gc.collect()
    gc.freeze()  # each module ends with a search for garbage
    tensorflow = sys.modules.get("tensorflow.python.pywrap_tfe")
    if tensorflow is not None:
        # A seed, which each test sets, makes TensorFlow forget its kernels, so that those with a random state of their
        # own start anew. Keras draws without such a state.
        tensorflow.TFE_ContextClearCaches = lambda context: None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With MTL_ZOO_REQUIRE_DATA=1 a test that skips for want of real data has failed: no pass by not looking."""
    report = yield
    reason = str(report.longrepr)
    wants_data = "MTL_ZOO_DATA" in reason or (item.get_closest_marker("real_data") and NOT_TENSORFLOW not in reason)
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and wants_data
        and os.environ.get("MTL_ZOO_REQUIRE_DATA") == "1"
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and MTL_ZOO_REQUIRE_DATA=1 says that it must run: {reason}"
    return report


@pytest.fixture(autouse=True)
def seed():
    """The same random numbers for every test, in whatever order they run."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def fresh_keras():
    """Global Keras state (dtype policy, counters of layer names, old graphs) ends with the module that made it."""
    import keras

    yield
    keras.backend.clear_session()


@pytest.fixture
def untraced():
    """What `fit`, `evaluate` and `predict` would trace runs operation by operation.

    For tests of what happens round a training of a few small batches, where tracing takes nearly all of the time.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def data_dir() -> Path:
    """The folder with real data sets."""
    folder = os.environ.get("MTL_ZOO_DATA")
    if not folder:
        pytest.skip(NO_DATA)
    return Path(folder)
