"""Accounts: in, out, whose songs are in them, and what is left when they go."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from pytest_django import Settings

from separations import accounts, jobs, sharing
from separations.engine.options import Options
from separations.models import Job, Owner, ShareLink, Upload
from separations.share_tokens import NoTokens
from tests.test_access import done

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
GOOD = "a mixture of 4 stems"
LOG_IN = {"username": "anna", "password": GOOD}
SIGN_UP = {"username": "anna", "email": "", "password1": GOOD, "password2": GOOD}


@pytest.fixture(autouse=True)
def quick_hashes(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", "anna@example.org", GOOD)


def songs_of(client: Client) -> set[str]:
    found = re.findall(r'class="card-title"[^>]*>([^<]+)<', client.get("/").content.decode())
    return set(found)


def browser(visitor: str = "") -> Client:
    """A browser that has sent songs as this visitor, or none yet."""
    client = Client()
    if visitor:
        session = client.session
        session["visitor"] = visitor
        session.save()
    return client


def sent_by(client: Client, title: str) -> Job:
    """A finished song that this browser sends now."""
    job = done(title, client.session["visitor"])
    user = client.session.get("_auth_user_id")
    Job.objects.filter(pk=job.pk).update(user=user)
    return job


# Signing up, in and out


def test_the_songs_of_a_browser_go_to_the_account_it_makes(site_settings: Settings) -> None:
    first, other = browser("a" * 32), browser("b" * 32)
    sent_by(first, "Mine")
    sent_by(other, "Hers")
    key = first.session.session_key
    response = first.post("/account/signup", SIGN_UP, follow=True)
    assert "1 song of this browser is in your account now." in response.content.decode()
    assert first.session.session_key != key, "whoever knew the session before knows it no longer"
    assert songs_of(first) == {"Mine"}
    assert songs_of(other) == {"Hers"}
    # On another device, the same songs, and those that this device had.
    second = browser("c" * 32)
    sent_by(second, "Later")
    assert songs_of(second) == {"Later"}
    second.post("/account/login", LOG_IN)
    assert songs_of(second) == {"Mine", "Later"}
    assert songs_of(first) == {"Mine", "Later"}
    sent_by(first, "Third")
    assert songs_of(second) == {"Mine", "Later", "Third"}


def test_after_the_log_out_the_browser_is_nobodys(
    site_settings: Settings, anna: User, visitor: Client
) -> None:
    visitor.get("/")
    introduced = visitor.cookies["visitor"].value
    assert visitor.post("/demo").status_code == 302
    song = f"/songs/{Job.objects.get().pk}"
    visitor.post("/account/login", LOG_IN)
    # Sent in another tab in the moment of the log-in, by the session as it was before.
    upload = Job.objects.get().upload
    late = jobs.submit(upload, Options(model="tiny_6s"), Owner(visitor.session["visitor"]))
    assert visitor.get(song).status_code == 200
    assert visitor.get("/account/logout").status_code == 405
    visitor.post("/account/logout")
    for path in (song, f"/songs/{late.pk}"):
        assert visitor.get(path).status_code == 404
    visitor.get("/")
    assert visitor.cookies["visitor"].value not in ("", introduced)
    visitor.post("/demo")
    assert Job.objects.exclude(user=anna).get().visitor not in ("", late.visitor)
    late.refresh_from_db()
    assert late.user == anna


def test_each_song_is_claimed_once(site_settings: Settings, anna: User) -> None:
    job = done("Mine", "a" * 32)
    waits = done("Another", "a" * 32)
    Job.objects.filter(pk=waits.pk).update(state="queued", finished_at=None, network="hash")
    bert = User.objects.create_user("bert")
    assert accounts.claim("a" * 32, anna.pk) == 2
    assert accounts.claim("a" * 32, bert.pk) == 0
    assert accounts.claim("", bert.pk) == 0
    job.refresh_from_db()
    waits.refresh_from_db()
    assert job.user == waits.user == anna
    assert waits.network == "", "it takes no place of their network any more"


def test_the_admins_log_in_claims_too(site_settings: Settings, anna: User) -> None:
    User.objects.update(is_staff=True)
    client = browser("a" * 32)
    job = sent_by(client, "Mine")
    client.post("/admin/login/", LOG_IN)
    job.refresh_from_db()
    assert job.user == anna


@pytest.mark.parametrize("page", ["login", "signup"])
@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("/about", "/about"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_nobody_is_led_elsewhere(visitor: Client, page: str, wanted: str, there: str) -> None:
    if page == "login":
        User.objects.create_user("anna", password=GOOD)
    form = {**(LOG_IN if page == "login" else SIGN_UP), "next": wanted}
    assert visitor.post(f"/account/{page}", form).headers["Location"] == there


def test_a_failed_log_in_does_not_tell_whether_there_is_an_account(
    visitor: Client, anna: User
) -> None:
    User.objects.create_user("bert", password=GOOD, is_active=False)

    def answer(name: str, password: str) -> str:
        response = visitor.post("/account/login", {"username": name, "password": password})
        page = response.content.decode().replace(f'"{name}"', "NAME")
        return re.sub(r'(csrfmiddlewaretoken" value=")[^"]+', "", page)

    wrong = answer("anna", "wrong")
    assert "correct" in wrong
    assert answer("nobody", "wrong") == wrong
    assert answer("bert", GOOD) == wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"username": "ANNA"}, "already exists"),
        ({"username": "<b>"}, "valid username"),
        ({"username": ""}, "required"),
        ({"password1": "short", "password2": "short"}, "too short"),
        ({"password1": "12345678901", "password2": "12345678901"}, "entirely numeric"),
        (
            {"username": "mixturestems", "password1": "mixturestems", "password2": "mixturestems"},
            "similar to the username",
        ),
        ({"password2": "another"}, "match"),
        ({"email": "no address"}, "valid email"),
    ],
)
def test_the_sign_up_says_what_is_wrong(
    visitor: Client, anna: User, change: dict[str, str], words: str
) -> None:
    response = visitor.post("/account/signup", {**SIGN_UP, "username": "new", **change})
    assert response.status_code == 422
    assert words in response.content.decode()
    assert User.objects.get() == anna


def test_nobody_makes_themselves_staff(visitor: Client) -> None:
    visitor.post("/account/signup", {**SIGN_UP, "is_staff": "1", "is_superuser": "1", "id": "7"})
    user = User.objects.get()
    assert not user.is_staff
    assert not user.is_superuser


def test_a_changed_password_ends_the_other_sessions(site_settings: Settings, anna: User) -> None:
    here, there = browser(), browser()
    for client in (here, there):
        client.post("/account/login", LOG_IN)
    new = "another long phrase"
    form = {"old_password": "wrong", "new_password1": new, "new_password2": new}
    assert "incorrectly" in here.post("/account/password", form).content.decode()
    here.post("/account/password", {**form, "old_password": GOOD})
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302


def test_the_address_changes_with_the_password_alone(visitor: Client, anna: User) -> None:
    visitor.force_login(anna)
    form = {"email": "new@example.org", "password": "wrong"}
    assert "not your password" in visitor.post("/account/email", form).content.decode()
    visitor.post("/account/email", {**form, "password": GOOD})
    anna.refresh_from_db()
    assert anna.email == "new@example.org"


# A forgotten password


@pytest.fixture
def mail_server(settings: Settings) -> Iterator[None]:
    """The queue's messages are worked on at once, and mails are kept."""
    settings.EMAIL_URL = "memory:"
    settings.HUEY.immediate = True
    yield
    settings.HUEY.immediate = False


