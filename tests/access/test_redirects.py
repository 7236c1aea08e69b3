"""Redirects to `next`: to this site's own pages alone, and never into an error."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from tests.support.accounts import GOOD, LOG_IN, SIGN_UP

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "quick_hashes")]
ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "http:evil.example",
    "http:///evil.example",
    "https:/evil.example",
    "/\t/evil.example",
    "\x00//evil.example",
    "http://testserver@evil.example/",
    "http://testserver:80@evil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
)
BROKEN = (
    "about",
    "nothing",
    ".",
    "..",
    "?x",
    "#x",
    "separations:about",
    "accounts:login",
    "http://[",
    "//[",
    "http://testserver:x/",
    "/" + "x" * 3000,
    " ",
    "\x00",
    "/account/login",
    "/account/login?next=/about",
    "/account/signup",
    "/account/logout",
)
FINE = ("/about", "/about?x=ü\r\nX-Evil: 1#y", "http://testserver/about", "/nothing", "/%00", "/ü")


def led_to(client: Client, path: str, form: dict[str, str] | None = None) -> str:
    response = client.post(path, form) if form is not None else client.get(path)
    assert response.status_code == 302
    place = str(response.headers["Location"])
    assert "\n" not in place
    assert "evil.example" not in place.partition("?")[0]
    return place


@pytest.mark.parametrize("wanted", [*ELSEWHERE, *BROKEN, *FINE])
def test_after_a_log_in_or_a_sign_up(visitor: Client, wanted: str) -> None:
    """Also for users who are logged in already, whom the page redirects at once."""
    User.objects.create_user("anna", password=GOOD)
    for path, form in (
        ("/account/login", LOG_IN),
        ("/account/signup", {**SIGN_UP, "username": "bert"}),
    ):
        client = Client()
        place = led_to(client, path, {**form, "next": wanted})
        assert (place == "/") == (wanted not in FINE), place
        assert "_auth_user_id" in client.session
        again = client.get(path, {"next": wanted})
        assert again.status_code == 302
        assert "evil.example" not in again.headers["Location"].partition("?")[0]
        assert client.get(path, {"next": wanted}).status_code == 302
        assert Client().get(path, {"next": wanted}).status_code == 200


@pytest.mark.parametrize("wanted", [*ELSEWHERE, *BROKEN, *FINE])
def test_after_a_change_of_language(visitor: Client, wanted: str) -> None:
    form = {"language": "ko", "next": wanted}
    led_to(visitor, "/i18n/setlang/", form)
    headers = {"Referer": wanted.encode("ascii", "replace").decode()}
    response = visitor.post("/i18n/setlang/", {"language": "ko"}, headers=headers)
    assert response.status_code == 302
    assert "evil.example" not in response.headers["Location"].partition("?")[0]


@pytest.mark.parametrize("wanted", [*ELSEWHERE, *BROKEN, *FINE])
def test_after_the_admins_log_in_and_a_log_out(visitor: Client, wanted: str) -> None:
    User.objects.create_user("anna", password=GOOD, is_staff=True)
    led_to(visitor, "/admin/login/", {**LOG_IN, "next": wanted})
    led_to(visitor, "/account/logout", {"next": wanted})


@pytest.mark.parametrize("wanted", [*ELSEWHERE, *BROKEN])
def test_from_a_page_that_htmx_names(visitor: Client, settings: Settings, wanted: str) -> None:
    settings.ACCOUNTS = "required"
    named = wanted.encode("ascii", "replace").decode().replace("\x00", "")
    for current in (named, f"http://testserver{named}"):
        headers = {"HX-Request": "true", "HX-Current-URL": current}
        response = visitor.get("/", headers=headers)
        assert response.status_code == 200
        back = response.headers["HX-Redirect"]
        assert back.startswith("/account/login?next=/")
        place = led_to(Client(), f"/account/signup?{back.partition('?')[2]}", SIGN_UP)
        assert place.startswith("/")
        User.objects.all().delete()
