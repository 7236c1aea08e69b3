"""API tokens: creating, finding and revoking them; their owner alone ever sees one."""

import logging
import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.test import Client
from django.utils import timezone, translation
from pytest_django import Settings

from separations.access import api_tokens
from separations.errors.fault import Fault
from separations.jobs import ownership
from separations.logs.secret_tokens import TokenFilter, hide_tokens
from separations.models import ApiToken, ApiTokenQuerySet, Owner
from separations.webhooks import events

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
LOOK = re.compile(r"stemsite_[A-Za-z0-9_-]{43}")
PLACE = "/account/tokens"


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def hers(visitor: Client, anna: User) -> Client:
    """Anna's browser."""
    visitor.force_login(anna)
    return visitor


def form(**changes: str) -> dict[str, str]:
    return {"name": "my script", "lasts": "90", "made_as": str(uuid.uuid4()), **changes}


def shown(page: str) -> set[str]:
    return set(LOOK.findall(page))


# Making and finding


@pytest.mark.parametrize(("lasting", "days"), [("30", 30), ("90", 90), ("365", 365)])
def test_a_token_is_found_until_its_time_is_over(anna: User, lasting: str, days: int) -> None:
    token, text = api_tokens.create(anna, "  my \n script ", lasting)
    assert LOOK.fullmatch(text)
    assert (token.name, token.hint) == ("my script", text[:12])
    assert token.expires_at is not None
    assert abs(token.expires_at - timezone.now() - timedelta(days=days)) < timedelta(minutes=1)
    found = api_tokens.find(text)
    assert found == token
    assert found.user == anna
    ApiToken.objects.update(expires_at=timezone.now())
    assert api_tokens.find(text) is None
    assert api_tokens.list_tokens(anna)[0].has_ended, "its owner sees why a program stopped"


def test_a_token_without_an_end_has_none(anna: User) -> None:
    assert api_tokens.create(anna, "a", "never")[0].expires_at is None
    for name, lasting in (("a", "7"), ("a", ""), ("", "30"), (" ", "30"), ("a" * 61, "30")):
        with pytest.raises(Fault, match="bad_option"):
            api_tokens.create(anna, name, lasting)


def test_a_token_is_found_by_one_query_that_uses_an_index(
    anna: User, django_assert_num_queries: type
) -> None:
    _, text = api_tokens.create(anna, "a", "30")
    api_tokens.find(text)  # which notes its use
    with django_assert_num_queries(1) as asked:
        found = api_tokens.find(text)
        assert found is not None
        assert found.user.is_active
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN QUERY PLAN " + asked.captured_queries[0]["sql"])
        plan = str(cursor.fetchall())
    assert "SCAN" not in plan, plan
    with django_assert_num_queries(0):
        for bad in ("", "stemsite_", "x" * 52, "stemsite_" + "é" * 43, text + "\n", text[:-1]):
            assert api_tokens.find(bad) is None


def test_a_token_ends_at_once_and_by_its_owner_alone(anna: User) -> None:
    bert = User.objects.create_user("bert")
    token, text = api_tokens.create(anna, "a", "never")
    assert not api_tokens.revoke(bert, token.pk)
    assert api_tokens.find(text) is not None
    assert api_tokens.revoke(anna, token.pk)
    assert api_tokens.find(text) is None
    assert not api_tokens.revoke(anna, token.pk)
    assert not api_tokens.revoke(anna, uuid.uuid4())
    assert api_tokens.list_tokens(anna) == []


def test_tokens_go_with_their_account_and_rest_while_it_is_locked(anna: User) -> None:
    _, text = api_tokens.create(anna, "a", "never")
    User.objects.update(is_active=False)
    assert api_tokens.find(text) is None
    User.objects.update(is_active=True)
    assert api_tokens.find(text) is not None
    ownership.delete_account(anna)
    assert api_tokens.find(text) is None
    assert not ApiToken.objects.exists()


