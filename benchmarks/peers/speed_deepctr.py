"""DeepCTR's side of the speed comparison: a worker of speed.py, in an environment without mtl_zoo.

`fit` is Keras' `fit` of DeepCTR's MMOE over a dict of arrays, with Keras 3 or Keras 2 (`tf-keras`). DeepCTR attaches an
L2 penalty to every table and kernel, also at a strength of 0, and one on a table makes its gradient as large as the
table. `fit_without_l2` takes the penalties out of it, which its arguments cannot.
"""

from __future__ import annotations

import os
import time

from benchmarks.peers.speed_protocol import Data, serve

MODES = ("fit", "fit_without_l2")


class Session:
    def __init__(self, case: dict, data: Data, mode: str, settings: dict):
        # Both are read at the first import, which DeepCTR does.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ["TF_USE_LEGACY_KERAS"] = "1" if settings["keras"] == "tf-keras" else "0"
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
        import deepctr.inputs
        import deepctr.layers.core
        from deepctr.feature_column import DenseFeat, SparseFeat
        from deepctr.models.multitask import MMOE, SharedBottom

        if mode == "fit_without_l2":
            deepctr.inputs.l2 = deepctr.layers.core.l2 = lambda strength: None
        tf.keras.utils.set_random_seed(0)
        columns = [SparseFeat(name, case["table_rows"], embedding_dim=case["dim"]) for name in data.ids]
        columns += [DenseFeat(name, 1) for name in data.numbers]
        units = tuple(case["expert_units"])
        alike = {"tower_dnn_hidden_units": tuple(case["tower_units"]), "l2_reg_embedding": 0, "l2_reg_dnn": 0}
        alike |= {"task_types": ["binary"] * len(case["tasks"]), "task_names": case["tasks"]}
        if case["model"] == "shared_bottom":
            self.model = SharedBottom(columns, bottom_dnn_hidden_units=units, **alike)
        else:
            gated = {"num_experts": case["experts"], "gate_dnn_hidden_units": ()}
            self.model = MMOE(columns, expert_dnn_hidden_units=units, **gated, **alike)
        optimizers = tf.keras.optimizers
        adam = optimizers.legacy.Adam if settings["optimizer"] == "legacy.Adam" else optimizers.Adam
        self.model.compile(adam(case["learning_rate"]), loss=["binary_crossentropy"] * len(case["tasks"]))
        self.parameters = self.model.count_params()
        self.data, self.case = data, case

    def turn(self, rows: int) -> tuple[float, float]:
        inputs, labels = self.data.first(rows)
        batch = self.case["batch"]
        started = time.perf_counter()
        history = self.model.fit(inputs, list(labels.values()), batch_size=batch, shuffle=True, epochs=1, verbose=0)
        return time.perf_counter() - started, history.history["loss"][-1] / len(labels)


def start(case: dict, data: Data, mode: str, settings: dict) -> Session:
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
    return Session(case, data, mode, settings)


if __name__ == "__main__":
    serve(start, ("deepctr", "tensorflow", "keras", "tf-keras", "numpy"))
