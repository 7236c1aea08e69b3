"""Downloads are sent while they may be had, and end visibly when that is over."""

import errno
import http.client
import io
import re
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from pytest_django import Settings

from separations.access import share_links
from separations.delivery import responses
from separations.jobs import lifecycle
from separations.models import Job, ShareLink
from tests.support.accounts import browser
from tests.support.jobs import VISITOR, done
from tests.support.running_site import Browser, Site, running, until
from tests.support.share_links import token_of
from tests.support.sounds import music, wav

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
WHAT = ("archive", "archive?format=flac", "stems/drums?download", "stems/drums?format=flac", "mix")


@pytest.fixture
def job(site_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(responses, "CHECK_SECONDS", 0.0)  # before every piece
    return done("Ours", VISITOR)


def pieces(client: Client, path: str) -> Iterator[bytes]:
    response = client.get(path)
    assert response.status_code == 200, path
    return iter(response.streaming_content)  # type: ignore[attr-defined]


def asked(base: str, what: str) -> str:
    return f"{base}/mix?mix=drums:80:0" if what == "mix" else f"{base}/{what}"


def ended(stream: Iterator[bytes], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionResetError) as raised:
        list(stream)
    assert raised.value.errno == errno.ECONNRESET, "what the web server closes a connection for"
    told = [each for each in caplog.records if "ended in its midst" in each.getMessage()]
    assert len(told) == 1
    assert told[0].exc_info is None


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("how", ["revoked", "over", "deleted"])
def test_what_a_link_opened_ends_with_it(
    job: Job, caplog: pytest.LogCaptureFixture, what: str, how: str
) -> None:
    caplog.set_level("INFO")
    link = share_links.create(job, "7")
    base = f"/s/{token_of(link)}"
    whole = b"".join(pieces(Client(), asked(base, what)))
    assert whole[:4] in (b"PK\x03\x04", b"RIFF", b"fLaC")
    stream = pieces(Client(), asked(base, what))
    if how == "revoked":
        share_links.revoke(job, link.pk)
    elif how == "over":
        ShareLink.objects.update(expires_at=link.created_at)
    else:
        lifecycle.remove(job)
    ended(stream, caplog)


@pytest.mark.parametrize("what", WHAT)
def test_a_song_that_is_deleted_is_sent_to_nobody_any_more(
    job: Job, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level("INFO")
    stream = pieces(browser(VISITOR), asked(f"/songs/{job.pk}", what))
    lifecycle.remove(job)
    ended(stream, caplog)


def test_a_range_ends_too(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    link = share_links.create(job, "7")
    path = f"/s/{token_of(link)}/stems/drums"
    response = Client().get(path, headers={"Range": "bytes=100-200000"})
    assert response.status_code == 206
    share_links.revoke(job, link.pk)
    ended(iter(response.streaming_content), caplog)  # type: ignore[attr-defined]


def test_another_link_that_ends_changes_nothing(job: Job) -> None:
    link, other = share_links.create(job, "7"), share_links.create(job, "7")
    stream = pieces(Client(), f"/s/{token_of(link)}/archive")
    begun = next(stream)
    share_links.revoke(job, other.pk)
    with zipfile.ZipFile(io.BytesIO(begun + b"".join(stream))) as found:
        assert found.testzip() is None


def test_files_that_vanish_alone_end_it_with_one_line(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    stream = pieces(browser(VISITOR), f"/songs/{job.pk}/archive")
    next(stream)
    for file in job.result_folder.iterdir():
        file.unlink()
    with pytest.raises(ConnectionResetError):
        list(stream)
    (told,) = [each for each in caplog.records if "broke off" in each.getMessage()]
    assert told.exc_info is None


def test_a_mistake_of_ours_stays_one(job: Job) -> None:
    def wrong() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        list(responses._while_allowed(wrong(), responses.Permit(job, None)))


def test_a_look_is_one_query_a_second(
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    monkeypatch.setattr(responses, "CHECK_SECONDS", 1.0)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    link = share_links.create(job, "7")
    for permit in (responses.Permit(job, None), responses.Permit(job, token_of(link))):

        def long() -> Iterator[bytes]:
            for _ in range(100):
                now[0] += 0.1
                yield b"x"

        with django_assert_num_queries(9):  # in ten seconds
            assert len(list(responses._while_allowed(long(), permit))) == 100


def test_a_database_that_is_away_breaks_nothing_off(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = pieces(browser(VISITOR), f"/songs/{job.pk}/archive")

    def away(*_anything: object, **_more: object) -> None:
        raise DatabaseError

    with monkeypatch.context() as patch:
        patch.setattr(Job.objects, "filter", away)
        data = b"".join(stream)
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None


# The real web server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Iterator[Site]:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    with running(tmp_path_factory.mktemp("sending"), **settings) as started:
        yield started


class Slow:
    """A client that has read the beginning of an answer, and goes on when it is told to."""

    def __init__(self, site: Site, path: str) -> None:
        port = int(site.url.rsplit(":", 1)[1])
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(30)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._answer = http.client.HTTPResponse(self._socket)
        self._answer.begin()
        assert self._answer.status == 200
        self._answer.read(1000)

    def rest(self) -> None:
        self._answer.read()


def test_the_connection_is_closed_and_nothing_else_happens(site: Site, tmp_path: Path) -> None:
    owner = Browser(site)
    # Longer than the connection's buffers; and silence is separated in no time.
    job = owner.upload(wav(tmp_path / "long.wav", music(100.0) * 0))
    until(lambda: site.job(job)["state"] == "done")

    def links() -> tuple[list[str], list[str]]:
        page = owner.get(f"/songs/{job}")
        tokens = re.findall(r'value="http[^"]+(/s/[\w-]{43})"', page)
        return tokens, re.findall(rf"/songs/{job}/links/[\w-]+/revoke", page)

    def broken_off(change: Callable[[], object]) -> None:
        """Two who read by a link while `change` ends what they read."""
        owner.post(f"/songs/{job}/links", lasts="7")
        (link,) = links()[0]
        readers = [Slow(site, f"{link}/{what}") for what in ("archive", "stems/vocals?download")]
        began = time.monotonic()
        change()
        until(lambda: time.monotonic() - began > responses.CHECK_SECONDS)
        for reader in readers:
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                reader.rest()

    broken_off(lambda: owner.post(links()[1][0]))
    broken_off(lambda: owner.post(f"/songs/{job}/delete"))
    until(lambda: site.log.read_text().count("ended in its midst") == 4)
    assert "Traceback" not in site.log.read_text()
    assert "About" in Browser(site).get("/about"), "the site goes on"
