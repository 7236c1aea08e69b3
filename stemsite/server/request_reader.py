"""Reads the heads of requests, and small bodies, without blocking and without a thread.

A thread gets a connection when the whole head of its request has arrived, and a small body too
(forms, JSON). A client that sends those slowly, or never to their end, holds a socket and a few
kilobytes, but no thread. (Threads read large bodies; `fair_use.rate_limits` bounds how many.) The
web server's main loop does the reading and never waits for one socket.
"""

import contextlib
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from separations.fair_use.address_ranges import Range

PIECE = 1 << 16
MAX_HEAD = 1 << 16  # bytes; far more than gunicorn's limits let a browser use
SMALL = 1 << 16  # bytes of a body that is read here, as `fair_use.middleware.MAX_FORM_BYTES`
CHECK_SECONDS = 0.5
STOP_SECONDS = 2.0
LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*0*(\d{1,19})[ \t]*(?=\r\n)", re.IGNORECASE)
CODED = re.compile(rb"\r\nTransfer-Encoding[ \t]*:", re.IGNORECASE)
EXPECTS = re.compile(rb"\r\nExpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASON = b"The head of this request is far too long: more than 64 kB. Send less.\n"
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)


class PartialRequest:
    """A connection, the bytes of its next request that have arrived, and how many are needed."""

    def __init__(
        self, connection: Any, address_ranges: tuple[Range, ...], start: bytes, until: float
    ) -> None:
        self.connection, self.address_ranges, self.until = connection, address_ranges, until
        self.data = bytearray(start)
        self.wanted = 0  # bytes of head and body; 0 while the head is not whole
        self._searched = 0

    def is_whole(self, first_line: int) -> bool:
        """Whether a thread can serve or refuse the request without waiting for more bytes.

        first_line: the longest request line that is allowed.

        Raises:
            ValueError: its head is too large.
        """
        if not self.wanted and not self._measure():
            if len(self.data) > MAX_HEAD:
                raise ValueError
            return self._is_malformed(first_line)
        return len(self.data) >= self.wanted

    def _measure(self) -> bool:
        """Find the end of the head and the length of the body; whether the head is whole."""
        skipped = 2 if self.data.startswith(b"\r\n") else 0  # as RFC 9112, 2.2 allows
        end = self.data.find(b"\r\n\r\n", max(skipped, self._searched - 3))
        self._searched = len(self.data)
        if end < 0:
            return False
        head = bytes(self.data[: end + 2])
        self.wanted = end + 4
        lengths = LENGTH.findall(head)
        if len(lengths) == 1 and int(lengths[0]) <= SMALL and not CODED.search(head):
            self._expect(head, int(lengths[0]))
            self.wanted += int(lengths[0])
        return True

    def _expect(self, head: bytes, length: int) -> None:
        """Answer `Expect: 100-continue` for a small body, so that no thread has to."""
        if EXPECTS.search(head) and len(self.data) < self.wanted + length:
            with contextlib.suppress(OSError):  # a full buffer: the client is not reading anyway
                self.connection.sock.send(CONTINUE)
            shorter = EXPECTS.sub(b"", head)
            self.data[: len(head)] = shorter
            self.wanted -= len(head) - len(shorter)

    def _is_malformed(self, first_line: int) -> bool:
        """Whether gunicorn refuses it already: a line that is too long, or ends in LF alone."""
        if self.data.count(b"\n") != self.data.count(b"\r\n"):
            return True
        line = self.data.find(b"\r\n", 2)
        return line < 0 and len(self.data) > first_line + 4


