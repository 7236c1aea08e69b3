"""Requests that no browser sends: never an error of the site, never without a token."""

import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings as site
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from separations.access import permissions
from separations.api.urls import KINDS
from separations.models import Owner
from separations.uploads.handlers import MAX_FILES
from stemsite.middleware import refuse_nul_bytes
from tests.support.jobs import Submit, finished

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
HTMX = {"HX-Request": "true"}
SOME_ID = str(uuid.UUID(int=7))
VALUES = {
    "song": f"songs/{SOME_ID}",
    "uuid": SOME_ID,
    "uuidstr": SOME_ID,  # django-ninja's
    "slug": "vocals",
    "int": "0",
    "str": "1",
    "path": "1",
}

TEXTS = (
    "\x00",
    "a\x00b",
    "\r\nSet-Cookie: a=b",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "\u202e\u2028\x1b[2J",
    "../../../../etc/passwd",
    "..\\..\\x",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "{{ 7*7 }}{% debug %}%s%n${7*7}",
    "9" * 5000,
    "-1",
    "NaN",
    "1e309",
    "é" * 3000,
    "[" * 3000,
)
RAW = (
    "%00",
    "%ff%fe",
    "%",
    "%zz",
    "%2e%2e%2f",
    "%e2%28%a1",
    "%ed%a0%80",
    "\\",
    ";a=b",
    "//x",
    "%0d%0ax",
)
HEADERS: tuple[dict[str, str], ...] = (
    {"Accept-Language": "x" * 5000},
    {"Accept-Language": "\xff,;q=,ko;q=\x00,*" + ",a" * 500},
    {"Range": "bytes=" + "9" * 5000 + "-"},
    {"Range": "bytes=-,-,--"},
    {"If-None-Match": "\x00\xff"},
    {"If-Range": "\x00", "Range": "bytes=0-"},
    {"If-Modified-Since": "Thu, 99 Foo 99999 99:99:99 GMT"},
    {"Cookie": "sessionid=\x00; csrftoken=\xff; visitor=a:b:c; django_language=../../x; =;;="},
    {"Cookie": "sessionid=" + "a" * 4000 + "; visitor=" + ":" * 4000},
    {"Cookie": "messages=\x00; sessionid=' OR 1=1"},
    {"HX-Request": "\x00", "HX-Current-URL": "http://[::1", "HX-Target": "\xff"},
    {"HX-Request": "true", "HX-Current-URL": "%ff", "HX-Current-URL-URI-AutoEncoded": "true"},
    {"X-Forwarded-For": "\x00,,," + "1" * 5000, "X-Forwarded-Proto": "https,http\x00"},
    {"X-Forwarded-Host": "evil.example.org", "Forwarded": "host=\x00"},
    {"Content-Type": "multipart/form-data; boundary=\xff"},
    {"Content-Type": "text/html; charset=no-such-charset"},
    {"Origin": "null", "Referer": "http://["},
    {"User-Agent": "\x1b]0;x\x07\r\n" * 100},
)


def addresses(
    patterns: list[Any] | None = None, before: str = ""
) -> Iterator[tuple[str, URLPattern]]:
    """Every address of the site, with something that fits for each of its parts."""
    for each in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from addresses(each.url_patterns, route)
        else:
            # What is no <converter:name> is one of the admin's expressions for all that is left.
            text = re.sub(r"<(?:(\w+):)?\w+>", lambda found: VALUES[found[1] or "str"], route)
            yield "/" + text.removesuffix("(?P<url>.*)$"), each


ADDRESSES = list(addresses())
OWN = [address for address, _pattern in ADDRESSES if not address.startswith("/admin/")]


@pytest.fixture
def browser(visitor: Client) -> Client:
    """A client that gets a 500 for an exception, as from the real site."""
    visitor.raise_request_exception = False
    return visitor


