"""A database that can write nothing more: every request gets a sentence, none an error of ours, and
all goes on as before once there is room."""

import re
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError, InternalError, OperationalError
from django.test import Client
from pytest_django import Settings

from separations.errors import database_outage
from separations.errors.fault import Fault
from separations.uploads import submission
from separations.worker import tasks
from tests.support import sounds
from tests.support.running_site import Browser, Site, running, until

SENTENCE = "no room to write anything down"
PASSWORD = "a-horse-on-a-stair"


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_outage, "log", database_outage.OncePerMinute())


def full(*_given: object, **_named: object) -> None:
    raise OperationalError("database or disk is full")


# On a real file system that is full


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def site(disk: Path, small_store: Path) -> Iterator[Site]:
    many = {f"LIMIT_{name}": "1000/h" for name in ("UPLOADS", "LOGINS", "SIGNUPS", "API")}
    models = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny"}
    with running(disk / "data", **many, **models) as site:
        yield site


def fill(site: Site) -> Path:
    """Take the last byte of the disk, and what the database has put by in its log."""
    database = sqlite3.connect(site.data_dir / "db.sqlite3")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    filler = site.data_dir / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


def told(act: Callable[[], object]) -> tuple[int, str]:
    """Status and text of an answer that is no success."""
    try:
        act()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    return 200, ""


def send(site: Site, song: Path) -> None:
    """A song by the API."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    request = urllib.request.Request(
        site.url + "/api/separate", head + song.read_bytes() + b"\r\n--x--\r\n"
    )
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with urllib.request.urlopen(request, timeout=60):
        pass


def test_a_full_disk_is_said_to_everybody_and_forgotten_when_there_is_room(
    site: Site, tmp_path: Path
) -> None:
    anna = Browser(site)
    first, second = (sounds.wav(tmp_path / f"{n}.wav", sounds.music(2.0, seed=n)) for n in range(2))
    job = anna.upload(first)
    until(lambda: site.job(job).get("state") == "done")

    def sign_up() -> str:
        fields = {"username": "ben", "password1": PASSWORD, "password2": PASSWORD}
        return Browser(site).post("/account/signup", None, **fields)

    writes = {
        "upload": lambda: anna.upload(second),
        "somebody's first upload": lambda: Browser(site).upload(second),
        "a program's": lambda: send(site, second),
        "the demo": lambda: anna.post("/demo"),
        "again": lambda: anna.post(f"/songs/{job}/again", model="tiny", stems="vocals"),
        "sign up": sign_up,
        "log in": lambda: Browser(site).post("/account/login", username="ben", password="x"),
        "the admin": lambda: Browser(site).post("/admin/login/", username="ben", password="x"),
    }
    filler = fill(site)
    for name, act in writes.items():
        status, text = told(act)
        assert status == 503, (name, status)
        assert SENTENCE in text, name
    assert "0.wav" in anna.get("/") or "songs" in anna.get("/")
    for place in (f"/songs/{job}", "/about", "/api/jobs", f"/songs/{job}/stems/vocals"):
        assert anna.fetch(place), "what only reads goes on"
    until(lambda: "consumer" in _who_logged(site, "takes nothing just now"), 30)
    filler.unlink()
    for name, act in writes.items():
        status, _text = told(act)
        assert status == 200, (name, status)
    until(lambda: {row[0] for row in site.rows("SELECT state FROM separations_job")} == {"done"})
    log = site.log.read_text()
    assert "Traceback" not in log
    assert log.count("takes nothing just now") <= 4, "once a minute in each process"
    assert "Service Unavailable" not in log


def _who_logged(site: Site, words: str) -> set[str]:
    lines = [line for line in site.log.read_text().splitlines() if words in line]
    return {match[1] for line in lines if (match := re.search(r"(\w+) +\|", line))}


# Each place that may meet it


@pytest.mark.parametrize("place", ["/", "/api/separate"])
@pytest.mark.parametrize("htmx", [False, True])
def test_a_view_that_cannot_record_says_so(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, place: str, htmx: bool
) -> None:
    monkeypatch.setattr(submission, "submit", full)
    headers = {"HX-Request": "true"} if htmx else {"Accept": "text/html"}
    song = SimpleUploadedFile("a.wav", b"x")
    answer = visitor.post(place, {"file": song}, headers=headers)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert SENTENCE in answer.content.decode()
    if place.startswith("/api"):
        assert answer.json()["code"] == "cannot_record"
    elif htmx:
        assert "<html" not in answer.content.decode()


def test_a_session_that_cannot_be_saved_says_so(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, no_queue: list[None]
) -> None:
    """It is saved after all views and their middleware."""
    monkeypatch.setattr(SessionStore, "save", full)
    visitor.raise_request_exception = False
    answer = visitor.post("/demo")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert SENTENCE in answer.content.decode()


@pytest.mark.parametrize(
    ("method", "place", "status"),
    [("get", "/api/jobs", 200), ("post", "/demo", 503), ("post", "/api/separate", 503)],
)
def test_what_cannot_be_counted_goes_on_if_it_only_reads(
    visitor: Client,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    place: str,
    status: int,
) -> None:
    visitor.post("/demo")
    monkeypatch.setattr("separations.fair_use.token_bucket.try_withdraw", full)
    answer = getattr(visitor, method)(place)
    assert answer.status_code == status
    assert (SENTENCE in answer.content.decode()) == (status == 503)


def test_a_queue_that_takes_no_message_does_not_fail_the_request(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full_queue() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(tasks, "work", full_queue)
    for _ in range(3):
        tasks._send()
    assert [record.exc_info for record in caplog.records] == [None], "once, without a trace"


# What it is


class _OfPostgres(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


def caused(error: DatabaseError, cause: Exception) -> DatabaseError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperationalError("database or disk is full"), "cannot_record"),
        (OperationalError("disk I/O error"), "cannot_record"),
        (OperationalError("attempt to write a readonly database"), "cannot_record"),
        (OperationalError("unable to open database file"), "cannot_record"),
        (sqlite3.OperationalError("database or disk is full"), "cannot_record"),
        (caused(OperationalError("no space left"), _OfPostgres("53100")), "cannot_record"),
        (caused(InternalError("read-only"), _OfPostgres("25006")), "cannot_record"),
        (OperationalError("database is locked"), "busy"),
        (OperationalError("no such table: a"), ""),
        (InternalError("the disk of a joke is full"), ""),
        (ValueError("database or disk is full"), ""),
        (None, ""),
    ],
)
def test_it_is_told_apart_from_other_errors(error: Exception | None, code: str) -> None:
    fault = database_outage.outage(error)
    assert (fault.code if fault else "") == code


def test_sqlite_itself_is_believed_by_its_code(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "small.sqlite3")
    database.execute("CREATE TABLE a (b)")
    database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.Error) as caught:
        database.execute("INSERT INTO a VALUES (zeroblob(100000))")
    database.close()
    assert database_outage.outage(caught.value) is not None
    found = database_outage.outage(caused(OperationalError("in another language"), caught.value))
    assert isinstance(found, Fault)
    assert found.code == "cannot_record"
