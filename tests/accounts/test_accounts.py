"""Accounts: sign-up, log-in, log-out, their songs, and what remains after deletion."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from separations.access import share_links
from separations.engine.options import Options
from separations.jobs import lifecycle, ownership
from separations.logs.secret_tokens import TokenFilter
from separations.models import Job, Owner, ShareLink, Upload
from separations.uploads import submission
from tests.support import sounds
from tests.support.accounts import GOOD, LOG_IN, SIGN_UP, browser, songs_of
from tests.support.jobs import done

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "quick_hashes")]


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", "anna@example.org", GOOD)


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
    late = lifecycle.submit(upload, Options(model="tiny_6s"), Owner(visitor.session["visitor"]))
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
    assert ownership.claim("a" * 32, anna.pk) == 2
    assert ownership.claim("a" * 32, bert.pk) == 0
    assert ownership.claim("", bert.pk) == 0
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
        ({"username": "\u3164"}, "Nothing is seen of this name"),
        ({"username": "ß" * 100}, "at most 150 characters"),
    ],
)
def test_the_sign_up_says_what_is_wrong(
    visitor: Client, anna: User, settings: Settings, change: dict[str, str], words: str
) -> None:
    settings.EMAIL_URL = "memory:"
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


# Everything of mine


def test_everything_of_a_browser_goes_and_nothing_else(
    site_settings: Settings, kept_files: Callable[[], list[Path]]
) -> None:
    client, other = browser("a" * 32), browser("b" * 32)
    sent_by(other, "Hers")
    hers = kept_files()
    for title in ("One", "Two"):
        share_links.create(sent_by(client, title), "7")
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
    shared = lifecycle.submit(job.upload, Options(model="tiny"), Owner("b" * 32))
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
    real = ownership.delete_everything

    def and_one_more(owner: Owner) -> int:
        count = real(owner)
        if count == 1 and Upload.objects.count() == 0:
            late = done("Late", "a" * 32)
            Job.objects.filter(pk=late.pk).update(user=anna)
            monkeypatch.setattr(ownership, "delete_everything", real)
        return count

    monkeypatch.setattr(ownership, "delete_everything", and_one_more)
    assert ownership.delete_account(anna) == 2
    assert not User.objects.exists()
    assert not Job.objects.filter(pk=job.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_a_song_that_comes_after_its_account_went_is_refused_in_words(
    site_settings: Settings,
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kept_files: Callable[[], list[Path]],
) -> None:
    client, take_in = browser(), submission.submit
    client.post("/account/login", LOG_IN)

    def too_late(*asked: Any, **more: Any) -> Job:
        User.objects.all().delete()  # as of somebody who deletes it in another tab
        return take_in(*asked, **more)

    monkeypatch.setattr(submission, "submit", too_late)
    with sounds.wav(tmp_path / "song.wav", sounds.music(1.0)).open("rb") as song:
        page = client.post("/", {"file": song, "model": "tiny"})
    assert page.status_code == 410
    assert "Your account was deleted while this song was on its way" in page.content.decode()
    assert kept_files() == []


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
        if any(isinstance(each, TokenFilter) for each in handler.filters)
    )
    token = "A" * 40 + "-_x"
    for path, shown in (
        (f"/s/{token}/stems/bass", "/s/…/stems/bass"),
        (f"/account/reset/MQ/cz1abc-{'0f' * 16}", "/account/reset/MQ/…"),
        (f"/account/confirm/{'Wz' * 20}.1wOe-_x.{'a_' * 20}", "/account/confirm/…"),
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
