"""Clients that send or read slowly, by the dozen, at the real web server: others notice nothing."""

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.running_site import Browser, Site, running, until
from tests.sounds import music, wav

MANY = 50
ELSEWHERE = "127.0.0.2"  # another address of this machine


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "LIMIT_ACTIONS": "10/d"}
    settings["SLOW_CLIENT_SECONDS"] = "6"
    with running(tmp_path_factory.mktemp("slow"), **settings) as started:
        yield started


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(site: Site, stack: ExitStack, start: bytes, source: str = "127.0.0.1") -> socket.socket:
    port = int(site.url.rsplit(":", 1)[1])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.sendall(start)
    stack.callback(client.close)
    return client


def seconds_for_a_page(site: Site, source: str = "127.0.0.1") -> float:
    started = time.monotonic()
    port = int(site.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), 20, (source, 0)) as client:
        client.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    return time.monotonic() - started


def upload_head() -> bytes:
    """With a cookie: without one, nothing of the body is read to find the form's token."""
    return (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n"
        b"Cookie: csrftoken=" + b"a" * 32 + b"\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )


@contextmanager
def trickling(uploads: list[socket.socket], piece: bytes) -> Iterator[None]:
    """Send a piece more of each upload, twice a second."""
    stop = Event()

    def trickle() -> None:
        while not stop.wait(0.5):
            for client in uploads:
                try:
                    client.send(piece)
                except OSError:
                    continue

    sender = Thread(target=trickle)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.01)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_pages_answer_beside_slow_uploads_and_slow_readers(
    site: Site, connections: ExitStack, tmp_path: Path
) -> None:
    browser = Browser(site)
    # Silence is long and separated in no time, and as WAV it is as long as any other song.
    job = browser.upload(wav(tmp_path / "long.wav", music(40.0) * 0))
    until(lambda: site.job(job)["state"] == "done")
    cookies = "; ".join(f"{each.name}={each.value}" for each in browser.cookies)
    read = (
        f"GET /songs/{job}/stems/vocals?download HTTP/1.1\r\nHost: localhost\r\n"
        f"Cookie: {cookies}\r\n\r\n"
    ).encode()
    uploads = [connect(site, connections, upload_head()) for _ in range(MANY)]
    readers = [connect(site, connections, read) for _ in range(MANY)]
    assert readers[0].recv(15) == b"HTTP/1.1 200 OK", "a slow reader gets what it asked for"
    with trickling(uploads, b"0"):
        assert max(seconds_for_a_page(site, ELSEWHERE) for _ in range(10)) < 3.0
        # Who holds so many connections waits behind them, but is answered.
        assert seconds_for_a_page(site) < 15.0
        # What stays slower than 4 kB/s is dropped after a while.
        until(lambda: all(map(is_closed, uploads)), 40)


def test_heads_that_never_end_hold_up_their_own_address_alone(
    site: Site, connections: ExitStack
) -> None:
    heads = [connect(site, connections, b"GET /about HTTP/1.1\r\nX: ") for _ in range(2 * MANY)]
    assert seconds_for_a_page(site, ELSEWHERE) < 3.0
    assert not is_closed(heads[0]), "it was dropped before it could hold up anybody"


def test_many_at_once_get_no_more_than_a_bucket_holds(site: Site) -> None:
    def ask(_number: int) -> int:
        request = urllib.request.Request(f"{site.url}/songs/{uuid.UUID(int=1)}/cancel", b"")
        try:
            urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            return error.code
        raise AssertionError

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(40)))
    assert sorted(answers) == [403] * 10 + [429] * 30
    assert not re.search(r"Traceback|locked", site.log.read_text())


def test_refused_uploads_hear_why_however_many_there_are(
    site: Site, connections: ExitStack
) -> None:
    """One address may send with a quarter of the threads; the rest is told, and not cut off."""
    port = int(site.url.rsplit(":", 1)[1])
    source = "127.0.0.3"
    uploads: list[socket.socket] = []
    song = bytes(8_000_000)

    def send(_number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, 60, (source, 0))
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        connection.request("POST", "/", head + song + b"\r\n--x--\r\n", headers)
        with closing(connection), connection.getresponse() as answer:
            answer.read()
            return answer.status

    def is_full() -> bool:
        uploads.extend(connect(site, connections, upload_head(), source) for _ in range(16))
        return send(0) == 429

    # Not quite so slow that they are dropped.
    with trickling(uploads, bytes(4096)), ThreadPoolExecutor(12) as pool:
        until(is_full)
        assert set(pool.map(send, range(36))) == {429}
