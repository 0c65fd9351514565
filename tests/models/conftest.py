"""On JAX every operation of a new shape is compiled: there only some models' own tests run by default."""

import keras
import pytest

ON_JAX = (
    "test_by_row",
    "test_compile",
    "test_single_task",
    "test_shared_bottom",
    "test_cross_stitch",
    "test_mmoe",
    "test_ple",
    "test_esmm",
)


def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "tensorflow":
        return
    for item in items:
        if item.path.parent.name == "models" and item.path.stem not in ON_JAX:
            item.add_marker(pytest.mark.slow)
