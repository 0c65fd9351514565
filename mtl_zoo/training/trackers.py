"""Callbacks that hand what `fit` logs, by task, to what keeps runs: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._files import whole_file
from mtl_zoo.training.gate_callback import write_scalars

TRAINING, VALIDATION = "training", "validation"


class Tracker(keras.callbacks.Callback):
    """Base of trackers: gives each epoch's numbers, by task, to `log`.

    A log of `fit` becomes `<task>/<metric>` of the training or the validation rows: `val_click_auc` is `click/auc` of
    `"validation"`. The scores of `ExactValidation` are `<task>/score`; it must come before the tracker in the list of
    callbacks. What is of no task (`loss`, `learning_rate`) keeps its name.

    One of your own overrides `begin`, `log`, `end`, and `failed` where an end by an error is another one. `failed` is
    also called where `begin` itself raises, be it before or after it opened a run.

    Args:
        parameters: What to note of the run beside the model's name, its count of parameters and its optimizer: a flat
            dict, such as the hyperparameters. Default: None.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import Tracker
    >>> class Kept(Tracker):
    ...     def log(self, step, rows, scalars):
    ...         print(step, rows, sorted(scalars))
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    >>> model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> model.compile("adam", metrics=None)
    >>> _ = model.fit(data.train.inputs, data.train.labels, verbose=0, callbacks=[Kept()])
    1 training ['click/loss', 'conversion/loss', 'loss']
    """

    _has_begun = False

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if not isinstance(parameters, Mapping | None):
            raise ValueError(f"`parameters` must be a dict. Received: parameters={parameters!r}")
        self.parameters = dict(parameters or {})

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Training starts, with these parameters."""

    def log(self, step: int, rows: str, scalars: Mapping[str, float]) -> None:
        """The numbers of an epoch (from 1) on `"training"` or `"validation"` rows."""
        raise NotImplementedError

    def end(self) -> None:
        """Training has ended."""

    def failed(self, error: BaseException) -> None:
        """Training was ended by an error, that of `begin` included, or by Ctrl-C (`KeyboardInterrupt`).

        By default the same as `end`.
        """
        self.end()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        about = {"model": model.model_name, "parameters": model.count_params(), "optimizer": model.optimizer.name}
        self._has_begun = True  # whatever `begin` opens before it raises is to be ended
        self.begin({**about, **self.parameters})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for rows, scalars in by_task(self.model, logs or {}).items():
            self.log(epoch + 1, rows, scalars)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._has_begun = False
        self.end()

    def on_train_failed(self, error: BaseException) -> None:
        """What `fit` calls instead of `on_train_end` where it raises `error`."""
        if self._has_begun:
            self._has_begun = False
            self.failed(error)


def by_task(model: Any, logs: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Finite logs of an epoch as `{"training": {"click/auc": ...}, "validation": {...}}`."""
    names = {log: "/".join(of) for log, of in model.log_names().items()}
    names |= {f"{task.name}_score": f"{task.name}/score" for task in model.tasks}
    names |= {log: f"{task.name}/{log[len(task.name) + 1 :]}" for log, task in model.head.measures(model.tasks).items()}
    found: dict[str, dict[str, float]] = {}
    for log, value in logs.items():
        of_validation = log.startswith("val_") and log not in names
        short = log.removeprefix("val_") if of_validation else log
        number = float(value)
        if math.isfinite(number):
            found.setdefault(VALIDATION if of_validation else TRAINING, {})[names.get(short, short)] = number
    return found


class TensorBoardLogger(Tracker):
    """Writes the numbers of each epoch for TensorBoard, by task, training and validation rows as two runs.

    Beside it `GateLogger` and `BalancingLogger` write what gates and balancing methods do, and `write_projector` the
    vectors of an embedding, into the same folder. The tensorboard package is needed to look at them only.

    Args:
        log_dir: The folder; `training/` and `validation/` in it have the event files.
        parameters: See `Tracker`. They are shown as a text.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import TensorBoardLogger
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size=1000)
    >>> model = mtl_zoo.create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> model.compile("adam", metrics=None)
    >>> logger = TensorBoardLogger("logs", {"bottom_units": 8})
    >>> _ = model.fit(data.train.inputs, data.train.labels, verbose=0, callbacks=[logger])
    >>> [path.name for path in logger.log_dir.iterdir()]
    ['training']
    """

    def __init__(self, log_dir: str | Path, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        self.log_dir = Path(log_dir)
        self._writers: dict[str, Any] = {}

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Writes the parameters as a table."""
        import tensorflow as tf

        self._writers = {}
        rows = "\n".join(f"| {name} | {value} |" for name, value in parameters.items())
        text = tf.constant(f"| | |\n|---|---|\n{rows}")
        # As TensorBoard's own function does, which would need the tensorboard package.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="text"), data_class="DATA_CLASS_TENSOR"
        )
        with self._writer(TRAINING).as_default():
            tf.summary.write("parameters", text, step=0, metadata=metadata)

    def log(self, step: int, rows: str, scalars: Mapping[str, float]) -> None:
        """Writes scalars."""
        write_scalars(self._writer(rows), step, dict(scalars))

    def end(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, rows: str) -> Any:
        import tensorflow as tf

        if rows not in self._writers:
            self._writers[rows] = tf.summary.create_file_writer(str(self.log_dir / rows))
        return self._writers[rows]


