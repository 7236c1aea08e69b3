"""Files that are encoded when somebody asks for them, and can be read while they grow.

A thread encodes each, whoever goes away meanwhile: a download that broke off finds it finished.
Two that ask for the same at once share one.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

PIECE = 1 << 18
SOON = 0.5  # seconds; what takes no longer is sent as a finished file
LOOK_SECONDS = 0.05

_lock = threading.Lock()
_makings: dict[Path, "Making"] = {}
_encoders = threading.BoundedSemaphore(os.cpu_count() or 1)


class KeptFile:
    """A finished file, readable like a `WavView`, even once it is deleted.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size: int | None = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        while data := _piece(self._file, start, stop):
            start += len(data)
            yield data


class Making:
    """A file that is being encoded, readable like a `WavView` where nothing in it changes again.

    size: in bytes, None where nobody knows yet.
    """

    def __init__(self, kept: Path, write: Callable[[Path], None], size: int | None) -> None:
        self.size = size
        self._kept, self._write = kept, write
        # A name of its own for each attempt: two processes at once each rename a whole file.
        self._partial = kept.with_suffix(f".{uuid.uuid4().hex}.part")
        self._partial.touch()
        self._file = self._partial.open("rb", buffering=0)
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def wait(self) -> None:
        """Until all of it is there.

        Raises:
            OSError: the file cannot be written.
        """
        self._ended.wait()
        self._check()

    def wait_for_some(self) -> None:
        """Until some of it is there; for a moment until all is. Raises as `wait`."""
        self._ended.wait(SOON)
        while not self._ended.is_set() and not os.fstat(self._file.fileno()).st_size:
            self._ended.wait(LOOK_SECONDS)
        self._check()

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` or to the end, as soon as they are there.

        Raises:
            OSError: the file could not be written on.
        """
        while stop is None or start < stop:
            ended = self._ended.is_set()  # before it is read: then nothing comes after that
            if data := _piece(self._file, start, stop):
                start += len(data)
                yield data
            elif ended:
                break
            else:
                self._ended.wait(LOOK_SECONDS)
        self._check()

    def run(self) -> None:
        try:
            with _encoders:
                self._write(self._partial)
            self.size = os.fstat(self._file.fileno()).st_size
            self._partial.replace(self._kept)
        except BaseException as error:  # noqa: BLE001 (whoever reads it raises it)
            self._error = error
        finally:
            with _lock:
                _makings.pop(self._kept, None)
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self._ended.set()

    def _check(self) -> None:
        if self._ended.is_set() and self._error is not None:
            raise self._error


def _piece(file: FileIO, start: int, stop: int | None) -> bytes:
    most = PIECE if stop is None else min(PIECE, stop - start)
    return os.pread(file.fileno(), most, start) if most > 0 else b""


def make(kept: Path, write: Callable[[Path], None], size: int | None) -> Making:
    """Have `write` make the file `kept`, or join in where that is under way.

    Args:
        write: called in a thread with the path to write; must not ask the database.
        size: of the finished file, where it is known.

    Raises:
        OSError: there is no place for it.
    """
    with _lock:
        making = _makings.get(kept)
        if making is None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            making = _makings[kept] = Making(kept, write, size)
            threading.Thread(target=making.run, daemon=True, name=f"encoder {kept.name}").start()
    return making