def test_a_use_is_noted_once_a_minute_and_never_in_the_way(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = api_tokens.create(anna, "a", "never")
    api_tokens.find(text)
    first = ApiToken.objects.get().used_at
    assert first is not None
    api_tokens.find(text)
    assert ApiToken.objects.get().used_at == first
    long_ago = first - timedelta(minutes=2)
    ApiToken.objects.update(used_at=long_ago)

    def busy(_rows: ApiTokenQuerySet, **_values: object) -> int:
        raise DatabaseError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(ApiTokenQuerySet, "update", busy)
        assert api_tokens.find(text) is not None
    api_tokens.find(text)
    used = ApiToken.objects.get().used_at
    assert used is not None
    assert used > long_ago


def test_an_account_has_so_many_tokens_and_those_that_ended_are_forgotten(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tokens, "MAX_TOKENS", 2)
    first, _ = api_tokens.create(anna, "a", "never")
    api_tokens.create(anna, "b", "never")
    api_tokens.create(User.objects.create_user("bert"), "c", "never")
    with pytest.raises(Fault, match="too_many_tokens"):
        api_tokens.create(anna, "d", "never")
    api_tokens.revoke(anna, first.pk)
    api_tokens.create(anna, "d", "never")
    assert not ApiToken.objects.filter(pk=first.pk).exists()
    assert ApiToken.objects.count() == 3


def test_the_database_holds_no_token(anna: User) -> None:
    token, text = api_tokens.create(anna, "a", "never")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM separations_apitoken")
        kept = repr(cursor.fetchall())
    assert text[12:] not in kept
    assert token.token_hash in kept


# The page


def test_a_token_is_in_the_answer_that_makes_it_and_nowhere_else(hers: Client) -> None:
    asked = form()
    made = hers.post(PLACE, asked)
    (text,) = shown(made.content.decode())
    assert made.status_code == 200
    assert "no-store" in made.headers["Cache-Control"]
    assert api_tokens.find(text) is not None
    assert text not in str(dict(hers.session))
    assert text not in str(made.cookies)
    again = hers.post(PLACE, asked)  # as a browser does when that page is loaded again
    assert again.headers["Location"] == PLACE
    assert ApiToken.objects.count() == 1
    page = hers.get(PLACE)
    assert shown(page.content.decode()) == set()
    assert "no-store" in page.headers["Cache-Control"]
    assert "my script" in page.content.decode()
    assert f"{text[:12]}…" in page.content.decode()


def test_a_token_is_ended_on_the_page_by_its_owner_alone(hers: Client) -> None:
    _, text = api_tokens.create(User.objects.create_user("bert"), "not hers", "30")
    theirs = ApiToken.objects.get()
    assert "not hers" not in hers.get(PLACE).content.decode()
    hers.post(f"{PLACE}/{theirs.pk}/revoke")
    assert api_tokens.find(text) is not None
    (text,) = shown(hers.post(PLACE, form()).content.decode())
    found = re.findall(rf'action="({PLACE}/[^"]+/revoke)"', hers.get(PLACE).content.decode())
    assert len(found) == 1
    page = hers.post(found[0], follow=True).content.decode()
    assert "The token was ended." in page
    assert api_tokens.find(text) is None
    assert "There is no token yet." in page
    assert "The token was ended." not in hers.post(found[0], follow=True).content.decode()


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"name": "a" * 61}, {"lasts": "7"}, {"made_as": "1"}]
)
def test_a_bad_form_makes_nothing(hers: Client, change: dict[str, str]) -> None:
    response = hers.post(PLACE, form(**change))
    assert response.status_code == 422
    assert 'class="error"' in response.content.decode() or "made_as" in change
    assert not ApiToken.objects.exists()


def test_the_page_says_when_there_are_too_many(
    hers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tokens, "MAX_TOKENS", 0)
    response = hers.post(PLACE, form())
    assert response.status_code == 422
    assert "0 tokens already" in response.content.decode()


def test_nothing_is_made_for_another_site(site_settings: Settings, anna: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(anna)
    assert client.post(PLACE, form()).status_code == 403
    assert client.post("/account/webhooks/secret").status_code == 403
    assert not ApiToken.objects.exists()


def test_the_signing_secret_is_shown_and_renewed(
    hers: Client, anna: User, settings: Settings
) -> None:
    owner = Owner("", anna.pk)
    first = events.signing_secret(owner)
    assert f'value="{first}"' in hers.get(PLACE).content.decode()
    assert hers.get("/account/webhooks/secret").status_code == 405
    hers.post("/account/webhooks/secret")
    second = events.signing_secret(owner)
    assert second != first
    assert f'value="{second}"' in hers.get(PLACE).content.decode()
    settings.WEBHOOKS = False
    assert "whsec_" not in hers.get(PLACE).content.decode()


def test_the_page_speaks_korean_and_is_found_from_the_account(hers: Client) -> None:
    for place in ("/account/", "/account/password"):
        assert f'href="{PLACE}"' in hers.get(place).content.decode()
    with translation.override("ko"):
        page = hers.get(PLACE, headers={"Accept-Language": "ko"}).content.decode()
    assert "토큰 만들기" in page


# Logs


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("Authorization: Bearer stemsite_" + "aB_-" * 10 + "xyz", "Authorization: Bearer …"),
        ("'HTTP_AUTHORIZATION': 'bearer\t" + "z" * 30 + "'", "'HTTP_AUTHORIZATION': 'bearer\t…'"),
        ("a stemsite_" + "a" * 43 + ", b", "a stemsite_…, b"),
        ("stemsite_" + "a" * 20, "stemsite_…"),
        ("key=whsec_" + "a+/b" * 10 + "Ag== end", "key=whsec_… end"),
        ("?token=STEMSITE_" + "A" * 43 + "&x", "?token=STEMSITE_…&x"),
        ("/s/" + "A" * 43 + "/mix", "/s/…/mix"),
        ("stemsite_… stemsite.settings, stemsite_tests", None),
        ("The bearer of this", None),
    ],
)
def test_no_token_gets_into_a_log(text: str, shown_as: str | None) -> None:
    assert hide_tokens(text) == (shown_as or text)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (text,), None)
    assert TokenFilter().filter(record)
    assert record.getMessage() == (shown_as or text)


def test_making_and_finding_logs_no_token(
    hers: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)

    def busy(_rows: ApiTokenQuerySet, **_values: object) -> int:
        raise DatabaseError("database is locked")

    (text,) = shown(hers.post(PLACE, form()).content.decode())
    monkeypatch.setattr(ApiTokenQuerySet, "update", busy)
    api_tokens.find(text)
    assert "could not be recorded" in caplog.text
    assert text[12:] not in caplog.text
