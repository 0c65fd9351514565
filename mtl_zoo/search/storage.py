"""Where trials are kept, so that several processes share a search and a killed one goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_IDENTITY, _WORKER, _AGAIN = "search", "worker", "again"
# So often a trial whose process died is begun anew; one that kills its process each time must not do so for ever.
_TRIES = 2
SQLITE, JOURNAL = (".db", ".sqlite", ".sqlite3"), (".log", ".journal")


def import_optuna() -> Any:
    """Optuna, or a clear word on how to get it."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            '`tune` needs Optuna, which is not installed: pip install "mtl-zoo[tune]". Received: no module optuna'
        ) from error
    return optuna


@contextlib.contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's own lines about each trial."""
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(said)


class Workers:
    """The processes of a search: each holds a lock for as long as it lives, however it ends.

    Args:
        path: The storage's file. None: it is in memory, or on a server, and no other process is looked at.
    """

    def __init__(self, path: Path | None):
        self.folder = None if path is None else path.with_name(f"{path.name}.workers")
        self.name = uuid.uuid4().hex
        self._file: int | None = None

    def __enter__(self) -> Workers:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.alone():
                self._file = os.open(self.folder / self.name, os.O_CREAT | os.O_RDWR)
                fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: object) -> None:
        if self.folder is None or self._file is None:
            return
        with self.alone():
            (self.folder / self.name).unlink(missing_ok=True)
        os.close(self._file)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process of the search is in such a block."""
        if self.folder is None:
            yield
            return
        lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def lives(self, name: str) -> bool:
        """Whether a process of the search is still there; what is left of a dead one is removed."""
        assert self.folder is not None
        path = self.folder / name
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(file)

    def others(self) -> list[str]:
        """Those that live, without this one."""
        if self.folder is None:
            return []
        return [path.name for path in self.folder.iterdir() if path.name != self.name and self.lives(path.name)]


def path_of(storage: Any) -> Path | None:
    """The file of a storage, if it is one on this machine."""
    if isinstance(storage, Path) or (isinstance(storage, str) and "://" not in storage):
        path = Path(storage)
        if path.suffix not in (*SQLITE, *JOURNAL):
            raise ValueError(
                f"`storage` must be a file that ends with {', '.join((*SQLITE, *JOURNAL))}, a URL, or a storage of "
                f"Optuna. Received: storage={str(storage)!r}"
            )
        return path
    return None


def _opened(optuna: Any, storage: Any, path: Path | None) -> Any:
    if path is None:
        return storage
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in SQLITE:
        # A writer waits for another, in place of an error.
        return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    journal = optuna.storages.journal
    _cut_torn_line(path, journal.JournalFileSymlinkLock(str(path)))
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))


def _cut_torn_line(path: Path, lock: Any) -> None:
    """Removes the half of a line that a kill left: what is written behind it could not be read."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with open(path, "r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
                os.fsync(file.fileno())
    finally:
        lock.release()


def open_study(
    optuna: Any, storage: Any, workers: Workers, name: str, directions: Sequence[str], identity: str, **given: Any
) -> Any:
    """The study of a search, which is made if the storage does not hold it.

    Raises:
        ValueError: The storage holds another search of this name.
    """
    with workers.alone():
        study = optuna.create_study(
            study_name=name,
            storage=_opened(optuna, storage, path_of(storage)),
            directions=list(directions),
            load_if_exists=True,
            **given,
        )
        found = study.user_attrs.get(_IDENTITY)
        if found is None:
            study.set_user_attr(_IDENTITY, identity)
        elif found != identity:
            raise ValueError(
                f"`storage` must hold the same search, or none called {name!r}. Received: one of {found}, "
                f"where this one is of {identity}"
            )
    return study


def begin(study: Any, optuna: Any, workers: Workers, start: Mapping[str, Any]) -> None:
    """Enqueues the start of a new search, and again what processes were at when they were killed."""
    running = optuna.trial.TrialState.RUNNING
    with workers.alone():
        trials = study.get_trials(deepcopy=False)
        if not trials:
            study.enqueue_trial(dict(start), user_attrs={"start": True})
        if workers.folder is None:
            return
        others = workers.others()
        for trial in [trial for trial in trials if trial.state == running]:
            worker = trial.user_attrs.get(_WORKER)
            if worker in others or (worker is None and others):
                continue
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            tries = trial.user_attrs.get(_AGAIN, 0)
            if trial.params and tries < _TRIES:
                again = {_AGAIN: tries + 1, "start": bool(trial.user_attrs.get("start"))}
                study.enqueue_trial(trial.params, user_attrs=again)


def ask(study: Any, workers: Workers) -> Any:
    """A new trial, marked as this process's."""
    with workers.alone():
        trial = study.ask()
        trial.set_user_attr(_WORKER, workers.name)
    return trial


def counts(study: Any, optuna: Any, workers: Workers) -> tuple[int, int, int]:
    """Trials that ended well (pruned ones too), that failed, and that other processes are at."""
    state = optuna.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    done = sum(trial.state in (state.COMPLETE, state.PRUNED) for trial in trials)
    failed = sum(trial.state == state.FAIL and "error" in trial.user_attrs for trial in trials)
    with workers.alone():
        others = workers.others() if any(trial.state == state.RUNNING for trial in trials) else []
    running = sum(trial.state == state.RUNNING and trial.user_attrs.get(_WORKER) in others for trial in trials)
    return done, failed, running
