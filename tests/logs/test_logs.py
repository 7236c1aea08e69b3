"""Logs hold no personal data, and visitors cannot forge lines."""

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost, TooManyFilesSent
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import resolve
from pytest_django import Settings

from separations.logs.formatter import (
    LineFormatter,
    Personal,
    formatter,
    job_context,
    job_id,
    printable,
    request_id,
)
from separations.monitoring.middleware import request_ids
from tests.support import sounds
from tests.support.running_site import Browser, raw, running, until

NASTY = "Bob Marley\x1b[2J \u202e\u2028INFO root forged – bob@example.org.wav"
FORGED = "\nINFO root forged"


def line(name: str, message: str, *args: object, personal: bool = False, **more: Any) -> str:
    exc_info = more.pop("exc_info", None)
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, args, exc_info)
    record.__dict__.update(more)
    return LineFormatter(personal=personal).format(record)


def error(exception: Exception) -> Any:
    try:
        raise exception
    except type(exception):
        return sys.exc_info()


def test_nothing_that_is_logged_can_pose_as_a_line_of_its_own() -> None:
    for text in (FORGED, "\r" + FORGED, "\x85INFO", "\u2028INFO", "\x1b[2K\x1b[1A", "\x00\ud800"):
        logged = line("x", "A name: %s", text)
        assert logged.isprintable(), text
        assert logged.startswith("ERROR x A name: ")
    assert line("x", "a\nb") == "ERROR x a\\nb"
    assert printable("한국어 – “ß”") == "한국어 – “ß”"


def test_what_follows_the_first_line_is_marked() -> None:
    logged = line("x", "Bad", exc_info=error(ValueError("a" + FORGED + "\x1b[2J")), trace=FORGED)
    first, *others = logged.split("\n")
    assert first == "ERROR x Bad"
    assert len(others) > 4
    assert all(other.startswith("    | ") and other.isprintable() for other in others)
    assert "ValueError: a" in logged


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from 203.0.113.7:5123.", "from [hidden]:5123."),
        ("ip=203.0.113.7: no", "ip=[hidden]: no"),
        ("[2001:db8::17]:443, ::ffff:198.51.100.4", "[[hidden]]:443, [hidden]"),
        ("bob.x+y@mail.example.org <a@b.co>", "[hidden] <[hidden]>"),
        # Domains without a dot, of other scripts, as numbers; quoted and escaped names.
        ("a@localhost, bob@mailhost: no", "[hidden], [hidden]: no"),
        ("bob@[203.0.113.7] and bob@[IPv6:2001:db8::17]", "[hidden] and [hidden]"),
        ('"bob marley"@example.org <"a\\"b@c"@d.example>', "[hidden] <[hidden]>"),
        ("밥@예시.한국 bob@xn--9n2b.example bob@müller.example.", "[hidden] [hidden] [hidden]."),
        ("mailto:bob%40example.org?x=bob%2Btag%40localhost", "mailto:[hidden]?x=[hidden]"),
        ("to=bob&mail=bob%2540example.org&n=1", "to=bob&mail=[hidden]&n=1"),
        ("{'email': 'o'brien@example.org'} (b@c)", "{'email': '[hidden]'} ([hidden])"),
        ("bob＠example.org", "[hidden]"),
        (
            "smtp://bob@mail:587/ postgresql://bob:pass@db/",
            "smtp://[hidden]:587/ postgresql://bob:[hidden]/",
        ),
        # What is no address.
        ("@dataclass @ 3 a@ @b x @y user @localhost", None),
        ("git+https://example.org/x.git 50% 100%40 a%20b", None),
        ("12:34:56 std::vector 1.2.3 127.0.0.1:8000 ::1", None),
        ("/srv/data/uploads/0f9e torch==2.13.0 3:4", None),
    ],
)
def test_addresses_of_people_are_hidden(text: str, shown: str | None) -> None:
    assert line("x", "%s", text) == f"ERROR x {shown or text}"
    assert line("x", "%s", text, personal=True) == f"ERROR x {text}"


def test_hiding_is_quick_however_long_the_text() -> None:
    import time

    started = time.process_time()
    line("x", "%s", ":" * 200_000 + "x " + "a" * 200_000 + " 1.2" * 50_000 + "." * 200_000)
    for piece in ("a'", "a%40", "%40", '"', '\\"', "a@", "@a", "[", "a@[", "a.", "＠", '"@'):
        line("x", "%s", piece * 20_000)
    assert time.process_time() - started < 2


