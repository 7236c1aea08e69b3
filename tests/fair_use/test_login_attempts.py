"""Password guessing is slowed; an account's owner gets in; no answer reveals an account's name."""

import re
import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.test import Client
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from pytest_django import Settings

from separations.fair_use.login_attempts import SPARE_PER_RANGE, SPARE_TIMES
from separations.models import Bucket

pytestmark = pytest.mark.django_db
PATHS = pytest.mark.parametrize("path", ["/account/login", "/admin/login/"])
RIGHT = {"username": "ann", "password": "right"}


@pytest.fixture
def limit(site_settings: Settings) -> Callable[..., None]:
    def set_limit(**limits: tuple[int, int]) -> None:
        site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, **limits}

    return set_limit


@pytest.fixture(autouse=True)
def quick_passwords(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_superuser("ann", password="right")


def guess(
    path: str, address: str, name: str = " ANN", password: str = "no", client: Client | None = None
) -> int:
    form = {"username": name, "password": password}
    return (client or Client()).post(path, form, REMOTE_ADDR=address).status_code


@PATHS
def test_guesses_from_everywhere_are_slowed(
    ann: User, limit: Callable[..., None], path: str
) -> None:
    limit(name=(2, 3600))
    answers = [guess(path, f"192.0.2.{n // 5}") for n in range(10)]
    assert answers == [200] * 5 + [200] * 3 + [429] * 2, "two of all, and three of each network"
    most = 2 + 2 * SPARE_TIMES
    answers += [guess(path, f"198.51.100.{n}") for n in range(most)]
    assert answers.count(200) == most, "however many networks there are"


@PATHS
@pytest.mark.parametrize("name", [" " * 300 + "ann", "ann" + "\u2003" * 300, "e\u0301" * 200])
def test_a_name_with_much_around_it_is_counted_as_well(
    ann: User, limit: Callable[..., None], path: str, name: str
) -> None:
    User.objects.create_superuser("é" * 150, password="right")
    limit(name=(2, 3600))
    answers = [guess(path, f"192.0.2.{n // 5}", name) for n in range(10)]
    assert answers == [200] * 5 + [200] * 3 + [429] * 2


@PATHS
def test_whoever_guesses_keeps_no_owner_out(
    ann: User, limit: Callable[..., None], path: str
) -> None:
    limit(name=(2, 3600))
    own = Client()
    assert own.post(path, RIGHT).status_code == 302
    own.post("/account/logout")
    for n in range(20):
        guess(path, f"2001:db8:1:{n:x}::1")  # all of one /48
    assert guess(path, "2001:db8:1:ffff::1") == 429
    assert own.post(path, RIGHT, REMOTE_ADDR="2001:db8:1::5").status_code == 302, "a known browser"
    new = Client()
    assert new.post(path, RIGHT, REMOTE_ADDR="203.0.113.5").status_code == 302, "a new one at home"


def test_whoever_mistypes_and_then_logs_in_has_lost_no_try_by_that(
    ann: User, limit: Callable[..., None]
) -> None:
    limit(name=(2, 3600))
    assert guess("/account/login", "192.0.2.1") == 200
    for _ in range(6):
        assert Client().post("/account/login", RIGHT).status_code == 302
    assert sorted(round(row.tokens) for row in Bucket.objects.all()) == [1]


def test_a_known_browser_has_a_count_of_its_own(ann: User, limit: Callable[..., None]) -> None:
    own = Client()
    own.post("/account/login", RIGHT)
    own.post("/account/logout")
    limit(name=(2, 3600))
    answers = [guess("/account/login", f"192.0.2.{n}", "ann", client=own) for n in range(3)]
    assert answers == [200, 200, 429], "a stolen cookie buys no endless guesses"


@PATHS
def test_who_is_logged_in_to_another_account_gains_nothing(
    ann: User, limit: Callable[..., None], path: str
) -> None:
    """The guess counts, though its request has a logged-in session."""
    limit(name=(1, 3600))
    mallory = Client()
    mallory.force_login(User.objects.create_user("mallory"))
    for _ in range(8):
        guess(path, "192.0.2.1", client=mallory)
    assert guess(path, "192.0.2.1") == 429


@pytest.mark.parametrize("twin", ["jessıca", "jesSica2", "ｊｅｓｓｉｃａ．"])
def test_a_sign_up_under_a_name_that_looks_alike_is_not_known_as_the_other(
    site_settings: Settings, limit: Callable[..., None], twin: str
) -> None:
    User.objects.create_user("jessica", password="right")
    mallory = Client()
    mallory.force_login(User.objects.create_user(twin, password="hers"))
    mallory.post("/account/logout")
    mallory = Client()
    assert guess("/account/login", "192.0.2.9", twin, "hers", mallory) == 302
    mallory.post("/account/logout")
    limit(name=(1, 3600))
    answers = [guess("/account/login", "192.0.2.9", "jessica", client=mallory) for _ in range(6)]
    assert answers == [200] * (1 + SPARE_PER_RANGE) + [429] * 2


def test_a_sign_up_is_remembered_for_its_own_account(
    site_settings: Settings, limit: Callable[..., None]
) -> None:
    new = Client()
    form = {"username": "jo", "password1": "Kieselstein9", "password2": "Kieselstein9"}
    assert new.post("/account/signup", form).status_code == 302
    user = User.objects.get(username="jo")
    assert new.cookies["known"].value.startswith(f"{user.pk}.")
    new.post("/account/logout")
    limit(name=(1, 3600))
    for n in range(20):
        guess("/account/login", f"192.0.2.{n}", "jo")
    assert guess("/account/login", "192.0.2.1", "jo", "Kieselstein9", new) == 302


def test_answers_do_not_tell_whether_there_is_such_an_account(
    ann: User, limit: Callable[..., None], django_assert_max_num_queries: object
) -> None:
    limit(name=(2, 3600))

    def answers(name: str) -> list[tuple[int, str]]:
        found = []
        for n in range(8):
            form = {"username": name, "password": "no"}
            answer = Client().post("/account/login", form, REMOTE_ADDR=f"192.0.2.{n // 7}")
            text = re.sub(r'value="[^"]*"|nonce="[^"]*"', "", answer.content.decode())
            found.append((answer.status_code, text))
        return found

    assert answers("ann") == answers("bob")


def test_a_link_to_a_new_password_opens_the_way_in(
    ann: User, site_settings: Settings, limit: Callable[..., None]
) -> None:
    """Also from an address range from which others guess."""
    limit(name=(1, 3600))
    for _ in range(9):
        guess("/account/login", "192.0.2.1")
    owner = Client(REMOTE_ADDR="192.0.2.1")
    assert owner.post("/account/login", RIGHT).status_code == 429
    uid, token = urlsafe_base64_encode(force_bytes(ann.pk)), default_token_generator.make_token(ann)
    place = owner.get(f"/account/reset/{uid}/{token}").headers["Location"]
    new = {"new_password1": "Kieselstein9", "new_password2": "Kieselstein9"}
    assert owner.post(place, new).status_code == 302
    right = {"username": "ann", "password": "Kieselstein9"}
    assert owner.post("/account/login", right).status_code == 302


@PATHS
@pytest.mark.parametrize("letter", ["a", "ﷺ", "\u0344", "à"])
def test_a_name_without_end_takes_no_time(
    limit: Callable[..., None], ann: User, path: str, letter: str
) -> None:
    """Unicode's forms of 60 kB take seconds, and hold up all threads of the process."""
    known = Client()
    assert guess(path, "192.0.2.1", "ann", "right", known) == 302
    known.logout()
    before = time.process_time()
    known.post(path, {"username": letter * (60_000 // len(letter.encode())), "password": "x"})
    assert time.process_time() - before < 0.5


def test_guesses_at_the_password_are_counted_where_it_is_changed(
    limit: Callable[..., None], ann: User
) -> None:
    limit(login=(3, 3600))
    client = Client()
    client.force_login(ann)
    form = {"old_password": "x", "new_password1": "Kieselstein9", "new_password2": "Kieselstein9"}
    answers = [client.post("/admin/password_change/", form).status_code for _ in range(4)]
    assert answers == [200] * 3 + [429]
