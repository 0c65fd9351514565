"""Training on parameter servers, all of them threads of this process; `tests/training/test_parameter_server.py` reads
what it finds: `python tests/servers_case.py FOLDER CASE`, a case being one, more or two, writes FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

ROWS, BATCH = 150, 16


def data(rows=ROWS, seed=0):
    from toys import inputs, labels

    x, y = inputs(rows, seed), labels(rows, seed + 1)
    y["like"][: rows // 2] = np.nan
    return {name: x[name] for name in ("user_id", "tags", "age")}, {n: y[n] for n in ("click", "conversion", "like")}


class Told(keras.callbacks.Callback):
    """Keeps the errors that end a training."""

    def __init__(self):
        super().__init__()
        self.errors = []

    def on_train_failed(self, error):
        self.errors.append(type(error).__name__)


def make_model(optimizer="auto", balancing=None, **compile_options):
    from toys import TASKS, features

    import mtl_zoo

    keras.utils.set_random_seed(3)
    specs = [feature for feature in features() if feature.name in ("user_id", "tags", "age")]
    options = {"bottom_units": (8,), "tower_units": (4,), "embedding": mtl_zoo.Embedding(shards=2)}
    model = mtl_zoo.create_model("shared_bottom", specs, TASKS, **options)
    model.compile(optimizer, balancing=balancing, **compile_options)
    return model


def cluster(workers, servers=2):
    """A resolver of a chief whose workers and servers are threads of this process."""
    import tensorflow as tf

    from mtl_zoo.training.launch import _free_ports

    ports = iter(_free_ports(1 + workers + servers))
    jobs = {job: [f"127.0.0.1:{next(ports)}" for _ in range(n)] for job, n in (("worker", workers), ("ps", servers))}
    # Each waits for the others with a thread of a pool that they share.
    threads = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=16)
    running = [
        tf.distribute.Server(tf.train.ClusterSpec(jobs), job_name=job, task_index=i, protocol="grpc", config=threads)
        for job, hosts in jobs.items()
        for i in range(len(hosts))
    ]
    spec = tf.train.ClusterSpec(jobs | {"chief": [f"127.0.0.1:{next(ports)}"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, rpc_layer="grpc", task_type="chief", task_id=0
    )
    resolver.keeps = running
    return resolver


class Watch(keras.callbacks.Callback):
    """Rows of an epoch that the metrics counted, losses by step, and a stop at a step if asked."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.rows, self.losses, self._stop_at = [], [], stop_at

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        if len(self.losses) == self._stop_at:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append(float(self.model.train_function.metric_totals[1]))


def refusal(make, *arguments, **options):
    try:
        make(*arguments, **options)
    except (ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def weights(model):
    return [keras.ops.convert_to_numpy(w) for w in model.weights]


def gap(one, other):
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)) for a, b in zip(one, other, strict=True))


def apart(logs, others):
    return max(abs(a - b) for name in logs for a, b in zip(logs[name], others[name], strict=True))


OPTIONS = {"batch_size": BATCH, "epochs": 2}


def train_on_servers(resolver, *callbacks, **choice):
    """The weights and logs of a training on parameter servers."""
    from mtl_zoo.training import ParameterServerTrainer

    x, y = data()
    trainer = ParameterServerTrainer(lambda: make_model(**choice), ahead=1, resolver=resolver)
    np.random.seed(5)
    logs = trainer.fit(x, y, callbacks=list(callbacks), **OPTIONS).history
    return weights(trainer.model), logs


def compared(resolver, choices):
    """What one process finds, and how far off one worker is, whose steps come one after the other."""
    x, y = data()
    plain, found = {}, {}
    # All of them first: a process that joins a cluster loses what it held before.
    for name, choice in choices.items():
        model = make_model(**choice)
        np.random.seed(5)
        logs = model.fit(x, y, verbose=0, **OPTIONS).history
        plain[name] = weights(model), logs

    for name, choice in choices.items():
        values, logs = train_on_servers(resolver, **choice)
        found[f"gap_{name}"] = gap(plain[name][0], values)
        found[f"logs_{name}"] = apart(plain[name][1], logs)
    return plain, found


