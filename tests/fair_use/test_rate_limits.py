"""Rate limits: requests over them are refused before their body is read, and no others are."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, resolve, reverse
from django.utils import timezone
from pytest_django import Settings

from separations.errors import database_outage
from separations.errors.fault import Fault
from separations.fair_use import address_ranges, concurrency, token_bucket
from separations.fair_use.middleware import RateLimitMiddleware
from separations.models import Bucket, Job, Upload
from separations.uploads import submission
from stemsite.environment import envrate
from tests.support.sounds import ROOT, music, wav

HTML = {"Accept": "text/html"}


@pytest.fixture
def limit(site_settings: Settings) -> Callable[..., None]:
    def set_limit(**limits: tuple[int, int]) -> None:
        site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, **limits}

    return set_limit


@pytest.fixture(autouse=True)
def no_slot_is_kept() -> Iterator[None]:
    yield
    assert concurrency.slots._held.total() == 0


def withdrawal(count: int = 2, seconds: int = 60, who: str = "x") -> token_bucket.Withdrawal:
    return token_bucket.Withdrawal("test", who, count, seconds)


@pytest.mark.django_db
def test_a_site_that_cannot_answer_queries_nothing_to_say_so(
    limit: Callable[..., None], rf: RequestFactory, django_assert_num_queries: Callable[[int], Any]
) -> None:
    limit(api=(10, 60))
    for status, queries in ((503, 0), (200, 1)):
        request = rf.get("/api/jobs")
        request.user = AnonymousUser()
        request.__dict__["_limit"] = "api"
        middleware = RateLimitMiddleware(lambda _request, s=status: HttpResponse(status=s))  # type: ignore[misc]
        with django_assert_num_queries(queries):
            assert ("RateLimit" in middleware(request).headers) == (status == 200)


# Buckets


@pytest.mark.django_db
def test_a_bucket_fills_again_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    assert [token_bucket.try_withdraw([withdrawal()]) for _ in range(3)] == [0, 0, 30]
    now += timedelta(seconds=30)
    assert [token_bucket.try_withdraw([withdrawal()]) for _ in range(2)] == [0, 30]
    now -= timedelta(hours=1)  # a clock that was set back takes nothing away
    assert token_bucket.try_withdraw([withdrawal()]) == 30


@pytest.mark.django_db
def test_what_was_used_already_is_owed_but_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    token_bucket.charge([replace(withdrawal(), cost=3)])
    assert token_bucket.try_withdraw([withdrawal()]) == 60
    token_bucket.charge([replace(withdrawal(), cost=1000)])
    assert token_bucket.try_withdraw([withdrawal()]) == 90
    token_bucket.charge([withdrawal(count=0, who="z")])
    assert token_bucket.try_withdraw([withdrawal(who="z")]) == 0


@pytest.mark.django_db
def test_nothing_is_taken_when_one_of_two_is_empty() -> None:
    token_bucket.try_withdraw([withdrawal(1, who="a")])
    assert token_bucket.try_withdraw([withdrawal(1, who="a"), withdrawal(1, who="b")]) > 0
    assert token_bucket.try_withdraw([withdrawal(1, who="b")]) == 0


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


def test_neighbours_in_ipv6_have_their_limits_and_a_wider_range_has_higher_ones(
    visitor: Client, limit: Callable[..., None]
) -> None:
    """The owner of a whole /56 or /48 is not a new client with each /64 of it."""
    limit(upload=(1, 3600))

    def answers(*addresses: str) -> list[int]:
        return [visitor.post("/", {}, REMOTE_ADDR=each).status_code for each in addresses]

    of_a_56 = [f"2001:db8:1:{n:x}::1" for n in range(5)]
    assert answers(*of_a_56) == [400] * 4 + [429]
    assert answers("2001:db8:1:ff:8::1") == [429]
    of_the_48 = [f"2001:db8:1:{n}00::1" for n in range(10, 24)]
    assert answers(*of_the_48) == [400] * 12 + [429] * 2
    assert answers("2001:db8:2::1", "198.51.100.1", "198.51.100.2") == [400] * 3


def test_one_address_in_another_spelling_is_the_same_client(
    visitor: Client, limit: Callable[..., None]
) -> None:
    limit(upload=(1, 3600))
    spellings = ("198.51.100.1", "::ffff:198.51.100.1", "2002:c633:6401::9", "64:ff9b::c633:6401")
    answers = [visitor.post("/", {}, REMOTE_ADDR=each).status_code for each in spellings]
    assert answers == [400, 429, 429, 429]


def test_an_ipv4_client_is_one_bucket(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 3600))
    visitor.post("/", {}, REMOTE_ADDR="198.51.100.1")
    assert Bucket.objects.count() == 1


ACCOUNT = {"password1": "a long horse staple", "password2": "a long horse staple"}


def test_all_visitors_together_have_a_limit_which_is_not_theirs(
    site_settings: Settings, tmp_path: Path, no_queue: Any, kept_files: Any, db: None
) -> None:
    """It counts what really happens: not requests without CSRF token, song or valid name."""
    site_settings.SITE_LIMITS = {"signup": (2, 3600), "upload": (2, 3600)}
    strict = Client(enforce_csrf_checks=True)
    for path in ("/", "/account/signup"):
        assert {strict.post(path, {}).status_code for _ in range(3)} == {403}
        assert {Client().post(path, {}).status_code for _ in range(3)} <= {400, 422}
    assert Bucket.objects.count() == 0
    song = wav(tmp_path / "a.wav", music(2.0))

    def upload(n: int) -> Any:
        with song.open("rb") as file:
            return Client().post("/", {"file": file, "model": "tiny"}, headers=HTML)

    def sign_up(n: int) -> Any:
        return Client().post("/account/signup", {"username": f"anna{n}", **ACCOUNT}, headers=HTML)

    for do in (upload, sign_up):
        answers = [do(n) for n in range(3)]
        assert [answer.status_code for answer in answers] == [302, 302, 503]
        assert "All visitors together" in answers[2].content.decode()
        assert 1700 < int(answers[2].headers["Retry-After"]) <= 1800
    assert (Upload.objects.count(), User.objects.count()) == (2, 2)
    assert len(kept_files()) == 2


def test_what_the_site_refuses_is_logged_once_a_minute(
    visitor: Client,
    site_settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_outage, "log", database_outage.OncePerMinute())
    site_settings.SITE_LIMITS = {"signup": (1, 3600)}
    for n in range(4):
        visitor.post("/account/signup", {"username": f"anna{n}", **ACCOUNT})
        visitor.cookies.clear()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in said if "limit of the site for signup" in text]) == 1
    assert "Service Unavailable" not in caplog.text


def test_looking_at_the_page_costs_nothing(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 60), action=(1, 60))
    assert {visitor.get("/").status_code for _ in range(3)} == {200}


def test_an_account_is_counted_from_everywhere(visitor: Client, limit: Callable[..., None]) -> None:
    limit(upload=(1, 60))
    visitor.force_login(User.objects.create_user("ann"))
    assert visitor.post("/", {}, REMOTE_ADDR="192.0.2.1").status_code == 400
    assert visitor.post("/", {}, REMOTE_ADDR="192.0.2.2").status_code == 429


def test_a_form_of_many_bytes_is_no_log_in(visitor: Client) -> None:
    body = {"username": "x" * 100_000, "password": "x"}
    assert visitor.post("/account/login", body).status_code == 413


def test_a_range_of_ipv6_does_not_hold_all_threads(
    visitor: Client, site_settings: Settings
) -> None:
    site_settings.WEB_THREADS = 64
    held = []
    for n in range(64):
        try:
            held.append(concurrency.slots.enter("upload", f"2001:db8:0:{n:x}::/64"))
        except Fault as fault:
            assert fault.code == "too_many_at_once"  # noqa: PT017
    assert len(held) == 24, "a quarter of the threads for one, half as many more for its /56"
    for leave in held:
        leave()


def test_one_client_does_not_hold_all_threads(visitor: Client, site_settings: Settings) -> None:
    site_settings.WEB_THREADS = 32
    held = [concurrency.slots.enter("upload", "127.0.0.1") for _ in range(8)]
    refused = visitor.post("/", {})
    elsewhere = visitor.post("/", {}, REMOTE_ADDR="192.0.2.1")
    held += [concurrency.slots.enter("upload", f"192.0.2.{n}") for n in range(16)]
    busy = visitor.post("/", {}, REMOTE_ADDR="192.0.2.50")
    for leave in held:
        leave()
    assert (refused.status_code, elsewhere.status_code, busy.status_code) == (429, 400, 503)
    assert refused.headers["Retry-After"]
    assert busy.headers["Retry-After"]


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8:0:{:x}00::/64"])
def test_one_client_leaves_threads_to_others_whatever_it_does(
    visitor: Client, site_settings: Settings, client: str
) -> None:
    site_settings.WEB_THREADS = 64
    held = []
    for kind in ("upload", "download", "listen", "events"):
        for n in range(64):
            try:
                held.append(concurrency.slots.enter(kind, client.format(n)))
            except Fault as fault:
                assert fault.code == "too_many_at_once"  # noqa: PT017
    most = 24 if client == "192.0.2.1" else 32
    assert len(held) == most, "half of what is not for pages, two thirds for a /48"
    for n in range(3 * 64):  # three more, each of whom takes half of what is left to them
        with suppress(Fault):
            held.append(concurrency.slots.enter("upload", f"192.0.2.{2 + n // 64}"))
    held.append(concurrency.slots.enter("download", "192.0.2.5"))
    for leave in held:
        leave()
    assert not concurrency.slots._of_range


@pytest.mark.parametrize("place", ["/", "/api/separate"])
@pytest.mark.parametrize(("error", "status"), [("is locked", 503), ("has no such table", 500)])
def test_whom_the_database_has_no_room_for_comes_again(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, place: str, error: str, status: int
) -> None:
    def locked(*_given: object, **_named: object) -> None:
        raise OperationalError(f"database {error}")

    monkeypatch.setattr(submission, "submit", locked)
    visitor.raise_request_exception = False
    answer = visitor.post(place, {"file": SimpleUploadedFile("a.wav", b"x")})
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("10" if status == 503 else None)


@pytest.mark.parametrize("place", ["/", "/api/jobs", "/api/separate"])
@pytest.mark.parametrize(
    "broken",
    ["separations.fair_use.token_bucket.try_withdraw", "separations.access.api_tokens.find"],
)
def test_nor_does_it_break_before_a_view_is_reached(
    visitor: Client,
    limit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    broken: str,
) -> None:
    def locked(*_given: object, **_named: object) -> None:
        raise OperationalError("database is locked")

    limit(api=(10, 60))
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
    """Django writes a whole body to the disk before a view can refuse it."""
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
    held = [concurrency.slots.enter("listen", "127.0.0.1") for _ in range(2)]
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


def test_no_address_range_uses_up_what_all_have_together() -> None:
    """With the defaults of docs/configuration.md."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(LIMIT_\w+)` \| `(\d+)/h` \|", text, re.M)
    rates = {name: int(count) for name, count in rows}
    widest = address_ranges.ranges("2001:db8::/64")[-1].factor
    for kind in ("SIGNUPS", "UPLOADS", "ENCODINGS"):
        of_many = max(widest, 10) * rates[f"LIMIT_{kind}"]
        # A song that takes long to decode may count twice: a client owes a bucket at most.
        times = 2 if kind == "UPLOADS" else 1
        assert 3 * times * of_many <= rates[f"LIMIT_SITE_{kind}"], kind


