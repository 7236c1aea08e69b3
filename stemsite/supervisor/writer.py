"""Writes lines in a thread of its own, so that nobody who prints waits for those who read.

A terminal that is held (Ctrl-S), a pipe that nobody reads or a full disk of the machine's log would
else keep the supervisor from its signals. Lines wait in memory, up to a limit.
"""

import os
import select
import threading
from collections import deque

MOST_BYTES = 1 << 20  # that wait to be written
CLOSE_SECONDS = 1.0  # for what still waits at the end


class Writer:
    """Lines on their way to files, by file descriptor. One thread fills it, another empties it.

    The thread only waits and writes: it holds no lock that a forked child would need.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._lines: deque[tuple[int, bytes]] = deque()
        self._bytes = 0  # that wait, and that are being written
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    def put(self, fd: int, text: bytes, *, always: bool = False) -> bool:
        """Have `text` written; False where too much waits already, unless it is `always` taken."""
        with self._changed:
            if self._bytes + len(text) > self._most and not always:
                return False
            self._lines.append((fd, text))
            self._bytes += len(text)
            self._changed.notify()
            return True

    def is_empty(self) -> bool:
        """Whether all was written."""
        return self._bytes == 0

    def close(self, patience: float = CLOSE_SECONDS) -> None:
        """Wait until all is written, at most `patience` seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                fd = self._lines[0][0]
                parts = []
                while self._lines and self._lines[0][0] == fd:
                    parts.append(self._lines.popleft()[1])
            text = b"".join(parts)
            _write(fd, text)
            with self._changed:
                self._bytes -= len(text)


def _write(fd: int, text: bytes) -> None:
    """Write all of `text`, or nothing more where the file is closed, as a terminal may be."""
    left = memoryview(text)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # another process made a terminal that it shares non-blocking
            select.select([], [fd], [])
        except OSError:
            return
