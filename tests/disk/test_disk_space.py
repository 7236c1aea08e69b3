"""One gate for what the site writes, and which encodings go to make room."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.access.permissions import VISITOR
from separations.audio.free_space import MARGIN
from separations.audio.store.stem_file import StemWriter
from separations.delivery import encoding_cache, encoding_jobs
from separations.disk import disk_space
from separations.engine.options import MIXTURE, Options
from separations.engine.process.engine_protocol import Done, StemFile
from separations.fair_use import quotas
from separations.jobs import lifecycle, results
from separations.models import Job, Owner
from separations.uploads import song_files
from separations.worker import crew as crews
from separations.worker import leases, retention
from stemsite.environment import envauto
from tests.support import sounds
from tests.support.disks import resize

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ANNA = Owner(visitor="a" * 32)
NAMES = ("drums", "bass", "other", "vocals")
SECONDS = 3.0
Done_ = Callable[..., Job]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each encoding is made with a fresh look at all others."""
    monkeypatch.setattr(encoding_cache, "LOOK_SECONDS", -1.0)


@pytest.fixture
def anna(site_settings: Settings, db: None) -> Client:
    client = Client()
    session = client.session
    session[VISITOR] = ANNA.visitor
    session.save()
    return client


@pytest.fixture
def done(site_settings: Settings, tmp_path: Path) -> Done_:
    def make(seed: int = 0) -> Job:
        source = sounds.wav(tmp_path / "s.wav", sounds.music(SECONDS, seed=seed))
        upload = song_files.accept_path(source, f"{seed}.wav")
        job = lifecycle.submit(upload, Options(model="tiny"), ANNA)
        running = leases.claim()
        assert running is not None
        assert leases.finish(running, *_separated(running))
        job.refresh_from_db()
        return job

    return make


def _separated(job: Job) -> tuple[Done, Path]:
    staging = job.staging_folder
    staging.mkdir()
    for name in (MIXTURE, *NAMES):
        writer = StemWriter(staging / f"{name}.flac")
        writer.write(sounds.music(SECONDS))
        writer.finish()
    stems = [StemFile(name, 0.5, -20.0) for name in NAMES]
    frames = int(SECONDS * sounds.RATE)
    return Done(frames, stems, StemFile(MIXTURE, 0.75, -14.0), 0, "torch float32"), staging


def ask(client: Client, job: Job, what: str = "mix", **query: str) -> int:
    response = client.get(f"/songs/{job.pk}/{what}", {"format": "flac", **query})
    if response.streaming:
        for _piece in response:
            pass
    response.close()
    return response.status_code


def mix(client: Client, job: Job, volume: int) -> int:
    return ask(client, job, mix=f"drums:{volume}:0")


def kept(job: Job) -> list[encoding_cache.Encoding]:
    return encoding_cache.of_job(job.rendition_folder)


def size(found: list[encoding_cache.Encoding]) -> int:
    return sum(each.bytes for each in found)


# One visitor


def test_nobody_takes_the_last_of_the_disk_and_all_works_again_when_room_is_back(
    site_on_it: Path,
    site_settings: Settings,
    anna: Client,
    done: Done_,
    tmp_path: Path,
) -> None:
    """Many mixes, all stems in all formats, and uploads, where little room is left."""
    resize(site_on_it, "64m")
    job = done()
    site_settings.MIN_FREE_DISK_MB = 20
    (site_on_it / "of another program").write_bytes(bytes(disk_space.left() - MARGIN - 1_500_000))
    least = 20_000_000
    codes = set()
    for number in range(12):
        codes.add(mix(anna, job, number))
        least = min(least, shutil.disk_usage(site_on_it).free)
    for name in NAMES:
        for format in ("flac", "mp3-320", "m4a-256", "opus-192"):
            codes.add(ask(anna, job, f"stems/{name}", format=format))
            least = min(least, shutil.disk_usage(site_on_it).free)
    assert least >= 20_000_000
    assert codes == {200}, "old ones went for new ones"
    (site_on_it / "more of it").write_bytes(bytes(disk_space.left() + size(kept(job)) - MARGIN))
    refused = anna.get(f"/songs/{job.pk}/mix", {"format": "flac", "mix": "bass:1:0"})
    assert refused.status_code == 507
    assert "disk of this site is full" in refused.content.decode()
    assert not list(site_on_it.rglob("*.part"))
    assert disk_space.wanted_at() > time.time() - 60
    song = sounds.wav(tmp_path / "a.wav", sounds.music(1.0)).read_bytes()
    sent = {"file": SimpleUploadedFile("a.wav", song), "model": "tiny", "stems": "all"}
    other = Client()
    refused = other.post("/", sent)
    assert refused.status_code == 507
    assert "disk of this site is full" in refused.content.decode()
    (site_on_it / "more of it").unlink()
    (site_on_it / "of another program").unlink()
    assert mix(anna, job, 50) == 200
    sent["file"] = SimpleUploadedFile("a.wav", song)
    assert other.post("/", sent).status_code == 302


