"""Authorization: every address of the site, and what each kind of requester gets there.

The probes have no addresses: see test_health.py.
"""

import re
import uuid
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from pytest_django import Settings

from separations.access import permissions, share_links
from separations.logs.secret_tokens import ShareToken
from separations.models import Job, ShareLink, Upload
from tests.support.jobs import VISITOR, done
from tests.support.tagged import JPEG

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
HTMX = {"HX-Request": "true"}

# Who asks. The last four have no session: three come by a link to the song, one by the song's own
# address after having opened a link to another song.
OWNER, ACCOUNT, STRANGER, ANONYMOUS = "owner", "account", "stranger", "anonymous"
CLERK, STAFF = "staff without permissions", "staff with permissions"
HOLDER, OTHER, REVOKED, EXPIRED = "link", "link of another song", "revoked", "expired"
WITH_TOKEN = (HOLDER, OTHER, REVOKED, EXPIRED)
EVERYBODY = (OWNER, ACCOUNT, STRANGER, ANONYMOUS, CLERK, STAFF)

Row = dict[str, int]


def all_get(status: int) -> Row:
    return dict.fromkeys(EVERYBODY, status)


def song(status: int, *, shared: int = 0) -> Row:
    """A song's own address: what its owner (in a session or an account) and the staff get."""
    row = {**all_get(404), OWNER: status, ACCOUNT: status, STAFF: status}
    if shared:
        row |= {**dict.fromkeys(WITH_TOKEN, 404), HOLDER: shared}
    return row


def by_api(status: int) -> Row:
    """A song by the API: as by its own address, but anonymous requests get 401."""
    return {**song(status), ANONYMOUS: 401}


OWN_ALONE: Row = {**all_get(404), OWNER: 302, ACCOUNT: 302}
FOR_ACCOUNTS: Row = {**all_get(200), OWNER: 302, STRANGER: 302, ANONYMOUS: 302}
FOR_OTHERS: Row = {**all_get(302), OWNER: 200, STRANGER: 200, ANONYMOUS: 200}
CONTROL: Row = {**all_get(302), CLERK: 403, STAFF: 200}  # to the admin's log-in
# (name, method) → what each gets. Polls end with 286, a song is made or changed with 302.
TABLE: dict[tuple[str, str], Row] = {
    ("separations:home", "GET"): all_get(200),
    ("separations:home", "POST"): all_get(400),  # no song in it
    ("separations:demo", "POST"): all_get(302),
    ("separations:about", "GET"): all_get(200),
    ("separations:delete_everything", "GET"): all_get(200),
    ("separations:delete_everything", "POST"): all_get(302),
    ("separations:job", "GET"): song(200, shared=200),
    ("separations:status", "GET"): song(286, shared=286),
    ("separations:card", "GET"): song(286),
    ("separations:cancel", "POST"): song(302),
    ("separations:retry", "POST"): song(302),
    ("separations:again", "POST"): OWN_ALONE,  # what comes of it is the asker's
    ("separations:delete", "POST"): song(302),
    ("separations:share", "POST"): OWN_ALONE,
    ("separations:revoke", "POST"): OWN_ALONE,
    ("separations:stem", "GET"): song(200, shared=200),
    ("separations:chunk", "GET"): song(200, shared=200),
    ("separations:peaks", "GET"): song(200, shared=200),
    ("separations:mix", "GET"): song(200, shared=200),
    ("separations:mix_level", "GET"): song(200, shared=200),
    ("separations:archive", "GET"): song(200, shared=200),
    ("separations:cover", "GET"): song(200, shared=200),
    ("accounts:account", "GET"): FOR_ACCOUNTS,
    ("accounts:signup", "GET"): FOR_OTHERS,
    ("accounts:signup", "POST"): {**all_get(302), OWNER: 422, STRANGER: 422, ANONYMOUS: 422},
    ("accounts:login", "GET"): FOR_OTHERS,
    ("accounts:login", "POST"): FOR_OTHERS,
    ("accounts:logout", "POST"): all_get(302),
    ("accounts:email", "POST"): {**all_get(302), ACCOUNT: 404, CLERK: 404, STAFF: 404},  # likewise
    ("accounts:password", "GET"): FOR_ACCOUNTS,
    ("accounts:password", "POST"): FOR_ACCOUNTS,
    ("accounts:confirm", "GET"): all_get(404),  # the token is none
    ("accounts:confirm", "POST"): all_get(404),
    ("accounts:reset", "GET"): all_get(200),
    ("accounts:reset", "POST"): all_get(404),  # no mail server
    ("accounts:reset_sent", "GET"): all_get(200),
    ("accounts:reset_confirm", "GET"): all_get(200),  # and says that the link is none
    ("accounts:reset_confirm", "POST"): all_get(200),
    ("accounts:tokens", "GET"): FOR_ACCOUNTS,
    ("accounts:tokens", "POST"): {**all_get(302), ACCOUNT: 422, CLERK: 422, STAFF: 422},
    ("accounts:revoke_token", "POST"): all_get(302),
    ("accounts:renew_secret", "POST"): all_get(302),
    ("api:separate", "POST"): all_get(400),  # no song in it
    ("api:task", "GET"): by_api(200),
    ("api:task", "DELETE"): by_api(204),
    ("api:cancel", "POST"): by_api(409),  # it is done
    ("api:retry", "POST"): by_api(409),
    ("api:progress", "GET"): by_api(200),
    ("api:stem", "GET"): by_api(200),
    ("api:mixdown", "GET"): by_api(200),
    ("api:archive", "GET"): by_api(200),
    ("api:cover", "GET"): by_api(200),
    ("api:jobs", "GET"): {**all_get(200), ANONYMOUS: 401},
    ("api:models", "GET"): all_get(200),
    ("api:limits", "GET"): all_get(200),
    ("api:problems", "GET"): all_get(200),
    ("api:openapi-json", "GET"): all_get(200),
    ("api:openapi-view", "GET"): all_get(200),
    ("api:api-root", "GET"): all_get(404),
    ("set_language", "POST"): all_get(302),
    ("control:overview", "GET"): CONTROL,
    ("control:switch", "GET"): CONTROL,
    ("control:live", "GET"): CONTROL,
    ("control:day", "GET"): CONTROL,
    ("control:waste", "GET"): CONTROL,
    # To see jobs is not to handle them.
    ("control:pause", "POST"): {**CONTROL, STAFF: 403},
    ("control:resume", "POST"): {**CONTROL, STAFF: 403},
    ("control:clean", "POST"): {**CONTROL, STAFF: 403},
    ("admin:*", "GET"): {**all_get(302), CLERK: 200, STAFF: 200},  # its front page
}


