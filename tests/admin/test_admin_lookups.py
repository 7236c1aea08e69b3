"""The admin's lists accept only the filters they offer: other fields cannot be guessed."""

import logging
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import models
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from separations.admin.lookups import OfferedLookups
from separations.models import Job

EVERY_ADMIN = list(admin.site._registry.values())


def path(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def hidden(model: type[models.Model]) -> list[str]:
    """Comparisons with every field of a model, and with those of what its rows belong to."""
    own = [field.name for field in model._meta.concrete_fields]
    further = [
        f"{field.name}__{other.name}"
        for field in model._meta.concrete_fields
        if field.related_model
        for other in field.related_model._meta.concrete_fields
    ]
    return [f"{name}__{how}" for name in own + further for how in ("startswith", "regex", "lt")]


@pytest.fixture
def staff(site_settings: Settings, db: None) -> Client:
    """Somebody who may see every list, and change nothing."""
    user = User.objects.create_user("staff", "staff@example.org", "x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("year", ["99999999999", "0", "-1", "10000", "x", "²"])
def test_a_year_that_no_calendar_has_is_refused(staff: Client, year: str) -> None:
    for each in EVERY_ADMIN:
        if field := each.date_hierarchy:
            assert staff.get(path(each.model), {f"{field}__year": year}).status_code == 400


def test_every_list_refuses_what_it_does_not_offer() -> None:
    assert len(EVERY_ADMIN) >= 9
    assert [each for each in EVERY_ADMIN if not isinstance(each, OfferedLookups)] == []


@pytest.mark.parametrize("each", EVERY_ADMIN, ids=lambda each: str(each.model.__name__))
def test_no_hidden_field_can_be_guessed_at(staff: Client, each: Any) -> None:
    assert staff.get(path(each.model)).status_code == 200
    offered = each._offered(staff.get(path(each.model)).wsgi_request)
    names = set(hidden(each.model)) - offered
    assert len(names) > 3
    for name in names:
        assert not each.lookup_allowed(name, "a"), name
    assert staff.get(path(each.model), {min(names): "a"}).status_code == 400


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        (Job, "user__password__startswith"),
        (Job, "visitor__regex"),
        (Job, "visitor"),
        (Job, "upload__file_sha256__startswith"),
        (Job, "share_links__token_hash__startswith"),
        (User, "password__startswith"),
        (User, "api_tokens__token_hash__startswith"),
    ],
)
def test_a_refusal_is_one_line_of_the_log(
    staff: Client, model: type[models.Model], lookup: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert staff.get(path(model), {lookup: "a"}).status_code == 400
    assert {record.name for record in caplog.records} <= {
        "django.security.DisallowedModelAdminLookup",
        "django.request",
    }


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Job, "state__exact=queued"),
        (Job, "error_code=disk_full"),
        (Job, "cached=yes&model=htdemucs"),
        (Job, "created_at__year=2026&created_at__month=11&created_at__day=27"),
        (Job, "created_at__gte=2026-11-01T00:00Z&created_at__lt=2026-12-01T00:00Z"),
        (Job, "user__id__exact=1"),
        (Job, "q=song&o=1&p=1&e=1"),
        (User, "is_staff__exact=1"),
        (User, "is_active__exact=0&q=a"),
    ],
)
def test_what_a_list_offers_is_taken(staff: Client, model: type[models.Model], query: str) -> None:
    assert staff.get(f"{path(model)}?{query}").status_code == 200
