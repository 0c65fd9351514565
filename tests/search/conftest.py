import dataclasses

import pytest

from mtl_zoo.datasets import load_dataset
from mtl_zoo.search.tune import _Trainer


class Untouchable:
    """Test rows that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"a search asked the test rows for {name}")


@pytest.fixture(scope="session")
def data():
    made = load_dataset("synthetic_funnel", size=1000)
    return dataclasses.replace(made, features=made.features[2:5], test=Untouchable())


@pytest.fixture
def formula(monkeypatch):
    """Trials are values of a formula of what was drawn, in place of a model's; the calls are kept."""
    calls = []

    def give(function):
        def train(self, trial, optuna):
            values = {name: domain.suggest(trial, name) for name, domain in self.space.items()}
            calls.append(values)
            found = function(values)
            return list(found) if isinstance(found, tuple) else [found]

        monkeypatch.setattr(_Trainer, "train", train)
        return calls

    return give