def write_projector(log_dir: str | Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Writes vectors by value for TensorBoard's projector.

    Args:
        log_dir: A folder that TensorBoard reads.
        tables: By name, a frame with a row for each value and a column for each number of its vector; its index is what
            the projector shows beside the points.

    Raises:
        ValueError: A table is empty or holds what is no finite number, or a name cannot name a file.

    Example:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from mtl_zoo.training import write_projector
    >>> write_projector("logs", {"city": pd.DataFrame(np.eye(2), index=["Rome", "Oslo"])})
    """
    folder = Path(log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, table in tables.items():
        check.check_name("tables", name)
        if not isinstance(table, pd.DataFrame):
            raise ValueError(f"`tables[{name!r}]` must be a DataFrame. Received: {type(table).__name__}")
        vectors = table.apply(pd.to_numeric, errors="coerce").to_numpy("float64")
        if not vectors.size or not np.isfinite(vectors).all():
            raise ValueError(f"`tables[{name!r}]` must hold finite numbers. Received: {vectors.shape[0]} rows")
        lines = ["\t".join(f"{number:.6g}" for number in row) for row in vectors]
        # One column has no header; a tab or a line break within a value would be another one.
        labels = [" ".join(str(value).split()) or "(empty)" for value in table.index]
        for suffix, content in (("vectors", lines), ("labels", labels)):
            with whole_file(folder / f"{name}.{suffix}.tsv") as part:
                part.write_text("\n".join(content) + "\n", encoding="utf-8")
        fields = {"tensor_name": name, "tensor_path": f"{name}.vectors.tsv", "metadata_path": f"{name}.labels.tsv"}
        parts.append("embeddings {\n" + "".join(f"  {n}: {json.dumps(v)}\n" for n, v in fields.items()) + "}\n")
    with whole_file(folder / "projector_config.pbtxt") as part:
        part.write_text("".join(parts), encoding="utf-8")


class MLflowLogger(Tracker):
    """Keeps a training as a run of MLflow: parameters once, metrics each epoch as `<rows>/<task>/<metric>`.

    Args:
        experiment: The experiment; it is made if it is not there. Default: "mtl_zoo".
        tracking_uri: Where MLflow keeps its runs. Default: None, where `MLFLOW_TRACKING_URI` says.
        run_name: Of the run. Default: None, MLflow makes one up.
        parameters: See `Tracker`.

    Attributes:
        run_id: Of the run, once training has started.

    Raises:
        ImportError: MLflow is not installed (`pip install "mtl-zoo[mlflow]"`).

    Example:

    >>> from mtl_zoo.training import MLflowLogger
    >>> MLflowLogger.extra
    'mlflow'
    """

    extra = "mlflow"

    def __init__(
        self,
        experiment: str = "mtl_zoo",
        tracking_uri: str | None = None,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(parameters)
        self.experiment, self.tracking_uri, self.run_name = experiment, tracking_uri, run_name
        self.run_id: str | None = None
        # A client of its own: MLflow's current run, if there is one, is left alone.
        self._client = _imported("mlflow", self).MlflowClient(tracking_uri)

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Starts a run."""
        self.run_id = None
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self._client.create_experiment(self.experiment)
        self.run_id = self._client.create_run(number, run_name=self.run_name).info.run_id
        for name, value in parameters.items():
            self._client.log_param(self.run_id, name, value)

    def log(self, step: int, rows: str, scalars: Mapping[str, float]) -> None:
        """Adds metrics to the run."""
        for name, value in scalars.items():
            self._client.log_metric(self.run_id, f"{rows}/{name}", value, step=step)

    def end(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self.run_id)

    def failed(self, error: BaseException) -> None:
        """Ends the run as one that failed, or was killed."""
        is_killed = isinstance(error, KeyboardInterrupt | SystemExit)
        if self.run_id is not None:
            self._client.set_terminated(self.run_id, status="KILLED" if is_killed else "FAILED")


class WandbLogger(Tracker):
    """Keeps a training as a run of Weights & Biases: parameters as its config, `<rows>/<task>/<metric>` each epoch.

    Args:
        project: The project. Default: "mtl_zoo".
        mode: `"offline"`: files on this machine, which `wandb sync` sends; `"online"`. Default: "offline".
        folder: Where the files go. Default: None, `wandb/` in the working folder.
        run_name: Of the run. Default: None, one is made up.
        parameters: See `Tracker`.

    Raises:
        ImportError: Weights & Biases is not installed (`pip install "mtl-zoo[wandb]"`).
        ValueError: Another mode.

    Example:

    >>> from mtl_zoo.training import WandbLogger
    >>> WandbLogger.extra
    'wandb'
    """

    extra = "wandb"

    def __init__(
        self,
        project: str = "mtl_zoo",
        mode: str = "offline",
        folder: str | Path | None = None,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(parameters)
        self.project, self.folder, self.run_name = project, folder, run_name
        self.mode = check.check_choice("mode", mode, ("offline", "online"))
        self._wandb = _imported("wandb", self)
        self._run: Any = None

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Starts a run."""
        self._run, folder = None, None if self.folder is None else str(self.folder)
        self._run = self._wandb.init(
            project=self.project, mode=self.mode, dir=folder, name=self.run_name, config=dict(parameters)
        )

    def log(self, step: int, rows: str, scalars: Mapping[str, float]) -> None:
        """Adds metrics to the run."""
        self._run.log({f"{rows}/{name}": value for name, value in scalars.items()}, step=step)

    def end(self) -> None:
        """Ends the run."""
        self._run.finish()

    def failed(self, error: BaseException) -> None:
        """Ends the run as one that failed."""
        if self._run is not None:
            self._run.finish(exit_code=1)


def _imported(name: str, tracker: Any) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'`{type(tracker).__name__}` needs {name}, which is not installed: pip install "mtl-zoo[{tracker.extra}]". '
            f"Received: no module {name}"
        ) from error