def test_an_encoding_stops_before_the_last_of_the_disk_while_it_grows(
    site_on_it: Path,
    site_settings: Settings,
    anna: Client,
    done: Done_,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when others write at the same time."""
    resize(site_on_it, "64m")
    job = done()
    site_settings.MIN_FREE_DISK_MB = 20
    monkeypatch.setattr(encoding_cache, "make_room", lambda *_arguments: None)
    (site_on_it / "other").write_bytes(bytes(disk_space.left() - MARGIN - 200_000))
    assert ask(anna, job, "stems/drums") == 507
    assert shutil.disk_usage(site_on_it).free >= 20_000_000
    assert kept(job) == []
    assert disk_space.wanted_at() > 0


# Caps


def test_encodings_of_a_song_take_no_more_than_twice_its_stems(
    anna: Client, done: Done_, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = done()
    most = encoding_cache.TIMES_THE_STEMS * disk_space.bytes_in(job.result_folder)
    assert ask(anna, job, "stems/drums") == 200
    (first,) = kept(job)
    os.utime(first.path, (1, 1))
    for number in range(20):
        assert mix(anna, job, number) == 200
        assert size(kept(job)) <= most
        if number == 3:
            assert first.path in [each.path for each in kept(job)]
            assert ask(anna, job, "stems/drums") == 200  # used again: it stays
    assert first.path not in [each.path for each in kept(job)], "whole stems go as mixes do"
    assert mix(anna, job, 19) == 200
    assert kept(job)[-1].used > kept(job)[0].used
    monkeypatch.setattr(encoding_cache, "MOST_OF_A_JOB", 5)
    for number in range(30, 37):
        ask(anna, job, mix=f"drums:{number}:0", to="0.05")
    assert len(kept(job)) == 5


def test_what_is_read_or_made_is_not_deleted(anna: Client, done: Done_, tmp_path: Path) -> None:
    job = done()
    assert mix(anna, job, 1) == 200
    (read,) = kept(job)
    made = job.rendition_folder / "made.part"
    made.write_bytes(b"x" * 10_000)
    os.utime(made, (1, 1))
    making = encoding_jobs.GrowingFile(None)
    making.begin(made)
    reading = encoding_jobs.FinishedFile(read.path)
    encoding_cache.free(10**9)
    retention.clean()
    assert {each.path for each in kept(job)} == {read.path, made}
    del reading, making
    encoding_cache.free(10**9)
    assert [each.path for each in kept(job)] == [made]
    assert [waste.kind for waste in retention.clean()] == ["unfinished rendition"]


def test_encodings_of_all_songs_have_a_cap(
    anna: Client, done: Done_, site_settings: Settings
) -> None:
    one, two = done(0), done(1)
    assert mix(anna, one, 1) == mix(anna, two, 1) == 200
    each = kept(one)[0].bytes
    for age, job in enumerate((two, one)):
        os.utime(kept(job)[0].path, (age + 1, age + 1))
    site_settings.MAX_ENCODINGS_GB = 3.5 * each / 1e9
    assert mix(anna, one, 2) == 200
    assert kept(two) == [], "the least lately used of all"
    assert len(kept(one)) == 2
    site_settings.MAX_ENCODINGS_GB = 1.5 * each / 1e9
    assert [waste.kind for waste in retention.clean(dry_run=True)] == ["renditions"]
    retention.clean()
    assert len(kept(one)) == 1
    site_settings.MAX_ENCODINGS_GB = 0
    for number in range(4):
        assert mix(anna, two, number) == 200
    assert len(kept(two)) == 4


def test_caps_follow_the_disk(site_on_it: Path, site_settings: Settings) -> None:
    resize(site_on_it, "100m")
    site_settings.MIN_FREE_DISK_MB = 10
    room = disk_space.left()
    assert disk_space.most_kept(0) == int(0.9 * room)
    assert disk_space.most_encodings(0) == room // 2
    (site_on_it / "results").write_bytes(bytes(40_000_000))
    assert disk_space.most_kept(40_000_000) == pytest.approx(0.9 * room, abs=10_000)
    assert disk_space.most_encodings(0) == pytest.approx((room - 40_000_000) // 2, abs=10_000)
    site_settings.MAX_ENCODINGS_GB = 3
    assert disk_space.most_encodings(0) == 3_000_000_000


def test_a_cap_is_a_number_or_follows_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(text: str) -> int | None:
        monkeypatch.setenv("MAX_STORAGE_GB", text)
        return envauto("MAX_STORAGE_GB")

    assert [read(text) for text in ("", "auto", "AUTO", "0", "25")] == [None, None, None, 0, 25]
    with pytest.raises(ImproperlyConfigured, match="MAX_STORAGE_GB"):
        read("much")


# The clean-up


@pytest.mark.parametrize("cap", [None, 0, 1000], ids=["auto", "no cap", "a large cap"])
def test_where_room_is_short_the_least_lately_used_goes_and_nothing_in_use(
    site_on_it: Path, site_settings: Settings, anna: Client, done: Done_, cap: int | None
) -> None:
    resize(site_on_it, "64m")
    site_settings.MAX_STORAGE_GB = cap
    old, used = done(0), done(1)
    Job.objects.filter(pk=old.pk).update(used_at=timezone.now() - timedelta(hours=1))
    assert mix(anna, used, 1) == mix(anna, used, 2) == mix(anna, used, 3) == 200
    encoding = kept(used)[0]
    site_settings.MIN_FREE_DISK_MB = 10
    other = site_on_it / "other"
    other.write_bytes(bytes(disk_space.left() + 100_000))
    assert disk_space.is_short()
    assert "renditions" in {waste.kind for waste in retention.clean()}
    assert not encoding.path.exists()
    assert not disk_space.is_short()
    assert results.is_whole(old)
    assert results.is_whole(used)
    with other.open("ab") as more:
        more.write(bytes(disk_space.left() + size(kept(used)) + 100_000))
    assert "result" in {waste.kind for waste in retention.clean()}
    old.refresh_from_db()
    assert old.is_expired
    assert results.is_whole(used)
    assert not disk_space.is_short()


def test_encodings_stay_where_all_of_them_would_not_do(
    site_on_it: Path, site_settings: Settings, anna: Client, done: Done_
) -> None:
    resize(site_on_it, "64m")
    site_settings.MAX_ENCODINGS_GB = 0
    job, other = done(0), done(1)
    assert mix(anna, job, 1) == 200
    with pytest.raises(OSError, match="No space left"):
        encoding_cache.make_room(other.rendition_folder, other.result_folder, 10**9)
    assert len(kept(job)) == 1


def test_a_clean_up_frees_what_was_asked_for(
    site_on_it: Path, site_settings: Settings, anna: Client, done: Done_
) -> None:
    resize(site_on_it, "64m")
    job = done()
    assert mix(anna, job, 1) == mix(anna, job, 2) == 200
    site_settings.MIN_FREE_DISK_MB = 10
    site_settings.MAX_STORAGE_GB = 0
    retention.clean()
    assert len(kept(job)) == 2
    disk_space.want_room(disk_space.left() + 1)
    retention.clean()
    assert len(kept(job)) == 1


def test_a_consumer_cleans_up_as_soon_as_somebody_finds_no_room(
    site_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = threading.Event()
    monkeypatch.setattr(retention, "clean", cleaned.set)
    monkeypatch.setattr(crews, "LOOK_SECONDS", 0.01)
    crew = crews.Crew()
    thread = threading.Thread(target=crew._keep_room)
    thread.start()
    try:
        assert not cleaned.wait(0.2)
        disk_space.want_room(1)
        assert cleaned.wait(10)
    finally:
        crew.stop()
        thread.join(10)


# Counted


def test_what_an_owner_keeps_is_counted_with_what_is_encoded(anna: Client, done: Done_) -> None:
    job = done()
    before = quotas.bytes_stored_of(ANNA)
    assert before == job.upload.path.stat().st_size + disk_space.bytes_in(job.result_folder)
    mix(anna, job, 1)
    assert quotas.bytes_stored_of(ANNA) == before + kept(job)[0].path.stat().st_size


def test_a_second_demo_takes_no_room(anna: Client, site_settings: Settings) -> None:
    first = song_files.accept_path(sounds.DEMO, "demo.m4a")
    whole = disk_space.bytes_in(site_settings.UPLOAD_DIR)
    os.utime(first.path, (1, 1))
    second = song_files.accept_path(sounds.DEMO, "demo.m4a")
    assert second.path.samefile(first.path)
    assert disk_space.bytes_in(site_settings.UPLOAD_DIR) == whole
    assert second.path.stat().st_mtime > time.time() - 60, "else it would seem abandoned"
    song_files.drop(first)
    assert second.path.stat().st_size == sounds.DEMO.stat().st_size


def test_a_copy_of_the_demo_needs_room(site_settings: Settings, anna: Client) -> None:
    site_settings.MIN_FREE_DISK_MB = 10**9
    assert anna.post("/demo", {"model": "tiny"}).status_code == 507
    assert list(site_settings.UPLOAD_DIR.iterdir()) == []
