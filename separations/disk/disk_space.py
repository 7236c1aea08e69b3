"""Disk space: checks before anything is written, caps on what is stored, sizes of folders.

MIN_FREE_DISK_MB of the disk stay free. Code that writes calls `require_room` before it begins and
`require_next` while the file grows. A refusal asks the consumer to free some room (`want_room`,
`worker.crew`), through a file and not through the queue: the queue and the database may be what
cannot grow. Running separations check MIN_FREE_DISK_MB alone; all other writers also leave them the
space that they still need (`disk.reservations`).

Where the operator sets no cap, it follows the disk: all stored files together take at most nine
tenths of what the disk can hold beside MIN_FREE_DISK_MB, so that there is room for new ones;
renditions take at most half of what songs and results leave.

Not checked here, as their size is bounded otherwise: the counts for metrics (files of fixed size,
see `monitoring.multiprocess`), the engine that a machine chose (a short text), the static files and
the secret key (written once), rows of the database (rate limits). The operator's own commands
(`fetch_models`, `separate`) write where the operator says.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from separations.audio.free_space import MARGIN, Room
from separations.disk.reservations import reserved
from separations.errors.fault import storage_fault

SHARE_OF_ALL = 0.9
SHARE_OF_ENCODINGS = 0.5
SHARE_OF_AN_OWNER = 0.2
BYTES_A_FRAME = 8  # of the decoded song, which lies in the staging while it is separated
BYTES_A_STEM_FRAME = 6  # two channels of 24 bits; FLAC takes less of most music, and little more
USUAL_BYTES_A_STEM_FRAME = 3  # of music: 2.3 to 3.3 were measured for stems, 4 for whole songs
MARK = "room.wanted"
WANTED_SECONDS = 120  # for so long a clean-up still tries to make the room


def keep_free() -> int:
    return int(settings.MIN_FREE_DISK_MB * 1_000_000)


def room(folder: Path) -> Room:
    return Room(folder, keep_free())


def room_beside_runs(folder: Path) -> Room:
    """As `room`, without what running separations may still take: for all other writers.

    Raises:
        OSError: the disk cannot be asked.
    """
    return Room(folder, keep_free() + reserved(folder))


def require_room(folder: Path, expected: int = 0) -> None:
    """Check that so many bytes may be written below `folder`. Raises Fault: disk_full, storage."""
    try:
        check(folder, expected)
    except OSError as error:
        raise storage_fault(error) from error


def require_next(folder: Path) -> None:
    """Check that a file below `folder` may grow by one more piece. Raises as `require_room`."""
    try:
        check_next(folder)
    except OSError as error:
        raise storage_fault(error) from error


def check(folder: Path, expected: int = 0) -> None:
    """As `require_room`, but raises OSError: ENOSPC."""
    try:
        room_beside_runs(folder).check(expected)
    except OSError:
        want_room(expected + reserved(folder))
        raise


def check_next(folder: Path, margin: int = MARGIN) -> None:
    """As `require_next`, but raises OSError: ENOSPC."""
    try:
        room_beside_runs(folder).check_next(margin)
    except OSError:
        want_room(margin + reserved(folder))
        raise


def folders() -> tuple[Path, ...]:
    """Where songs, stems and renditions lie, finished or not."""
    return (
        settings.UPLOAD_DIR,
        settings.RESULT_DIR,
        settings.RENDITION_DIR,
        settings.STAGING_DIR,
        settings.FILE_UPLOAD_TEMP_DIR,
    )


def left() -> int:
    """Bytes that may still be written; negative where less than MIN_FREE_DISK_MB is free.

    Raises:
        OSError: the disk cannot be asked.
    """
    return min(room(folder).left() for folder in (settings.DATA_DIR, *folders()))


def is_short() -> bool:
    return left() < 0


# Asking for room


def want_room(bytes: int = 0) -> None:
    """Ask the consumer to clean up until so many bytes fit. Never fails."""
    try:
        (settings.DATA_DIR / MARK).write_text(str(bytes))
    except OSError:
        return  # the consumer finds by itself that the disk is full


def wanted_at() -> float:
    """When room was last asked for, as time.time() counts; 0.0 if it never was."""
    try:
        return float((settings.DATA_DIR / MARK).stat().st_mtime)
    except OSError:
        return 0.0


def lacking() -> int:
    """Bytes that are missing now: to MIN_FREE_DISK_MB, or to what was asked for lately."""
    wanted = 0
    if time.time() - wanted_at() < WANTED_SECONDS:
        with suppress(OSError, ValueError):
            wanted = int((settings.DATA_DIR / MARK).read_text())
    return max(0, wanted - left())


# Caps, and sizes


def most_kept(kept: int) -> int:
    """Bytes that all stored files may take by the disk's size, where they take `kept` now."""
    return max(0, int(SHARE_OF_ALL * (kept + left())))


def most_of_an_owner() -> float:
    """Bytes that one owner's songs, stems and renditions may take; 0 for no limit."""
    asked = settings.MAX_OWNER_STORAGE_GB
    return SHARE_OF_AN_OWNER * room(settings.RESULT_DIR).most() if asked is None else asked * 1e9


def most_encodings(kept: int) -> int | None:
    """Bytes that all renditions may take, where they take `kept` now; None for no cap."""
    if settings.MAX_ENCODINGS_GB is None:
        return max(0, int(SHARE_OF_ENCODINGS * (kept + left())))
    return round(settings.MAX_ENCODINGS_GB * 1e9) or None


def separation_bytes(frames: int, stems: int) -> int:
    """The most bytes that a separation takes on the disk: the decoded song, and a file for the
    mixture and for each stem."""
    return frames * (BYTES_A_FRAME + (1 + stems) * BYTES_A_STEM_FRAME)


def result_bytes(frames: int, stems: int) -> int:
    """The bytes that stems and mixture of a song usually take in the store.

    For quotas: by the most that they could take, music would count twice.
    """
    return frames * (1 + stems) * USUAL_BYTES_A_STEM_FRAME


def bytes_at(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return bytes_in(path) if path.is_dir() else bytes_of(path)


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; one that is deleted meanwhile counts nothing."""
    total = 0
    for home, _folders, names in os.walk(folder):
        for name in names:
            total += bytes_of(os.path.join(home, name))  # noqa: PTH118 - there are many
    return total


def bytes_of(path: str | Path) -> int:
    """Bytes of a file, divided by its number of hard links; 0 when it is gone."""
    try:
        found = os.stat(path)  # noqa: PTH116 - there are many
    except OSError:
        return 0
    return found.st_size // max(1, found.st_nlink)
