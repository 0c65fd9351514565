"""The test scores of runs, kept in a folder for paired comparisons, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mtl_zoo.benchmark.summary import Column, Line
from mtl_zoo.datasets import Split


def save_scores_of(folder: Path, model: Any, split: Split, scores: Mapping[str, np.ndarray], about: Mapping) -> None:
    """Test scores by output, with their labels and which rows count, in the order of the split's rows."""
    arrays: dict[str, Any] = dict(scores)
    for name, (label, counts) in model.targets(split.labels).items():
        arrays[f"label:{name}"] = keras.ops.convert_to_numpy(label)
        arrays[f"observed:{name}"] = keras.ops.convert_to_numpy(counts)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{about['dataset']}-{about['model']}-seed{about['seed']}-{about['key']}.npz"
    np.savez_compressed(folder / name, **arrays)


class KeptScores:
    """The files of a folder of scores, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, Any] = {}

    def of(self, line: Line, column: Column) -> tuple[np.ndarray, np.ndarray] | None:
        """(labels, scores (rows, runs, units)) of the rows that count; None if a run's are not there."""
        found = []
        for key in line.keys:
            arrays = self._of_key(key)
            if column.task not in arrays:
                return None
            counts = arrays[f"observed:{column.task}"].reshape(-1) > 0
            found.append(arrays[column.task].reshape(len(counts), -1)[counts])
            labels = arrays[f"label:{column.task}"].reshape(-1)[counts]
        return labels, np.stack(found, axis=1)

    def _of_key(self, key: str) -> dict[str, np.ndarray]:
        if key not in self._read:
            files = list(self.folder.glob(f"*-{key}.npz"))
            self._read[key] = dict(np.load(files[0])) if files else {}
        return self._read[key]
