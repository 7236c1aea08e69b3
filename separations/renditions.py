"""Files that are encoded when somebody asks for them, and can be read while they grow.

A thread encodes each, whoever goes away meanwhile: a download that broke off finds it finished.
What nobody waits for any more when its turn comes is not begun. Two that ask for the same share
one.
"""

import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from separations.faults import Fault

PIECE = 1 << 18
SOON = 0.5  # seconds; what takes no longer is sent as a finished file
LOOK_SECONDS = 0.05

_lock = threading.Lock()
# By the file. Held by those who read them alone, so that what nobody reads any more is known.
_makings: "weakref.WeakValueDictionary[Path, Making]" = weakref.WeakValueDictionary()
_encoders = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))  # others work too


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

    def __init__(self, size: int | None) -> None:
        self.size = size
        self._file: FileIO | None = None
        self._ended = threading.Event()
        self._error: tuple[type[BaseException], tuple[object, ...]] | None = None

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
        while not self._ended.is_set() and not self._piece(0, 1):
            self._ended.wait(LOOK_SECONDS)
        self._check()

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` or to the end, as soon as they are there.

        Raises:
            OSError: the file could not be written on.
        """
        while stop is None or start < stop:
            ended = self._ended.is_set()  # before it is read: then nothing comes after that
            if data := self._piece(start, stop):
                start += len(data)
                yield data
            elif ended:
                break
            else:
                self._ended.wait(LOOK_SECONDS)
        self._check()

    def _piece(self, start: int, stop: int | None) -> bytes:
        return _piece(self._file, start, stop) if self._file else b""

    def _check(self) -> None:
        if self._ended.is_set() and self._error is not None:
            kind, arguments = self._error
            raise kind(*arguments)  # one for each who reads

    def begin(self, partial: Path) -> None:
        self._file = partial.open("rb", buffering=0)

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            self._error = (type(error), error.args)
        elif self._file is not None:
            self.size = os.fstat(self._file.fileno()).st_size
        self._ended.set()


def make(kept: Path, write: Callable[[Path], None], size: int | None) -> Making:
    """Have `write` make the file `kept`, or join in where that is under way.

    Args:
        write: called in a thread with the path to write; must not ask the database.
        size: of the finished file, where it is known.

    Raises:
        Fault: busy when there is no thread to be had.
    """
    with _lock:
        making = _makings.get(kept)
        if making is None:
            making = Making(size)
            asked = weakref.ref(making)
            thread = threading.Thread(target=_run, args=(asked, kept, write), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise Fault("busy", wait=10) from error
            _makings[kept] = making
    return making


def _run(asked: "weakref.ref[Making]", kept: Path, write: Callable[[Path], None]) -> None:
    """Encode a file in its turn, if somebody still waits for it then."""
    with _encoders:
        making = asked()
        if making is None:
            return
        # A name of its own for each attempt: two processes at once each rename a whole file.
        partial = kept.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()
            making.begin(partial)
            write(partial)
            with contextlib.suppress(FileNotFoundError):  # the song was deleted: it is not kept
                partial.replace(kept)
            making.end()
        except BaseException as error:  # noqa: BLE001 (whoever reads it raises it)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            making.end(error)
        finally:
            with _lock:
                if _makings.get(kept) is making:
                    del _makings[kept]


def _piece(file: FileIO, start: int, stop: int | None) -> bytes:
    most = PIECE if stop is None else min(PIECE, stop - start)
    return os.pread(file.fileno(), most, start) if most > 0 else b""
