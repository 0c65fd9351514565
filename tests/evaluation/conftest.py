import types

import numpy as np
import pytest

from mtl_zoo import BinaryTask, MulticlassTask, RegressionTask
from mtl_zoo.datasets import Split

CLICK = BinaryTask("click")
CONVERSION = BinaryTask("conversion", sample_space="click")


def output(name, task, space="impressions"):
    return types.SimpleNamespace(name=name, kind=task.kind, task=task, units=task.units, space=space)


class StandInModel:
    """Answers what `evaluate` asks of a model, with scores given by hand: one output a task, and a funnel's product."""

    def __init__(self, tasks, scores, funnel=False):
        self.tasks, self.scores = tuple(tasks), scores
        self.outputs_info = tuple(output(t.name, t, t.sample_space or "impressions") for t in tasks)
        self.funnel = funnel
        if funnel:
            self.outputs_info += (output("click_and_conversion", tasks[1]),)

    def predict(self, inputs, batch_size=None, verbose="auto", callbacks=None):
        return {name: np.asarray(score) for name, score in self.scores.items()}

    def targets(self, labels):
        found = {}
        for task in self.tasks:
            label = labels[task.name]
            mask = np.isfinite(label)
            if task.sample_space is not None:
                mask = mask & (labels[task.sample_space] == 1)
            found[task.name] = (np.where(mask, label, 0.0), mask.astype("float32"))
        if self.funnel:
            both = labels["click"] * np.nan_to_num(labels["conversion"])
            found["click_and_conversion"] = (both, np.ones_like(both))
        return found


@pytest.fixture
def stand_in():
    return StandInModel


@pytest.fixture
def funnel():
    """(split, scores, (click, conversion)): 400 impressions with known probabilities."""
    rng = np.random.default_rng(0)
    q, r = rng.beta(2, 3, 400), rng.beta(2, 2, 400)
    click = (rng.random(400) < q).astype("float32")
    conversion = (click * (rng.random(400) < r)).astype("float32")
    noisy = {"click": q * rng.uniform(0.5, 1, 400), "conversion": r * rng.uniform(0.5, 1, 400)}
    noisy["click_and_conversion"] = noisy["click"] * noisy["conversion"]
    split = Split(
        inputs={"x": np.arange(400)},
        labels={"click": click, "conversion": conversion},
        groups={"user_id": rng.integers(0, 30, 400)},
        truth={"click": q, "conversion": r, "click_and_conversion": q * r},
    )
    return split, {k: v.astype("float32")[:, None] for k, v in noisy.items()}, (CLICK, CONVERSION)


@pytest.fixture
def mixed_tasks():
    return BinaryTask("like"), MulticlassTask("genre", classes=3), RegressionTask("rating")