@pytest.fixture
def job(submit: Submit, browser: Client) -> str:
    """A song of the visitor's own, with stems."""
    owner = Owner(visitor="f" * 32)
    session = browser.session
    session[permissions.VISITOR] = owner.visitor
    session.save()
    return str(finished(submit(owner)).pk)


def fine(response: Any, *what: object) -> None:
    assert response.status_code < 500, (response.status_code, *what)
    if response.streaming:
        b"".join(response.streaming_content)


def test_the_walk_finds_every_address() -> None:
    assert {"/", "/demo", f"/songs/{SOME_ID}/delete", "/i18n/setlang/"} <= set(OWN)
    assert f"/songs/{SOME_ID}/stems/vocals/chunks/0" in OWN
    assert "/admin/separations/job/1/change/" in dict(ADDRESSES)


@pytest.mark.parametrize("address", OWN)
def test_nothing_in_a_query_or_a_form_breaks_a_page(
    browser: Client, job: str, address: str
) -> None:
    address = address.replace(SOME_ID, job)
    names = ("model", "stems", "format", "from", "to", "mix", "seen", "next", "language", "x[]")
    for text in TEXTS:
        query = dict.fromkeys(names, text)
        fine(browser.get(address, query), text)
        if not address.endswith("/delete"):
            fine(browser.post(address, query), text)
    for raw in RAW:
        fine(browser.get(f"{address}?{raw}=1&format={raw}&mix={raw}"), raw)
        fine(browser.get(f"{address}{raw}"), raw)
        fine(browser.get(address.replace("vocals", raw).replace("/0", f"/{raw}")), raw)
    fine(browser.get(address.replace("/0", "/" + "9" * 5000)))


@pytest.mark.parametrize("address", OWN)
def test_no_header_breaks_a_page(browser: Client, job: str, address: str) -> None:
    address = address.replace(SOME_ID, job)
    cookie = browser.cookies.output(header="", sep=";")
    for headers in HEADERS:
        fine(browser.get(address, headers={"Cookie": cookie, **headers}), headers)
    for kind in ("multipart/form-data; boundary=x", "application/json", "\x00", ""):
        fine(browser.post(address, b"\x00--x\r\n\xff" * 50, content_type=kind), kind)


def test_the_admin_stands_as_much(browser: Client, settings: Settings, job: str) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # for speed
    browser.force_login(User.objects.create_superuser("boss"))
    pages = [address for address, _pattern in ADDRESSES if address.endswith(("job/", "user/"))]
    assert len(pages) == 2
    for text in TEXTS:
        for page in pages:
            for name in ("q", "o", "p", "e", "state", "created_at__year", "id__in", "_popup"):
                fine(browser.get(page, {name: text}), page, name, text)
            action = {
                "action": text,
                "_selected_action": [text],
                "index": text,
                "select_across": text,
            }
            fine(browser.post(page, action), page, text)
            fine(browser.get(f"{page}{quote(text)}/change/"), page, text)
        login = {"username": text, "password": text, "next": text}
        fine(Client(raise_request_exception=False).post("/admin/login/", login), text)


def test_every_form_needs_its_token(browser: Client, job: str) -> None:
    strict = Client(enforce_csrf_checks=True, raise_request_exception=False)
    strict.cookies = browser.cookies
    for address, _pattern in ADDRESSES:
        address = address.replace(SOME_ID, job)
        song = SimpleUploadedFile("a.wav", b"RIFF")
        response = strict.post(address, {"model": "tiny", "file": song})
        if address.startswith("/api/"):  # which has no forms, and names what it takes
            assert response.status_code in (403, 405), address
            assert response.headers["Content-Type"] == "application/problem+json", address
            continue
        assert response.status_code == 403, address
        assert "Load it again and repeat what you did." in response.content.decode(), address
        assert "<h1>" in response.content.decode()
        response = strict.post(address, {"model": "tiny"}, headers=HTMX)
        assert response.status_code == 403, address
        text = response.content.decode()
        assert text.startswith('<p class="error">')  # upload.js puts it beside the field
        assert "<html" not in text