def one_worker(resolver, folder):
    """As one process trains, and again with a stop in the middle of an epoch and a new trainer that goes on."""
    from mtl_zoo.training import Checkpoints

    plain, found = compared(resolver, {"lazy": {}})
    try:
        train_on_servers(resolver, Checkpoints(folder / "run", every_steps=4), Watch(stop_at=14))
    except KeyboardInterrupt:
        pass
    checkpoints, watch = Checkpoints(folder / "run", every_steps=4), Watch()
    values, logs = train_on_servers(resolver, checkpoints, watch)
    found["resumed_from"] = list(checkpoints.resumed_from)
    found["gap_resumed"] = gap(plain["lazy"][0], values)
    found["logs_resumed"] = apart({name: given[-1:] for name, given in plain["lazy"][1].items()}, logs)
    found["steps_resumed"], found["rows_resumed"] = len(watch.losses), watch.rows
    return found


def more_choices(resolver, folder):
    choices = {
        "split": {"optimizer": {"embeddings": 0.05, "dense": 0.01}},
        "pcgrad": {"optimizer": "lazy_sgd", "balancing": "pcgrad"},
    }
    return compared(resolver, choices)[1]


def two_workers(resolver, folder):
    import mtl_zoo
    from mtl_zoo.datasets import Split
    from mtl_zoo.training import ParameterServerTrainer

    x, y = data()
    trainer = ParameterServerTrainer(lambda: make_model({"embeddings": 0.05, "dense": 0.01}), resolver=resolver)
    model, watch = trainer.model, Watch()
    held = trainer.server_bytes()
    tables = [v for v in model.weights if getattr(v, "is_embedding_table", False)]
    history = trainer.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=12,
        callbacks=[watch],
        validation_data=Split(*data(60, seed=7)),
        validation_every=20,
    )
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    scores, again = model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    table = mtl_zoo.evaluate(model, Split(*data(60, seed=7)))
    found = {
        "held": held,
        "table_servers": [v.value.device.split("task:")[1][0] for v in tables],
        "losses": history.history["loss"],
        "names": sorted(history.history),
        "rows": watch.rows,
        "steps": int(model.optimizer.iterations.numpy()),
        "evaluations": [[e.epoch, e.step, len(e.table)] for e in trainer.evaluations],
        "last_evaluation_apart": float(np.abs(trainer.evaluations[-1].table["value"] - table["value"]).max()),
        "saved_apart": max(float(np.abs(scores[name] - again[name]).max()) for name in scores),
        "fit": refusal(model.fit, x, y),
        "evaluate": refusal(model.evaluate, x, y),
        "data": refusal(trainer.fit, iter([]), None),
        "jit": refusal(trainer.model.compile, "auto", jit_compile=True),
    }

    def make(**options):
        return ParameterServerTrainer(lambda: make_model(**options), resolver=resolver)

    made_before = make_model()
    uncompiled = make_model()
    uncompiled.compiled = False
    found |= {
        "outside": refusal(ParameterServerTrainer, lambda: made_before, resolver=resolver),
        "no_model": refusal(ParameterServerTrainer, lambda: None, resolver=resolver),
        "eager": refusal(make, run_eagerly=True),
        "several": refusal(make, steps_per_execution=2),
        "accumulated": refusal(
            ParameterServerTrainer,
            lambda: make_model(keras.optimizers.Adam(gradient_accumulation_steps=2)),
            resolver=resolver,
        ),
        "ahead": refusal(ParameterServerTrainer, make_model, ahead=0, resolver=resolver),
    }
    diverging = ParameterServerTrainer(lambda: make_model(keras.optimizers.SGD(1e30)), resolver=resolver)
    told = Told()
    found["diverged"] = refusal(diverging.fit, x, y, batch_size=BATCH, epochs=5, callbacks=[told])
    found["told"] = told.errors
    return found


def main(folder, case):
    run, workers = {"one": (one_worker, 1), "more": (more_choices, 1), "two": (two_workers, 2)}[case]
    found = run(cluster(workers), folder)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    # Servers in this process never end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    main(Path(sys.argv[1]), sys.argv[2])
