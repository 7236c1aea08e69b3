"""gunicorn's worker with threads, made safe from clients that are slow or many.

In gunicorn a thread serves one request from its first byte to the last one sent, so a slow client
holds a thread. Here the main loop reads heads and small bodies first (see `request_reader`) and a
client that stays too slow is dropped (see `pacing`). One client address holds at most as many
threads as it leaves free, and an eighth of all with FILES; its other connections wait.
"""

import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn.workers import gthread  # type: ignore[import-untyped]

from separations.fair_use.address_ranges import Range, client_range, ranges
from separations.logs.formatter import request_id
from separations.monitoring.shutdown import stopping
from stemsite.server.lingering import Lingerer
from stemsite.server.pacing import PATIENCE, PacedSocket
from stemsite.server.request_reader import RequestReader
from stemsite.settings import TRUSTED_PROXIES

LEFTOVER_SECONDS = 0.05
# Large answers that cost a client nothing: one that asks and does not read holds a thread. (Songs
# have shares of their own in `separations.fair_use.rate_limits`.)
FILES = (b"/static/", b"/openapi.json")
SWITCH_SECONDS = 0.002  # Python's own is 5 ms
PAUSE_SECONDS = 1.0  # without new connections, when the system has no file or memory for one
QUIET_SECONDS = 60.0  # between two lines of the log about that


