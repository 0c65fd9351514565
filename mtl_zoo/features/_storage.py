"""A transform as a folder: JSON for what is small, Parquet for vocabularies, .npy for pretrained matrices."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo import _validation as check
from mtl_zoo._files import refuse_other_content, whole_folder
from mtl_zoo.features import _fitted, _ids, _numbers
from mtl_zoo.features.spec import Categorical, Feature, Sequence
from mtl_zoo.tasks import Task, task_from_config

FORMAT = 1
META = "transform.json"


def write(
    folder: str | os.PathLike,
    specs: tuple[Feature, ...],
    tasks: tuple[Task, ...],
    sample_weight: str | None,
    fitted: _fitted.Fitted,
    notes: list[dict[str, Any]],
) -> None:
    """Writes the folder whole or not at all."""
    from mtl_zoo.features.serialization import features_to_config

    folder = Path(folder).absolute()
    refuse_other_content("folder", folder, META, "a transform")
    with whole_folder(folder) as part:
        meta = {
            "format": FORMAT,
            "specs": features_to_config(specs),
            "tasks": [task.get_config() for task in tasks],
            "sample_weight": sample_weight,
            "columns": {name: dataclasses.asdict(column) for name, column in fitted.columns.items()},
            "moments": {name: dataclasses.asdict(moments) for name, moments in fitted.moments.items()},
            "summaries": {name: dataclasses.asdict(summary) for name, summary in fitted.summaries.items()},
            "lengths": {
                f.name: f.length for f in fitted.features if isinstance(f, (Categorical, Sequence)) and f.shape
            },
            "vocabularies": _write_vocabularies(part, fitted.vocabularies),
            "given": [f.name for f in specs if getattr(f, "vocabulary", None) is not None],
            "pretrained": _write_pretrained(part, specs),
            "notes": notes,
        }
        (part / META).write_text(json.dumps(meta, indent=1, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no NumPy scalars."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"A transform's specs must be plain data. Received: {value!r}")


def _write_vocabularies(folder: Path, vocabularies: dict[str, _ids.Vocabulary]) -> dict[str, dict[str, Any]]:
    written: dict[str, dict[str, Any]] = {}
    for table, vocabulary in vocabularies.items():
        if isinstance(vocabulary, _ids.Listed):
            file = f"vocabulary_{len(written)}.parquet"
            values = pa.array(vocabulary.values, type=pa.large_string() if vocabulary.is_text else pa.int64())
            pq.write_table(pa.table({"value": values}), folder / file)
            written[table] = {"kind": "listed", "file": file}
        elif isinstance(vocabulary, _ids.Range):
            written[table] = {"kind": "range", "size": vocabulary.size}
        else:
            written[table] = {"kind": "hashed", "buckets": vocabulary.buckets}
    return written


def _write_pretrained(folder: Path, specs: tuple[Feature, ...]) -> dict[str, str]:
    written: dict[str, str] = {}
    for spec in specs:
        matrix = getattr(spec, "pretrained", None)
        if matrix is not None:
            written[spec.name] = f"pretrained_{len(written)}.npy"
            np.save(folder / written[spec.name], matrix, allow_pickle=False)
    return written


@dataclasses.dataclass(frozen=True)
class Stored:
    """What `read` finds in a folder."""

    specs: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    sample_weight: str | None
    fitted: _fitted.Fitted
    notes: list[dict[str, Any]]


def read(folder: str | os.PathLike) -> Stored:
    from mtl_zoo.features.serialization import features_from_config

    folder = Path(folder)
    if not (folder / META).exists():
        raise FileNotFoundError(f"`folder` must hold a saved transform ({META}). Received: folder={str(folder)!r}")
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    if meta["format"] > FORMAT:
        raise ValueError(
            f"`folder` holds a transform of format {meta['format']}, written by a newer version of mtl_zoo; this one "
            f"reads up to format {FORMAT}. Received: folder={str(folder)!r}. Upgrade mtl_zoo to read it."
        )
    vocabularies = {table: _read_vocabulary(folder, entry) for table, entry in meta["vocabularies"].items()}
    specs = tuple(_with_arrays(spec, folder, meta, vocabularies) for spec in features_from_config(meta["specs"]))
    fitted = _fitted.Fitted(
        _fitted.with_sizes(specs, vocabularies, meta["lengths"]),
        {name: _fitted.ColumnType(**column) for name, column in meta["columns"].items()},
        vocabularies,
        {name: _moments(config) for name, config in meta["moments"].items()},
        {name: _fitted.Summary(**summary) for name, summary in meta["summaries"].items()},
    )
    return Stored(
        specs, tuple(task_from_config(config) for config in meta["tasks"]), meta["sample_weight"], fitted, meta["notes"]
    )


def _read_vocabulary(folder: Path, entry: dict[str, Any]) -> _ids.Vocabulary:
    kind = check.check_choice("kind", entry["kind"], ("listed", "range", "hashed"))
    if kind == "range":
        return _ids.Range(entry["size"])
    if kind == "hashed":
        return _ids.Hashed(entry["buckets"])
    values = pq.read_table(folder / entry["file"])["value"]
    is_text = not pa.types.is_integer(values.type)
    return _ids.Listed(np.asarray(values.to_pandas(), dtype=object if is_text else np.int64))


def _with_arrays(
    spec: Feature, folder: Path, meta: dict[str, Any], vocabularies: dict[str, _ids.Vocabulary]
) -> Feature:
    """The spec with what its config leaves out: a given vocabulary and a pretrained matrix."""
    changes: dict[str, Any] = {}
    if isinstance(spec, (Categorical, Sequence)) and spec.name in meta["given"]:
        vocabulary = vocabularies[spec.table]
        changes["vocabulary"] = tuple(vocabulary.values.tolist()) if isinstance(vocabulary, _ids.Listed) else None
    if spec.name in meta["pretrained"]:
        changes["pretrained"] = np.load(folder / meta["pretrained"][spec.name], allow_pickle=False)
    return dataclasses.replace(spec, **changes) if changes else spec


def _moments(config: dict[str, Any]) -> _numbers.Moments:
    return _numbers.Moments(**{**config, "boundaries": tuple(config["boundaries"])})
