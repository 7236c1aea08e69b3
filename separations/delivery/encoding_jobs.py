"""Encoding of files on request, readable while they grow.

A thread encodes each file, even if the client disconnects: a download that is resumed finds it
finished. Turns go round by client, and are shared where they take long. An encoding that no request
waits for when its turn comes is not begun. Two requests for the same file share one.
"""

import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from loky import cpu_count

from separations.delivery import encoding_cache
from separations.errors.fault import Fault
from separations.fair_use.client_turns import Turn, Turns

PIECE = 1 << 18
SOON = 0.5  # seconds; what takes no longer is sent as a finished file
LOOK_SECONDS = 0.05

_lock = threading.Lock()
# By the file. Only readers hold references, so that an encoding without readers is recognised.
_growing: "weakref.WeakValueDictionary[Path, GrowingFile]" = weakref.WeakValueDictionary()
_turns = Turns(max(1, cpu_count() // 2))  # separations need the other cores


class FinishedFile:
    """A finished file as a byte source, readable even once it is deleted.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        encoding_cache.hold(self._file)
        self.size: int | None = os.fstat(self._file.fileno()).st_size

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        while data := _piece(self._file, start, stop):
            start += len(data)
            yield data


class GrowingFile:
    """A file that is being encoded, as a byte source; bytes once written never change.

    size: in bytes, None while that is not known.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self._file: FileIO | None = None
        self._ended = threading.Event()
        self._error: tuple[type[BaseException], tuple[object, ...]] | None = None

    def wait(self) -> None:
        """Block until all of it is written.

        Raises:
            OSError: the file cannot be written.
        """
        self._ended.wait()
        self._check()

    def wait_for_some(self) -> None:
        """Block until some of it is written, or SOON for all of it. Raises as `wait`."""
        self._ended.wait(SOON)
        while not self._ended.is_set() and not self._piece(0, 1):
            self._ended.wait(LOOK_SECONDS)
        self._check()

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` or to the end, as soon as they are written.

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
            raise kind(*arguments)  # a new one for each reader

    def begin(self, partial: Path) -> None:
        self._file = partial.open("rb", buffering=0)
        encoding_cache.hold(self._file)

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            self._error = (type(error), error.args)
        elif self._file is not None:
            self.size = os.fstat(self._file.fileno()).st_size
        self._ended.set()


def turn(client: str) -> Turn:
    """A turn of `client` among the encodings, for other work that takes as long."""
    return _turns.ask(client)


def encode(
    cached: Path, write: Callable[[Path, Turn], None], size: int | None, client: str = ""
) -> GrowingFile:
    """Encode the file `cached` in a thread by calling `write`, or join the encoding under way.

    Args:
        write: called with the path to write, and the turn, to share now and then; must not use
            the database.
        size: of the finished file, where it is known.
        client: among whose encodings it waits for its turn.

    Raises:
        Fault: busy when there is no thread to be had.
    """
    with _lock:
        growing = _growing.get(cached)
        if growing is None:
            growing = GrowingFile(size)
            asked = weakref.ref(growing)
            waiting = _turns.ask(client)
            thread = threading.Thread(
                target=_run, args=(waiting, asked, cached, write), daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                waiting.end()
                raise Fault("busy", wait=10) from error
            _growing[cached] = growing
    return growing


def is_under_way(cached: Path) -> bool:
    """Whether the file `cached` is being encoded, or waits for its turn."""
    with _lock:
        return cached in _growing


def _run(
    waiting: Turn,
    asked: "weakref.ref[GrowingFile]",
    cached: Path,
    write: Callable[[Path, Turn], None],
) -> None:
    """Encode a file in its turn, if a request still waits for it then."""
    with waiting as begun:
        growing = asked()
        if growing is None:
            return
        # A name of its own for each attempt: two processes at once each rename a whole file.
        partial = cached.with_suffix(f".{uuid.uuid4().hex}{encoding_cache.PART}")
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()
            growing.begin(partial)
            write(partial, begun)
            with contextlib.suppress(FileNotFoundError):  # the song was deleted: it is not cached
                partial.replace(cached)
            growing.end()
        except BaseException as error:  # noqa: BLE001 (its readers raise it)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            growing.end(error)
        finally:
            with _lock:
                if _growing.get(cached) is growing:
                    del _growing[cached]


def _piece(file: FileIO, start: int, stop: int | None) -> bytes:
    most = PIECE if stop is None else min(PIECE, stop - start)
    return os.pread(file.fileno(), most, start) if most > 0 else b""
