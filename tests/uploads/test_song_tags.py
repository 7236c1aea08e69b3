"""A song's tags and cover: from the file that was sent to pages, the API and every download."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from separations.access import share_links
from separations.audio.decoding.probe import probe
from separations.audio.info import Tags
from separations.disk import disk_space
from separations.errors.fault import Fault
from separations.fair_use import quotas
from separations.jobs import lifecycle
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.worker import leases, retention
from tests.support import sounds
from tests.support.accounts import browser
from tests.support.jobs import ANNA, VISITOR, stems_for
from tests.support.tagged import JPEG, id3, text_frame

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
FRAMES = {
    "TIT2": "Café",
    "TPE1": "Beyoncé",
    "TALB": "Album",
    "TRCK": "7/12",
    "TYER": "1999",
    "TCON": "Rock",
    "TBPM": "127.98",
    "TKEY": "F#m",
}
ALL = Tags("Café", "Beyoncé", "Album", 7, 12, 1999, "Rock", 127.98, "F#m", JPEG)
TEXT = replace(ALL, cover=b"")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MP3 with all tags in Latin-1, and a cover."""
    path = tmp_path_factory.mktemp("song") / "a.mp3"
    sounds.encode(path, sounds.music(1.0), "libmp3lame")
    frames = [text_frame(name, b"\0" + text.encode("latin-1")) for name, text in FRAMES.items()]
    return id3(*frames, cover=JPEG) + path.read_bytes()


