"""Mails: to confirmed addresses alone, within limits, and with nothing that a stranger chose."""

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from separations.accounts import mails
from separations.checks.site_checks import site_address_is_known
from stemsite.environment import envsite, likely_site
from tests.support.accounts import GOOD, LOG_IN, SIGN_UP

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ADDRESS = "anna@example.org"
SITE = "https://stems.example.org"
AS_SET = {"email": "new@example.org", "password": GOOD}


@pytest.fixture(autouse=True)
def mail_server(site_settings: Settings) -> Iterator[None]:
    """Runs the queue's tasks at once, and collects the mails."""
    site_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    site_settings.EMAIL_URL = "memory:"
    site_settings.SITE_URL = SITE
    site_settings.HUEY.immediate = True
    yield
    site_settings.HUEY.immediate = False


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", ADDRESS, GOOD)


def limits(settings: Settings, each: int, site: int) -> None:
    many = {"mails_per_address": (each, 86400), "mails": (site, 86400)}
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, **many}


def links_in(body: object) -> list[str]:
    return re.findall(rf"{SITE}(/account/\S+)", str(body))


def email_of(name: str) -> str:
    return User.objects.get(username=name).email


# Confirming an address


def test_an_address_is_an_accounts_once_it_was_confirmed(visitor: Client) -> None:
    page = visitor.post("/account/signup", {**SIGN_UP, "email": ADDRESS}, follow=True)
    assert f"A mail is on its way to {ADDRESS}." in page.content.decode()
    assert email_of("anna") == "", "anybody could have given it"
    (sent,) = mail.outbox
    assert sent.to == [ADDRESS]
    (link,) = links_in(sent.body)
    reader = Client()  # the mailbox may be read in another browser
    page = reader.get(link)
    assert ADDRESS in page.content.decode()
    assert email_of("anna") == "", "scanners of mail open every link"
    page = reader.post(link, follow=True)
    assert "The e-mail address is confirmed." in page.content.decode()
    assert email_of("anna") == ADDRESS
    for again in (reader.get(link), reader.post(link)):
        assert again.status_code == 404
        assert "used already" in again.content.decode()


def test_a_mail_to_a_stranger_says_nothing_that_its_sender_chose(visitor: Client) -> None:
    form = {**SIGN_UP, "username": "buy.pills@evil.example", "email": ADDRESS}
    visitor.post("/account/signup", form, headers={"Host": "testserver"})
    (sent,) = mail.outbox
    text = f"{sent.subject} {sent.body}"
    assert "pills" not in text
    assert "testserver" not in text
    assert {each.rstrip(".") for each in re.findall(r"https?://[^/\s]+", text)} == {SITE}
    assert "do nothing" in text


@pytest.mark.parametrize("what", ["password", "address", "account", "time"])
def test_a_confirmation_ends_with_what_it_was_made_for(
    anna: User, settings: Settings, what: str
) -> None:
    link = f"/account/confirm/{mails.confirmation_token(anna, 'new@example.org')}"
    assert Client().get(link).status_code == 200
    if what == "password":
        anna.set_password("another long phrase")
        anna.save()
    elif what == "address":
        User.objects.update(email="other@example.org")
    elif what == "account":
        User.objects.update(is_active=False)
    else:
        settings.EMAIL_CONFIRMATION_TIMEOUT = -1
    assert Client().post(link).status_code == 404
    assert email_of("anna") != "new@example.org"


def test_a_confirmation_brings_no_address_back_that_was_taken_away(anna: User) -> None:
    link = f"/account/confirm/{mails.confirmation_token(anna, 'new@example.org')}"
    assert Client().post(link).status_code == 302
    User.objects.update(email=ADDRESS)  # as it was
    assert Client().post(link).status_code != 302
    assert email_of("anna") == ADDRESS


def test_a_link_ends_when_the_address_is_taken_away_or_another_is_asked_for(
    visitor: Client,
) -> None:
    """A stranger whose mailbox was given by mistake must not use its old link."""
    visitor.post("/account/signup", {**SIGN_UP, "email": ADDRESS})
    visitor.post("/account/email", {"email": "", "password": GOOD})
    visitor.post("/account/email", {"email": "second@example.org", "password": GOOD})
    visitor.post("/account/email", {"email": "third@example.org", "password": GOOD})
    first, second, third = (links_in(sent.body)[0] for sent in mail.outbox)
    assert [Client().post(link).status_code for link in (first, second)] == [404, 404]
    assert Client().post(third).status_code == 302
    assert email_of("anna") == "third@example.org"


