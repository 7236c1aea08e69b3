"""The files that processes count in, and what becomes of them when a process ends.

prometheus_client has every process write files of its own into one folder, and adds them all up
for whoever asks. Here a process is there for as long as it holds the lock on its own `.alive` file:
the kernel takes it back however the process ends, and knows of processes in other containers too.
Nobody has to be told of a death, and a number that the system gives out again is no other's file.

- Who comes first, when nobody else is there, empties the folder: the site starts.
- Who comes later, or asks, puts the counts of those that ended into one file. Totals never fall
  while any process of the site is there, and the number of files does not grow.

No Django here: the web server's master process comes before it.
"""

import contextlib
import fcntl
import logging
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # set by the site's settings, and read by prometheus_client
# Bytes of each file. Written out beforehand, for all labels there can be: a page of a mapped file
# that finds no room on a full disk ends the process.
SIZES = {"counter": 512 * 1024, "histogram": 512 * 1024, "gauge_livesum": 64 * 1024}
KEPT = ("counter", "histogram")  # of a process that ended
PAST = "past"
WAIT_SECONDS = 5.0
UNREADABLE = (RuntimeError, ValueError, struct.error)


def folder() -> Path:
    return Path(os.environ[FOLDER])


@contextmanager
def alone() -> Iterator[None]:
    """While no other process joins, reads or sweeps.

    Raises:
        OSError: the folder cannot be used, or somebody holds it for long.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with FileLock(folder() / "lock", timeout=WAIT_SECONDS):
        yield


class Place:
    """This process's files, from now to its end."""

    def __init__(self) -> None:
        """Raises OSError as `alone` does."""
        self.name = uuid.uuid4().hex  # in names of files, where "_" parts
        with alone():
            if not sweep():
                for file in folder().glob("*.db"):
                    file.unlink(missing_ok=True)
            # Never closed. Processes that are forked later share the lock; those that are started
            # as programs do not.
            self._alive = os.open(folder() / f"{self.name}.alive", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX)

    def reserve(self) -> None:
        """Make the files that the process will count in. Raises OSError when there is no room."""
        for kind, size in SIZES.items():
            _reserve(folder() / f"{kind}_{self.name}.db", size)


def _reserve(file: Path, size: int) -> None:
    if not file.exists():
        try:
            file.write_bytes(bytes(size))
        except OSError:
            file.unlink(missing_ok=True)
            raise


def sweep() -> int:
    """Put away the files of processes that ended; returns how many are there. Called `alone`."""
    alive = {file.stem for file in folder().glob("*.alive") if _is_held(file)}
    for file in folder().glob("*.db"):
        kind, _, name = file.stem.rpartition("_")
        if name not in alive and name != PAST:
            _put_away(file, kind)
    for file in folder().glob("*.alive"):
        if file.stem not in alive:
            file.unlink(missing_ok=True)
    return len(alive)


def _is_held(file: Path) -> bool:
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def _put_away(file: Path, kind: str) -> None:
    if kind in KEPT:
        try:
            _add_to_past(file, kind)
        except OSError:
            return  # no room: it counts where it lies, and is put away another time
        except UNREADABLE:
            logger.warning("Counts of a process that ended were lost")
    file.unlink(missing_ok=True)


def _add_to_past(file: Path, kind: str) -> None:
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    target = folder() / f"{kind}_{PAST}.db"
    _reserve(target, SIZES[kind])
    with contextlib.closing(MmapedDict(str(target))) as past:
        for key, value, _time, _position in counted:
            past.write_value(key, past.read_value(key)[0] + value, 0.0)
