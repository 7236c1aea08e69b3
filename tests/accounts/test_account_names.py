"""Account names: those that differ in case or in Unicode's forms alone are one."""

import io
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.test import Client
from pytest_django import Settings

from separations.models import account_names
from tests.support.accounts import GOOD, SIGN_UP

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("quick_hashes")]
SAME = ("müller", "MÜLLER", "Mu\u0308ller", "\uff4dü\uff4c\uff4cer", "müller\u3164")


@pytest.mark.parametrize("name", SAME)
def test_the_sign_up_takes_a_name_once(visitor: Client, name: str) -> None:
    User.objects.create_user("Müller", password=GOOD)
    answer = visitor.post("/account/signup", {**SIGN_UP, "username": name})
    assert "already exists" in answer.content.decode()
    assert [user.username for user in User.objects.all()] == ["müller"]


@pytest.mark.parametrize("name", SAME[:4])
@pytest.mark.parametrize("page", ["/account/login", "/admin/login/"])
def test_an_account_is_found_by_each_spelling(visitor: Client, page: str, name: str) -> None:
    User.objects.create_user("müller", password=GOOD, is_staff=True)
    form = {"username": name, "password": GOOD, "next": "/about"}
    assert visitor.post(page, form).headers["Location"] == "/about"


def test_letters_that_fold_into_others_are_theirs() -> None:
    assert account_names.fold("Jeßica") == account_names.fold("JESSICA") == "jessica"
    for name in ("ŉ", "ΐ", "ﬃ", "İ", "ϔ", "각", "Ｉ"):
        assert account_names.fold(account_names.fold(name)) == account_names.fold(name)


def test_the_admin_takes_a_name_once(admin_client: Client, site_settings: Settings) -> None:
    User.objects.create_user("müller", password=GOOD)
    form = {
        "username": "MÜLLER",
        "usable_password": "true",
        "password1": GOOD,
        "password2": GOOD,
    }
    page = admin_client.post("/admin/auth/user/add/", form)
    assert "already exists" in page.content.decode()
    other = User.objects.create_user("bert")
    change = {"username": "MÜLLER", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    page = admin_client.post(f"/admin/auth/user/{other.pk}/change/", change)
    assert "already exists" in page.content.decode()
    change["username"] = "BERTA"
    assert admin_client.post(f"/admin/auth/user/{other.pk}/change/", change).status_code == 302
    other.refresh_from_db()
    assert other.username == "berta"
    assert admin_client.post(f"/admin/auth/user/{other.pk}/change/", change).status_code == 302


def test_the_command_takes_a_name_once() -> None:
    User.objects.create_user("müller")
    told = {"username": "MÜLLER", "email": "", "interactive": False}
    with pytest.raises(CommandError, match="already exists"):
        call_command("createsuperuser", **told, stdout=io.StringIO())
    call_command("createsuperuser", **{**told, "username": "Anna"}, stdout=io.StringIO())
    assert User.objects.get(is_superuser=True).username == "anna"


def test_the_database_takes_a_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.create_user("müller")
    with pytest.raises(ValidationError):
        User(username="MÜLLER").save()
    monkeypatch.setattr(
        account_names, "_is_taken", lambda *_anything: False
    )  # two in the same moment
    with pytest.raises(IntegrityError):
        User(username="MÜLLER").save()


def test_a_name_that_was_taken_in_this_moment_is_told(
    visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.create_user("müller")
    monkeypatch.setattr(account_names, "_is_taken", lambda *_anything: False)
    monkeypatch.setattr(User, "validate_unique", lambda *_anything, **_more: None)
    answer = visitor.post("/account/signup", {**SIGN_UP, "username": "müller"})
    assert answer.status_code == 422
    assert "already exists" in answer.content.decode()


def test_a_log_in_needs_no_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    user = User.objects.create_user("müller", password=GOOD)
    monkeypatch.setattr(account_names, "fold", None)  # would fail
    user.save(update_fields=["last_login"])


def test_names_of_before_are_folded_and_doubles_get_a_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("MÜLLER", "müller", "Anna", "ANNA", "anna-2", "bert")
    User.objects.bulk_create(User(username=name) for name in given)
    migration = import_module("separations.migrations.0014_folded_names")
    migration.fold_names(apps, None)
    found = [user.username for user in User.objects.order_by("pk")]
    assert found == ["müller-2", "müller", "anna", "anna-3", "anna-2", "bert"]
    printed = capsys.readouterr().out
    assert "'MÜLLER'" in printed
    assert "'anna-3'" in printed
    assert "bert" not in printed
    migration.fold_names(apps, None)
    assert [user.username for user in User.objects.order_by("pk")] == found


def test_addresses_of_before_were_never_confirmed() -> None:
    User.objects.create_user("anna", "anna@example.org")
    User.objects.create_user("boss", "boss@example.org", is_staff=True)
    import_module("separations.migrations.0015_confirmed_addresses").forget_unconfirmed(apps, None)
    assert dict(User.objects.values_list("username", "email")) == {
        "anna": "",
        "boss": "boss@example.org",
    }
