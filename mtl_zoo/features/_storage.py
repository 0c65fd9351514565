"""A transform as a folder: JSON for what is small, Parquet for vocabularies, .npy for matrices."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo._files import intact, name_within, read_header, refuse_other_content, whole_folder
from mtl_zoo.features import _fitted
from mtl_zoo.features._growth import Growth
from mtl_zoo.features._joined import Joined
from mtl_zoo.features._states import STATES, ColumnType
from mtl_zoo.features.base import Feature, Summary, features_from_config, features_to_config
from mtl_zoo.features.entities import EntityTable
from mtl_zoo.tasks import Task, task_from_config

# Format 3 holds entity tables; a transform without any is written as format 2, which older versions read.
FORMAT, _WITHOUT_ENTITIES = 3, 2
META = "transform.json"


def write(
    folder: str | os.PathLike,
    specs: tuple[Feature, ...],
    tasks: tuple[Task, ...],
    sample_weight: str | None,
    fitted: _fitted.Fitted,
    notes: list[dict[str, Any]],
    growth: dict[str, Growth],
) -> None:
    """Writes the folder whole or not at all."""
    folder = Path(folder).absolute()
    refuse_other_content("folder", folder, META, "a transform")
    with whole_folder(folder) as part:
        meta = {
            "format": FORMAT if fitted.joined else _WITHOUT_ENTITIES,
            "specs": features_to_config(specs),
            "tasks": [task.get_config() for task in tasks],
            "sample_weight": sample_weight,
            "columns": {name: dataclasses.asdict(column) for name, column in fitted.columns.items()},
            "states": _write_states(part, fitted.states),
            "sizes": {feature.name: feature.sizes() for feature in fitted.features},
            "arrays": {spec.name: spec.write_arrays(part, f"feature_{i}") for i, spec in enumerate(specs)},
            "summaries": {name: dataclasses.asdict(summary) for name, summary in fitted.summaries.items()},
            "notes": notes,
        }
        if growth:
            meta["growth"] = {name: dataclasses.asdict(change) for name, change in growth.items()}
        if fitted.joined:
            meta["entities"] = [_write_entities(part, joined, i) for i, joined in enumerate(fitted.joined)]
        if fitted.absent:
            meta["absent"] = fitted.absent
        (part / META).write_text(json.dumps(meta, indent=1, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no NumPy scalars."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"A transform's specs must be plain data. Received: {value!r}")


def _write_states(folder: Path, states: _fitted.States) -> dict[str, dict[str, Any]]:
    written: dict[str, dict[str, Any]] = {}
    for number, ((family, key), state) in enumerate(states.items()):
        written.setdefault(family, {})[key] = state.write(folder, f"state_{number}")
    return written


def _write_entities(folder: Path, joined: Joined, number: int) -> dict[str, Any]:
    """The columns that features read, a row an entity; they are encoded again when they are first used."""
    table, file = joined.table, f"entities_{number}.parquet"
    pq.write_table(pa.Table.from_pandas(table.frame, preserve_index=False), folder / file, write_page_checksum=True)
    options = {"key": table.key, "column": table.column, "side": table.side, "name": table.name}
    return {"file": file, "reads": joined.reads, **options}


def _read_entities(folder: Path, kept: dict[str, Any]) -> Joined:
    options = {name: kept[name] for name in ("key", "column", "side", "name")}
    path = name_within(folder, kept["file"], "a transform")
    return Joined(EntityTable(pq.read_table(path, page_checksum_verification=True), **options), kept["reads"])


@dataclasses.dataclass(frozen=True)
class Stored:
    """What `read` gives of a folder."""

    specs: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    sample_weight: str | None
    fitted: _fitted.Fitted
    notes: list[dict[str, Any]]
    growth: dict[str, Growth]

    @property
    def tables(self) -> tuple[EntityTable, ...]:
        """The entity tables, with the columns that features read."""
        return tuple(joined.table for joined in self.fitted.joined)


def read(folder: str | os.PathLike) -> Stored:
    """The transform that `write` wrote, of this format or an older one."""
    folder = Path(folder)
    keys: dict[str, Any] = {"sample_weight": (str, type(None)), "notes": list}
    meta = read_header(folder, META, "a transform", FORMAT, keys)
    with intact(folder / META, "a transform"):
        return _understood(folder, _from_format_1(meta) if meta["format"] == 1 else meta)


def _understood(folder: Path, meta: dict[str, Any]) -> Stored:
    """What the metadata of this format says, whoever wrote it."""
    states: _fitted.States = {
        (family, key): STATES[family].read(folder, config)
        for family, by_key in meta["states"].items()
        for key, config in by_key.items()
    }
    specs, sized = [], []
    for spec in features_from_config(meta["specs"]):
        state = states.get(spec.state_key)  # type: ignore[arg-type]
        specs.append(spec.read_arrays(folder, meta["arrays"].get(spec.name, {}), state))
        sized.append(specs[-1].resized(state, meta["sizes"].get(spec.name, {})))
    fitted = _fitted.Fitted(
        _fitted.beside(sized),
        {name: ColumnType(**column) for name, column in meta["columns"].items()},
        states,
        {name: Summary(**summary) for name, summary in meta["summaries"].items()},
        tuple(_read_entities(folder, kept) for kept in meta.get("entities", ())),
        tuple(tuple(columns) for columns in meta.get("absent", ())),
    )
    tasks = tuple(task_from_config(config) for config in meta["tasks"])
    growth = {name: Growth(**change) for name, change in meta.get("growth", {}).items()}
    return Stored(tuple(specs), tasks, meta["sample_weight"], fitted, meta["notes"], growth)


def _from_format_1(meta: dict[str, Any]) -> dict[str, Any]:
    """What 0.1.0 wrote, as it is written now."""
    arrays: dict[str, dict[str, Any]] = {name: {"pretrained": file} for name, file in meta["pretrained"].items()}
    for name in meta["given"]:
        arrays.setdefault(name, {})["vocabulary_given"] = True
    return {
        **meta,
        "states": {"vocabularies": meta["vocabularies"], "moments": meta["moments"]},
        "sizes": {name: {"length": length} for name, length in meta["lengths"].items()},
        "arrays": arrays,
    }