class Connection(gthread.TConn):  # type: ignore[misc]
    """A connection that is counted until it is closed; closing it twice is harmless.

    ended: called with the connection when it is closed.
    """

    def __init__(self, *args: Any, ended: Callable[[Any], None]) -> None:
        super().__init__(*args)
        self._ended = ended
        self.is_taken = False  # whether the Lingerer closes its socket
        self.of_files = False  # whether its request is for one of FILES

    def close(self, graceful: bool = False) -> None:
        self._ended(self)
        if not self.is_taken:
            super().close(graceful)


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """A gunicorn worker that limits the threads of one client address; see the module."""

    @property
    def nr_conns(self) -> int:
        """How many connections are open. (gunicorn counts up and down, and miscounts a connection
        that ends in two ways at once, so its writes are ignored.)"""
        return len(self._open)

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        pass

    def init_process(self) -> None:
        # The main loop competes with all threads for the interpreter; a thread that computes keeps
        # it for this long.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._begin_counting()
        super().init_process()

    def _begin_counting(self) -> None:
        self._open: set[Any] = set()
        self._accept_again = 0.0  # by the monotonic clock
        self._log_again = 0.0
        self._threads_held = 0
        self._busy: Counter[str] = Counter()  # threads, by range of addresses
        self._busy_with_files: Counter[str] = Counter()  # likewise
        self._waiting: defaultdict[str, deque[Any]] = defaultdict(deque)  # by the widest of them
        self._lingerer = Lingerer()

    def run(self) -> None:
        # Idle connections must leave room for new ones.
        self.max_keepalived = self.worker_connections // 2
        self._reader = RequestReader(
            self.poller,
            self._ready,
            self._gone,
            PATIENCE,
            self.cfg.limit_request_line,
            self.worker_connections // 4,
        )
        super().run()

    # A signal interrupts the main loop anywhere, also while it holds a lock that stopping needs
    # (the thread pool's): it would deadlock. So the main loop does the work a moment later.

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.method_queue.defer(stopping.set)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self.method_queue.defer(stopping.set)
        self.method_queue.defer(super().handle_quit, sig, frame)

    def is_parent_alive(self) -> bool:
        alive = bool(super().is_parent_alive())
        if not alive:
            stopping.set()
        return alive

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled and time.monotonic() >= self._accept_again)

    def accept(self, listener: Any) -> None:
        """Accept a new connection. An error of the system does not end the worker."""
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            now = time.monotonic()
            self._accept_again = now + PAUSE_SECONDS
            self.set_accept_enabled(False)
            if now >= self._log_again:
                self._log_again = now + QUIET_SECONDS
                self.log.error("No connection can be taken for a moment: %s", error)
            return
        conn = Connection(self.cfg, sock, address, listener.getsockname(), ended=self._open.discard)
        self._open.add(conn)
        self.enqueue_req(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        for key, _ in self.poller.select(timeout):
            try:
                key.data(key.fileobj)
            except Exception:  # of one connection; the others go on
                self.log.exception("A connection could not be served")

    def enqueue_req(self, conn: Any) -> None:
        """Read the next request of a new or kept connection. This and all below but `handle` runs
        in the main loop."""
        try:
            self._collect(conn)
        except Exception:
            self.log.exception("A connection could not be read")
            conn.close()

    def _collect(self, conn: Any) -> None:
        if self.cfg.is_ssl:
            self._to_thread(conn)
            return
        if not isinstance(conn.sock, PacedSocket):
            conn.sock = PacedSocket(conn.sock, self._is_scarce)
        conn.sock.setblocking(False)
        # gunicorn may have read into this request while it searched for the end of the last one.
        start = conn.parser.unreader.take_buffered() if conn.parser else b""
        self._reader.add(conn, _ranges_of(conn), start)

    def _ready(self, conn: Any, data: bytes) -> None:
        conn.data_ready = True
        conn.of_files = _is_for_files(data)
        conn.sock.push_back(data)
        self._to_thread(conn)

    def _gone(self, conn: Any, answer: bytes) -> None:
        if answer:
            with suppress(OSError):
                conn.sock.send(answer)
            self._lingerer.add(conn.sock)
            conn.is_taken = True
        conn.close()

    def murder_pending(self) -> None:
        """gunicorn calls this in each round of the main loop."""
        super().murder_pending()
        self._reader.drop_late(time.monotonic(), stopping=not self.alive)

    def _to_thread(self, conn: Any) -> None:
        address_ranges = _ranges_of(conn)
        if not self._may_begin(conn):
            waiting = self._waiting[address_ranges[-1].key]
            if len(waiting) < self.cfg.threads * address_ranges[-1].at_once:
                waiting.append(conn)
            else:
                # As gunicorn does with more connections than it accepts.
                self._gone(conn, b"")
            return
        self._count(conn, 1)
        try:
            super().enqueue_req(conn)
        except RuntimeError:  # the system has no thread for it
            self.log.exception("A request could not be served")
            self._count(conn, -1)
            self._gone(conn, b"")

    def _may_begin(self, conn: Any) -> bool:
        """Whether a thread is left for the connection's address ranges; wider ranges may hold
        somewhat more. Several addresses at their limits still leave threads: each takes half of
        what the others left."""
        address_ranges, threads = _ranges_of(conn), self.cfg.threads
        share = max(1, threads - self._threads_held)
        if not _is_below(self._busy, address_ranges, share, max(1, threads * 3 // 4)):
            return False
        files = max(2, threads // 8)
        return not conn.of_files or _is_below(
            self._busy_with_files, address_ranges, files, 2 * files
        )

    def _count(self, conn: Any, step: int) -> None:
        """Count one busy thread more (1) or fewer (-1)."""
        self._threads_held += step
        for counter in (self._busy, self._busy_with_files) if conn.of_files else (self._busy,):
            for each in _ranges_of(conn):
                counter[each.key] += step
                if counter[each.key] <= 0:
                    del counter[each.key]

    def _is_scarce(self) -> bool:
        return bool(self._threads_held > self.cfg.threads // 2)

    def finish_request(self, conn: Any, future: Any) -> None:
        self._count(conn, -1)
        super().finish_request(conn, future)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Serve the first waiting connection that may begin; its address range then comes last."""
        for widest, waiting in list(self._waiting.items()):
            conn = next((each for each in waiting if self._may_begin(each)), None)
            if conn is None:
                continue
            waiting.remove(conn)
            del self._waiting[widest]
            if waiting:
                self._waiting[widest] = waiting
            self._to_thread(conn)
            return

    def handle(self, conn: Any) -> Any:
        if isinstance(conn.sock, PacedSocket):
            conn.sock.start_request()
        kept = super().handle(conn)
        request_id.set("")  # what this thread logs next is not about that request
        if not kept:
            # The client may take a while to close. gunicorn waits for that in its main thread,
            # and all other connections with it.
            if isinstance(conn.sock, PacedSocket):
                self._lingerer.add(conn.sock)
            else:
                conn.close(graceful=True)
            conn.is_taken = True
        elif isinstance(conn.sock, PacedSocket) and (left := conn.sock.take_back()):
            # Back to where gunicorn reads, behind what it has read itself.
            unreader = conn.parser.unreader
            unreader.unread(unreader.take_buffered() + left)
        return kept

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Read only what has arrived of a body that the view left unread; see `lingering`."""
        deadline = time.monotonic() + LEFTOVER_SECONDS
        return keepalive and bool(conn.parser.finish_body(deadline=deadline))


def _ranges_of(conn: Any) -> tuple[Range, ...]:
    """The ranges of the client's address; none behind proxies, which connect for all clients."""
    if TRUSTED_PROXIES or not isinstance(conn.client, tuple):
        return ()
    return ranges(client_range(conn.client[0]))


def _is_below(held: Counter[str], address_ranges: tuple[Range, ...], share: int, most: int) -> bool:
    """Whether each address range holds less than its share, and less than `most`."""
    return all(held[each.key] < min(most, share * each.at_once) for each in address_ranges)


def _is_for_files(request: bytes) -> bool:
    """Whether the first line asks for one of FILES, percent-encoded or not."""
    address = unquote_to_bytes(request.lstrip(b"\r\n").partition(b"\r\n")[0])
    return any(each in address for each in FILES)
