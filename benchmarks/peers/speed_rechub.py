"""torch-rechub's side of the speed comparison: a worker of speed.py, in an environment without mtl_zoo.

`fit` is `MTLTrainer.fit` over `DataGenerator`'s loader. What it does after an epoch (validation, a copy of the weights,
a file of them) is not counted, which is in its favour. `no_loader` is its model's forward pass, backward pass and
optimizer step on batches that lie in memory as tensors: no loader, no progress bar, no sum of losses.
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import time

import numpy as np
import torch
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, SharedBottom
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

from benchmarks.peers.speed_protocol import Data, serve

VALIDATION_ROWS = 256


class Trainer(MTLTrainer):
    """Notes how long the training part of `fit` takes."""

    seconds = 0.0

    def train_one_epoch(self, data_loader):
        started = time.perf_counter()
        losses = super().train_one_epoch(data_loader)
        self.seconds = time.perf_counter() - started
        return losses


class Session:
    def __init__(self, case: dict, data: Data, settings: dict):
        torch.manual_seed(0)
        torch.set_num_threads(settings["threads"])
        features = [SparseFeature(name, vocab_size=case["table_rows"], embed_dim=case["dim"]) for name in data.ids]
        features += [DenseFeature(name) for name in data.numbers]
        types = ["classification"] * len(case["tasks"])
        units, towers = {"dims": list(case["expert_units"])}, [{"dims": list(case["tower_units"])}] * len(types)
        if case["model"] == "shared_bottom":
            self.model = SharedBottom(features, types, units, towers)
        else:
            self.model = MMOE(features, types, n_expert=case["experts"], expert_params=units, tower_params_list=towers)
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(
            self.model,
            types,
            # Its default adds a weight decay of 1e-5, which the others have not.
            optimizer_params={"lr": case["learning_rate"], "weight_decay": 0.0},
            n_epoch=1,
            earlystop_patience=10**9,
            model_path=self.folder.name,
        )
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.data, self.case, self.settings = data, case, settings
        # Its embedding asks for int64 at every step: ids are given so, once.
        data.ids = {name: column.astype(np.int64) for name, column in data.ids.items()}


class Fit(Session):
    def turn(self, rows: int) -> tuple[float, float]:
        inputs, labels = self.data.first(rows)
        labels = np.stack(list(labels.values()), axis=1)
        few = {name: column[:VALIDATION_ROWS] for name, column in inputs.items()}, labels[:VALIDATION_ROWS]
        train, validation, _ = DataGenerator(inputs, labels).generate_dataloader(
            *few, *few, batch_size=self.case["batch"], num_workers=self.settings["workers"]
        )
        with contextlib.redirect_stdout(io.StringIO()):
            log = self.trainer.fit(train, validation)
        return self.trainer.seconds, float(np.mean(log[0][: len(self.case["tasks"])]))


class NoLoader(Session):
    batches: list = []  # noqa: RUF012 (replaced, never changed)

    def turn(self, rows: int) -> tuple[float, float]:
        size = self.case["batch"]
        if len(self.batches) * size != rows:
            inputs, labels = self.data.first(rows)
            labels = np.stack(list(labels.values()), axis=1)
            self.batches = [
                (
                    {name: torch.from_numpy(column[i : i + size].copy()) for name, column in inputs.items()},
                    torch.from_numpy(labels[i : i + size]),
                )
                for i in range(0, rows, size)
            ]
        trainer, model, tasks = self.trainer, self.model, len(self.case["tasks"])
        model.train()
        random.shuffle(self.batches)
        total = torch.zeros(())
        started = time.perf_counter()
        for inputs, labels in self.batches:
            scores = model(inputs)
            loss = sum(trainer.loss_fns[i](scores[:, i], labels[:, i]) for i in range(tasks)) / tasks
            model.zero_grad()
            loss.backward()
            trainer.optimizer.step()
            total += loss.detach()
        return time.perf_counter() - started, float(total) / len(self.batches)


def start(case: dict, data: Data, mode: str, settings: dict) -> Session:
    return {"fit": Fit, "no_loader": NoLoader}[mode](case, data, settings)


if __name__ == "__main__":
    serve(start, ("torch-rechub", "torch", "numpy"))
