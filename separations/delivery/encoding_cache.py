"""The cache of encoded files (renditions): which are in use, and which are deleted to make room.

They lie in a folder for each job. The least recently used are deleted first: each can be encoded
again. A file that is being written or read is locked (flock) by the process that does so, until it
closes the file or ends. It is not deleted: that would free no space before it is closed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from django.conf import settings

from separations.disk import disk_space

PART = ".part"  # the suffix of files that are being encoded
TIMES_THE_STEMS = 2  # the renditions of a job may take so many times what its stems take
MOST_OF_A_JOB = 200  # files: six stems in every format and bit rate, with room for mixes and parts
BLOCK = 4096  # bytes that the smallest file takes
SPARE = 0.9  # of an exceeded cap, the part to shrink to, so that not every new file shrinks again
LOOK_SECONDS = 5.0  # how long a process trusts its last sum of all sizes


@dataclass(frozen=True)
class Encoding:
    """bytes: on the disk. used: the time of its last use, in nanoseconds."""

    path: Path
    bytes: int
    used: int

    @property
    def is_finished(self) -> bool:
        return self.path.suffix != PART


def hold(file: FileIO) -> None:
    """Lock an open file against deletion until it is closed."""
    # One that is being deleted just now can be read all the same.
    with contextlib.suppress(OSError):
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)


def drop(path: Path) -> bool:
    """Delete a file that is not being written or read; returns whether it is gone."""
    try:
        with path.open("rb", buffering=0) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def record_use(path: Path) -> None:
    """Set the time of a file's last use to now.

    Raises:
        FileNotFoundError: it was deleted.
    """
    os.utime(path)


def is_in_use(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def of_job(folder: Path) -> list[Encoding]:
    """All files of a job, those that are being encoded too; least recently used first."""
    return sorted(_in(folder), key=lambda each: each.used)


def everywhere() -> list[Encoding]:
    """All files of the site, least recently used first."""
    return sorted(_everywhere(), key=lambda each: each.used)


def _everywhere() -> Iterator[Encoding]:
    with contextlib.suppress(FileNotFoundError), os.scandir(settings.RENDITION_DIR) as jobs:
        for job in jobs:
            if job.is_dir():
                yield from _in(Path(job.path))


def _in(folder: Path) -> Iterator[Encoding]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                found = file.stat()
                yield Encoding(Path(file.path), max(found.st_size, BLOCK), found.st_mtime_ns)


def make_room(folder: Path, stems: Path, expected: int) -> None:
    """Delete old files so that a new one of at most `expected` bytes may be encoded in `folder`.

    Args:
        stems: the folder with the stems that it is encoded from.

    Raises:
        OSError: ENOSPC when the disk has no room for it all the same.
    """
    most = max(TIMES_THE_STEMS * disk_space.bytes_in(stems), expected)
    _shrink(of_job(folder), most - expected)
    _limit_number(of_job(folder), MOST_OF_A_JOB)  # the new one is there, and counted
    _shrink_site(expected)
    room = disk_space.room_beside_runs(settings.RENDITION_DIR)
    needed = expected + room.margin
    lacking = needed - room.left()
    if 0 < lacking <= sum(each.bytes for each in _everywhere()):  # else it would be for nothing
        free(lacking)
    disk_space.check(settings.RENDITION_DIR, needed)


def free(wanted: int) -> None:
    """Delete old files of so many bytes, as far as there are."""
    for each in everywhere():
        if wanted <= 0:
            return
        if each.is_finished and drop(each.path):
            wanted -= each.bytes


def over_the_cap() -> list[Encoding]:
    """Files to delete so that the others fit into MAX_ENCODINGS_GB. None of them is in use."""
    files = everywhere()
    total = sum(each.bytes for each in files)
    most = disk_space.most_encodings(total)
    if most is None or total <= most:
        return []
    return list(_to_drop(files, total - most))


def _shrink(files: list[Encoding], most: int) -> None:
    excess = sum(each.bytes for each in files) - most
    for each in _to_drop(files, excess):
        drop(each.path)


def _limit_number(files: list[Encoding], most: int) -> None:
    for each in files[: max(0, len(files) - most)]:
        if each.is_finished:
            drop(each.path)


def _to_drop(files: Iterable[Encoding], excess: int) -> Iterator[Encoding]:
    for each in files:
        if excess <= 0:
            return
        if each.is_finished and not is_in_use(each.path):
            excess -= each.bytes
            yield each


class _Total:
    """The bytes of all files: summed up now and then, increased by this process meanwhile."""

    def __init__(self) -> None:
        self._bytes, self._at = 0, float("-inf")

    def add(self, bytes: int) -> int:
        """Add bytes; returns the new total."""
        if time.monotonic() - self._at > LOOK_SECONDS:
            self.set(sum(each.bytes for each in _everywhere()))
        self._bytes += bytes
        return self._bytes

    def set(self, bytes: int) -> None:
        self._bytes, self._at = bytes, time.monotonic()


_total = _Total()


def _shrink_site(expected: int) -> None:
    total = _total.add(expected)
    most = disk_space.most_encodings(total - expected)
    if most is None or total <= most:
        return
    files = everywhere()
    _shrink(files, int(SPARE * most) - expected)
    _total.set(sum(each.bytes for each in files if each.path.exists()) + expected)
