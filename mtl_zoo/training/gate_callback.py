"""Reports of gates while a model trains, for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo.evaluation._gates import GateReader
from mtl_zoo.evaluation.gate_report import GateReport, report_of_reader


class GateLogger(keras.callbacks.Callback):
    """Writes the results of `gate_report` to TensorBoard, every few epochs.

    The scalars of gate `click_gate` are `gates/click_gate/entropy`, `gates/click_gate/row_entropy` and, for each of its
    experts, `gates/click_gate/weight/<expert>`; for two gates that weigh the same experts they are
    `gate_similarity/<gate>/<other>/cosine` and `.../overlap`. The step is the epoch, counted from 1; step 0 has the
    weights before training.

    Args:
        split: The rows to report on: a split, a dict of inputs, or a table if the model has a transform.
        log_dir: The folder of the event file.
        every: The number of epochs from one report to the next.
        batch_size: The number of rows in a batch.

    Attributes:
        reports: The `GateReport` of each epoch, as a dict by epoch.

    Raises:
        ValueError: If `every` or `batch_size` is below 1; when training starts, if the model has no gates.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.training import GateLogger
    >>> data = mtl_zoo.load_dataset("synthetic_funnel", size="small")
    >>> model = mtl_zoo.create_model("mmoe", data.features, data.tasks, num_experts=2, expert_units=(8,))
    >>> model.compile("adam")
    >>> logger = GateLogger(data.validation.take(500), "logs")
    >>> _ = model.fit(data.train.take(2000).batches(1000), verbose=0, callbacks=[logger])
    >>> sorted(logger.reports)
    [0, 1]
    """

    def __init__(self, split: Any, log_dir: str | Path, every: int = 1, batch_size: int = 4096) -> None:
        super().__init__()
        self.split = split
        self.log_dir = Path(log_dir)
        self.every = check.check_int("every", every)
        self.batch_size = check.check_int("batch_size", batch_size)
        self.reports: dict[int, GateReport] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        import tensorflow as tf

        self._reader = GateReader(self.model)
        self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self.reports = {}
        self._log(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every == 0:
            self._log(epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._writer.close()

    def _log(self, step: int) -> None:
        report = report_of_reader(self._reader, self.split, batch_size=self.batch_size)
        self.reports[step] = report
        scalars: dict[str, Any] = {}
        for row in report.gates.itertuples():
            scalars[f"gates/{row.gate}/entropy"] = row.entropy
            scalars[f"gates/{row.gate}/row_entropy"] = row.row_entropy
        for row in report.table.itertuples():
            scalars[f"gates/{row.gate}/weight/{row.expert}"] = row.weight
        for row in report.similarity.itertuples():
            scalars[f"gate_similarity/{row.gate}/{row.other}/cosine"] = row.cosine
            scalars[f"gate_similarity/{row.gate}/{row.other}/overlap"] = row.overlap
        write_scalars(self._writer, step, scalars)


def write_scalars(writer: Any, step: int, scalars: dict[str, Any]) -> None:
    """Writes scalars as TensorBoard's own function does, which would need the tensorboard package."""
    import tensorflow as tf

    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
    )
    with writer.as_default():
        for tag, value in scalars.items():
            tf.summary.write(tag, tf.constant(value, "float32"), step=step, metadata=metadata)
    writer.flush()
