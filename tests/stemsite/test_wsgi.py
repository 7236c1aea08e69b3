"""Requests at the WSGI interface, before Django's own code reads them."""

import io
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
from pytest_django import Settings

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


def in_chunks(address: str, kind: str, body: bytes) -> Any:
    """The site's response to a body in chunks, as gunicorn hands it on."""
    found = environ(address, kind)
    more = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    found |= more | {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body)}
    found |= {"REMOTE_ADDR": "192.0.2.1", "HTTP_COOKIE": f"csrftoken={CSRF}"}
    answer = wsgi.application.get_response(wsgi.application.request_class(found))
    answer.close()
    return answer


CSRF = "a" * 32
FORM = "multipart/form-data; boundary=B"


def form_of(*contents: bytes) -> bytes:
    token = b'--B\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n'
    parts = [token + CSRF.encode() + b"\r\n"]
    for number, content in enumerate(contents):
        head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{number}.wav"\r\n'
        parts.append(head.encode() + b"Content-Type: audio/wav\r\n\r\n" + content + b"\r\n")
    return b"".join([*parts, b"--B--\r\n"])


@pytest.mark.django_db
@pytest.mark.usefixtures("no_queue")
def test_no_song_of_a_form_in_chunks_is_left_out_in_silence(site_settings: Settings) -> None:
    site_settings.MAX_UPLOAD_MB = 1
    songs = [bytes([number]) * 900_000 for number in range(3)]
    told = in_chunks("/", FORM, form_of(*songs)).content.decode()
    assert [f"{number}.wav" in told for number in range(3)] == [True] * 3, "each is judged"
    too_long = form_of(*[bytes(990_000)] * 23)
    for address in ("/", "/api/separate"):
        answer = in_chunks(address, FORM, too_long)
        assert (answer.status_code, "larger than 1 MB" in answer.content.decode()) == (413, True)


@pytest.mark.django_db
def test_other_bodies_than_forms_with_files_need_a_length(site_settings: Settings) -> None:
    kind = "application/x-www-form-urlencoded"
    assert in_chunks("/", kind, b"model=tiny").status_code == 411
    answer = in_chunks("/api/separate", kind, b"model=tiny")
    assert (answer.status_code, b"wrong_content_type" in answer.content) == (415, True)