def patterns(resolver: URLResolver, space: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every address of the site by its name, those of the admin by one name."""
    for each in resolver.url_patterns:
        if isinstance(each, URLResolver):
            yield from patterns(each, f"{each.namespace}:" if each.namespace else space)
        else:
            yield ("admin:*" if space == "admin:" else f"{space}{each.name}"), each


PATTERNS = dict(patterns(get_resolver()))


def test_the_table_names_every_address_and_no_other() -> None:
    assert {name for name, _method in TABLE} == set(PATTERNS)


@dataclass
class World:
    """A song of the owner's with links to it, another one, and people to ask for it."""

    job: Job
    clients: dict[str, Client]
    users: dict[str, User]
    links: dict[str, ShareLink]

    def key(self, who: str) -> uuid.UUID | ShareToken:
        if who not in self.links or who == OTHER:
            return self.job.pk
        token = share_links.token_of(self.links[who])
        assert token is not None
        return token

    def ask(self, who: str, name: str, method: str, **headers: str) -> HttpResponse:
        if who == ACCOUNT:
            Job.objects.filter(pk=self.job.pk).update(user=self.users[ACCOUNT])
        given = {
            "song": self.key(who),
            "job_id": self.job.pk,
            "link_id": self.links[HOLDER].pk,
            "stem": "drums",
            "stem_name": "drums",
            "task_id": self.job.pk,
            "index": 0,
            "token_id": uuid.uuid4(),
            "uidb64": "MQ",
            "token": "cz1abc-" + "0" * 32,
        }
        wanted = PATTERNS[name].pattern.converters
        if name == "admin:*":
            address = reverse("admin:index")
        else:
            address = reverse(name, kwargs={each: given[each] for each in wanted})
        client = self.clients[who]
        cookies = copy(client.cookies)
        # The API refuses fields that it does not know.
        data = {"lasts": "7"} if method == "POST" and not name.startswith("api:") else {}
        try:
            return getattr(client, method.lower())(address, data, headers=headers)  # type: ignore[no-any-return]
        finally:
            client.cookies = cookies  # a log-out is taken back, too


@pytest.fixture
def world(site_settings: Settings) -> World:
    job, other = done("Ours", VISITOR), done("Theirs", "c" * 32)
    Upload.objects.update(cover_sha256="0" * 64)
    job.upload.cover_path.write_bytes(JPEG)
    names = {HOLDER: "never", REVOKED: "30", EXPIRED: "7"}
    links = {who: share_links.create(job, lasts) for who, lasts in names.items()}
    links[OTHER] = share_links.create(other, "never")
    share_links.revoke(job, links[REVOKED].pk)
    ShareLink.objects.filter(pk=links[EXPIRED].pk).update(expires_at=timezone.now())
    users = {
        who: User.objects.create_user(who.replace(" ", "-"), is_staff=who in (CLERK, STAFF))
        for who in (ACCOUNT, CLERK, STAFF)
    }
    may = Permission.objects.filter(codename__in=("view_job", "delete_job"))
    users[STAFF].user_permissions.set(may)
    clients = {who: Client() for who in (*EVERYBODY, *WITH_TOKEN)}
    token = share_links.token_of(links[OTHER])
    assert b"Theirs" in clients[OTHER].get(f"/s/{token}").content
    for who, visitor in ((OWNER, VISITOR), (STRANGER, "b" * 32)):
        session = clients[who].session
        session["visitor"] = visitor
        session.save()
    for who, user in users.items():
        clients[who].force_login(user)
    return World(job, clients, users, links)


def test_everybody_gets_what_is_theirs(world: World, settings: Settings) -> None:
    settings.WEB_THREADS = 10_000  # nobody reads the answers to their end
    found: dict[tuple[str, str], Row] = {}
    # What deletes files comes last: rows alone come back.
    for name, method in sorted(TABLE, key=lambda row: ("delete" in "".join(row).lower(), row[1])):
        found[name, method] = {}
        for who in TABLE[name, method]:
            with transaction.atomic():  # as if nobody had asked before
                found[name, method][who] = world.ask(who, name, method).status_code
                transaction.set_rollback(True)
    assert found == TABLE


def test_what_changes_something_is_not_done_by_a_get(world: World) -> None:
    for name in {name for name, method in TABLE if method == "POST"}:
        if (name, "GET") not in TABLE and name != "set_language":  # Django's only leads back
            assert world.ask(ACCOUNT, name, "GET").status_code == 405, name


def test_a_link_changes_nothing(world: World) -> None:
    token = world.key(HOLDER)
    for word in ("cancel", "retry", "again", "delete", "links", "card"):
        assert world.clients[HOLDER].post(f"/s/{token}/{word}").status_code == 404, word
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):  # not by a view that is forgotten either
        with pytest.raises(Http404):
            permissions.song_or_404(RequestFactory().generic(method, f"/s/{token}"), token)
    for (name, method), row in TABLE.items():
        if HOLDER in row:
            assert method == "GET"
            assert world.ask(HOLDER, name, "POST").status_code == 405, name
    assert world.clients[HOLDER].get(f"/songs/{world.job.pk}").status_code == 404
    page = world.ask(HOLDER, "separations:job", "GET").content.decode()
    assert not re.search(r'method="post"', page)
    for secret in (str(world.job.pk), world.job.pk.hex, str(world.links[HOLDER].pk)):
        assert secret not in page, "the song's own address is not told"


