"""Reservations of disk space for running separations: consumers publish them, other writers leave
that space free.

Each consumer has a small file, not a row: so it works while the database cannot be written, and a
process that writes many files reads the reservations once a second only.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings

FOLDER = "promises"  # in DATA_DIR
STALE_SECONDS = 60.0  # after which the consumer of a file counts as dead
FORGOTTEN_SECONDS = 24 * 3600.0  # after which its file is deleted
LOOK_SECONDS = 1.0


class Reservations:
    """The bytes that the runs of one consumer will still write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Callable[[], int]] = []
        self._file = _folder() / f"{platform.node()}.{os.getpid()}"

    @contextmanager
    def hold(self, still_needed: Callable[[], int]) -> Iterator[None]:
        """Reserve as many bytes as `still_needed` returns, now and at each `publish`."""
        with self._lock:
            self._runs.append(still_needed)
        self.publish()
        try:
            yield
        finally:
            with self._lock:
                self._runs.remove(still_needed)
            self.publish()

    def publish(self) -> None:
        """Write the sum for other processes. Never fails: a full disk leaves no room anyway."""
        with self._lock, suppress(OSError):
            bytes = sum(max(0, needed()) for needed in self._runs)
            if not bytes:
                self._file.unlink(missing_ok=True)
                return
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_name(f".{self._file.name}")
            part.write_text(str(bytes))
            part.replace(self._file)


class _Cache:
    """What all consumers reserved, as this process read it last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder, self._bytes, self._at = Path(), 0, float("-inf")

    def bytes(self) -> int:
        folder, now = _folder(), time.monotonic()
        with self._lock:
            if folder != self._folder or now - self._at > LOOK_SECONDS:
                self._folder, self._bytes, self._at = folder, _read(folder), now
            return self._bytes


_cache = _Cache()


def reserved(folder: Path) -> int:
    """Bytes of the disk of `folder` that separations will take yet; at most LOOK_SECONDS old.

    Raises:
        OSError: the disk cannot be asked.
    """
    bytes = _cache.bytes()
    if not bytes or folder.stat().st_dev != settings.STAGING_DIR.stat().st_dev:
        return 0
    return bytes


def _folder() -> Path:
    return Path(settings.DATA_DIR, FOLDER)


def _read(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            with suppress(OSError, ValueError):
                age = time.time() - file.stat().st_mtime
                if age > FORGOTTEN_SECONDS:
                    file.unlink()
                elif age < STALE_SECONDS and not file.name.startswith("."):
                    total += int(file.read_text())
    return total