def test_one_visitor_asks_few_strangers(visitor: Client, site_settings: Settings) -> None:
    rates = {**site_settings.RATE_LIMITS, "confirmation": (2, 86400)}
    site_settings.RATE_LIMITS = rates
    visitor.post("/account/signup", {**SIGN_UP, "email": ADDRESS})
    for name in ("one", "two", "three"):
        form = {"email": f"{name}@example.org", "password": GOOD}
        page = visitor.post("/account/email", form, follow=True)
    assert len(mail.outbox) == 2
    assert "Too many" in page.content.decode() or "Try again" in page.content.decode()


def test_strangers_use_up_no_mail_for_a_forgotten_password(
    visitor: Client, anna: User, settings: Settings
) -> None:
    limits(settings, each=1, site=100)
    visitor.post("/account/signup", {**SIGN_UP, "username": "ben", "email": ADDRESS})
    Client().post("/account/reset", {"email": ADDRESS})
    assert ["confirm" in sent.body for sent in mail.outbox] == [True, False]


def test_a_token_that_was_changed_confirms_nothing(anna: User) -> None:
    token = mails.confirmation_token(anna, "new@example.org")
    body, _, rest = token.partition(".")
    for wrong in (f"{body[:-1]}.{rest}", token[:-1], token.replace(".", ":", 1) + "x", "x"):
        assert Client().post(f"/account/confirm/{wrong}").status_code == 404
    assert email_of("anna") == ADDRESS


def test_a_confirmation_that_comes_second_is_refused(anna: User) -> None:
    token = mails.confirmation_token(anna, "new@example.org")
    assert mails.read_token(token) is not None
    User.objects.update(email="sooner@example.org")  # between the look and the button
    assert not mails.confirm(token)
    assert email_of("anna") == "sooner@example.org"


def test_an_address_changes_with_the_password_and_by_its_own_mail(
    visitor: Client, anna: User
) -> None:
    visitor.force_login(anna)
    wrong = visitor.post("/account/email", {**AS_SET, "password": "wrong"})
    assert "not your password" in wrong.content.decode()
    assert mail.outbox == []
    visitor.post("/account/email", AS_SET)
    assert email_of("anna") == ADDRESS, "until the new one is confirmed"
    (sent,) = mail.outbox
    assert sent.to == ["new@example.org"]
    visitor.post(links_in(sent.body)[0])
    assert email_of("anna") == "new@example.org"
    assert "E-mail: new@example.org" in visitor.get("/account/").content.decode()
    visitor.post("/account/email", AS_SET)
    assert len(mail.outbox) == 1, "it is the account's already"
    visitor.post("/account/email", {**AS_SET, "email": ""})
    assert email_of("anna") == ""


def test_a_password_that_is_like_the_address_is_refused(visitor: Client) -> None:
    phrase = "mixturestems"
    form = {**SIGN_UP, "email": f"{phrase}@example.org", "password1": phrase, "password2": phrase}
    page = visitor.post("/account/signup", form)
    assert "too similar to the email address" in page.content.decode()


def test_without_a_mail_server_no_address_is_asked_for(visitor: Client, settings: Settings) -> None:
    settings.EMAIL_URL = ""
    assert 'name="email"' not in visitor.get("/account/signup").content.decode()
    visitor.post("/account/signup", {**SIGN_UP, "email": ADDRESS})
    assert email_of("anna") == ""
    assert 'name="email"' not in visitor.get("/account/").content.decode()
    assert visitor.post("/account/email", AS_SET).status_code == 404
    assert mail.outbox == []


