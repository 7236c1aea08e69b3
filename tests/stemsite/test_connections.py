"""Connections that end in two ways at once, and a system without room for more: each counts until
it is closed, once, and the web server goes on."""

import errno
import logging
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

from separations.fair_use.address_ranges import ranges
from stemsite.server import gunicorn_worker, lingering, pacing
from stemsite.server.gunicorn_worker import Worker
from stemsite.server.lingering import Lingerer
from stemsite.server.pacing import PacedSocket
from stemsite.server.request_reader import RequestReader

WHO = ranges("198.51.100.1")


class Held:
    """What the reader needs of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_was_dropped_is_not_dropped_again_by_its_data(stack: ExitStack, sent: bytes) -> None:
    """Both happen in one round of the main loop: data of the oldest, and one connection more."""
    poller = stack.enter_context(selectors.DefaultSelector())
    gone: list[Any] = []
    ready: list[Any] = []

    def close(connection: Any, _answer: bytes) -> None:
        gone.append(connection)
        connection.close()

    reader = RequestReader(poller, lambda each, _: ready.append(each), close, 15.0, 4094, 4)
    pairs = [pair(stack) for _ in range(3)]
    first, second, third = (Held(ours) for ours, _ in pairs)
    reader.add(first, WHO, b"")
    reader.add(second, WHO, b"")
    pairs[0][1].send(sent)
    events = poller.select(1)
    assert len(events) == 1
    reader.add(third, WHO, b"")
    for key, _ in events:
        key.data(key.fileobj)
    assert gone == [first]
    assert ready == []
    assert len(reader) == 2


def test_what_went_to_make_room_is_not_ended_again(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one round of the thread that waits for them: one connection more, and the oldest's end."""
    monkeypatch.setattr(lingering, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(Lingerer, "_work", lambda self: None)
    waiting = Lingerer()
    ours, theirs = pair(stack)
    waiting.add(ours)
    waiting._read_on()
    waiting.add(pair(stack)[0])
    theirs.close()
    waiting._read_on()
    assert ours.fileno() == -1
    assert len(waiting._until) == 1


@pytest.fixture
def worker(stack: ExitStack) -> Iterator[Worker]:
    """As it is before its main loop, at a port of its own."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.setblocking(False)
    found = Worker(0, os.getppid(), [listener], None, 30, Config(), logging.getLogger("worker"))
    found.poller = stack.enter_context(selectors.DefaultSelector())
    found._begin_counting()
    found.set_accept_enabled(True)
    yield found
    found.tmp.close()


def knock(worker: Worker, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(worker.sockets[0].getsockname()))


def test_a_connection_counts_until_it_is_closed_and_once(
    worker: Worker, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(worker, "_collect", found.append)
    for _ in range(2):
        knock(worker, stack)
        worker.wait_for_and_dispatch_events(1)
    assert worker.nr_conns == 2
    for _ in range(2):  # as gunicorn does
        worker.nr_conns -= 1
        found[0].close()
    assert worker.nr_conns == 1
    found[1].is_taken = True
    found[1].close(graceful=True)
    assert worker.nr_conns == 0
    assert found[1].sock.fileno() >= 0, "it is somebody else's to close"
    found[1].sock.close()


def test_a_connection_that_cannot_be_read_ends_alone(
    worker: Worker, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(conn: Any) -> None:
        raise KeyError(conn)

    monkeypatch.setattr(worker, "_collect", broken)
    client = knock(worker, stack)
    worker.wait_for_and_dispatch_events(1)
    client.settimeout(5)
    assert client.recv(1) == b""
    assert worker.nr_conns == 0
    worker.method_queue.init()
    worker.poller.register(
        worker.method_queue.fileno(), selectors.EVENT_READ, worker.method_queue.run_callbacks
    )
    worker.method_queue.defer(broken, client)
    worker.wait_for_and_dispatch_events(1)
    worker.method_queue.close()


class Full:
    """A listener whose machine has no file left for a connection."""

    def accept(self) -> None:
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_files_for_more_the_server_waits_and_goes_on(
    worker: Worker,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(worker, "_collect", found.append)
    worker.accept(Full())
    worker.accept(Full())
    assert len(caplog.records) == 1
    knock(worker, stack)
    worker.set_accept_enabled(True)
    worker.wait_for_and_dispatch_events(0.05)
    assert found == [], "not before the pause is over"
    worker._accept_again -= gunicorn_worker.PAUSE_SECONDS
    worker.set_accept_enabled(True)
    worker.wait_for_and_dispatch_events(1)
    assert len(found) == 1
    found[0].close()


class Clock:
    """Whose every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("scarce", [False, True])
def test_who_sends_slowly_is_dropped_only_where_threads_are_scarce(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, scarce: bool
) -> None:
    ours, theirs = pair(stack)
    paced = stack.enter_context(PacedSocket(ours, lambda: scarce))
    monkeypatch.setattr(pacing, "time", Clock())
    read = 0
    try:
        for _ in range(60):
            theirs.sendall(bytes(8192))
            read += len(paced.recv(8192))
    except ConnectionResetError:
        assert scarce
    assert (read < 60 * 8192) == scarce
    # What is sent to others may be read slowly all the same: songs are heard, not fetched.
    paced.start_request()
    for _ in range(60):
        paced.sendall(bytes(8192))
        theirs.recv(8192)
