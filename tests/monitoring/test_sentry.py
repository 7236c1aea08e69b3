"""Errors that are sent to Sentry: they arrive, without personal data."""

import gzip
import json
import logging
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from separations.logs.formatter import job_context
from separations.monitoring.sentry import scrub, scrub_event
from tests.support.commands import python

TOKEN = "Wp3x" * 10 + "abc"
SECRETS = ("Marley", "bob", "203.0.113.7", "198.51.100.4", TOKEN, "c00kie", "sessionid", "srv/")
# As gunicorn would serve it, with a view that breaks.
SERVING = """
import logging
from stemsite import wsgi
import sentry_sdk
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import path
from django.conf import settings
import stemsite.urls
plain = "django.contrib.staticfiles.storage.StaticFilesStorage"
settings.STORAGES["staticfiles"]["BACKEND"] = plain
def broken(request, name):
    song = request.POST["title"]
    raise FileNotFoundError(2, "No such file", f"/srv/stemsite/data/{name}.wav", None, song)
def visited(request, name):
    raise ValueError(f"{request.META['REMOTE_ADDR']} and bob@example.org asked {request.path} now")
stemsite.urls.urlpatterns += [path("broken/<str:name>", broken), path("s/<str:name>/x", visited)]
visitor = Client(raise_request_exception=False, headers={"X-Forwarded-For": "198.51.100.4"})
visitor.cookies["sessionid"] = "c00kie"
file = SimpleUploadedFile("Bob Marley - Song.wav", b"Marley")
where = "/broken/Bob%20Marley?bob=1"
form = {"title": "Bob Marley – Exodus.mp3", "file": file}
assert visitor.post(where, form, REMOTE_ADDR="203.0.113.7").status_code == 500
assert visitor.get("/s/TOKEN/x", REMOTE_ADDR="203.0.113.7").status_code == 500
assert visitor.get("/about", headers={"Host": "bob.example.org"}).status_code == 400
logging.getLogger("separations.x").error("Of %s: it failed", "Bob Marley - Song.flac")
logging.getLogger("separations.x").warning("This is no error")
sentry_sdk.flush(10)
print("sent")
"""


class Receiver(BaseHTTPRequestHandler):
    """A server in the place of Sentry."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.taken.append(body.decode())  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str]]]:
    """A DSN on this machine, and the envelopes that arrived there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.taken = []  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://key@127.0.0.1:{server.server_port}/1", server.taken  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def run(code: str, folder: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    settings |= {"DATA_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "stemsite.settings"}
    return python("-c", code, **settings)


def events(envelopes: list[str]) -> list[dict[str, Any]]:
    """Each envelope: a line about it, then for each item a line about it and one with it."""
    found = []
    for envelope in envelopes:
        lines = envelope.splitlines()
        for head, body in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(head)["type"] == "event":
                found.append(json.loads(body))
    return found


def test_an_error_arrives_with_where_it_was_and_not_whose_it_was(
    receiver: tuple[str, list[str]], tmp_path: Path
) -> None:
    dsn, taken = receiver
    told = {"SENTRY_DSN": dsn, "SENTRY_ENVIRONMENT": "trial", "SENTRY_RELEASE": "abc1"}
    python("manage.py", "migrate", "-v0", DATA_DIR=str(tmp_path))
    answer = run(SERVING.replace("TOKEN", TOKEN), tmp_path, ALLOWED_HOSTS="testserver", **told)
    assert answer.stdout == "sent\n", answer.stderr
    missing, wrong, logged = events(taken)
    assert missing["environment"] == "trial"
    assert missing["release"] == "abc1"
    (exception,) = missing["exception"]["values"]
    assert exception["type"] == "FileNotFoundError"
    assert "No such file" in exception["value"]
    assert exception["stacktrace"]["frames"][-1]["function"] == "broken"
    assert missing["logentry"]["formatted"] == "Internal Server Error: /broken/<str:name>"
    assert len(missing["tags"]["request_id"]) == 32
    assert wrong["exception"]["values"][0]["type"] == "ValueError"
    assert wrong["tags"] != missing["tags"]
    assert logged["logger"] == "separations.x"
    for envelope in taken:
        for secret in SECRETS:
            assert secret not in envelope, (secret, envelope)
        assert "This is no error" not in envelope


def test_a_jobs_error_says_which_job_and_where_in_the_engine() -> None:
    record = logging.LogRecord(
        "separations.worker.slots", logging.ERROR, "", 0, "Bad %s", ("x",), None
    )
    record.trace = 'File "/srv/stemsite/x.py", line 1\nValueError: /srv/data/Bob Marley.ogg'
    with job_context("0190e6fb"):
        event = scrub_event({"logger": record.name, "user": {"id": 1}}, {"log_record": record})
    assert event == {
        "logger": "separations.worker.slots",
        "logentry": {"formatted": "Bad x"},
        "tags": {"job_id": "0190e6fb"},
        "extra": {"trace": ['File "…/x.py", line 1', "ValueError:[hidden]"]},
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[Errno 2] No such file: '/srv/data/uploads/0f9e'", "[Errno 2] No such file: '…/0f9e'"),
        ('cannot read "Früh am Morgen.MP3"', 'cannot read "[hidden]"'),
        (f"at /s/{TOKEN} now", "at …/… now"),
        ("KeyError: 'vocals'", None),
        ("unsupported operand type(s) for /: 'int' and 'str'", None),
    ],
)
def test_texts_are_cleaned(text: str, shown: str | None) -> None:
    assert scrub(text) == (shown or text)


def test_without_a_dsn_the_package_is_not_even_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from stemsite import wsgi; import separations.management.commands."
        "run_consumer; print([name for name in sys.modules if name.startswith('sentry_sdk')])"
    )
    answer = run(code, tmp_path)
    assert answer.stdout == "[]\n", answer.stderr


def test_a_dsn_that_cannot_be_used_is_told_of_at_the_start(tmp_path: Path) -> None:
    imported = "import stemsite.settings"
    for dsn in ("nonsense", "https://sentry.example.org/1", "https://key@sentry.example.org/"):
        answer = run(imported, tmp_path, SENTRY_DSN=dsn)
        assert "SENTRY_DSN must be like https://KEY@sentry.example.org/1." in answer.stderr
        assert answer.returncode == 1
    missing = "import sys; sys.modules['sentry_sdk'] = None; " + imported
    answer = run(missing, tmp_path, SENTRY_DSN="https://key@sentry.example.org/1")
    assert ".venv/bin/pip install 'sentry-sdk>=2.75'" in answer.stderr