def test_personal_values_show_only_where_they_may() -> None:
    assert line("x", "Of %s", Personal("a\nb")) == "ERROR x Of [hidden]"
    assert line("x", "Of %s", Personal("a\nb"), personal=True) == "ERROR x Of a\\nb"
    assert line("x", "Of %(it)s", {"it": Personal(1)}, personal=True) == "ERROR x Of 1"


def test_values_of_rows_are_hidden() -> None:
    database = error(ValueError("duplicate key\nDETAIL:  Key (username)=(bob) already exists."))
    assert "bob" not in line("x", "Bad", exc_info=database).rpartition("duplicate")[2]


def test_other_peoples_messages_are_stripped_of_what_was_sent() -> None:
    request = RequestFactory().get("/songs/0190e6fb/stems/x?name=bob")
    request.resolver_match = resolve("/about")
    logged = line(
        "django.request", "%s: %s", "Internal Server Error", request.path, request=request
    )
    assert logged == "ERROR django.request Internal Server Error: /about"
    request.resolver_match = None
    logged = line("django.request", "%s: %s", "Not Found", request.path, request=request)
    assert logged == "ERROR django.request Not Found: [hidden]"
    for exception in (DisallowedHost("bob's host"), TooManyFilesSent("bob")):
        name = f"django.security.{type(exception).__name__}"
        logged = line(name, str(exception), exc_info=error(exception))
        assert logged == f"ERROR {name} A request was refused: {type(exception).__name__}"
    logged = line("gunicorn.error", "Invalid request from ip=x: 'GET /bob'")
    assert logged == "ERROR gunicorn.error A request was refused: it is no HTTP"
    for place in ("/s/secret", "http://x/s/secret?name=bob", "HTTP://x"):
        logged = line("gunicorn.error", "Error handling request %s", place)
        assert logged == "ERROR gunicorn.error Error handling request [hidden]"


# Which request and which job


@pytest.fixture(autouse=True)
def about_nothing() -> None:
    """Forget the request that the test client made before in this thread."""
    request_id.set("")


@pytest.fixture
def about() -> Iterator[str]:
    """Lines are about this request."""
    token = request_id.set("1a2b3c4d5e6f708090a0b0c0d0e0f000")
    yield request_id.get()
    request_id.reset(token)


def test_lines_say_what_they_are_about(about: str) -> None:
    with job_context("0190e6fb-0f9e-4000-8000-0000000000aa"):
        assert line("x", "Bad") == "ERROR x [request 1a2b3c4d5e6f] [job 0190e6fb-0f9] Bad"
        named = line("x", "Job %s: done", job_id.get())
        assert named == f"ERROR x [request 1a2b3c4d5e6f] Job {job_id.get()}: done"
    assert line("x", "Bad") == "ERROR x [request 1a2b3c4d5e6f] Bad"


def test_json_holds_the_same_texts(about: str) -> None:
    trouble = error(ValueError("of bob@example.org" + FORGED))
    record = logging.LogRecord("x", logging.ERROR, "", 0, "a\nb \u202e %s", ("1.2.3.4",), trouble)
    with job_context("0190e6fb"):
        logged = formatter("json").format(record)
    assert logged.isprintable(), "one line, whatever is in it"
    told = json.loads(logged)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00", told.pop("time"))
    trace = told.pop("trace")
    assert told == {
        "level": "ERROR",
        "logger": "x",
        "message": "a\\nb \\u202e [hidden]",
        "request_id": about,
        "job_id": "0190e6fb",
    }
    assert trace[-2:] == ["ValueError: of [hidden]", "INFO root forged"]
    record.exc_info = None
    request_id.set("")
    assert set(json.loads(formatter("json").format(record))) == {
        "time",
        "level",
        "logger",
        "message",
    }


def ids(headers: dict[str, str]) -> tuple[str, str]:
    """The request ids of a response and of the lines logged meanwhile."""
    seen = []

    def view(_request: HttpRequest) -> HttpResponse:
        seen.append(request_id.get())
        return HttpResponse()

    response = request_ids(view)(RequestFactory().get("/", headers=headers))
    return response.headers["X-Request-ID"], seen[0]


def test_a_request_has_an_id_that_a_proxy_may_give_and_a_visitor_may_not(
    settings: Settings, about: str
) -> None:
    given = "0190e6fb-0f9e-4000-8000-0000000000aa"
    answered, logged = ids({"X-Request-ID": given})
    assert answered == logged != given
    assert re.fullmatch("[0-9a-f]{32}", answered)
    assert ids({})[0] != answered
    settings.TRUSTED_PROXIES = 1
    assert ids({"X-Request-ID": given}) == (given, given)
    for bad in (
        "",
        "short",
        "a" * 65,
        "bob@example.org-0000",
        "203.0.113.7:12345678",
        "a" * 20 + "é",
    ):
        assert re.fullmatch("[0-9a-f]{32}", ids({"X-Request-ID": bad})[0]), bad


