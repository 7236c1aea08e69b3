"""Requests that arrive in pieces or never whole, at the real web server: they hold no thread."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.connections import connect, is_closed, seconds_for_a_page
from tests.support.running_site import Site, running, until

THREE = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
FOURTH = "127.0.0.5"
GET = b"GET /about HTTP/1.1\r\nHost: localhost\r\n"
FORM = (
    b"POST /account/login HTTP/1.1\r\nHost: localhost\r\nCookie: csrftoken=" + b"a" * 32 + b"\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "SLOW_CLIENT_SECONDS": "3"}
    with running(tmp_path_factory.mktemp("arriving"), **settings) as started:
        yield started


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def answers(client: socket.socket, count: int = 1) -> list[bytes]:
    """The bytes of so many answers with a length, whole."""
    client.settimeout(20)
    found: list[bytes] = []
    data = b""
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        if end and len(rest) >= size:
            found.append(head + end + rest[:size])
            data = rest[size:]
            continue
        piece = client.recv(65536)
        if not piece:
            break
        data += piece
    return found


def statuses(client: socket.socket, count: int = 1) -> list[int]:
    return [int(each.split(b" ")[1]) for each in answers(client, count)]


@pytest.mark.parametrize(
    "start",
    [
        b"",
        GET + b"X: ",
        FORM + b"\r\nusername=",
        FORM + b"Expect: 100-continue\r\n\r\nusername=",
        FORM.replace(b"1000", b"1000".zfill(40)) + b"\r\nusername=",
    ],
    ids=[
        "nothing",
        "half a head",
        "half a form",
        "half a form that waited to be asked for",
        "half a form of a length with zeros before it",
    ],
)
def test_who_sends_half_requests_keeps_nobody_waiting(
    site: Site, connections: ExitStack, start: bytes
) -> None:
    """450 of them from three addresses, and a fourth that asks for a page."""
    half = [connect(site, connections, start, THREE[n % 3]) for n in range(450)]
    assert max(seconds_for_a_page(site, FOURTH) for _ in range(5)) < 1.0
    assert max(seconds_for_a_page(site, THREE[0]) for _ in range(3)) < 1.0, "nor themselves"
    until(lambda: all(map(is_closed, half[::30])), 20)
    assert seconds_for_a_page(site, FOURTH) < 1.0


def test_of_too_many_the_oldest_of_the_busiest_goes_first(
    site: Site, connections: ExitStack
) -> None:
    honest = connect(site, connections, GET, FOURTH)
    half = [connect(site, connections, GET, THREE[n % 3]) for n in range(450)]
    until(lambda: all(map(is_closed, half[:100:20])), 5)
    honest.sendall(b"\r\n")
    assert statuses(honest) == [200]


def test_a_request_in_pieces_is_served_and_the_next_one_too(
    site: Site, connections: ExitStack
) -> None:
    client = connect(site, connections, b"")
    for _ in range(2):
        for piece in (b"GET /ab", b"out HTTP/1.1\r", b"\nHost: localhost\r\n", b"\r", b"\n"):
            client.sendall(piece)
            time.sleep(0.02)
        assert statuses(client) == [200]


def test_a_form_in_pieces_is_read_whole(site: Site, connections: ExitStack) -> None:
    client = connect(site, connections, FORM + b"\r\nusername=")
    for piece in (b"a" * 500, b"b" * 491):
        time.sleep(0.02)
        client.sendall(piece)
    assert statuses(client) == [403], "its token is not in there"


def test_requests_one_behind_the_other_are_all_served(site: Site, connections: ExitStack) -> None:
    client = connect(site, connections, (GET + b"\r\n") * 3 + FORM)
    assert statuses(client, 3) == [200] * 3
    client.sendall(b"\r\n" + b"a" * 1000 + GET + b"\r\n")
    assert statuses(client, 2) == [403, 200]


@pytest.mark.parametrize("length", [1000, 100_000])
def test_who_waits_to_be_asked_for_a_body_is_asked(
    site: Site, connections: ExitStack, length: int
) -> None:
    head = FORM.replace(b"1000", str(length).encode()) + b"Expect: 100-continue\r\n\r\n"
    client = connect(site, connections, head)
    client.settimeout(20)
    if length == 1000:
        assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"a" * length)
        assert statuses(client) == [403]
    else:
        assert 413 in statuses(client, 2), "refused unread"


def test_other_ways_to_ask_are_served_as_well(site: Site, connections: ExitStack) -> None:
    old = connect(site, connections, b"GET /about HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert statuses(old) == [200]
    empty_line = connect(site, connections, b"\r\n" + GET + b"\r\n")
    assert statuses(empty_line) == [200]
    bare = connect(site, connections, b"GET /about HTTP/1.0\r\n\r\n")
    assert statuses(bare) in ([200], [400])
    chunked = FORM.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")
    pieces = connect(site, connections, chunked + b"\r\n5\r\nabcde\r\n0\r\n\r\n")
    assert statuses(pieces) == [411], "songs alone may come in chunks"


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /about HTTP/1.1\nHost: localhost\n\n", 400),
        (b"GET /" + b"a" * 5000, 414),
        (GET + b"X: " + b"a" * 70_000, 431),
        (GET + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["bare LF", "long line", "long head", "long field", "no HTTP"],
)
def test_what_cannot_be_served_is_refused_at_once(
    site: Site, connections: ExitStack, start: bytes, status: int
) -> None:
    started = time.monotonic()
    found = statuses(connect(site, connections, start))
    assert found in ([status], [400])
    assert time.monotonic() - started < 3.0


def test_a_head_that_ends_before_its_end_is_closed(site: Site, connections: ExitStack) -> None:
    client = connect(site, connections, GET)
    client.shutdown(socket.SHUT_WR)
    until(lambda: is_closed(client), 3)


def test_behind_a_proxy_all_connections_may_come_from_one_address(
    tmp_path: Path, small_store: Path, connections: ExitStack
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "TRUSTED_PROXIES": "1"}
    with running(tmp_path / "site", **settings) as site:
        half = [connect(site, connections, GET) for _ in range(240)]
        assert seconds_for_a_page(site) < 1.0
        assert not any(map(is_closed, half[:5]))
        half[0].sendall(b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
        assert statuses(half[0]) == [200]
