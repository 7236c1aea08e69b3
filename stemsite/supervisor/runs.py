"""Runs of the site, each recorded in DATA_DIR/runs by two files while its supervisor lives.

MARK.lock is locked (flock) as long as the supervisor lives, whatever kills it. MARK.json says where
the site listens and how often its processes were started again. All processes of a run have MARK,
which is random, as STEMSITE_RUN in their environment: what has the mark of a run without a
supervisor is an orphan of that run and certainly nothing else, however process ids are reused.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import psutil

from separations.monitoring.restarts import RUN_VARIABLE, RUNS
from stemsite.setup import paths

__all__ = [
    "RUN_VARIABLE",
    "Run",
    "data_folder",
    "described",
    "end_orphans",
    "run_of",
    "shared_by_group",
]
ORPHAN_SECONDS = 10.0  # for orphans to end by themselves


def data_folder(environment: Mapping[str, str]) -> Path:
    """DATA_DIR as the settings read it. Django stays out of the supervisor: it takes 40 MB."""
    return (
        Path(environment.get("DATA_DIR", "").strip() or paths.ROOT / "data").expanduser().resolve()
    )


def shared_by_group(environment: Mapping[str, str]) -> bool:
    """GROUP_ACCESS as the settings read it; a value that they refuse shares nothing."""
    text = environment.get("GROUP_ACCESS", "").strip().lower()
    return text in ("1", "true", "yes", "on")


class Run:
    """This run of the site. Where DATA_DIR cannot be written, there is no record of it.

    problem: why there is none, and what that means; or "".
    """

    def __init__(self, data_dir: Path, address: str, *, group: bool = False) -> None:
        """group: whether DATA_DIR's group runs the site too, and has to see these records."""
        self._mode = 0o770 if group else 0o700
        self.mark = uuid.uuid4().hex
        self._folder, self._address = data_dir / RUNS, address
        self._lock: BufferedWriter | None = None
        self.problem = ""

    def __enter__(self) -> "Run":
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            with suppress(OSError):  # another user's, who has to open it
                self._folder.chmod(self._mode)
            # Locked before it has its name: without a lock it would be a dead run's.
            new = self._folder / f"{self.mark}.new"
            self._lock = new.open("xb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            new.rename(self._folder / f"{self.mark}.lock")
        except OSError as error:
            self.problem = (
                f"This run cannot be recorded in {self._folder}: {error.strerror}. Restarts are "
                "not counted, and should this process be killed, the next run does not end what "
                "it left"
            )
        return self

    def record(self, restarts: Mapping[str, int]) -> None:
        """Write how often each process was started again."""
        about = {"pid": os.getpid(), "address": self._address, "restarts": dict(restarts)}
        new = self._folder / f"{self.mark}.new"
        with suppress(OSError):
            new.write_text(json.dumps(about))
            new.rename(self._folder / f"{self.mark}.json")

    def __exit__(self, *_error: object) -> None:
        _forget(self._folder, self.mark)
        if self._lock is not None:
            self._lock.close()


def _forget(folder: Path, mark: str) -> None:
    for suffix in ("json", "new", "lock"):
        with suppress(OSError):
            (folder / f"{mark}.{suffix}").unlink(missing_ok=True)


@contextmanager
def _dead_runs(folder: Path) -> Iterator[list[str]]:
    """The marks of runs whose supervisors are dead, locked meanwhile: only one cleans up."""
    held: list[tuple[str, BufferedReader]] = []
    try:
        for path in folder.glob("*.lock"):
            with suppress(OSError):
                file = path.open("rb")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    continue
                held.append((path.stem, file))
        yield [mark for mark, _file in held]
    finally:
        for _mark, file in held:
            file.close()


def end_orphans(
    data_dir: Path, say: Callable[[str], None], patience: float = ORPHAN_SECONDS
) -> None:
    """End what earlier runs in this DATA_DIR left running when their supervisors were killed.

    patience: seconds for them to end by themselves, then they are killed.
    """
    folder = data_dir / RUNS
    with _dead_runs(folder) as marks:
        orphans = list(_marked(marks)) if marks else []
        if orphans:
            names = ", ".join(map(described, orphans))
            say(f"An earlier run was killed and left processes, which are ended now: {names}")
            for each in orphans:
                with suppress(psutil.Error):
                    each.terminate()
            for each in psutil.wait_procs(orphans, timeout=patience)[1]:
                with suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(orphans, timeout=ORPHAN_SECONDS)
        for mark in marks:
            _forget(folder, mark)


def _marked(marks: list[str]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_VARIABLE) in marks:
                yield process


def run_of(process: psutil.Process, data_dir: Path) -> dict[str, Any] | None:
    """The record of the run in this DATA_DIR that a process belongs to."""
    with suppress(psutil.Error, OSError, ValueError):
        mark = process.environ().get(RUN_VARIABLE)
        found = json.loads((data_dir / RUNS / f"{mark}.json").read_text())
        return found if isinstance(found, dict) else None
    return None


def described(process: psutil.Process) -> str:
    """A process for people: its number and its command line."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return f"process {process.pid}"
    shown = command if len(command) <= 80 else f"{command[:79]}…"
    return f"process {process.pid} ({shown})"
