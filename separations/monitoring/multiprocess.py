"""The files that processes count metrics in, and the merging of files whose process has ended.

prometheus_client has every process write files of its own into one folder, and adds all of them up
when metrics are read. Here a process is alive while it holds the lock on its own `.alive` file: the
kernel releases it however the process ends, and in other containers too. So no process has to
report an end, and a process id that the system reuses is no other process's file.

- The first process of the site empties the folder.
- Later processes, and each reading, merge the counts of ended processes into one file. Totals never
  fall while a process of the site is alive, and the number of files does not grow.

No Django here: the web server's master process has none.
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
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks for the folder of counts
# Bytes of each file, enough for all labels there can be, and written in advance: a page of a mapped
# file for which a full disk has no room ends the process.
SIZES = {"counter": 512 * 1024, "histogram": 512 * 1024, "gauge_livesum": 64 * 1024}
MERGED = ("counter", "histogram")  # of a process that ended; gauges go with it
PAST = "past"
WAIT_SECONDS = 5.0
UNREADABLE = (RuntimeError, ValueError, struct.error)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on `folder`: no other process joins, reads or sweeps meanwhile.

    Raises:
        OSError: the folder cannot be used, or its lock is held for long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=WAIT_SECONDS):
        yield


class CountFiles:
    """The files that this process counts in, from now to its end."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError as `locked` does."""
        self.folder = folder
        self.name = uuid.uuid4().hex  # in names of files, where "_" parts
        with locked(folder):
            if not sweep(folder):
                for file in folder.glob("*.db"):
                    file.unlink(missing_ok=True)
            # Never closed. Processes that are forked later share the lock; those that are started
            # as programs do not.
            self._alive = os.open(folder / f"{self.name}.alive", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX)

    def reserve(self) -> None:
        """Write the files in their full size. Raises OSError if the disk has no room."""
        for kind, size in SIZES.items():
            _reserve(self.folder / f"{kind}_{self.name}.db", size)


def _reserve(file: Path, size: int) -> None:
    if not file.exists():
        try:
            file.write_bytes(bytes(size))
        except OSError:
            file.unlink(missing_ok=True)
            raise


def sweep(folder: Path) -> int:
    """Merge the files of ended processes; returns how many are alive. The folder is `locked`."""
    alive = {file.stem for file in folder.glob("*.alive") if _is_held(file)}
    for file in folder.glob("*.db"):
        kind, _, name = file.stem.rpartition("_")
        if name not in alive and name != PAST:
            _merge(file, kind)
    for file in folder.glob("*.alive"):
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


def _merge(file: Path, kind: str) -> None:
    if kind in MERGED:
        try:
            _add_up(file, kind)
        except OSError:
            return  # no room: it counts where it is, and is merged later
        except UNREADABLE:
            logger.warning("Counts of a process that ended were lost")
    file.unlink(missing_ok=True)


def _add_up(file: Path, kind: str) -> None:
    counted = list(MmapedDict.read_all_values_from_file(str(file)))
    target = file.with_name(f"{kind}_{PAST}.db")
    _reserve(target, SIZES[kind])
    with contextlib.closing(MmapedDict(str(target))) as past:
        for key, value, _time, _position in counted:
            past.write_value(key, past.read_value(key)[0] + value, 0.0)
