"""What every model and balancing method computed at a given commit, as numbers in a file that later commits must give.

`python tests/golden_cases.py FILE [CASE ...]` writes the file: logits, losses, gradients, and the weights after 20
steps. Arrays are kept as their largest absolute value, their norm and two projections on fixed random vectors.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from toys import TASKS, build, gradients_of_each, inputs, labels

import mtl_zoo
from mtl_zoo import Categorical, MulticlassTask, Numeric, RegressionTask, Sequence
from mtl_zoo.balancing import DataBased

FILE = Path(__file__).parent / "data" / "golden-0.1.0.json.gz"
# The rows of a batch and the batches of an epoch make 20 steps in 10 epochs.
_BATCH, _EPOCHS = 32, 10
# Defaults that have changed since: what the models had then.
_AS_RELEASED: dict[str, dict[str, float]] = {
    "star": {"normalization_epsilon": 1e-3},
    "dcmt": {"lambda_c": 1.0},
    "escm2_ips": {"lambda_c": 0.5, "lambda_g": 0.5},
    "escm2_dr": {"lambda_c": 0.5, "lambda_g": 0.5},
}
_METHOD_TASKS = (*TASKS[::2], MulticlassTask("effect", classes=3), RegressionTask("watch_time", scale=None))


def all_cases() -> list[str]:
    models = [f"model:{name}" for name in mtl_zoo.list_models()]
    return [*models, *(f"balancing:{name}" for name in mtl_zoo.list_balancing())]


def digest(name: str, array: Any) -> list[float]:
    """[largest |x|, norm, two projections]; the vectors follow from the array's name and size."""
    flat = np.asarray(ops.convert_to_numpy(array), "float64").ravel()
    rng = np.random.default_rng(zlib.crc32(f"{name}{flat.size}".encode()))
    directions = rng.normal(size=(2, flat.size)) / np.sqrt(max(flat.size, 1))
    numbers = [np.abs(flat).max(initial=0.0), np.linalg.norm(flat), *(directions @ flat)]
    return [float(f"{number:.10g}") for number in numbers]


def compute(case: str) -> dict[str, list[float]]:
    """Digests by what they are of."""
    kind, name = case.split(":")
    keras.utils.set_random_seed(5)
    if kind == "model":
        return _of_training(build(name, **_AS_RELEASED.get(name, {})), "sgd", None)
    method = DataBased({"click": 0.5, "like": 0.4, "effect": 0.3, "watch_time": 1.0}) if name == "data_based" else name
    model = mtl_zoo.create_model(
        "mmoe",
        [
            Categorical("user_id", size=30, dim=4),
            Categorical("tags", size=8, dim=3, multi_hot=True, length=3),
            Sequence("history", size=6, dim=4, length=5),
            Numeric("age"),
        ],
        _METHOD_TASKS,
        num_experts=3,
        expert_units=(8, 6),
        tower_units=(5,),
    )
    return _of_training(model, "auto", method)


def _of_training(model: Any, optimizer: str, balancing: Any) -> dict[str, list[float]]:
    x = {name: values for name, values in inputs().items() if name in model.input}
    y = {name: values for name, values in labels().items() if name in mtl_zoo.tasks.label_names(model.tasks)}
    model.compile(keras.optimizers.SGD(0.05) if optimizer == "sgd" else optimizer, balancing=balancing)
    found = {f"logits {name}": z for name, z in model(x).items()}
    losses = model.task_losses(y, model(x))
    found |= {f"loss {name}": loss for name, loss in losses.items()}
    for loss, gradients in gradients_of_each(model, lambda m: m.task_losses(y, m(x))).items():
        found |= {f"gradient {loss} {path}": gradient for path, gradient in gradients.items()}
    history = model.fit(x, y, batch_size=_BATCH, epochs=_EPOCHS, shuffle=False, verbose=0).history
    found |= {f"history {name}": values for name, values in history.items()}
    found |= {f"weight {i} {v.path}": v for i, v in enumerate(model.weights)}
    found |= {f"score {name}": scores for name, scores in model.predict(x, verbose=0).items()}
    return {name: digest(name, array) for name, array in found.items()}


def differences(case: str, expected: dict[str, list[float]], found: dict[str, list[float]]) -> dict[str, float]:
    """What differs by more than 1e-6 of the array's largest value, and by how much of it."""
    wrong = dict.fromkeys(set(expected) ^ set(found), float("inf"))
    for name in set(expected) & set(found):
        a, b = np.array(expected[name]), np.array(found[name])
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            wrong[name] = float("inf")
            continue
        # What is next to nothing, such as the gradient of a bias before a normalisation, is rounding.
        gap = float(np.nanmax(np.abs(a - b), initial=0.0)) / max(np.nan_to_num(a[1]), 1e-2)
        if gap > 1e-6:
            wrong[name] = gap
    return wrong


def read(path: Path = FILE) -> dict[str, dict[str, list[float]]]:
    return json.loads(gzip.decompress(path.read_bytes()))


def main(file: str, *cases: str) -> None:
    path = Path(file)
    kept = read(path) if path.exists() else {}
    for case in cases or all_cases():
        if case not in kept:
            kept[case] = compute(case)
            keras.backend.clear_session()
            path.write_bytes(gzip.compress(json.dumps(kept).encode(), mtime=0))
            sys.stderr.write(f"{case}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
