"""Lingering close: finish connections that are answered while the client is still sending.

Closing such a connection resets it, and the client sees the reset instead of the answer: a refused
upload would look like a broken network (RFC 9112, 9.6). So the connection is half closed, and what
arrives is read and dropped for a while, by one thread for all connections.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque

logger = logging.getLogger(__name__)
LINGER_SECONDS = 30.0
MOST_AT_ONCE = 256  # connections; beyond that, those that have had the longest go first
PIECE = 1 << 16


class Lingerer:
    """Closes connections when their client has stopped sending, or after LINGER_SECONDS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._new: deque[socket.socket] = deque()
        self._until: dict[socket.socket, float] = {}  # in the order of their ends
        self._listen, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._selector.register(self._listen, selectors.EVENT_READ)
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, connection: socket.socket) -> None:
        """Take over `connection`, on which the whole answer was sent."""
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(False)
        except OSError:  # gone already
            connection.close()
            return
        self._new.append(connection)
        with contextlib.suppress(BlockingIOError):  # a full pipe: the thread is awake already
            os.write(self._wake, b"\0")

    def _work(self) -> None:
        while True:
            try:
                self._read_on()
            except Exception:
                logger.exception("Connections could not be waited for")
                time.sleep(1)

    def _read_on(self) -> None:
        first = next(iter(self._until.values()), None)
        wait = None if first is None else max(0.0, first - time.monotonic())
        for key, _events in self._selector.select(wait):
            if key.fd == self._listen:
                os.read(self._listen, PIECE)
                self._begin()
            elif isinstance(key.fileobj, socket.socket) and _is_over(key.fileobj):
                self._end(key.fileobj)
        now = time.monotonic()
        while self._until and next(iter(self._until.values())) <= now:
            self._end(next(iter(self._until)))

    def _begin(self) -> None:
        while self._new:
            connection = self._new.popleft()
            try:
                self._selector.register(connection, selectors.EVENT_READ)
            except (OSError, ValueError, KeyError):  # the system has no room to watch one more
                connection.close()
                continue
            self._until[connection] = time.monotonic() + LINGER_SECONDS
            if len(self._until) > MOST_AT_ONCE:
                self._end(next(iter(self._until)))

    def _end(self, connection: socket.socket) -> None:
        if self._until.pop(connection, None) is None:
            return  # dropped to make room, earlier in this round
        self._selector.unregister(connection)
        connection.close()


def _is_over(connection: socket.socket) -> bool:
    """Read what has arrived; whether the client has stopped sending."""
    try:
        # Not PacedSocket's, which counts and waits.
        return not socket.socket.recv(connection, PIECE)
    except BlockingIOError:
        return False
    except OSError:
        return True
