"""Clients that send or read slowly, by the dozen, at the real web server: others notice nothing."""

import http.client
import re
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread

import pytest

from tests.support.connections import connect, is_closed, seconds_for_a_page
from tests.support.running_site import Browser, Site, running, until
from tests.support.sounds import music, wav

MANY = 50
ELSEWHERE = "127.0.0.2"  # another address of this machine
PATIENCE = 6  # seconds after which slow clients are dropped


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "LIMIT_ACTIONS": "10/d"}
    settings["SLOW_CLIENT_SECONDS"] = str(PATIENCE)
    with running(tmp_path_factory.mktemp("slow"), **settings) as started:
        yield started


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


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
    reader = connect(site, connections, read)
    assert reader.recv(15) == b"HTTP/1.1 200 OK", "a slow reader gets what it asked for"
    uploads = [connect(site, connections, upload_head()) for _ in range(MANY)]
    for _ in range(MANY):
        connect(site, connections, read)
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
    source, port = "127.0.0.14", int(site.url.rsplit(":", 1)[1])  # nothing of it waits there yet

    def ask(_number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, 30, (source, 0))
        connection.request("POST", f"/songs/{uuid.UUID(int=1)}/cancel", b"")
        with closing(connection), connection.getresponse() as answer:
            return answer.status

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(40)))
    assert sorted(answers) == [403] * 10 + [429] * 30
    assert not re.search(r"Traceback|locked", site.log.read_text())


def test_refused_uploads_hear_why_however_many_there_are(
    site: Site, connections: ExitStack
) -> None:
    """One address may upload on a quarter of the threads; its other uploads get an error page."""
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


@pytest.mark.parametrize("way", ["/static/", "/%73tatic/", "http://localhost/static/"])
def test_who_asks_for_files_and_reads_none_holds_few_threads(
    site: Site, connections: ExitStack, way: str
) -> None:
    """Two addresses, each of which may hold half of the threads with other requests."""
    (largest,) = (site.data_dir / "static" / "ninja").glob("redoc.standalone.js.*.map")
    request = f"GET {way}ninja/{largest.name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    sources = ("127.0.0.4", "127.0.0.5")
    readers = [connect(site, connections, request, source) for source in sources for _ in range(40)]
    assert readers[0].recv(15) == b"HTTP/1.1 200 OK"
    assert max(seconds_for_a_page(site, ELSEWHERE) for _ in range(3)) < 3.0
    assert max(seconds_for_a_page(site, source) for source in sources) < 3.0, "nor themselves"


def test_of_several_addresses_that_do_not_read_each_takes_half_of_what_is_left(
    site: Site, connections: ExitStack
) -> None:
    """Pages hold threads too, if a client asks for many in a row and reads none."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40
    sources = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
    readers = [connect(site, connections, request, source) for source in sources for _ in range(80)]
    until(lambda: all(reader.recv(1) for reader in readers[:3]))
    started = time.monotonic()
    waits: list[float] = []
    # Until all that are to be had are held; three at least, as the first waits for all to begin.
    while time.monotonic() - started < 5 or len(waits) < 3:
        waits.append(seconds_for_a_page(site, ELSEWHERE))
    assert median(waits) < 3.0, waits


def test_while_threads_are_scarce_an_upload_has_to_be_faster(
    site: Site, connections: ExitStack
) -> None:
    """Three addresses at 8 kB/s, which is enough otherwise, and a fourth that is fast."""
    sources = ("127.0.0.8", "127.0.0.9", "127.0.0.10")
    fast = connect(site, connections, upload_head(), "127.0.0.7")
    many = [
        connect(site, connections, upload_head(), source) for source in sources for _ in range(13)
    ]
    with trickling([fast], bytes(65536)), trickling(many, bytes(4096)):
        until(lambda: any(map(is_closed, many)), 20)
        assert seconds_for_a_page(site, ELSEWHERE) < 3.0
        assert not is_closed(fast)
