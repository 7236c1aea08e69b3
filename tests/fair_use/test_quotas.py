"""Quotas of an owner: waiting songs, minutes a day, storage."""

import threading
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from separations.audio.free_space import Room
from separations.engine.process.engine_process import EngineProcess
from separations.fair_use import quotas
from separations.models import Bucket, Job, Owner, Upload
from separations.worker import leases
from separations.worker.slots import Slot
from tests.support.sounds import music, wav

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
def test_songs_of_an_owner_and_of_their_range_are_queued_one_at_a_time() -> None:
    """By locks on their bucket rows, from which nothing is withdrawn. (SQLite has one writer.)"""
    for _ in range(3):
        quotas.lock_queue_of(Owner("a" * 32, client="192.0.2.1"))
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


def test_neighbours_in_ipv6_share_minutes_of_their_ranges(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_MINUTES_A_DAY = 1
    assert send(visitor, tmp_path, 0.1, REMOTE_ADDR="2001:db8:1:1::1").status_code == 302
    Bucket.objects.filter(tokens__gt=3).filter(tokens__lt=4).update(tokens=0.01)  # the /56
    neighbour = send(Client(), tmp_path, 0.2, REMOTE_ADDR="2001:db8:1:2::1")
    beyond = send(Client(), tmp_path, 0.3, REMOTE_ADDR="2001:db8:1:102::1")
    assert (neighbour.status_code, beyond.status_code) == (429, 302)


@pytest.mark.django_db
def test_what_holds_decoders_counts_for_ranges_and_for_the_site(site_settings: Settings) -> None:
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "upload": (10, 3600)}
    site_settings.SITE_LIMITS = {**site_settings.SITE_LIMITS, "upload": (1000, 3600)}
    quotas.count_decoding("2001:db8:1:1::/64", 35.0)
    left = sorted(round(row.tokens) for row in Bucket.objects.all())
    assert left == [7, 37, 157, 997]


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


