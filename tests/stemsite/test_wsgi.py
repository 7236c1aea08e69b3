"""Requests at the WSGI interface, before Django's own code reads them."""

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from django.conf import settings
from django.http import UnreadablePostError

from stemsite import wsgi
from tests.support.sounds import ROOT

CODECS = ("zlib", "undefined", "punycode", "unicode_escape", "utf-16", "utf-8", "rot13")


def environ(address: str, content_type: str) -> dict[str, Any]:
    path, _, query = address.partition("?")
    found: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": content_type}
    setup_testing_defaults(found)
    return found


def status_of(found: dict[str, Any]) -> int:
    """The status of the site's response: as `application`, without the signals to the database."""
    request = wsgi.application.request_class(found)
    return wsgi.application.get_response(request).status_code


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("written", ["charset={}", 'CHARSET="{}"', "charset*=utf-8''{}"])
def test_nobody_chooses_how_a_request_is_read(codec: str, written: str) -> None:
    kind = f"text/plain; {written.format(codec)}"
    assert status_of(environ("/healthz?a=1", kind)) == 200
    request = wsgi.Request(environ("/?name=%5cud800%c3%a9", kind))
    assert request.GET["name"] == "\\ud800é"


@pytest.mark.parametrize(
    "more", ["a*=bogus''%41", "a*=undefined''%41", "charset*=idna''%ff", "charset*=utf-8''%ff"]
)
def test_a_header_that_cannot_be_read_says_nothing(more: str) -> None:
    assert status_of(environ("/healthz?a=1", f"text/plain; {more}")) == 200


@pytest.mark.parametrize("letters", ["\\" * 60_000, '\\"' * 30_000, "a=b;" * 30_000])
def test_cookies_without_end_take_no_time(letters: str) -> None:
    """Older Pythons take a time that grows with the square of the backslashes (CVE-2024-7592)."""
    found = environ("/about", "")
    found["HTTP_COOKIE"] = f'a="{letters}"; csrftoken=kept' if letters[0] == "\\" else letters
    before = time.process_time()
    cookies = wsgi.Request(found).COOKIES
    assert time.process_time() - before < 0.5
    assert len(cookies) <= 1


def test_cookies_beside_one_with_backslashes_are_kept() -> None:
    found = environ("/about", "")
    found["HTTP_COOKIE"] = 'theirs="a\\"b"; csrftoken=kept'
    assert wsgi.Request(found).COOKIES == {"csrftoken": "kept"}


def test_more_fields_than_there_can_be_do_not_end_a_request_before_it_begins() -> None:
    query = "&".join(f"a{number}=" for number in range(2000))
    kind = "text/plain; charset=utf-8"
    assert status_of(environ(f"/healthz?{query}", kind)) == 200


def test_the_web_server_may_open_more_files_than_usual() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {})); "
        "from stemsite import web_server; web_server.on_starting(None); "
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    usual = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    for highest, wanted in ((hard, usual), (300, 300)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(highest)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [str(wanted), str(highest)]


class BrokenOff:
    """A body that cannot be read to its end."""

    def __init__(self, start: bytes) -> None:
        self._pieces = [start]

    def read(self, *_size: int) -> bytes:
        if self._pieces:
            return self._pieces.pop()
        raise OSError("the chunks are malformed")

    readline = read


def test_a_form_that_cannot_be_read_on_leaves_no_file() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    found = environ("/", "multipart/form-data; boundary=b")
    found |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "900000", "REMOTE_ADDR": "192.0.2.1"}
    found["wsgi.input"] = BrokenOff(head + bytes(200_000))
    request = wsgi.Request(found)
    with pytest.raises(UnreadablePostError) as kept:  # as a log or a debugger may keep it
        request._load_post_and_files()
    assert kept.value.__traceback__ is not None
    assert not list(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir())
