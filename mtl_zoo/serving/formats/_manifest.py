"""What lies beside an exported model: which columns it takes and by which names, and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_zoo._files import LISTING, DamagedFile, name_within, read_json
from mtl_zoo.serving.scoring import Scoring

MANIFEST = "exported.json"
_FORMAT = 1
_WHAT = "an exported model"
_KEYS = {"format": int, "kind": str, "options": dict, "columns": dict, "outputs": dict, "sha256": dict}


def write_manifest(
    folder: Path, kind: str, options: Mapping[str, Any], scoring: Scoring, names: Mapping[str, str]
) -> None:
    """Writes which columns a model in `folder` takes, under which names, what it gives, and its files' hashes."""
    columns = {
        name: {"input": names[name], "shape": list(column.shape), "dtype": column.dtype}
        for name, column in scoring.columns.items()
    }
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    content = {"format": _FORMAT, "kind": kind, "options": dict(options), "raw": scoring.raw}
    content |= {"columns": columns, "outputs": scoring.units, "sha256": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote.

    Raises:
        FileNotFoundError: There is none.
        DamagedFile: It is damaged, or of a newer version.
    """
    content = read_json(folder / MANIFEST, _WHAT, _KEYS)
    if content["format"] > _FORMAT:
        raise DamagedFile(
            f"A file of {_WHAT} must be of a format that this version knows, up to {_FORMAT}. Received: "
            f"{str(folder / MANIFEST)!r} of format {content['format']}. Upgrade mtl_zoo to read it."
        )
    for name, column in content["columns"].items():
        if not isinstance(column, dict) or not isinstance(column.get("input"), str):
            raise DamagedFile(f"A file of {_WHAT} must name the input of column {name!r}. Received: {str(column)[:80]}")
    return content


def input_of_columns(folder: Path) -> dict[str, str]:
    """The name under which the model in `folder` takes each column."""
    return {name: column["input"] for name, column in read_manifest(folder)["columns"].items()}


def check_files(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuses a folder whose files are not those that were written.

    Raises:
        DamagedFile: One of them is gone, cut short or changed.
    """
    for name, digest in content["sha256"].items():
        path = folder
        for part in Path(name).parts:
            path = name_within(path, part, _WHAT)
        if not path.is_file():
            raise DamagedFile(f"A file of {_WHAT} must be there. Received: none at {str(path)!r}")
        if _sha256(path) != digest:
            raise DamagedFile(
                f"A file of {_WHAT} must be as it was written. Received: {str(path)!r}, whose SHA-256 is another"
            )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (LISTING, MANIFEST))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
