"""Files of a model that are written beside the old ones and then take their place, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mtl_zoo._files import whole_folder

PathLike = str | os.PathLike[str]


def save(write: Callable[..., None], path: PathLike, overwrite: bool, zipped: bool | None) -> None:
    """Calls Keras' `save` so that a kill leaves the old file, or the new one."""
    if str(path).endswith((".h5", ".hdf5")):
        raise ValueError(
            "`filepath` must end in '.keras': a file of Keras' old format would hold neither the features nor the "
            f"transform of the model. Received: filepath={str(path)!r}"
        )
    _refuse_existing(path, overwrite)
    if _is_remote(path) or not (str(path).endswith(".keras") or zipped is False):
        write(path, zipped=zipped)  # Keras names what is wrong with a suffix
    elif zipped is False:
        with whole_folder(Path(path).absolute()) as part:
            write(part, zipped=False)
    else:
        with whole_file(Path(path), ".keras") as part:
            write(part, zipped=True)


def save_weights(write: Callable[..., None], path: PathLike, overwrite: bool, max_shard_size: float | None) -> None:
    """Calls Keras' `save_weights` so that a kill leaves the old file, or the new one; of shards Keras takes care."""
    if max_shard_size is not None or _is_remote(path) or not str(path).endswith(".weights.h5"):
        write(path, overwrite=overwrite, max_shard_size=max_shard_size)
        return
    _refuse_existing(path, overwrite)
    with whole_file(Path(path), ".weights.h5") as part:
        write(part)


def _refuse_existing(path: PathLike, overwrite: bool) -> None:
    if not overwrite and not _is_remote(path) and Path(path).exists():
        raise ValueError(f"`filepath` exists; overwrite=True replaces it. Received: filepath={str(path)!r}")


def _is_remote(path: PathLike) -> bool:
    """Whether Keras hands the path to another file system."""
    return "://" in str(path)


@contextlib.contextmanager
def whole_file(path: Path, suffix: str) -> Iterator[Path]:
    """A path to write to, which ends in `suffix`. What is there takes the place of `path` when the block ends well."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part{suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
