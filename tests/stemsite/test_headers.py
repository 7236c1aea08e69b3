"""Security headers of every response, and attributes of cookies."""

import re
from typing import Any

import pytest
from django.conf import settings as site
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from separations.models import Job
from stemsite.middleware import NO_PAGE, PAGE, security_headers
from tests.support.commands import PUBLIC, python

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]


def protected(response: Any, policy: str) -> None:
    headers = response.headers
    assert headers["Content-Security-Policy"] == policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Server" not in headers


def test_the_policies_allow_neither_inline_nor_eval() -> None:
    assert "'unsafe-inline'" not in PAGE + NO_PAGE
    assert "'unsafe-eval'" not in PAGE + NO_PAGE
    assert NO_PAGE.endswith("; sandbox")
    for policy in (PAGE, NO_PAGE):
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert "*" not in policy


def test_pages_are_protected(visitor: Client, finished: Job) -> None:
    address = f"/songs/{finished.pk}"
    for path in ("/", "/about", address, f"{address}/status", "/nothing", "/admin/login/"):
        response = visitor.get(path)
        assert response.headers["Content-Type"].startswith("text/html"), path
        protected(response, PAGE)
        assert "private" in response.headers["Cache-Control"], path
    for path in ("/", "/about", address):
        assert "no-store" in visitor.get(path).headers["Cache-Control"]


def test_what_is_no_page_can_never_act_as_one(visitor: Client, finished: Job) -> None:
    address = f"/songs/{finished.pk}"
    for path, kind in (
        (f"{address}/stems/vocals", "audio/wav"),
        (f"{address}/stems/vocals?format=mp3-192&download", "audio/mpeg"),
        (f"{address}/stems/vocals?format=m4a-192", "audio/mp4"),
        (f"{address}/stems/vocals?format=opus-96", "audio/ogg"),
        (f"{address}/stems/vocals?format=flac", "audio/flac"),
        (f"{address}/stems/vocals/chunks/0", "audio/flac"),
        (f"{address}/stems/vocals/peaks", "application/octet-stream"),
        (f"{address}/mix?mix=vocals:80:0", "audio/wav"),
        (f"{address}/archive", "application/zip"),
        (f"{address}/stems/vocals?format=exe", "text/plain"),
    ):
        response = visitor.get(path)
        # Exactly, with nothing after it but the charset of a text.
        assert response.headers["Content-Type"].split(";")[0] == kind, (path, response.content)
        protected(response, NO_PAGE)
        assert "private" in response.headers["Cache-Control"]
        if "download" in path or path.endswith(("archive", "vocals:80:0")):
            assert response.headers["Content-Disposition"].startswith("attachment;")
    protected(visitor.delete("/demo"), PAGE)  # Django calls an empty body HTML


def test_an_unchanged_answer_keeps_what_was_said_of_it(
    visitor: Client,
    finished: Job,
) -> None:
    path = f"/songs/{finished.pk}/stems/vocals"
    etag = visitor.get(path).headers["ETag"]
    response = visitor.get(path, headers={"If-None-Match": etag})
    assert response.status_code == 304
    assert "Cache-Control" not in response.headers


def test_what_a_view_says_counts() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Cache-Control": "public", "Content-Security-Policy": "own"})

    response = security_headers(view)(RequestFactory().get("/"))
    assert response.headers["Cache-Control"] == "public"
    assert response.headers["Content-Security-Policy"] == "own"


def test_nothing_comes_before_the_headers() -> None:
    assert site.MIDDLEWARE[0] == "stemsite.middleware.security_headers"


def test_cookies_are_for_this_site_alone(visitor: Client) -> None:
    visitor.get("/")
    visitor.post("/demo")
    visitor.post("/i18n/setlang/", {"language": "ko"})
    names = ("sessionid", "csrftoken", "visitor", "django_language")
    assert set(visitor.cookies) == set(names)
    for name in names:
        assert visitor.cookies[name]["httponly"] is True, name
        assert visitor.cookies[name]["samesite"] == "Lax", name


def test_with_https_nothing_goes_in_the_clear(tmp_path: Any) -> None:
    """In a process of its own: most of it is settled when the settings are read."""
    code = """
import django
from django.conf import settings
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
settings.STORAGES["staticfiles"]["BACKEND"] = \
    "django.contrib.staticfiles.storage.StaticFilesStorage"
browser = Client(headers={"Host": "stems.example.org"})
plain = browser.get("/about")
print(plain.status_code, plain.headers["Location"], plain.headers["Content-Security-Policy"])
page = browser.get("/", headers={"X-Forwarded-Proto": "https"})
print(page.status_code, page.headers["Strict-Transport-Security"])
for cookie in page.cookies.values():
    print(cookie.OutputString())
"""
    answer = python(
        "-c",
        code,
        DJANGO_SETTINGS_MODULE="stemsite.settings",
        DATA_DIR=str(tmp_path),
        **PUBLIC,
    )
    lines = answer.stdout.splitlines()
    assert lines[0] == f"301 https://stems.example.org/about {PAGE}", answer.stderr
    assert lines[1] == "200 max-age=31536000"
    cookies = lines[2:]
    assert {cookie.partition("=")[0] for cookie in cookies} == {
        "__Host-csrftoken",
        "__Host-visitor",
    }
    for cookie in cookies:
        assert re.search(r"; Path=/;.*; Secure$", cookie)
        assert "Domain" not in cookie
