"""Limits the disk space of uploads that are still arriving, by client.

A song has no owner until it is complete. So the name of its temporary file holds keyed hashes of
the client and of its address ranges: every web process reads a client's total from the folder.
"""

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.core.files import temp
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile

from separations.disk import disk_space
from separations.errors.fault import Fault, storage_fault
from separations.fair_use import token_bucket
from separations.fair_use.address_ranges import ranges

LOOK_SECONDS = 0.5  # how long a process trusts its last reading of the folder
TRUSTED_SHARE = 0.1  # or until it added this part of a client's share: others may have too
WAIT_SECONDS = 30  # some uploads may be complete by then
CHARACTERS = 20  # of a hash
END = "-"  # of the hashes in a file's name


class IncomingFile(TemporaryUploadedFile):
    """Django's temporary upload, in a file whose name holds the client's hashes."""

    def __init__(
        self,
        client: str,
        name: str,
        content_type: str,
        charset: str | None,
        extra: dict[str, bytes],
    ) -> None:
        """Raises OSError when the disk cannot hold the file."""
        file = temp.NamedTemporaryFile(
            prefix=".".join(_hashes(client)) + END,
            suffix=".upload",
            dir=settings.FILE_UPLOAD_TEMP_DIR,
        )
        UploadedFile.__init__(self, file, name, content_type, 0, charset, extra)


class _IncomingBytes:
    """Bytes of arriving uploads by hash: from the last reading, plus what was added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder, self._at = Path(), float("-inf")
        self._bytes = Counter[str]()
        self._added = 0

    def add(self, most: dict[str, float], bytes: int) -> bool:
        """Add bytes to each hash in `most`. Returns whether one exceeds its value there.

        Only a new reading decides so: uploads that were arriving a moment ago may be complete.
        """
        folder = Path(settings.FILE_UPLOAD_TEMP_DIR)
        with self._lock:
            self._added += bytes
            is_new = time.monotonic() - self._at < LOOK_SECONDS
            if (
                folder == self._folder
                and is_new
                and self._added < TRUSTED_SHARE * min(most.values())
            ):
                self._bytes.update(dict.fromkeys(most, bytes))
                if not self._are_above(most):
                    return False
            self._folder, self._bytes, self._at = folder, _bytes_in(folder), time.monotonic()
            self._added = bytes
            self._bytes.update(dict.fromkeys(most, bytes))
            return self._are_above(most)

    def _are_above(self, most: dict[str, float]) -> bool:
        return any(self._bytes[each] > most[each] for each in most)


_incoming_bytes = _IncomingBytes()


def reserve(client: str, bytes: int = 0) -> None:
    """Count bytes of a client's arriving upload, within its share of the disk.

    The share is what one owner may store; an address range's is `at_once` times that. Without such
    a limit, or without a client address, nothing is refused.

    Raises:
        Fault: quota_incoming; storage when the disk cannot be read.
    """
    try:
        most = disk_space.most_of_an_owner()
        if not most or not client:
            return
        shares = [most * each.at_once for each in ranges(client)]
        is_full = _incoming_bytes.add(
            dict(zip(_hashes(client), shares, strict=True)), max(1, bytes)
        )
    except OSError as error:
        raise storage_fault(error) from error
    if is_full:
        raise Fault("quota_incoming", most=f"{most / 1e9:.2g}", wait=WAIT_SECONDS)


@lru_cache(maxsize=4096)
def _hashes(client: str) -> tuple[str, ...]:
    hashes = (token_bucket.name_hash(f"incoming {each.key}") for each in ranges(client))
    return tuple(each[:CHARACTERS] for each in hashes)


def _bytes_in(folder: Path) -> Counter[str]:
    found = Counter[str]()
    with os.scandir(folder) as files:
        for file in files:
            hashes, end, _rest = file.name.partition(END)
            with suppress(FileNotFoundError):
                size = file.stat().st_size
                found.update(dict.fromkeys(hashes.split(".") if end else [], size))
    return found