# What it costs the database


@pytest.mark.django_db
def test_a_bucket_that_is_forgotten_in_this_moment_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = Bucket.objects.bulk_create

    def made_and_forgotten(rows: list[Bucket], **how: Any) -> object:
        monkeypatch.setattr(Bucket.objects, "bulk_create", make)
        made = make(rows, **how)
        Bucket.objects.filter(key=rows[0].key).delete()
        return made

    monkeypatch.setattr(Bucket.objects, "bulk_create", made_and_forgotten)
    assert (
        token_bucket.try_withdraw([token_bucket.Withdrawal("api", each, 2, 60) for each in "ab"])
        == 0
    )
    assert Bucket.objects.count() == 2


def test_what_is_refused_locks_nothing(visitor: Client, limit: Callable[..., None]) -> None:
    limit(login=(1, 3600), api=(1, 3600))
    guess = {"Authorization": "Bearer x"}
    visitor.post("/account/login", {})
    visitor.get("/api/jobs", headers=guess)
    with CaptureQueriesContext(connection) as queries:
        assert visitor.post("/account/login", {}).status_code == 429
        assert visitor.get("/api/jobs", headers=guess).status_code == 429
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer x"}, {}])
def test_what_programs_ask_is_written_now_and_then_and_counts_all_the_same(
    visitor: Client, limit: Callable[..., None], headers: dict[str, str]
) -> None:
    limit(api=(100, 3600))
    with CaptureQueriesContext(connection) as queries:
        answers = [visitor.get("/api/jobs", headers=headers).status_code for _ in range(104)]
    assert 429 not in answers[:100]
    assert set(answers[101:]) == {429}
    assert sum("UPDATE" in query["sql"] for query in queries) == 20


def test_requests_count_while_they_are_written(
    visitor: Client, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all requests meanwhile would find a bucket that has enough for one."""
    limit(api=(40, 3600))  # two are written at a time
    guess = {"Authorization": "Bearer x"}

    def ask() -> int:
        return visitor.get("/api/jobs", headers=guess).status_code

    assert [ask(), ask()] == [401, 401]
    Bucket.objects.update(tokens=1.5)
    meanwhile: list[int] = []
    claim = token_bucket.withdraw

    def claim_slowly(own: list[token_bucket.Withdrawal]) -> None:
        meanwhile.append(ask())
        claim(own)

    monkeypatch.setattr(token_bucket, "withdraw", claim_slowly)
    assert [ask(), ask()] == [401, 429]
    assert meanwhile == [429]