class RequestReader:
    """Reads connections until a thread can serve them. Only the main loop uses it.

    Args:
        poller: the main loop's selector, whose keys hold the callback for a readable connection.
        ready: called with a connection and the bytes that were read from it.
        gone: called with a connection to close, and the answer to send first.
        patience: seconds that a head may take, and the same again for its body.
        first_line: the longest request line that gunicorn allows.
        most: connections at once. Beyond, the address range with the most loses its oldest.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        ready: Callable[[Any, bytes], None],
        gone: Callable[[Any, bytes], None],
        patience: float,
        first_line: int,
        most: int,
    ) -> None:
        self._poller, self._ready, self._gone = poller, ready, gone
        self._patience, self._first_line, self._most = patience, first_line, most
        self._arriving: dict[Any, PartialRequest] = {}  # by connection, in the order they came
        self._held: Counter[str] = Counter()  # by range of addresses
        self._check_at = 0.0

    def __len__(self) -> int:
        return len(self._arriving)

    def add(self, connection: Any, address_ranges: tuple[Range, ...], start: bytes) -> None:
        """Begin to read the next request of a non-blocking connection.

        address_ranges: the ranges of its client address; none behind proxies.
        start: bytes of it that were read already.
        """
        item = PartialRequest(connection, address_ranges, start, time.monotonic() + self._patience)
        if self._read(item):
            return
        self._arriving[connection] = item
        self._held.update(each.key for each in address_ranges)
        try:
            self._poller.register(
                connection.sock, selectors.EVENT_READ, lambda _: self._on_data(item)
            )
        except (OSError, ValueError, KeyError):  # the system has no room to watch one more
            self._close(item)
            return
        self._make_room(address_ranges)

    def drop_late(self, now: float, *, stopping: bool = False) -> None:
        """Close what took too long; while the site stops: sooner, and idle connections at once."""
        if now < self._check_at and not stopping:
            return
        self._check_at = now + CHECK_SECONDS
        for item in list(self._arriving.values()):
            if stopping:
                item.until = min(item.until, now + STOP_SECONDS)
            if item.until <= now or (stopping and not item.data):
                self._close(item)

    def _on_data(self, item: PartialRequest) -> None:
        if self._arriving.get(item.connection) is not item:
            return  # dropped to make room, earlier in this round of the main loop
        before = item.wanted
        if not self._read(item) and item.wanted and not before:
            item.until = time.monotonic() + self._patience

    def _read(self, item: PartialRequest) -> bool:
        """Read what has arrived. Returns whether the connection left this reader."""
        sock = item.connection.sock
        try:
            if self._is_whole(item):
                return True
            # Not PacedSocket's, which counts and waits.
            data = socket.socket.recv(sock, PIECE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._close(item)
            return True
        if not data:
            # gunicorn decides about a request that was cut off: it sees the same end.
            if item.data:
                self._hand_over(item)
            else:
                self._close(item)
            return True
        item.data += data
        return self._is_whole(item)

    def _is_whole(self, item: PartialRequest) -> bool:
        try:
            whole = bool(item.data) and item.is_whole(self._first_line)
        except ValueError:
            self._close(item, TOO_LARGE)
            return True
        if whole:
            self._hand_over(item)
        return whole

    def _hand_over(self, item: PartialRequest) -> None:
        self._forget(item)
        self._ready(item.connection, bytes(item.data))

    def _close(self, item: PartialRequest, answer: bytes = b"") -> None:
        self._forget(item)
        self._gone(item.connection, answer)

    def _forget(self, item: PartialRequest) -> None:
        if self._arriving.pop(item.connection, None) is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._poller.unregister(item.connection.sock)
        for each in item.address_ranges:
            self._held[each.key] -= 1
            if not self._held[each.key]:
                del self._held[each.key]

    def _make_room(self, address_ranges: tuple[Range, ...]) -> None:
        """Keep to `most` in all, half of that for one address, somewhat more for wider ranges."""
        for each in address_ranges:
            if self._held[each.key] > min(self._most, self._most / 2 * each.at_once):
                self._drop_oldest(each.key)
        if len(self._arriving) > self._most:
            common = self._held.most_common(1)
            self._drop_oldest(common[0][0] if common else "")

    def _drop_oldest(self, key: str) -> None:
        """Close the oldest connection of an address range, or of all ("")."""
        for item in self._arriving.values():
            if not key or any(each.key == key for each in item.address_ranges):
                self._close(item)
                return
