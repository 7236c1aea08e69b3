"""gunicorn's worker with threads, made safe from clients that are slow or many.

A thread serves one request from its first byte to the last one sent, so whoever sends or reads
slowly holds one. Here a client that stays slower than SLOWEST is dropped, and one address holds at
most half of the threads; the rest of its connections wait for those.
"""

import errno
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from types import FrameType
from typing import Any

from gunicorn.workers import gthread  # type: ignore[import-untyped]

from separations.clients import network
from separations.stopping import stopping
from stemsite.lingering import Lingerer
from stemsite.logs import request_id
from stemsite.settings import SLOW_CLIENT_SECONDS, TRUSTED_PROXIES

SLOWEST = 4096.0  # bytes a second, of a request or its answer
LEFTOVER_SECONDS = 0.05
PATIENCE = float(SLOW_CLIENT_SECONDS)  # seconds of waiting beyond what that speed takes


class PacedSocket(socket.socket):
    """A connection that ends when its other side stays slower than SLOWEST.

    Only time spent waiting for the other side counts, and nothing is saved up: a fast start buys no
    pause later on.
    """

    _waited = 0.0

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(fileno=accepted.detach())

    def begin(self) -> None:
        """A new request: what was waited for the one before is forgiven."""
        self._waited = 0.0

    def setblocking(self, flag: bool, /) -> None:
        """gunicorn says here that it is about to read and write in a thread."""
        self.settimeout(PATIENCE if flag else 0.0)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        started = time.monotonic()
        try:
            data = super().recv(size, flags)
        except TimeoutError as error:
            raise _gone() from error
        self._count(started, len(data))
        return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            started = time.monotonic()
            try:
                sent = self.send(rest, flags)
            except TimeoutError as error:
                raise _gone() from error
            self._count(started, sent)
            rest = rest[sent:]

    def _count(self, started: float, moved: int) -> None:
        waited = time.monotonic() - started
        self._waited = max(0.0, self._waited + waited - moved / SLOWEST)
        if self._waited > PATIENCE:
            raise _gone()


def _gone() -> OSError:
    # What gunicorn takes for a client that went away: no error of the site.
    return ConnectionResetError(errno.ECONNRESET, "too slow")


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """Connections of one address share half of the threads; see above."""

    def init_process(self) -> None:
        self._busy: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[Any]] = defaultdict(deque)
        self._lingerer = Lingerer()
        super().init_process()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # By the main loop, a moment later: a second signal in the midst of `set` would wait for
        # the first one's lock for ever.
        self.method_queue.defer(stopping.set)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        # The main loop ends with this one, and a thread of its own cannot wait for itself.
        threading.Thread(target=stopping.set, daemon=True).start()
        super().handle_quit(sig, frame)

    def is_parent_alive(self) -> bool:
        alive = bool(super().is_parent_alive())
        if not alive:
            stopping.set()
        return alive

    def enqueue_req(self, conn: Any) -> None:
        """Called in the main thread, as is `finish_request`."""
        if not isinstance(conn.sock, PacedSocket) and not self.cfg.is_ssl:
            conn.sock = PacedSocket(conn.sock)
            conn.sock.setblocking(False)
        who = _who(conn)
        if who and self._busy[who] >= max(1, self.cfg.threads // 2):
            if len(self._waiting[who]) >= self.cfg.threads:
                # As gunicorn does; more than it accepts at all must not wait for one address.
                self.nr_conns -= 1
                conn.close()
                return
            self._waiting[who].append(conn)
            return
        self._busy[who] += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, future: Any) -> None:
        who = _who(conn)
        self._busy[who] -= 1
        super().finish_request(conn, future)
        if waiting := self._waiting.get(who):
            self.enqueue_req(waiting.popleft())
        if not self._waiting.get(who):
            self._waiting.pop(who, None)
        if self._busy[who] <= 0:
            del self._busy[who]

    def handle(self, conn: Any) -> Any:
        if isinstance(conn.sock, PacedSocket):
            conn.sock.begin()
        kept = super().handle(conn)
        request_id.set("")  # nothing that this thread logs is about that request any more
        if not kept:
            # The other side may take a while to go. gunicorn waits for that in its main thread,
            # where everybody else would wait too.
            if isinstance(conn.sock, PacedSocket):
                self._lingerer.take(conn.sock)
            else:
                conn.close(graceful=True)
            conn.close = _closed
        return kept

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Of a body that nobody read, only what is there already is read here: see `lingering`."""
        deadline = time.monotonic() + LEFTOVER_SECONDS
        return keepalive and bool(conn.parser.finish_body(deadline=deadline))


def _closed(graceful: bool = False) -> None:
    """What closes a connection that is closed already."""


def _who(conn: Any) -> str:
    """Whose connection it is; nobody's where all come from the proxies before us."""
    if TRUSTED_PROXIES or not isinstance(conn.client, tuple):
        return ""
    return network(conn.client[0])