def test_no_address_is_exempt_from_the_token() -> None:
    """Except the API's views, which check the token themselves for requests with a session."""
    for address, pattern in ADDRESSES:
        by_api = address.startswith("/api/") and pattern.name in KINDS
        assert getattr(pattern.callback, "csrf_exempt", False) == by_api, address


def test_a_host_that_is_not_ours_gets_a_plain_refusal(browser: Client) -> None:
    for host in (
        "evil.example.org",
        "localhost@evil",
        "a b",
        "localhost:99999x",
        "",
        "\xff",
        "[::1",
    ):
        response = browser.get("/", headers={"Host": host})
        if host == "":
            continue  # the test client then says its own name
        assert response.status_code == 400, host
        assert response.headers["Content-Type"] == "text/plain"
        assert b"ALLOWED_HOSTS" in response.content
        assert b"evil" not in response.content
    # What a visitor says of the host beside the header that counts is not looked at.
    response = browser.get("/", headers={"X-Forwarded-Host": "evil.example.org"})
    assert response.status_code == 200
    assert b"evil" not in response.content


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ('"\\000\\000aaaaaaaa"', False),  # NULs, as Django reads it
        ("A" * 32, False),
        ("a" * 33, False),
        ("a1" * 16, True),
    ],
)
def test_what_is_no_sessions_key_is_looked_up_nowhere(cookie: str, kept: bool) -> None:
    seen: list[bool] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(site.SESSION_COOKIE_NAME in request.COOKIES)
        return HttpResponse()

    name = site.SESSION_COOKIE_NAME
    request = RequestFactory().get("/", headers={"Cookie": f"a=b; {name}={cookie}"})
    assert name in request.COOKIES
    refuse_nul_bytes(view)(request)
    assert seen == [kept]


@pytest.mark.usefixtures("site_settings")
def test_the_admin_asks_no_database_for_a_nul(admin_client: Client) -> None:
    """PostgreSQL says no with an error that Django does not expect."""
    for name in ("separations/job", "auth/group"):
        assert admin_client.get(f"/admin/{name}/?name=a%00b").status_code == 400
        assert admin_client.get(f"/admin/{name}/?q=a%2500b").status_code == 200


def test_other_methods_are_refused(browser: Client, job: str) -> None:
    for address in OWN:
        address = address.replace(SOME_ID, job)
        if address == "/i18n/setlang/":
            continue  # Django's own, which redirects and sets nothing
        for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "OPTIONS"):
            if (method, address) != ("DELETE", f"/api/separate/{job}"):  # the one that takes it
                assert browser.generic(method, address).status_code == 405, (method, address)
    for name in ("cancel", "retry", "again", "delete"):
        assert browser.get(f"/songs/{job}/{name}").status_code == 405


def test_too_much_at_once_is_said_in_a_sentence(browser: Client) -> None:
    files = [
        SimpleUploadedFile(f"{n}.wav", b"a") for n in range(site.DATA_UPLOAD_MAX_NUMBER_FILES + 1)
    ]
    fields = {f"f{number}": "" for number in range(site.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1)}
    text = {"model": "a" * (site.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)}
    for data, words in (
        ({"file": files}, f"At most {MAX_FILES} songs are taken at once."),
        (fields, "More text was sent"),
        (text, "More text was sent"),
    ):
        page = browser.post("/", data)
        assert page.status_code == 413
        assert words in page.content.decode()
        assert "<h1>" in page.content.decode()
        part = browser.post("/", data, headers=HTMX)
        assert part.status_code == 413
        assert part.content.decode().startswith(f'<p class="error">{words}')
        for each in files:
            each.seek(0)
    broken = browser.post(
        "/", b"--x\r\n", content_type="multipart/form-data; boundary=" + "x" * 300
    )
    assert broken.status_code == 400
    assert "cannot read" in broken.content.decode()