def test_an_account_is_made_though_the_queue_is_away(
    visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from separations.accounts import tasks

    def away(*_anything: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(tasks, "mail_confirmation", away)
    page = visitor.post("/account/signup", {**SIGN_UP, "email": ADDRESS}, follow=True)
    assert page.status_code == 200
    assert "on its way" not in page.content.decode()
    assert User.objects.exists()


# A forgotten password


def test_a_forgotten_password_is_set_by_a_link(visitor: Client, anna: User) -> None:
    answers = []
    for address in (ADDRESS, "nobody@example.org"):
        response = visitor.post("/account/reset", {"email": address})
        answers.append((response.status_code, response.headers["Location"], response.content))
    assert answers[0] == answers[1], "it does not tell who has an account"
    (sent,) = mail.outbox
    assert sent.to == [ADDRESS]
    assert "\n" not in sent.subject
    (link,) = links_in(sent.body)
    page = visitor.get(link, follow=True)
    place = page.redirect_chain[-1][0]
    assert place.endswith("/new"), "the token is no longer in the address"
    new = "another long phrase"
    response = visitor.post(place, {"new_password1": new, "new_password2": new}, follow=True)
    assert "Log in with it." in response.content.decode()
    assert visitor.post("/account/login", {**LOG_IN, "password": new}).status_code == 302
    used = Client().get(link, follow=True).content.decode()
    assert "used already" in used


def test_all_accounts_of_an_address_are_in_one_mail(visitor: Client, anna: User) -> None:
    for number in range(3):
        User.objects.create_user(f"anna-{number}", ADDRESS, GOOD)
    User.objects.create_user("gone", ADDRESS, GOOD, is_active=False)
    User.objects.create_user("bert", "bert@example.org", GOOD)
    visitor.post("/account/reset", {"email": ADDRESS.upper()})
    (sent,) = mail.outbox
    assert len(set(links_in(sent.body))) == 4
    for name in ("anna:", "anna-0:", "anna-1:", "anna-2:"):
        assert f"\n{name}\n" in str(sent.body)
    for name in ("gone", "bert"):
        assert name not in str(sent.body)


def test_links_lead_to_the_configured_site(visitor: Client, anna: User, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    visitor.post("/account/reset", {"email": ADDRESS}, headers={"Host": "evil.example"})
    assert "evil.example" not in str(mail.outbox[0].body)
    assert len(links_in(mail.outbox[0].body)) == 1


def test_mails_speak_the_readers_language(visitor: Client, anna: User) -> None:
    korean = {"Accept-Language": "ko"}
    visitor.post("/account/reset", {"email": ADDRESS}, headers=korean)
    visitor.post("/account/signup", {**SIGN_UP, "username": "b", "email": ADDRESS}, headers=korean)
    assert [sent.subject for sent in mail.outbox] == [
        "Stemsite 새 비밀번호",
        "Stemsite 이메일 주소 확인",
    ]


def test_without_a_mail_server_the_page_says_whom_to_ask(
    visitor: Client, anna: User, settings: Settings
) -> None:
    settings.EMAIL_URL = ""
    page = visitor.get("/account/reset").content.decode()
    assert "Ask whoever runs it" in page
    assert 'type="email"' not in page
    assert visitor.post("/account/reset", {"email": ADDRESS}).status_code == 404
    assert mail.outbox == []


# Limits


def test_an_address_gets_few_mails_whoever_asks(
    visitor: Client, anna: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    limits(settings, each=3, site=0)
    spellings = ("Anna@Example.org", "an.na@example.org", "anna+1@EXAMPLE.org", "ANNA@example.org")
    for number, address in enumerate(spellings):
        form = {**SIGN_UP, "username": f"spammer{number}", "email": address}
        page = Client().post("/account/signup", form, follow=True).content.decode()
        assert "A mail is on its way" in page, "the same whether one was sent or not"
    assert len(mail.outbox) == 3
    answers = [
        Client().post("/account/reset", {"email": address}).headers["Location"]
        for address in [ADDRESS] * 4 + ["nobody@example.org"]
    ]
    assert len(set(answers)) == 1
    assert len(mail.outbox) == 6, "its owner's have a count of their own"
    assert "A mail was not sent" in caplog.text
    assert "example.org" not in caplog.text.lower()
    Client().post("/account/signup", {**SIGN_UP, "username": "b", "email": "bert@example.org"})
    assert len(mail.outbox) == 7, "another address has a count of its own"


def test_who_asks_for_links_for_somebody_leaves_their_own_to_them(
    visitor: Client, anna: User, settings: Settings
) -> None:
    limits(settings, each=3, site=0)

    def ask(address: str) -> int:
        Client(REMOTE_ADDR=address).post("/account/reset", {"email": ADDRESS})
        return len(mail.outbox)

    assert [ask("203.0.113.7") for _ in range(5)] == [1, 2, 3, 3, 3]
    assert [ask(f"2001:db8::{n}:0:0:0:1") for n in range(5)] == [4, 5, 6, 6, 6], "of one /48"
    assert ask("198.51.100.1") == 7
    assert [ask(f"192.0.2.{n}") for n in range(10)][-1] == 12, "for all networks together"


def test_strangers_leave_some_of_the_sites_mails_to_the_accounts(
    visitor: Client, anna: User, settings: Settings
) -> None:
    limits(settings, each=0, site=5)
    for number in range(6):
        form = {**SIGN_UP, "username": f"n{number}", "email": f"n{number}@example.org"}
        Client().post("/account/signup", form)
    assert len(mail.outbox) == 4
    for _ in range(3):
        visitor.post("/account/reset", {"email": ADDRESS})
    assert len(mail.outbox) == 5, "and no more than that for the whole site"


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("Anna@Example.ORG", "anna@example.org"),
        ("a.n.n.a+news@example.org", "anna@example.org"),
        ("anna@bücher.example", "anna@xn--bcher-kva.example"),
        ("ａｎｎａ@example.org", "anna@example.org"),
        ("anna@" + "x" * 70 + ".example", "anna@" + "x" * 70 + ".example"),
    ],
)
def test_spellings_of_a_mailbox_are_one(address: str, counted_as: str) -> None:
    assert mails.recipient(address) == counted_as


@pytest.mark.parametrize(
    "address",
    ['"anna"@example.org', '"an\\na"@example.org', '"a\x01"@example.org', '"a b"@example.org'],
)
def test_an_address_that_has_many_spellings_gets_no_mail(
    visitor: Client, anna: User, address: str
) -> None:
    for path, form in (
        ("/account/signup", {**SIGN_UP, "username": "ben", "email": address}),
        ("/account/reset", {"email": address}),
    ):
        visitor.post(path, form)
    visitor.force_login(anna)
    answer = visitor.post("/account/email", {"email": address, "password": GOOD})
    assert answer.status_code == 422
    User.objects.update(email=address)  # by staff, say
    Client().post("/account/reset", {"email": address})
    assert mail.outbox == []


# The site's address


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        (["stems.example.org", "localhost"], False),
        (["stems.example.org", "music.example.org"], True),
        ([".example.org"], True),
        (["*"], True),
        (["localhost", "127.0.0.1"], False),
    ],
)
def test_the_check_says_where_links_could_lead_elsewhere(
    settings: Settings, hosts: list[str], told: bool
) -> None:
    settings.ALLOWED_HOSTS, settings.SITE_URL_GIVEN = hosts, ""
    assert [each.id for each in site_address_is_known(None)] == ["stemsite.W030"] * told
    settings.SITE_URL_GIVEN = SITE
    assert site_address_is_known(None) == []
    settings.SITE_URL_GIVEN, settings.EMAIL_URL = "", ""
    assert site_address_is_known(None) == []


