"""Accounts for tests: a password, the forms' fields, browsers with and without a session."""

import re

import pytest
from django.test import Client
from pytest_django import Settings

GOOD = "a mixture of 4 stems"
LOG_IN = {"username": "anna", "password": GOOD}
SIGN_UP = {"username": "anna", "email": "", "password1": GOOD, "password2": GOOD}


@pytest.fixture
def quick_hashes(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def browser(visitor: str = "") -> Client:
    """A browser that has sent songs as this visitor, or none yet."""
    client = Client()
    if visitor:
        session = client.session
        session["visitor"] = visitor
        session.save()
    return client


def songs_of(client: Client) -> set[str]:
    found = re.findall(r'class="card-title"[^>]*>([^<]+)<', client.get("/").content.decode())
    return set(found)
