"""Share links: what they open, for how long, and what the database stores of them."""

import re
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.access import share_links
from separations.errors.fault import Fault
from separations.jobs import lifecycle
from separations.models import Job, ShareLink
from tests.support.accounts import browser
from tests.support.jobs import VISITOR, done
from tests.support.share_links import token_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]


@pytest.fixture
def job(site_settings: Settings) -> Job:
    return done("Ours", VISITOR)


def test_the_owner_makes_copies_and_ends_links(job: Job) -> None:
    owner, guest = browser(VISITOR), Client()
    place = f"/songs/{job.pk}"
    response = owner.post(f"{place}/links", {"lasts": "7"})
    assert response.headers["Location"] == f"{place}#links"
    address = {  # it can be copied again later
        path
        for _ in range(2)
        for path in re.findall(
            r'value="http://testserver(/s/[\w-]{43})"', owner.get(place).content.decode()
        )
    }
    (shared,) = address
    link = ShareLink.objects.get()
    assert link.expires_at is not None
    assert timedelta(days=6.99) < link.expires_at - timezone.now() < timedelta(days=7)
    page = guest.get(shared).content.decode()
    assert "Ours" in page
    assert f'data-tracks="{shared}/stems/"' in page
    saved_mix_key = re.search(r'data-song="(shared-[0-9a-f]{32})"', page)
    assert saved_mix_key is not None, "the browser that keeps the mix keeps no token with it"
    for name in ("cancel", "delete", "Share this song", "All songs", "Separate again"):
        assert name not in page
    places = set(re.findall(r'(?:src|href|action|hx-get|formaction)="(/s/[^"]+)"', page))
    assert len(places) > 6
    for each in places:
        assert guest.get(each).status_code in (200, 286), each
    page = owner.post(f"{place}/links/{link.pk}/revoke", follow=True).content.decode()
    assert shared not in page
    for each in (shared, *places):
        assert guest.get(each).status_code == 404, each
    assert owner.post(f"{place}/links/{link.pk}/revoke").status_code == 302


@pytest.mark.parametrize(("lasts", "days"), [("1", 1), ("7", 7), ("30", 30)])
def test_a_link_ends_by_itself(job: Job, lasts: str, days: int) -> None:
    link = share_links.create(job, lasts)
    token = token_of(link)
    assert link.expires_at is not None
    assert abs(link.expires_at - timezone.now() - timedelta(days=days)) < timedelta(minutes=1)
    assert share_links.find(token) == link
    ShareLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert share_links.find(token) is None


def test_a_link_without_an_end_has_none(job: Job) -> None:
    assert share_links.create(job, "never").expires_at is None
    with pytest.raises(Fault, match="bad_option"):
        share_links.create(job, "forever")


def test_a_time_that_is_not_offered_is_refused(job: Job) -> None:
    response = browser(VISITOR).post(f"/songs/{job.pk}/links", {"lasts": "365"})
    assert response.status_code == 422
    assert "1, 7, 30, never" in response.content.decode()


def test_a_link_of_one_song_is_not_ended_by_the_owner_of_another(job: Job) -> None:
    link = share_links.create(job, "never")
    other = done("Theirs", "b" * 32)
    browser("b" * 32).post(f"/songs/{other.pk}/links/{link.pk}/revoke")
    assert share_links.find(token_of(link)) == link
    assert not share_links.revoke(other, link.pk)
    assert not share_links.revoke(job, uuid.uuid4())


def test_the_database_does_not_open_songs(job: Job, settings: Settings) -> None:
    link = share_links.create(job, "never")
    token = token_of(link)
    assert re.fullmatch(r"[\w-]{43}", token)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM separations_sharelink")
        assert token not in repr(cursor.fetchall())
    assert token not in repr(token)
    assert token_of(share_links.create(job, "never")) != token
    # With another key the link works on, but its address is known to its holders alone.
    before, settings.SECRET_KEY = settings.SECRET_KEY, "another" * 10
    assert share_links.find(token) == link
    assert share_links.token_of(link) is None
    assert Client().get(f"/s/{token}").status_code == 200
    page = browser(VISITOR).get(f"/songs/{job.pk}").content.decode()
    assert "its address cannot be shown" in page
    settings.SECRET_KEY_FALLBACKS = [before]
    assert share_links.token_of(link) == token


def test_links_are_limited_and_those_that_ended_forgotten(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_links, "MAX_LINKS", 2)
    first = share_links.create(job, "1")
    share_links.create(job, "1")
    with pytest.raises(Fault, match="too_many_links"):
        share_links.create(job, "1")
    owner = browser(VISITOR)
    response = owner.post(f"/songs/{job.pk}/links", {"lasts": "1"})
    assert response.status_code == 422
    assert "2 links already" in response.content.decode()
    share_links.revoke(job, first.pk)
    share_links.create(job, "1")
    assert not ShareLink.objects.filter(pk=first.pk).exists()


def test_a_deleted_song_takes_its_links_with_it(job: Job) -> None:
    token = token_of(share_links.create(job, "never"))
    lifecycle.remove(job)
    assert not ShareLink.objects.exists()
    assert Client().get(f"/s/{token}").status_code == 404


@pytest.mark.parametrize(
    "token", ["x", "A" * 42, "A" * 44, "A" * 43, "%00" * 43, "é" * 43, "../" * 14 + "A"]
)
def test_what_is_no_token_finds_nothing(job: Job, token: str) -> None:
    share_links.create(job, "never")
    assert Client().get(f"/s/{token}").status_code == 404


def test_a_song_on_its_way_is_not_offered_and_one_in_the_making_can_be_watched(
    site_settings: Settings,
) -> None:
    job = done("Ours", VISITOR)
    token = token_of(share_links.create(job, "never"))
    Job.objects.filter(pk=job.pk).update(
        state="queued", finished_at=None, progress=0.0, frames=None
    )
    assert "Share this song" not in browser(VISITOR).get(f"/songs/{job.pk}").content.decode()
    page = Client().get(f"/s/{token}").content.decode()
    assert f'hx-get="/s/{token}/status?seen=' in page
    assert "/cancel" not in page
    status = Client().get(f"/s/{token}/status")
    assert status.status_code == 200
    assert str(job.pk) not in status.content.decode()


def test_the_admin_ends_links_and_sees_no_hashes(job: Job, admin_client: Client) -> None:
    link = share_links.create(job, "never")
    assert admin_client.get("/admin/separations/sharelink/").status_code == 200
    page = admin_client.get(f"/admin/separations/sharelink/{link.pk}/change/").content.decode()
    assert link.token_hash not in page
    admin_client.post(f"/admin/separations/sharelink/{link.pk}/delete/", {"post": "yes"})
    assert not ShareLink.objects.exists()