def test_a_forgotten_password_is_set_by_a_link(
    visitor: Client, anna: User, mail_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    answers = []
    for address in ("anna@example.org", "nobody@example.org"):
        response = visitor.post("/account/reset", {"email": address})
        answers.append((response.status_code, response.headers["Location"], response.content))
    assert answers[0] == answers[1], "it does not tell who has an account"
    (sent,) = mail.outbox
    assert sent.to == ["anna@example.org"]
    assert "\n" not in sent.subject
    found = re.search(r"http://testserver(/account/reset/\S+)", str(sent.body))
    assert found is not None
    page = visitor.get(found[1], follow=True)
    place = page.redirect_chain[-1][0]
    assert place.endswith("/new"), "the token is no longer in the address"
    new = "another long phrase"
    response = visitor.post(place, {"new_password1": new, "new_password2": new}, follow=True)
    assert "Log in with it." in response.content.decode()
    assert visitor.post("/account/login", {**LOG_IN, "password": new}).status_code == 302
    used = Client().get(found[1], follow=True).content.decode()
    assert "used already" in used


def test_mails_speak_the_readers_language(visitor: Client, anna: User, mail_server: None) -> None:
    visitor.post("/account/reset", {"email": "anna@example.org"}, headers={"Accept-Language": "ko"})
    assert mail.outbox[0].subject == "Stemsite 새 비밀번호"


def test_without_a_mail_server_the_page_says_whom_to_ask(visitor: Client, anna: User) -> None:
    page = visitor.get("/account/reset").content.decode()
    assert "Ask whoever runs it" in page
    assert 'type="email"' not in page
    assert visitor.post("/account/reset", {"email": "anna@example.org"}).status_code == 404
    assert mail.outbox == []


# Everything of mine


def test_everything_of_a_browser_goes_and_nothing_else(
    site_settings: Settings, kept_files: Callable[[], list[Path]]
) -> None:
    client, other = browser("a" * 32), browser("b" * 32)
    sent_by(other, "Hers")
    hers = kept_files()
    for title in ("One", "Two"):
        sharing.share(sent_by(client, title), "7")
    page = client.get("/mine/delete").content.decode()
    assert "2 songs, their stems" in page
    assert "password" not in page
    assert songs_of(client) == {"One", "Two"}, "a look deletes nothing"
    done_page = client.post("/mine/delete", follow=True).content.decode()
    assert "2 songs were deleted" in done_page
    assert kept_files() == hers
    assert not ShareLink.objects.exists()
    assert [upload.title for upload in Upload.objects.all()] == ["Hers"]
    assert songs_of(other) == {"Hers"}
    assert "visitor" not in client.session


def test_a_song_that_somebody_else_needs_stays_for_them(site_settings: Settings) -> None:
    mine, hers = browser("a" * 32), browser("b" * 32)
    job = sent_by(mine, "Ours")
    shared = jobs.submit(job.upload, Options(model="tiny"), Owner("b" * 32))
    mine.post("/mine/delete")
    shared.refresh_from_db()
    assert shared.upload.is_kept
    assert hers.get(f"/songs/{shared.pk}/stems/bass").status_code == 200


def test_an_account_goes_with_its_password_alone(
    site_settings: Settings, anna: User, kept_files: Callable[[], list[Path]]
) -> None:
    client, elsewhere = browser("a" * 32), browser()
    sent_by(client, "Mine")
    for each in (client, elsewhere):
        each.post("/account/login", LOG_IN)
    refused = client.post("/mine/delete", {"account": "on", "password": "wrong"})
    assert refused.status_code == 422
    assert songs_of(client) == {"Mine"}
    gone = client.post("/mine/delete", {"account": "on", "password": GOOD}, follow=True)
    assert "Your account was deleted." in gone.content.decode()
    assert not User.objects.exists()
    assert kept_files() == []
    assert elsewhere.get("/account/").status_code == 302
    assert "_auth_user_id" not in client.session


def test_songs_go_and_the_account_stays(site_settings: Settings, anna: User) -> None:
    client = browser("a" * 32)
    sent_by(client, "Mine")
    client.post("/account/login", LOG_IN)
    client.post("/mine/delete")
    assert songs_of(client) == set()
    assert client.get("/account/").status_code == 200


def test_an_account_of_the_staff_does_not_go_here(site_settings: Settings, anna: User) -> None:
    User.objects.update(is_staff=True)
    client = browser()
    client.post("/account/login", LOG_IN)
    assert 'name="account"' not in client.get("/mine/delete").content.decode()
    client.post("/mine/delete", {"account": "on", "password": GOOD})
    assert User.objects.exists()


def test_a_song_sent_while_the_account_goes_goes_too(
    site_settings: Settings, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = done("Mine", "a" * 32)
    Job.objects.update(user=anna)
    real = accounts.delete_everything

    def and_one_more(owner: Owner) -> int:
        count = real(owner)
        if count == 1 and Upload.objects.count() == 0:
            late = done("Late", "a" * 32)
            Job.objects.filter(pk=late.pk).update(user=anna)
            monkeypatch.setattr(accounts, "delete_everything", real)
        return count

    monkeypatch.setattr(accounts, "delete_everything", and_one_more)
    assert accounts.delete_account(anna) == 2
    assert not User.objects.exists()
    assert not Job.objects.filter(pk=job.pk).exists()


@pytest.mark.parametrize("at_once", [True, False])
def test_the_operator_deletes_an_account_with_its_songs(
    site_settings: Settings,
    anna: User,
    admin_client: Client,
    kept_files: Callable[[], list[Path]],
    at_once: bool,
) -> None:
    done("Mine", "a" * 32)
    Job.objects.update(user=anna)
    place, form = f"/admin/auth/user/{anna.pk}/delete/", {"post": "yes"}
    if at_once:
        place = "/admin/auth/user/"
        form |= {"action": "delete_selected", "_selected_action": str(anna.pk)}
    admin_client.post(place, form)
    assert [user.username for user in User.objects.all()] == ["admin"]
    assert kept_files() == []


# Logs


def test_logs_hold_no_tokens() -> None:
    console = next(
        handler
        for handler in logging.getLogger().handlers
        if any(isinstance(each, NoTokens) for each in handler.filters)
    )
    token = "A" * 40 + "-_x"
    for path, shown in (
        (f"/s/{token}/stems/bass", "/s/…/stems/bass"),
        (f"/account/reset/MQ/cz1abc-{'0f' * 16}", "/account/reset/MQ/…"),
        ("/songs/1/stems/bass", "/songs/1/stems/bass"),
    ):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "Error: %s", (path,), None)
        assert console.filter(record)
        assert console.format(record) == f"ERROR x Error: {shown}"
    for name in ("gunicorn.access", "gunicorn.error"):
        atoms = {"r": f"GET /s/{token}"}
        record = logging.LogRecord(name, logging.INFO, "", 0, "%(r)s", (atoms,), None)
        assert logging.getLogger(name).filter(record)
        assert record.getMessage() == "GET /s/…"
