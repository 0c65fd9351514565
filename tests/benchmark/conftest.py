import pytest

from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.datasets import load_dataset


@pytest.fixture(scope="session")
def small():
    """A few rows and features of the embedded data, so that a run takes a second or two."""
    data = load_dataset("synthetic_funnel", size="small")
    data.features = data.features[2:5]
    data.train, data.validation, data.test = (split.take(2000) for split in (data.train, data.validation, data.test))
    for split in data.splits.values():
        split.inputs = {feature.name: split.inputs[feature.name] for feature in data.features}
    return data


@pytest.fixture
def config():
    return RunConfig(
        "synthetic_funnel",
        "shared_bottom",
        {"bottom_units": (8,), "tower_units": (4,)},
        {"size": "small"},
        seeds=1,
        epochs=1,
        batch_size=500,
    )


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results" / "runs.csv")
