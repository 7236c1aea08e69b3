"""Who asks too often is told to wait, before anything is read, and nobody else is."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client
from django.urls import get_resolver, resolve, reverse
from django.utils import timezone
from pytest_django import Settings

from separations import buckets, intake, rate_limits
from separations.models import Bucket, Job, Upload
from stemsite.settings import envrate
from tests.sounds import music, wav

HTML = {"Accept": "text/html"}


@pytest.fixture
def limit(site_settings: Settings) -> Callable[..., None]:
    def set_limit(**limits: tuple[int, int]) -> None:
        site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, **limits}

    return set_limit


@pytest.fixture(autouse=True)
def no_slot_is_kept() -> Iterator[None]:
    yield
    assert rate_limits.slots._held.total() == 0


def withdrawal(count: int = 2, seconds: int = 60, who: str = "x") -> buckets.Withdrawal:
    return buckets.Withdrawal("test", who, count, seconds)


# Buckets


@pytest.mark.django_db
def test_a_bucket_fills_again_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    assert [buckets.take([withdrawal()]) for _ in range(3)] == [0, 0, 30]
    now += timedelta(seconds=30)
    assert [buckets.take([withdrawal()]) for _ in range(2)] == [0, 30]
    now -= timedelta(hours=1)  # a clock that was set back takes nothing away
    assert buckets.take([withdrawal()]) == 30


@pytest.mark.django_db
def test_what_was_used_already_is_owed_but_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    buckets.charge(replace(withdrawal(), cost=3))
    assert buckets.take([withdrawal()]) == 60
    buckets.charge(replace(withdrawal(), cost=1000))
    assert buckets.take([withdrawal()]) == 90
    buckets.charge(withdrawal(count=0, who="z"))
    assert buckets.take([withdrawal(who="z")]) == 0


@pytest.mark.django_db
def test_nothing_is_taken_when_one_of_two_is_empty() -> None:
    buckets.take([withdrawal(1, who="a")])
    assert buckets.take([withdrawal(1, who="a"), withdrawal(1, who="b")]) > 0
    assert buckets.take([withdrawal(1, who="b")]) == 0


@pytest.mark.django_db
def test_the_table_names_nobody(visitor: Client, limit: Callable[..., None]) -> None:
    limit(login=(5, 60), name=(5, 60))
    visitor.post("/account/login", {"username": "mallory", "password": "x"})
    kept = " ".join(Bucket.objects.values_list("key", flat=True))
    assert Bucket.objects.count() == 2
    assert "127.0.0.1" not in kept
    assert "mallory" not in kept


@pytest.mark.parametrize("text", ["20", "20/", "/h", "-1/h", "20/2d", "many/h", "0/h"])
def test_a_rate_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT_UPLOADS", text)
    with pytest.raises(ImproperlyConfigured):
        envrate("LIMIT_UPLOADS", "60/h")


# Requests


def test_too_many_uploads_are_refused_unread(
    visitor: Client, limit: Callable[..., None], tmp_path: Path, kept_files: Any, no_queue: Any
) -> None:
    limit(upload=(1, 3600))
    song = wav(tmp_path / "a.wav", music(2.0))
    for address in ("127.0.0.1", "2001:db8::1"):
        with song.open("rb") as file:
            sent = visitor.post("/", {"file": file, "model": "tiny"}, REMOTE_ADDR=address)
        assert sent.status_code == 302
    before = kept_files()
    strict = Client(enforce_csrf_checks=True)  # its check reads the body, where it comes first
    for address in ("127.0.0.1", "2001:db8::2:3"):
        with song.open("rb") as file:
            sent = strict.post(
                "/", {"file": file, "model": "tiny"}, REMOTE_ADDR=address, headers=HTML
            )
        assert sent.status_code == 429
        assert 3500 < int(sent.headers["Retry-After"]) <= 3600
        assert "60 min" in sent.content.decode()
        assert not hasattr(sent.wsgi_request, "_files")
    assert kept_files() == before
    assert Upload.objects.count() == Job.objects.count() == 2


def test_the_refusal_suits_who_asks(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 60))
    visitor.post("/", {})
    page = visitor.post("/", {}, headers=HTML)
    partial = visitor.post("/", {}, headers={"HX-Request": "true"})
    plain = visitor.post("/", {})
    assert {page.status_code, partial.status_code, plain.status_code} == {429}
    assert b"<html" in page.content
    assert partial.content.startswith(b'<p class="error">')  # where upload.js looks for it
    assert plain.headers["Content-Type"] == "text/plain"
    assert b"<" not in plain.content


def test_looking_at_the_page_costs_nothing(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 60), action=(1, 60))
    assert {visitor.get("/").status_code for _ in range(3)} == {200}


def test_an_account_is_counted_from_everywhere(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 60))
    visitor.force_login(User.objects.create_user("ann"))
    assert visitor.post("/", {}, REMOTE_ADDR="192.0.2.1").status_code == 400
    assert visitor.post("/", {}, REMOTE_ADDR="192.0.2.2").status_code == 429


@pytest.mark.parametrize("path", ["/account/login", "/admin/login/"])
def test_guesses_from_everywhere_are_slowed_but_lock_nobody_out(
    visitor: Client, limit: Callable[..., None], path: str
) -> None:
    User.objects.create_superuser("ann", password="right")
    right = {"username": "ann", "password": "right"}
    own = Client()
    assert own.post(path, right).status_code == 302
    own.post("/account/logout")
    limit(name=(2, 60))
    answers = [
        Client()
        .post(path, {"username": " ANN", "password": "no"}, REMOTE_ADDR=f"192.0.2.{n}")
        .status_code
        for n in range(3)
    ]
    assert answers == [200, 200, 429]
    assert Client().post(path, right).status_code == 429
    assert own.post(path, right).status_code == 302  # its browser is known


def test_a_form_of_many_bytes_is_no_log_in(visitor: Client) -> None:
    body = {"username": "x" * 100_000, "password": "x"}
    assert visitor.post("/account/login", body).status_code == 413


def test_one_client_does_not_hold_all_threads(visitor: Client, site_settings: Settings) -> None:
    site_settings.WEB_THREADS = 32
    held = [rate_limits.slots.enter("upload", "127.0.0.1") for _ in range(8)]
    refused = visitor.post("/", {})
    elsewhere = visitor.post("/", {}, REMOTE_ADDR="192.0.2.1")
    held += [rate_limits.slots.enter("upload", f"192.0.2.{n}") for n in range(16)]
    busy = visitor.post("/", {}, REMOTE_ADDR="192.0.2.50")
    for leave in held:
        leave()
    assert (refused.status_code, elsewhere.status_code, busy.status_code) == (429, 400, 503)
    assert refused.headers["Retry-After"]
    assert busy.headers["Retry-After"]


@pytest.mark.parametrize("place", ["/", "/api/separate"])
@pytest.mark.parametrize(("error", "status"), [("is locked", 503), ("has no such table", 500)])
def test_whom_the_database_has_no_room_for_comes_again(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, place: str, error: str, status: int
) -> None:
    def locked(*_given: object, **_named: object) -> None:
        raise OperationalError(f"database {error}")

    monkeypatch.setattr(intake, "take_in", locked)
    visitor.raise_request_exception = False
    answer = visitor.post(place, {"file": SimpleUploadedFile("a.wav", b"x")})
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("10" if status == 503 else None)


@pytest.mark.parametrize("place", ["/", "/api/jobs", "/api/separate"])
@pytest.mark.parametrize("broken", ["separations.buckets.take", "separations.tokens.find"])
def test_nor_does_it_break_before_a_view_is_reached(
    visitor: Client,
    limit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    broken: str,
) -> None:
    def locked(*_given: object, **_named: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(broken, locked)
    visitor.raise_request_exception = False
    token = {"Authorization": "Bearer stemsite_" + "a" * 43} if "tokens" in broken else {}
    ask = visitor.get if place == "/api/jobs" else visitor.post
    answer = ask(place, headers=token)
    expected = 400 if place == "/" and token else 503
    assert answer.status_code == expected
    if expected == 503:
        assert answer.headers["Retry-After"] == "10"


def test_whoever_guesses_tokens_is_counted(visitor: Client, limit: Callable[..., None]) -> None:
    limit(api=(2, 60))
    guess = {"Authorization": "Bearer stemsite_" + "a" * 43}
    answers = [visitor.get("/api/jobs", headers=guess).status_code for _ in range(3)]
    assert answers == [401, 401, 429]


@pytest.mark.parametrize("place", ["/about", "/demo", "/i18n/setlang/", "/no/such/page"])
def test_no_other_address_takes_files(visitor: Client, place: str) -> None:
    """All of a body is on the disk before a view is asked what it thinks of it."""
    song = SimpleUploadedFile("a.wav", b"x" * 100_000)
    assert visitor.post(place, {"file": song}).status_code in (404, 413)
    assert visitor.post("/about", {"a": "b"}).status_code == 405


def test_what_another_site_sends_uses_up_nothing(
    visitor: Client, limit: Callable[..., None]
) -> None:
    limit(upload=(1, 60))
    for _ in range(3):
        sent = visitor.post("/", {}, headers={"Sec-Fetch-Site": "cross-site"})
        assert sent.status_code == 403
    assert visitor.post("/", {}).status_code == 400
    assert visitor.post("/", {}).status_code == 429


def test_a_refused_log_in_leaves_no_row(visitor: Client, limit: Callable[..., None]) -> None:
    limit(login=(1, 60), name=(5, 60))
    answers = []
    for number in range(4):
        guess = {"username": f"name{number}", "password": "x"}
        answers.append(visitor.post("/account/login", guess).status_code)
    assert answers == [200, 429, 429, 429]
    assert Bucket.objects.count() == 2  # the address, and the one name that was tried


def test_asking_for_a_head_alone_takes_a_thread_too(
    visitor: Client, site_settings: Settings
) -> None:
    """It waits for the same encoder."""
    site_settings.WEB_THREADS = 8
    held = [rate_limits.slots.enter("listen", "127.0.0.1") for _ in range(2)]
    place = f"/songs/{uuid.UUID(int=1)}/stems/bass"
    assert visitor.head(place).status_code == 429
    for leave in held:
        leave()
    assert visitor.head(place).status_code == 404


# All that changes something


NOT_COUNTED = {"accounts:logout"}  # tries nothing and makes nothing


def test_every_address_of_ours_that_takes_a_post_is_counted(visitor: Client) -> None:
    """A new one must be marked, or named here."""
    asked = 0
    user = User.objects.create_user("ann")
    for app in ("separations", "accounts", "api"):
        for name, (parts, *_rest) in _addresses(app).items():
            values = {key: VALUES[key] for key in parts[0][1]}
            path = reverse(f"{app}:{name}", kwargs=values)
            visitor.force_login(user)
            takes_post = visitor.post(path).status_code != 405
            if takes_post and f"{app}:{name}" not in NOT_COUNTED:
                asked += 1
                assert hasattr(resolve(path).func, "limited"), name
    assert asked > 10


VALUES = {
    "song": uuid.UUID(int=1),
    "job_id": uuid.UUID(int=1),
    "link_id": uuid.UUID(int=1),
    "task_id": uuid.UUID(int=1),
    "token_id": uuid.UUID(int=1),
    "stem_name": "vocals",
    "stem": "vocals",
    "index": 0,
    "uidb64": "x",
    "token": "y",
}


def _addresses(app: str) -> Any:
    resolver = get_resolver().namespace_dict[app][1]
    return {name: found for name, found in resolver.reverse_dict.items() if isinstance(name, str)}