@pytest.fixture
def song(tagged: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "sent.mp3"
    path.write_bytes(tagged)
    return path


@pytest.fixture
def job(song: Path) -> Job:
    """A finished separation of the song."""
    upload = song_files.accept_path(song, "sent.mp3")
    lifecycle.submit(upload, lifecycle.site_options(model="tiny"), Owner(VISITOR))
    running = leases.claim()
    assert running is not None
    assert leases.finish(running, *stems_for(running))
    return Job.objects.get()


def test_a_song_keeps_its_tags_and_its_cover(song: Path) -> None:
    upload = song_files.accept_path(song, "sent.mp3")
    stored = Upload.objects.get()
    assert (stored.tags, stored.read_cover()) == (TEXT, JPEG)
    assert disk_space.bytes_in(stored.path.parent) == stored.bytes + len(JPEG)
    song_files.drop(upload)
    assert list(stored.path.parent.iterdir()) == []


def test_the_same_file_sent_again_has_them_too(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = song_files.accept_path(song, "a.mp3", ANNA)
    lifecycle.submit(first, lifecycle.site_options(model="tiny"), ANNA)
    with monkeypatch.context() as patch:
        patch.setattr(song_files, "probe_isolated", lambda *_: pytest.fail("decoded again"))
        second = song_files.accept_path(song, "b.mp3", ANNA)
    assert (second.tags, second.read_cover()) == (TEXT, JPEG)
    first.cover_path.unlink()
    second.cover_path.unlink()
    third = song_files.accept_path(song, "c.mp3", ANNA)
    assert third.read_cover() == JPEG, "the cover is gone, the file has it"


def test_a_file_from_before_tags_were_read_is_read_again(song: Path) -> None:
    old = song_files.accept_path(song, "a.mp3", ANNA)
    lifecycle.submit(old, lifecycle.site_options(model="tiny"), ANNA)
    Upload.objects.update(album="", cover_sha256="", tags_version=0)
    assert song_files.accept_path(song, "b.mp3", ANNA).album == "Album"


def test_no_cover_is_stored_where_there_is_no_room(
    song: Path, monkeypatch: pytest.MonkeyPatch, kept_files: Any
) -> None:
    def refuse(folder: Path, expected: int = 0) -> None:
        if expected == len(JPEG):
            raise Fault("disk_full")

    monkeypatch.setattr(disk_space, "require_room", refuse)
    with pytest.raises(Fault, match="disk_full"):
        song_files.accept_path(song, "a.mp3")
    assert kept_files() == []
    assert not Upload.objects.exists()


def test_a_cover_counts_as_its_owner_s(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = quotas.bytes_stored_of(Owner(VISITOR))
    job.upload.cover_path.unlink()
    assert with_it - quotas.bytes_stored_of(Owner(VISITOR)) == len(JPEG)


# Where they are shown


def test_the_song_s_page_shows_them(job: Job) -> None:
    page = browser(VISITOR).get(f"/songs/{job.pk}").content.decode()
    assert f'src="/songs/{job.pk}/cover" alt="Cover of Café"' in page
    assert "Album · track 7 of 12 · 1999 · Rock" in page
    assert "127.98 BPM · key F#m" in page
    assert "from the file&#x27;s tags" in page or "from the file's tags" in page
    assert "Beyoncé · Album · 0:01" in browser(VISITOR).get("/").content.decode()
    Upload.objects.update(album="", track=None, year=None, genre="", bpm=None, key="")
    job.upload.cover_path.unlink()
    page = browser(VISITOR).get(f"/songs/{job.pk}").content.decode()
    assert not [name for name in ("/cover", "about-song", "tempo-and-key") if name in page]


def test_the_cover_is_for_those_who_may_see_the_song(job: Job) -> None:
    token = share_links.token_of(share_links.create(job, "7"))
    for client, place in (
        (browser(VISITOR), f"/songs/{job.pk}/cover"),
        (Client(), f"/s/{token}/cover"),
    ):
        answer = client.get(place)
        assert (answer.status_code, answer.getvalue()) == (200, JPEG)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"].startswith("private, max-age=")
        again = client.get(place, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert Client().get(f"/songs/{job.pk}/cover").status_code == 404
    assert browser("c" * 32).get(f"/songs/{job.pk}/cover").status_code == 404
    job.upload.cover_path.unlink()
    assert browser(VISITOR).get(f"/songs/{job.pk}/cover").status_code == 404


def test_the_api_says_them(job: Job, settings: Settings) -> None:
    client = browser(VISITOR)
    found = client.get(f"/api/separate/{job.pk}").json()
    names = ("title", "artist", "album", "track", "track_total", "year", "genre", "bpm", "key")
    assert {name: found[name] for name in names} == {name: getattr(ALL, name) for name in names}
    assert found["links"]["cover"] == f"http://testserver/api/separate/{job.pk}/cover"
    cover = client.get(found["links"]["cover"])
    assert (cover.status_code, cover.getvalue(), cover["Content-Type"]) == (200, JPEG, "image/jpeg")
    Upload.objects.update(album="", track=None, cover_sha256="", key="")
    found = client.get(f"/api/separate/{job.pk}").json()
    assert [found[name] for name in ("album", "track", "key")] == [None] * 3
    assert found["links"]["cover"] is None
    missing = client.get(f"/api/separate/{job.pk}/cover")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


# Where they are carried


def test_every_download_carries_them(job: Job, tmp_path: Path) -> None:
    client, path = browser(VISITOR), tmp_path / "got"
    for asked in ("wav", "flac", "mp3-128", "m4a-128", "opus-96"):
        answer = client.get(f"/songs/{job.pk}/stems/drums?format={asked}")
        path.write_bytes(b"".join(answer))
        with path.open("rb") as file:
            found = probe(file.fileno(), 60).tags
        beats = 128.0 if asked.startswith("m4a") else 127.98
        assert found == replace(ALL, title="Café (drums)", bpm=beats), asked


def test_an_encoding_with_other_tags_is_another_file(job: Job) -> None:
    client, place = browser(VISITOR), f"/songs/{job.pk}/stems/drums?format=opus-96"
    answers = [client.get(place)]
    sent = [b"".join(answers[0])]
    for changed in ({"album": "Other"}, {"cover_sha256": ""}, {"bpm": 90.0}):
        Upload.objects.update(**changed)
        answers.append(client.get(place))
        sent.append(b"".join(answers[-1]))
    assert len(set(sent)) == 4
    assert len({answer.headers["ETag"] for answer in answers}) == 4
    assert len(list(job.rendition_folder.iterdir())) == 4


# How long they are kept


def test_a_cover_stays_as_long_as_the_stems(job: Job) -> None:
    aged = {"finished_at": job.created_at.replace(year=2020), "used_at": job.created_at}
    Job.objects.update(**aged)
    os.utime(job.upload.cover_path, (1, 1))
    assert [waste.kind for waste in retention.clean()] == ["song"]
    assert job.upload.read_cover() == JPEG
    Job.objects.update(used_at=aged["finished_at"])
    assert [waste.kind for waste in retention.clean()] == ["result", "cover"]
    assert not job.upload.cover_path.exists()


def test_the_cover_of_a_song_that_waits_is_kept(song: Path) -> None:
    upload = song_files.accept_path(song, "a.mp3")
    lifecycle.submit(upload, lifecycle.site_options(model="tiny"), ANNA)
    upload.path.unlink()
    assert retention.clean() == []
    Job.objects.all().delete()
    (waste,) = retention.clean(dry_run=True)
    again = song_files.accept_path(song, "a.mp3")
    lifecycle.submit(again, lifecycle.site_options(model="tiny"), ANNA)
    Job.objects.update(upload=upload)  # since it was looked at
    waste.remove()
    assert upload.read_cover() == JPEG
    Job.objects.all().delete()
    assert "cover" in [waste.kind for waste in retention.clean()]
    assert upload.read_cover() == b""


def test_a_cover_goes_with_its_song(job: Job, kept_files: Any) -> None:
    lifecycle.remove(job)
    assert kept_files() == []


def test_a_cover_without_a_record_goes(song: Path) -> None:
    upload = song_files.accept_path(song, "a.mp3")
    Upload.objects.all().delete()
    for path in (upload.path, upload.cover_path):
        os.utime(path, (1, 1))
    assert [waste.kind for waste in retention.clean()] == ["song without a record"] * 2
    assert not upload.cover_path.exists()


# Names that browsers encode


def test_names_are_read_as_browsers_send_them(visitor: Client, tmp_path: Path) -> None:
    """The HTML Standard encodes the quote and line ends, and nothing else."""
    sound = sounds.wav(tmp_path / "a.wav", sounds.music(0.2)).read_bytes()
    titles = {
        "Say %22Hi%22.wav": 'Say "Hi"',
        "two%0D%0Alines.wav": "two lines",
        "100%25 %41.wav": "100%25 %41",
        "Caf\ufffd Se\ufffdorita.wav": "Caf Se orita",
    }
    files = [SimpleUploadedFile(name, sound) for name in titles]
    visitor.post("/", {"file": files, "model": "tiny", "stems": "all"})
    uploads = Upload.objects.order_by("created_at")
    assert [upload.title for upload in uploads] == list(titles.values())
    wrong = visitor.post("/", {"file": [SimpleUploadedFile("%22.exe", b"x")], "model": "tiny"})
    assert "&quot;.exe" in wrong.content.decode()
