"""A recommender as a folder: the model's own file, tables as Parquet, and JSON for what is small."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo._files import DamagedFile, intact, read_header, refuse_other_content, whole_folder
from mtl_zoo.recommend.fusion import fusion_from_config
from mtl_zoo.recommend.indexes import Index
from mtl_zoo.recommend.reranking import stage_from_config

FORMAT = 1
META, MODEL, INDEX, WHAT = "recommender.json", "model.keras", "index", "a recommender"
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "item": str, "user": str, "fusion": dict, "rerank": list, "candidates": int, "sides": dict, "tables": list,
    "index": bool, "retrieval": (str, type(None)),
}  # fmt: skip
_TABLES = ("items", "users", "exclude")


def write(folder: str | os.PathLike[str], recommender: Any) -> None:
    """Writes the folder whole or not at all."""
    place = Path(folder).absolute()
    refuse_other_content("folder", place, META, WHAT)
    stages = []
    for stage in recommender.stages:
        if not hasattr(stage, "get_config"):
            raise ValueError(f"`rerank` must be stages of registered kinds to be saved. Received: {stage!r}")
        stages.append(stage.get_config())
    tables = dict(zip(_TABLES, recommender.tables(), strict=True))
    kept = {name: table for name, table in tables.items() if table is not None}
    meta = {
        "format": FORMAT, "item": recommender.item, "user": recommender.user,
        "fusion": recommender.fusion.get_config(), "rerank": stages, "candidates": recommender.candidates,
        "sides": recommender.sides, "tables": list(kept), "retrieval": None, "index": recommender.fetching is not None,
        "prepare": recommender.prepare,
    }  # fmt: skip
    if recommender.fetching is not None:
        meta["retrieval"] = recommender.fetching.task
    text = json.dumps(meta, indent=1, default=_plain)
    with whole_folder(place) as part:
        (part / META).write_text(text, encoding="utf-8")
        for name, table in kept.items():
            path = part / f"{name}.parquet"
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, write_page_checksum=True)
        recommender.model.save(part / MODEL)
        if recommender.fetching is not None:
            recommender.fetching.index.save(part / INDEX)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"`rerank` must be stages of plain values to be saved. Received: {value!r}")


def read(folder: str | os.PathLike[str], make: Any) -> Any:
    """The recommender that `write` wrote, of this format or an older one.

    Args:
        make: `Recommender`.
    """
    place = Path(folder)
    meta = read_header(place, META, WHAT, FORMAT, _KEYS)
    with intact(place / META, WHAT):
        fusion = fusion_from_config(meta["fusion"])
        stages = [stage_from_config(config) for config in meta["rerank"]]
    tables = {name: _read_table(place / f"{name}.parquet") if name in meta["tables"] else None for name in _TABLES}
    index = Index.load(place / INDEX) if meta["index"] else None
    model = _read_model(place / MODEL)
    with intact(place / META, WHAT):
        return make(
            model, tables["items"], item=meta["item"], user=meta["user"], users=tables["users"], fusion=fusion,
            rerank=stages, candidates=meta["candidates"], exclude=tables["exclude"], sides=meta["sides"],
            index=index, retrieval=meta["retrieval"], prepare=bool(meta.get("prepare", False)),
        )  # fmt: skip


def _read_table(path: Path) -> pd.DataFrame:
    _require(path)
    with intact(path, WHAT):
        try:
            return pq.read_table(path, page_checksum_verification=True).to_pandas()
        except OSError as error:  # pyarrow's error for pages that cannot be read
            raise ValueError(str(error)) from error


def _read_model(path: Path) -> Any:
    import zipfile

    import keras

    _require(path)
    with intact(path, WHAT):
        try:
            return keras.saving.load_model(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from error


def _require(path: Path) -> None:
    if not path.is_file() or path.is_symlink():
        raise DamagedFile(f"A folder of {WHAT} must hold {path.name}. Received: {str(path.parent)!r}, without it")
