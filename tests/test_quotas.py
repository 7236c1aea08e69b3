"""What one owner may have waiting, have done in a day, and have lying here."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from separations import quotas
from separations.models import Bucket, Job, Owner, Upload
from tests.sounds import music, wav

pytestmark = pytest.mark.usefixtures("no_queue")


def send(visitor: Client, tmp_path: Path, level: float, **more: Any) -> Any:
    song = wav(tmp_path / f"{level}.wav", music(2.0) * level)
    with song.open("rb") as file:
        return visitor.post("/", {"file": file, "model": "tiny"}, **more)


def test_so_many_may_wait(
    visitor: Client, site_settings: Settings, tmp_path: Path, kept_files: Any
) -> None:
    site_settings.MAX_QUEUED_JOBS = 2
    assert [send(visitor, tmp_path, n / 10).status_code for n in (1, 2)] == [302, 302]
    before = kept_files()
    refused = send(visitor, tmp_path, 0.3)
    assert refused.status_code == 429
    assert "You have 2 songs waiting" in refused.content.decode()
    assert (kept_files(), Upload.objects.count(), Job.objects.count()) == (before, 2, 2)
    assert send(Client(), tmp_path, 0.3).status_code == 302  # somebody else
    first = Job.objects.earliest("queued_at")
    visitor.post(f"/songs/{first.pk}/cancel")
    assert send(visitor, tmp_path, 0.3).status_code == 302
    again = visitor.post(f"/songs/{first.pk}/retry")
    assert again.status_code == 429
    first.refresh_from_db()
    assert first.state == "cancelled"


@pytest.mark.django_db
def test_songs_of_an_owner_and_of_their_network_are_queued_one_at_a_time() -> None:
    """By locks on rows of theirs, of which nothing is taken. (SQLite has one writer anyhow.)"""
    for _ in range(3):
        quotas.hold(Owner("a" * 32, client="192.0.2.1"))
    assert list(Bucket.objects.values_list("tokens", flat=True)) == [1.0, 1.0]


def test_so_many_minutes_fit_into_a_day_also_without_cookies(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_MINUTES_A_DAY = 1
    Bucket.objects.all().delete()
    assert send(visitor, tmp_path, 0.1).status_code == 302
    Bucket.objects.update(tokens=0.01)
    refused = send(Client(), tmp_path, 0.2)
    assert refused.status_code == 429
    assert "(1 minutes;" in refused.content.decode()
    assert send(Client(), tmp_path, 0.2, REMOTE_ADDR="192.0.2.7").status_code == 302


def test_a_song_that_is_not_queued_counts_no_minutes(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_QUEUED_JOBS = site_settings.MAX_MINUTES_A_DAY = 1
    send(visitor, tmp_path, 0.1)
    before = list(Bucket.objects.order_by("key").values_list("tokens", flat=True))
    assert send(visitor, tmp_path, 0.2).status_code == 429
    assert list(Bucket.objects.order_by("key").values_list("tokens", flat=True)) == before


def test_so_much_may_lie_here(visitor: Client, site_settings: Settings, tmp_path: Path) -> None:
    site_settings.MAX_OWNER_STORAGE_GB = 0.0005
    assert send(visitor, tmp_path, 0.1).status_code == 302
    refused = send(visitor, tmp_path, 0.2)
    assert refused.status_code == 429
    assert "Delete some first" in refused.content.decode()