def test_share_links_open_the_listed_addresses_and_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key = {name for name, each in PATTERNS.items() if "song" in each.pattern.converters}
    assert with_key == share_links.ALLOWED, "the list says what addresses with a token exist"
    without = share_links.ALLOWED - set(share_links.DOWNLOADS)
    monkeypatch.setattr(share_links, "ALLOWED", without)
    for name in sorted(with_key):
        expected = 404 if name in share_links.DOWNLOADS else TABLE[name, "GET"][HOLDER]
        assert world.ask(HOLDER, name, "GET").status_code == expected, name
        assert world.ask(OWNER, name, "GET").status_code == TABLE[name, "GET"][OWNER], name


def test_a_song_of_others_answers_as_one_that_never_was(world: World) -> None:
    """Same body but for the address and the CSRF token, and same headers."""

    def answer(key: object, name: str) -> tuple[str, dict[str, str]]:
        path = reverse(name, kwargs={"song": key} | ({"stem": "bass"} if "stem" in name else {}))
        response = Client().get(path)
        assert response.status_code == 404
        text = response.content.decode()
        text = re.sub(r'(csrfmiddlewaretoken" value=")[^"]+', r"\1", text)
        if isinstance(key, ShareToken):
            assert key not in text
        headers = {**response.headers, "X-Request-ID": "of each request its own"}
        return text.replace(str(key), "KEY"), headers

    ended, never_was = world.key(REVOKED), ShareToken("A" * 43)
    for name in ("separations:job", "separations:status", "separations:stem"):
        assert answer(world.job.pk, name) == answer(uuid.uuid4(), name)
        assert answer(ended, name) == answer(never_was, name)


