"""Sockets that drop clients which send or read too slowly, so that none holds a thread for long.

SLOWEST always applies. While threads are scarce a sending client has to be faster: at 4 kB/s an
upload may take hours, and a few addresses could hold all threads that uploads may use.
"""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

from stemsite.settings import SLOW_CLIENT_SECONDS

SLOWEST = 4096.0  # bytes a second, of a request or its answer
SLOWEST_OF_MANY = 32768.0  # bytes a second of a request, while threads are scarce
PATIENCE = float(SLOW_CLIENT_SECONDS)  # seconds of waiting beyond what that speed takes


class PacedSocket(socket.socket):
    """A connection that ends when its client stays slower than that.

    Only time spent waiting for the client counts, and none is saved up: a fast start buys no pause
    later.

    is_scarce: whether few threads are free.
    """

    _waited = 0.0
    _held = b""  # pushed back, and not read yet

    def __init__(self, accepted: socket.socket, is_scarce: Callable[[], bool]) -> None:
        super().__init__(fileno=accepted.detach())
        self._is_scarce = is_scarce

    def start_request(self) -> None:
        """Forget the time that was spent waiting in the request before."""
        self._waited = 0.0

    def setblocking(self, flag: bool, /) -> None:
        """Set the time limit. gunicorn makes it blocking before it reads and writes in a thread."""
        self.settimeout(PATIENCE if flag else 0.0)

    def push_back(self, data: bytes) -> None:
        """Return these bytes from the next `recv`, before what arrives."""
        self._held = data

    def take_back(self) -> bytes:
        """Take what is left of the bytes pushed back: the beginning of the next request."""
        data, self._held = self._held, b""
        return data

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        started = time.monotonic()
        try:
            data = super().recv(size, flags)
        except TimeoutError as error:
            raise _gone() from error
        self._count(started, len(data), SLOWEST_OF_MANY if self._is_scarce() else SLOWEST)
        return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            started = time.monotonic()
            try:
                sent = self.send(rest, flags)
            except TimeoutError as error:
                raise _gone() from error
            self._count(started, sent, SLOWEST)
            rest = rest[sent:]

    def _count(self, started: float, moved: int, slowest: float) -> None:
        waited = time.monotonic() - started
        self._waited = max(0.0, self._waited + waited - moved / slowest)
        if self._waited > PATIENCE:
            raise _gone()


def _gone() -> OSError:
    # gunicorn takes this for a client that went away: no error of the site.
    return ConnectionResetError(errno.ECONNRESET, "too slow")
