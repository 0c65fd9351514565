"""mtl_zoo's side of the speed comparison: a worker of speed.py.

`fit` is the public `fit` over a dict of arrays. `products` runs the matrix products of a step alone, forward and
backward, as TensorFlow does them: what no step on this machine can be faster than.
"""

from __future__ import annotations

import itertools
import os
import time

import numpy as np

from benchmarks.peers.speed_protocol import Data, serve


class Fit:
    def __init__(self, case: dict, data: Data, settings: dict):
        from mtl_zoo import BinaryTask, Categorical, MMoE, Numeric, SharedBottom

        if settings.get("allocator") == "tensorflow":
            os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"  # a user's own setting, which the zoo leaves alone

        # Ids 0 and 1 stand for missing and unknown: a table has two rows more than the vocabulary, as the peers' have.
        features = [Categorical(name, size=case["table_rows"] - 2, dim=case["dim"]) for name in data.ids]
        features += [Numeric(name, normalization=None) for name in data.numbers]
        tasks, units, towers = [BinaryTask(name) for name in case["tasks"]], case["expert_units"], case["tower_units"]
        if case["model"] == "shared_bottom":
            self.model = SharedBottom(features, tasks, bottom_units=tuple(units), tower_units=tuple(towers))
        else:
            sizes = {"expert_units": tuple(units), "tower_units": tuple(towers)}
            self.model = MMoE(features, tasks, num_experts=case["experts"], **sizes)
        # The peers' fit computes no metric either.
        self.model.compile(settings["optimizer"], metrics=None)
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        if not np.isclose(rate, case["learning_rate"]):
            raise ValueError(f"`learning_rate` must be that of the case, {case['learning_rate']}. Received: {rate}")
        self.parameters = self.model.count_params()
        self.data, self.case = data, case

    def turn(self, rows: int) -> tuple[float, float]:
        inputs, labels = self.data.first(rows)
        started = time.perf_counter()
        history = self.model.fit(inputs, labels, batch_size=self.case["batch"], shuffle=True, epochs=1, verbose=0)
        return time.perf_counter() - started, history.history["loss"][-1] / len(self.case["tasks"])


class Products:
    """The matrix products of a step and nothing else, layer by layer, products of one input as one."""

    parameters = 0

    def __init__(self, case: dict, data: Data):
        import tensorflow as tf

        width = len(data.ids) * case["dim"] + len(data.numbers)
        tasks, experts, units = len(case["tasks"]), case["experts"], case["expert_units"]
        towers = [units[-1], *case["tower_units"], 1]
        # (how many side by side, width in, width out): the experts' first layer and the gates read the same rows.
        gates = tasks * experts if case["model"] == "mmoe" else 0
        shapes = [(1, width, experts * units[0] + gates)]
        shapes += [(experts, *pair) for pair in itertools.pairwise(units)]
        shapes += [(tasks, *pair) for pair in itertools.pairwise(towers)]
        self.batch = case["batch"]
        layers = [
            tuple(tf.random.normal(shape) for shape in ((n, self.batch, i), (n, i, o), (n, self.batch, o)))
            for n, i, o in shapes
        ]
        layers = [tuple(tf.squeeze(part, 0) if part.shape[0] == 1 else part for part in layer) for layer in layers]

        @tf.function
        def step():
            found = []
            for x, kernel, gradient in layers:
                found.append(tf.matmul(x, kernel))
                found.append(tf.matmul(x, gradient, transpose_a=True))
                found.append(tf.matmul(gradient, kernel, transpose_b=True))
            return found

        self.step = step

    def turn(self, rows: int) -> tuple[float, None]:
        started = time.perf_counter()
        for _ in range(rows // self.batch):
            found = self.step()
        found[0].numpy()
        return time.perf_counter() - started, None


def start(case: dict, data: Data, mode: str, settings: dict):
    os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    return {"fit": lambda: Fit(case, data, settings), "products": lambda: Products(case, data)}[mode]()


if __name__ == "__main__":
    serve(start, ("mtl_zoo", "tensorflow", "keras", "numpy"))