def test_requests_that_are_refused_early_have_one_too(
    visitor: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(LineFormatter())
    for request in ({"path": "/healthz"}, {"path": "/about", "headers": {"Host": "bob"}}):
        assert re.fullmatch("[0-9a-f]{32}", visitor.get(**request).headers["X-Request-ID"])
    assert f"[request {request_id.get()[:12]}] A request was refused: DisallowedHost" in caplog.text


@pytest.mark.parametrize("kind", ["text", "json"])
def test_every_logger_of_the_site_uses_the_formatter(kind: str) -> None:
    """The engine's too, which has no Django: in a process of its own."""
    code = """
import logging, django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "stemsite.settings"
django.setup()
for name in ("", "separations.x", "huey", "gunicorn.error", "django.security.x", "django.server"):
    logging.getLogger(name).critical("a\\nb %s", "bob@example.org")
import separations.engine.__main__ as engine, separations.engine.process.worker as process
process.serve = lambda: None
for handler in list(logging.root.handlers): logging.root.removeHandler(handler)
engine.main()
logging.critical("engine\\nb %s", "bob@example.org")
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sounds.ROOT,
        env={**os.environ, "LOG_FORMAT": kind},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = answer.stderr.splitlines()
    assert answer.returncode == 0, answer.stderr
    assert len(lines) == 7, answer.stderr
    if kind == "json":
        lines = [f"{told['level']} {told['message']}" for told in map(json.loads, lines)]
    assert all(each.startswith("CRITICAL ") for each in lines)
    assert "bob" not in answer.stderr
    assert "engine\\nb [hidden]" in lines[-1]


# The real site


def test_an_upload_with_a_nasty_name_leaves_nothing_of_it_in_any_log(
    tmp_path: Path, small_store: Path
) -> None:
    settings = {"MODEL_DIR": str(small_store), "DEFAULT_MODEL": "tiny", "LOG_LEVEL": "INFO"}
    song = sounds.wav(tmp_path / "song.wav", sounds.music(2.0))
    song = song.rename(tmp_path / NASTY)
    with running(tmp_path / "site", **settings) as site:
        visitor = Browser(site)
        job = visitor.upload(song)
        until(lambda: site.job(job)["state"] == "done", 60)
        assert "Bob Marley" in visitor.get(f"/songs/{job}")
        with pytest.raises(urllib.error.HTTPError):
            visitor.upload(song, model="bob@example.org")
        for request in (
            b"GET / HTTP/1.1\r\nHost: bob.example.org\r\nConnection: close\r\n\r\n",
            b"GET /bob\x00 HTTP/1.1\r\nHOST\r\n\r\n",
            b"GET /%00bob%0a%0dINFO HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n",
            b"BOB bob\r\n\r\n",
            b"GET / HTTP/1.1\r\nHOST\r\nX-Bob: a\r\n bob\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: bob\r\nConnection: close\r\n\r\n",
            b"POST / HTTP/1.1\r\nHOST\r\nContent-Length: bob\r\n\r\n",
            b"GET /" + b"b" * 9000 + b" HTTP/1.1\r\nHOST\r\n\r\n",
        ):
            status = re.match(rb"HTTP/1.1 (\d+)", raw(site, request))
            assert status is None or 400 <= int(status[1]) < 500, request
        # What breaks inside is told with where it broke, and not with whose song it was.
        with sqlite3.connect(site.data_dir / "db.sqlite3") as database:
            database.execute("ALTER TABLE separations_job RENAME COLUMN stage TO gone")
        with pytest.raises(urllib.error.HTTPError):
            visitor.get(f"/songs/{job}?bob")
    log = site.log.read_text(errors="surrogateescape")
    assert "asked for, of [hidden]" in log
    assert "done in" in log
    assert "Internal Server Error: /<song:song>" in log
    for word in ("Bob", "bob", "Marley", "forged", "example.org"):
        assert word not in log
    for each in log.splitlines():
        # The supervisor's colours aside, which stand before its bar.
        assert each.rpartition(" | ")[2].replace("\x1b[0m", "").isprintable(), each


def test_a_traceback_tells_no_token_either() -> None:
    for secret in (
        "stemsite_" + "A" * 43,
        "stemsite_visitor_" + "a" * 32 + ".1xWD8P." + "b" * 43,
        "whsec_" + "C" * 44,
    ):
        for personal in (False, True):
            told = line(
                "x", "It failed", exc_info=error(ValueError(f"no: {secret}")), personal=personal
            )
            assert "ValueError: no: " in told
            assert secret not in told
            assert secret[-20:] not in told