@pytest.mark.parametrize(
    ("names", "host", "https", "proxies", "address"),
    [
        (["localhost", "stems.example.org", "b.example"], "::", True, 1, SITE),
        ([".stems.example.org"], "127.0.0.1", False, 1, "http://stems.example.org"),
        (["stems.example.org"], "0.0.0.0", False, 0, "http://stems.example.org:8000"),
        (["localhost", "[::1]"], "127.0.0.1", False, 0, "http://127.0.0.1:8000"),
        (["*"], "0.0.0.0", False, 0, "http://localhost:8000"),
        (["[fd00::1]"], "fd00::1", False, 0, "http://[fd00::1]:8000"),
    ],
)
def test_the_sites_address_follows_from_other_settings(
    names: list[str],
    host: str,
    https: bool,
    proxies: int,
    address: str,
) -> None:
    assert likely_site(names, host, 8000, https=https, proxied=proxies > 0) == address


@pytest.mark.parametrize(
    ("text", "https", "fits"),
    [
        (SITE, True, True),
        (f"{SITE}/", True, True),
        ("http://192.168.1.5:8080", False, True),
        ("http://[::1]:8000", False, True),
        ("http://stems.example.org", True, False),
        ("stems.example.org", False, False),
        (f"{SITE}/path", False, False),
        (f"{SITE}?x", False, False),
        ("https://user:secret@stems.example.org", False, False),
        ("https://stems.example.org:99999", False, False),
        ("https://stems example.org", False, False),
        ("ftp://stems.example.org", False, False),
    ],
)
def test_a_configured_address_is_a_site_alone(
    monkeypatch: pytest.MonkeyPatch, text: str, https: bool, fits: bool
) -> None:
    monkeypatch.setenv("SITE_URL", text)
    if fits:
        assert envsite("SITE_URL", https=https) == text.rstrip("/")
        return
    with pytest.raises(ImproperlyConfigured, match="SITE_URL must"):
        envsite("SITE_URL", https=https)
