"""Session lifetimes: hours for staff, weeks for others."""

import time
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from separations.access import token_auth
from separations.access.api_tokens import create
from separations.accounts import sessions
from separations.checks.site_checks import visitors_keep_their_songs
from separations.models import ApiToken, Owner
from tests.support.accounts import GOOD, LOG_IN, browser, songs_of
from tests.support.jobs import done

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def lengths(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STAFF_SESSION_HOURS = 12
    settings.SESSION_COOKIE_AGE = 30 * DAY


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", password=GOOD)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


@pytest.mark.parametrize("page", ["/account/login", "/admin/login/"])
def test_staff_are_logged_in_for_hours(
    anna: User, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    User.objects.update(is_staff=True)
    client = Client()
    client.post(page, {**LOG_IN, "next": "/"})
    assert client.cookies["sessionid"]["max-age"] == 12 * HOUR
    later(monkeypatch, 11.9 * HOUR)
    assert is_in(client), "however often they come, and"
    later(monkeypatch, 0.2 * HOUR)
    assert client.get("/admin/").status_code == 302
    assert not is_in(client)
    assert "You were logged out" in client.get("/account/login").content.decode()
    assert not Session.objects.filter(session_data__contains="_auth").exists()


def test_others_are_logged_in_for_weeks(anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browser("a" * 32)
    job = done("Mine", "a" * 32)
    client.post("/account/login", LOG_IN)
    assert client.cookies["sessionid"]["max-age"] == 30 * DAY
    later(monkeypatch, 29 * DAY)
    assert is_in(client)
    later(monkeypatch, 1.1 * DAY)
    assert not is_in(client)
    client.post("/account/login", LOG_IN)
    assert songs_of(client) == {"Mine"}, "a new log-in has them all"
    job.refresh_from_db()
    assert job.user == anna


def test_who_becomes_staff_while_logged_in_is_staff_for_hours(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    client.post("/account/login", LOG_IN)
    later(monkeypatch, 13 * HOUR)
    assert is_in(client)
    User.objects.update(is_staff=True)
    assert not is_in(client)
    User.objects.update(is_staff=False, is_superuser=True)
    client.post("/account/login", LOG_IN)
    later(monkeypatch, 13 * HOUR)
    assert not is_in(client)


def test_a_session_that_does_not_say_since_when_has_ended(anna: User) -> None:
    client = Client()
    client.force_login(anna)
    session = client.session
    del session[sessions.LOGGED_IN_AT]
    session.save()
    assert not is_in(client)


def test_a_changed_password_makes_no_session_longer(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.update(is_staff=True)
    client = Client()
    client.post("/account/login", LOG_IN)
    later(monkeypatch, 11 * HOUR)
    new = "another long phrase"
    form = {"old_password": GOOD, "new_password1": new, "new_password2": new}
    client.post("/account/password", form)
    assert is_in(client)
    later(monkeypatch, 1.5 * HOUR)
    assert not is_in(client)


def test_a_token_of_the_staff_works_beside_an_old_session(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.update(is_staff=True)
    client = Client()
    client.post("/account/login", LOG_IN)
    _token, text = create(anna, "program", "90", uuid.uuid4())
    later(monkeypatch, 13 * HOUR)
    by_token = {"Authorization": f"Bearer {text}"}
    assert client.get(reverse("api:jobs"), headers=by_token).status_code == 200
    assert ApiToken.objects.exists()


def test_a_visitor_who_comes_again_keeps_their_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    client = browser("a" * 32)
    done("Mine", "a" * 32)
    assert songs_of(client) == {"Mine"}
    soon = timezone.now() + timedelta(days=1)
    Session.objects.update(expire_date=soon)
    assert songs_of(client) == {"Mine"}
    assert Session.objects.get().expire_date == soon, "a write a day, not one each time"
    later(monkeypatch, 1.1 * DAY)
    client.get("/")
    assert Session.objects.get().expire_date > timezone.now() + timedelta(days=29)
    assert client.cookies["sessionid"]["max-age"] == 30 * DAY


def test_who_only_looks_gets_no_session(visitor: Client) -> None:
    visitor.get("/")
    assert "sessionid" not in visitor.cookies
    assert not Session.objects.exists()


def test_no_cookie_is_kept_for_longer_than_weeks(visitor: Client, anna: User) -> None:
    visitor.get("/")
    visitor.get("/account/login")
    visitor.post("/demo")
    visitor.post("/i18n/setlang/", {"language": "en"})
    for name in ("sessionid", "csrftoken", "visitor"):
        assert 0 < visitor.cookies[name]["max-age"] <= 30 * DAY, name
    assert visitor.cookies["django_language"]["max-age"] == "", "it goes with the browser"


def test_a_visitors_token_ends_with_its_session(
    visitor: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": f"Bearer {token_auth.visitor_token(Owner('a' * 32))}"}
    assert visitor.get(reverse("api:jobs"), headers=headers).status_code == 200
    later(monkeypatch, 30 * DAY + 60)
    assert visitor.get(reverse("api:jobs"), headers=headers).status_code == 401


def test_the_check_says_when_visitors_lose_songs(settings: Settings) -> None:
    settings.KEEP_RESULTS_HOURS = 30 * 24
    assert visitors_keep_their_songs(None) == []
    settings.KEEP_RESULTS_HOURS += 1
    assert [each.id for each in visitors_keep_their_songs(None)] == ["stemsite.W031"]