def test_one_owner_takes_a_fifth_of_the_disk_at_most(
    visitor: Client, site_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_settings.MAX_OWNER_STORAGE_GB = None
    monkeypatch.setattr(Room, "most", lambda _room: 50_000_000)
    assert send(visitor, tmp_path, 0.1).status_code == 302
    (kept,) = Upload.objects.all()
    kept.path.write_bytes(bytes(9_900_000))
    assert send(visitor, tmp_path, 0.2).status_code == 429
    assert send(Client(), tmp_path, 0.2).status_code == 302
    kept.path.write_bytes(bytes(4_000_000))
    assert send(visitor, tmp_path, 0.3).status_code == 302


class Added:
    """Megabytes counted of an address range's share of 10 MB."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self, factor: int = 1) -> float:
        """Those since the last call."""
        rows = Bucket.objects.filter(tokens__gt=4 * factor, tokens__lt=10 * factor)
        before, self.now = self.now, 10 * factor - min((row.tokens for row in rows), default=10.0)
        return self.now - before


SONG, STEMS = 0.353, 2 * 44_100 * 5 * 3 / 1e6  # megabytes of a song of two seconds


def test_an_address_range_adds_to_the_disk_what_one_owner_may_keep_with_cookies_or_without(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_OWNER_STORAGE_GB = 0.005
    sent = [send(Client(), tmp_path, n / 10).status_code for n in range(1, 4)]
    refused = send(Client(), tmp_path, 0.4)
    assert ([*sent, refused.status_code]) == [302, 302, 429, 429]
    assert "your network today take 0.005 GB" in refused.content.decode()
    seconds = (2 * (SONG + STEMS) + SONG + STEMS - 5) / 5 * 24 * 3600
    assert int(refused.headers["Retry-After"]) == pytest.approx(seconds, rel=0.05)
    assert Job.objects.count() == 2
    assert send(Client(), tmp_path, 0.4, REMOTE_ADDR="192.0.2.7").status_code == 302


def test_neighbours_in_ipv6_add_to_the_disk_together(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_OWNER_STORAGE_GB = 0.002
    codes = []
    for number in range(6):
        address = f"2001:db8:1:{number}::1"
        codes.append(send(Client(), tmp_path, (number + 1) / 10, REMOTE_ADDR=address).status_code)
    assert codes == [302] * 4 + [429] * 2, "the /56 has four times as much"
    beyond = send(Client(), tmp_path, 0.7, REMOTE_ADDR="2001:db8:1:102::1")
    assert beyond.status_code == 302


def test_results_that_are_there_or_being_made_add_the_song_alone_and_again_the_stems_alone(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_OWNER_STORAGE_GB = 0.01
    added = Added()
    assert send(visitor, tmp_path, 0.1).status_code == 302
    assert added() == pytest.approx(SONG + STEMS, abs=0.01)
    assert send(Client(), tmp_path, 0.1).status_code == 302  # waits for the first
    assert added() == pytest.approx(SONG, abs=0.01)
    with EngineProcess() as engine:
        job = leases.claim()
        assert job is not None
        Slot(engine, 1, threading.Event()).run(job)
    assert send(Client(), tmp_path, 0.1).status_code == 302  # is there
    assert added() == pytest.approx(SONG, abs=0.01)
    again = visitor.post(f"/songs/{job.pk}/again", {"model": "tiny", "stems": "vocals"})
    assert again.status_code == 302
    assert added() == pytest.approx(STEMS * 3 / 5, abs=0.01)


def test_a_song_that_is_not_queued_adds_nothing_to_the_disk(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.MAX_OWNER_STORAGE_GB, site_settings.MAX_QUEUED_JOBS = 0.01, 1
    added = Added()
    assert [send(visitor, tmp_path, n / 10).status_code for n in (1, 2)] == [302, 429]
    assert added() == pytest.approx(SONG + STEMS, abs=0.01)
    site_settings.MAX_OWNER_STORAGE_GB = 0
    assert send(Client(), tmp_path, 0.3).status_code == 302
    assert added() == pytest.approx(0.0, abs=0.01)


def test_stems_that_were_there_already_count_a_minute_at_most(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    """Nothing is separated, but rows are written, which need a limit too."""
    site_settings.MAX_MINUTES_A_DAY = 10
    quotas.count_reused(Owner("a" * 32), 300.0)
    assert _left() == pytest.approx([9.0], abs=0.01)
    Bucket.objects.all().delete()
    send(visitor, tmp_path, 0.1)
    with EngineProcess() as engine:
        job = leases.claim()
        assert job is not None
        Slot(engine, 1, threading.Event()).run(job)
    before = _left()
    assert send(visitor, tmp_path, 0.1).status_code == 302
    assert [job.cached for job in Job.objects.order_by("queued_at")] == [False, True]
    assert _left() == pytest.approx([left - 2 / 60 for left in before], abs=0.01)
    Bucket.objects.update(tokens=0.0)
    assert send(visitor, tmp_path, 0.1).status_code == 429
    assert Job.objects.count() == 2


def _left() -> list[float]:
    return [row.tokens for row in Bucket.objects.exclude(tokens=1.0).order_by("key")]


def test_the_demo_and_another_separation_count_as_songs_that_are_sent(
    visitor: Client, site_settings: Settings, tmp_path: Path
) -> None:
    site_settings.RATE_LIMITS = {**site_settings.RATE_LIMITS, "upload": (3, 3600)}
    assert visitor.post("/demo").status_code == 302
    assert send(visitor, tmp_path, 0.1).status_code == 302
    job = Job.objects.latest("queued_at")
    again = {"model": "tiny", "stems": "vocals"}
    assert visitor.post(f"/songs/{job.pk}/again", again).status_code == 302
    for place, fields in (("/demo", {}), (f"/songs/{job.pk}/again", again)):
        refused = visitor.post(place, fields)
        assert refused.status_code == 429
        assert "too" in refused.content.decode().lower()
    assert Job.objects.count() == 3
