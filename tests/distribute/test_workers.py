"""Several workers train to the weights of one process: the same rows, metrics and predictions.

A worker is a process of its own; `cluster_case.py` is what they run.
"""

import json
import sys
from pathlib import Path

import cluster_case
import numpy as np
import pytest

from mtl_zoo.training import launch

pytestmark = pytest.mark.tensorflow
SCRIPT = Path(cluster_case.__file__)


def run_cluster(folder, case, workers=2):
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps(case)]
    root = {"PYTHONPATH": str(SCRIPT.parents[1])}
    done = launch(command, workers=workers, logs=folder, timeout=300, environment=root)
    assert done.code == 0, (done, (folder / f"{done.failures[-1].split(':')[0]}.log").read_text()[-3000:])
    return [dict(np.load(folder / f"{i}.npz")) for i in range(workers)]


def one_process(case):
    import tensorflow as tf

    return cluster_case.run(tf.distribute.get_strategy(), case)


def compare(folder, case, workers=2):
    one = one_process(case)
    found = run_cluster(folder, case, workers)
    for worker in found:
        assert not cluster_case.differences(one, worker)


def test_two_workers_equal_one_process(tmp_path):
    # The last batch of 65 rows has one row: a worker has none. Tables have sparse gradients.
    compare(tmp_path, {"optimizer": "auto"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"optimizer": "sgd", "steps": 3, "balancing": "pcgrad", "norm": "batch"},
        {"accumulate": 2, "steps": 3},
        {"optimizer": "row_wise_adagrad", "balancing": "famo"},
        {"optimizer": "auto", "balancing": "grad_drop"},
    ],
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_two_workers_equal_one_process_with_everything(tmp_path, case):
    compare(tmp_path, case)


@pytest.mark.slow
def test_four_workers_equal_one_process(tmp_path):
    compare(tmp_path, {"balancing": "mgda", "rows": 67}, workers=4)
