"""Limit the decoders on a machine across all processes of the site.

A slot is a lock file in a folder that all processes share. The kernel frees the lock when its
holder dies, and locking works on a full disk. A file beside the lock names its client.
Engines have slots of their own, which no upload occupies.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from filelock import FileLock, Timeout

from separations.errors.fault import Fault

PATIENCE_SECONDS = 30.0
OWN_PATIENCE_SECONDS = 90.0  # while the client's own songs are in the way: a class at one address
POLL_SECONDS = 0.05
DOOR_SECONDS = 10.0  # it is held for less than a millisecond
NAME_BYTES = 32  # a fixed length, so that changing the file needs no more room on the disk


class Lack(Enum):
    """Why no slot is free: all are taken, or the client's share is."""

    SLOT = "busy"
    SHARE = "too_many_at_once"


class DecoderSlots:
    """Slots for decoders; each needs a core, and `lockdown.PROCESS_BYTES` of memory.

    One client gets at most half of the uploads' slots, if there are several, so that songs made to
    be slow do not stop those of others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiter] = []  # in this process, the first to come first
        self._folder: Path | None = None  # until `set_up` nothing is counted

    def set_up(self, uploads: int, engines: int, folder: Path) -> None:
        """Set the numbers of slots, and the folder that this machine's processes share."""
        self._uploads, self._engines, self._folder = uploads, engines, folder
        self._share = max(1, uploads // 2)

    @contextmanager
    def for_upload(self, client: str) -> Iterator[None]:
        """Hold a slot for an upload.

        Args:
            client: a hash of who sent it, whose share is limited; "" for no client.

        Raises:
            Fault: too_many_at_once when the client has its share, busy when all slots are taken.
        """
        if self._folder is None:
            yield
            return
        with self._wait_for_slot(client):
            yield

    @contextmanager
    def for_engine(self) -> Iterator[None]:
        """Hold a slot for an engine. It waits for other engines only."""
        if self._folder is None:
            yield
            return
        folder = _ready(self._folder)
        while (slot := _first_free(folder, "engine", self._engines)) is None:
            _pause()
        with slot:
            yield

    def _wait_for_slot(self, client: str) -> "_Slot":
        waiter = _Waiter(client)
        with self._lock:
            self._waiting.append(waiter)
        try:
            while (slot := self._try_in_turn(waiter)) is None:
                waiter.pause()
        finally:
            with self._lock:
                self._waiting.remove(waiter)
        return slot

    def _try_in_turn(self, waiter: "_Waiter") -> "_Slot | None":
        """Try for a slot, unless an earlier waiter of this process lacks any slot at all.

        Between processes the order is random: all of them poll at the same pace.
        """
        with self._lock:
            before = self._waiting[: self._waiting.index(waiter)]
            if any(other.lack is Lack.SLOT for other in before):
                waiter.lack = Lack.SLOT
                return None
            found = self._try(waiter.client)
        if isinstance(found, Lack):
            waiter.lack = found
            return None
        return found

    def _try(self, client: str) -> "_Slot | Lack":
        assert self._folder is not None  # noqa: S101 - for the type checker
        folder = _ready(self._folder)
        name = client.encode()[:NAME_BYTES].ljust(NAME_BYTES)
        try:
            # Else two processes could both give one client its last slot.
            with _lock(folder / "door", DOOR_SECONDS):
                name_files = [folder / f"upload-{number}.client" for number in range(self._uploads)]
                if client and self._held(name_files, name) >= self._share:
                    return Lack.SHARE
                slot = _first_free(folder, "upload", self._uploads)
                if slot is None:
                    return Lack.SLOT
                slot.record_client(name)
                return slot
        except Timeout:
            return Lack.SLOT

    def _held(self, name_files: list[Path], name: bytes) -> int:
        """How many slots a client holds. Its file outlives the lock, so that is checked as well."""
        mine = [file for file in name_files if _read(file) == name]
        return sum(_is_held(file.with_suffix("")) for file in mine)


class _Waiter:
    """An upload that waits in this process, and what it lacks."""

    def __init__(self, client: str) -> None:
        self.client, self.lack = client, Lack.SHARE
        self._waited = {Lack.SLOT: 0.0, Lack.SHARE: 0.0}

    def pause(self) -> None:
        """Wait a moment. Raises Fault (busy, too_many_at_once) after too long."""
        self._waited[self.lack] += _pause()
        patience = PATIENCE_SECONDS if self.lack is Lack.SLOT else OWN_PATIENCE_SECONDS
        if self._waited[self.lack] > patience:
            raise Fault(self.lack.value, wait=10)


class _Slot:
    """A slot that is held until the context or the process ends."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def record_client(self, name: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk: then no client's share counts it
            _write_name(Path(self._lock.lock_file).with_suffix(".client"), name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def _ready(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _lock(path: Path, seconds: float) -> FileLock:
    return FileLock(path, timeout=seconds, thread_local=False)


def _first_free(folder: Path, kind: str, count: int) -> _Slot | None:
    for number in range(count):
        lock = _lock(folder / f"{kind}-{number}", 0)
        with contextlib.suppress(Timeout):
            lock.acquire()
            return _Slot(lock)
    return None


def _is_held(path: Path) -> bool:
    try:
        with _lock(path, 0):
            return False
    except Timeout:
        return True


def _write_name(path: Path, name: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)  # not truncated: it keeps its blocks
    try:
        os.write(file, name)
    finally:
        os.close(file)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # never held
        return b""


def _pause() -> float:
    """Wait for a random moment, so that no process is always last; returns the seconds."""
    began = time.monotonic()
    time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
    return time.monotonic() - began