@pytest.mark.parametrize("change", [True, False])
def test_a_stranger_costs_as_many_queries_as_a_song_that_never_was(
    world: World, django_assert_num_queries: Any, change: bool
) -> None:
    for key in (world.job.pk, uuid.uuid4()):
        with django_assert_num_queries(2):  # session, song
            client = world.clients[STRANGER]
            (client.post if change else client.get)(f"/songs/{key}{'/delete' if change else ''}")


# What ACCOUNTS says

OPEN_WITHOUT_ACCOUNT = {
    "separations:about",
    "set_language",
    "accounts:login",
    "accounts:signup",
    "accounts:reset",
    "accounts:reset_sent",
    "accounts:reset_confirm",
    "accounts:confirm",
}


def test_where_accounts_are_required_all_else_is_closed(world: World, settings: Settings) -> None:
    settings.ACCOUNTS = "required"
    for name, method in TABLE:
        response = world.ask(OWNER, name, method)  # whose songs are a browser's alone
        location = response.headers.get("Location", "")
        if name in OPEN_WITHOUT_ACCOUNT:
            assert "login" not in location, name
        elif name in ("separations:chunk", "separations:peaks", "separations:stem"):
            assert response.status_code == 404, name
        elif name.startswith("api:"):
            open_to_all = ("openapi-json", "openapi-view", "problems")
            status = 200 if name.removeprefix("api:") in open_to_all else 401
            assert response.status_code == (404 if name == "api:api-root" else status), name
        elif name.startswith(("admin:", "control:")):
            assert location.startswith("/admin/login/")
        elif name != "accounts:logout":
            assert location.startswith("/account/login?next=/"), name
        if method == "POST" and "next=" in location:
            assert "songs" not in location, "an address that nobody can open"
    assert world.ask(HOLDER, "separations:job", "GET").status_code == 200
    assert world.ask(HOLDER, "separations:chunk", "GET").status_code == 200
    assert world.ask(ACCOUNT, "separations:job", "GET").status_code == 200
    polled = world.ask(OWNER, "separations:status", "GET", **HTMX)
    assert polled.headers["HX-Redirect"] == "/account/login?next=/"
    at = {**HTMX, "HX-Current-URL": f"http://testserver/songs/{world.job.pk}"}
    polled = world.ask(OWNER, "separations:status", "GET", **at)
    assert polled.headers["HX-Redirect"] == f"/account/login?next=/songs/{world.job.pk}"


def test_without_accounts_there_are_no_pages_and_no_links_of_them(
    world: World, settings: Settings
) -> None:
    settings.ACCOUNTS = "off"
    for name, method in TABLE:
        if name.startswith("accounts:"):
            assert world.ask(STRANGER, name, method).status_code == 404, name
    for name in ("separations:home", "separations:job", "separations:about"):
        assert "/account/" not in world.ask(OWNER, name, "GET").content.decode()
    assert "/account/" not in world.ask(STRANGER, "separations:job", "GET").content.decode()
    assert world.ask(OWNER, "separations:delete_everything", "POST").status_code == 302
    assert not Job.objects.filter(pk=world.job.pk).exists()


def test_pages_of_songs_are_in_no_search_engine_and_tell_no_other_site(world: World) -> None:
    for who in (OWNER, HOLDER, REVOKED, STRANGER):
        response = world.ask(who, "separations:job", "GET")
        assert response.headers["X-Robots-Tag"] == "noindex"
        shared = "no-referrer" if who in (HOLDER, REVOKED) else "same-origin"
        assert response.headers["Referrer-Policy"] == shared
    assert "X-Robots-Tag" not in world.ask(OWNER, "separations:home", "GET").headers
