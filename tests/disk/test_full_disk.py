"""A disk that is full, or takes no files: said clearly, nothing half-written left, and on it goes.

On a real file system of two megabytes where one can be mounted; the rest needs no rights.
"""

import errno
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.audio.store.stem_file import StemWriter, read_stem
from separations.disk import disk_space
from separations.engine.options import Options
from separations.engine.process.engine_process import EngineProcess
from separations.errors.fault import Fault
from separations.fair_use import incoming_uploads
from separations.jobs import lifecycle
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.web.presenters.song import present_song
from separations.worker import candidates, leases, slots
from separations.worker.slots import Slot
from tests.support import sounds
from tests.support.disks import resize
from tests.support.engines import request_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ANNA = Owner(visitor="a" * 32)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess() as process:
        yield process


def run(engine: EngineProcess) -> Job:
    job = leases.claim()
    assert job is not None
    Slot(engine, 1, threading.Event()).run(job)
    job.refresh_from_db()
    return job


def submitted(source: Path) -> Job:
    return lifecycle.submit(
        song_files.accept_path(source, source.name), Options(model="tiny"), ANNA
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_song_that_the_whole_disk_could_not_hold_fails_and_the_next_one_works(
    site_on_it: Path, tmp_path: Path, engine: EngineProcess
) -> None:
    long = sounds.encode(tmp_path / "long.flac", sounds.sine(20.0, sounds.RATE), "flac")
    job, short = submitted(long), submitted(sounds.wav(tmp_path / "s.wav", sounds.music(0.5)))
    assert run(engine).pk == short.pk
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.FAILED, "disk_full")
    assert "disk of this site is full" in present_song(job).error
    assert not disk_space.lacking(), "nothing is deleted for what can never fit"
    short.refresh_from_db()
    assert short.state == Job.State.DONE


@pytest.mark.parametrize("keep_free", [0, 1], ids=["all of the disk", "but a megabyte"])
def test_a_disk_that_fills_up_meanwhile_has_the_job_wait_until_there_is_room(
    site_on_it: Path,
    site_settings: Settings,
    tmp_path: Path,
    engine: EngineProcess,
    keep_free: int,
) -> None:
    resize(site_on_it, f"{6 + 5 * keep_free}m")
    site_settings.MIN_FREE_DISK_MB = keep_free
    job = submitted(sounds.wav(tmp_path / "s.wav", sounds.music(3.0)))
    running = leases.claim()
    assert running is not None
    other = site_on_it / "of another program"
    left = disk_space.left() - disk_space.room(site_on_it).margin
    other.write_bytes(bytes(left - 500_000))
    Slot(engine, 1, threading.Event()).run(running)
    job.refresh_from_db()
    assert (job.state, job.attempt) == (Job.State.QUEUED, 0)
    assert job.timeline.latest("pk").detail["error"] == "disk_full"
    assert shutil.disk_usage(site_on_it).free >= keep_free * 1_000_000
    assert set(files(site_on_it)) == {other, job.upload.path}
    assert leases.claim() is None
    assert "as soon as there is room on the disk" in present_song(job).waiting
    other.unlink()
    rested(job)
    assert run(engine).state == Job.State.DONE


def rested(job: Job) -> None:
    """As if the pause after a run that met a full disk were over."""
    Job.objects.filter(pk=job.pk).update(not_before=timezone.now() - timedelta(seconds=1))


def meets_a_full_disk(job: Job) -> Job:
    running = leases.claim()
    assert running is not None
    assert running.pk == job.pk
    leases.end_with(running, Fault("disk_full"))
    job.refresh_from_db()
    return job


def test_a_run_that_meets_a_full_disk_again_and_again_waits_and_does_not_spin(
    site_settings: Settings, tmp_path: Path
) -> None:
    """However often somebody fills the disk, it is no attempt; the pauses grow up to an hour."""
    job = submitted(sounds.wav(tmp_path / "s.wav", sounds.music(0.5)))
    pauses = []
    for hours in (0, 0, 0.25, 0.5, 1, 12, 23.9):
        if job.room_lacks_since is not None:
            since = timezone.now() - timedelta(hours=hours)
            Job.objects.filter(pk=job.pk).update(room_lacks_since=since)
        meets_a_full_disk(job)
        assert (job.state, job.stage, job.attempt) == (Job.State.QUEUED, Job.Stage.DISK, 0)
        assert leases.claim() is None, "the disk has room, but it is tried later"
        assert job.not_before is not None
        pauses.append((job.not_before - timezone.now()).total_seconds())
        rested(job)
    assert pauses == pytest.approx([30, 30, 900, 1800, 3600, 3600, 3600], abs=5)
    Job.objects.filter(pk=job.pk).update(room_lacks_since=timezone.now() - timedelta(days=1.1))
    meets_a_full_disk(job)
    assert (job.state, job.error_code) == (Job.State.FAILED, "disk_full")
    assert lifecycle.retry(job)
    job.refresh_from_db()
    assert (job.room_lacks_since, job.not_before) == (None, None)


def test_a_job_that_rests_holds_up_no_other_but_those_with_its_result(
    site_settings: Settings, tmp_path: Path
) -> None:
    song = sounds.wav(tmp_path / "s.wav", sounds.music(0.5))
    job = meets_a_full_disk(submitted(song))
    same = lifecycle.submit(job.upload, Options(model="tiny"), Owner(visitor="b" * 32))
    assert same.result_key == job.result_key
    assert leases.claim() is None
    other = submitted(sounds.wav(tmp_path / "o.wav", sounds.music(0.6)))
    claimed = leases.claim()
    assert claimed is not None
    assert claimed.pk == other.pk


def test_a_result_that_a_full_disk_keeps_from_being_recorded_is_no_attempt(
    site_settings: Settings, tmp_path: Path, engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> bool:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(leases, "finish", full)
    monkeypatch.setattr(slots, "SAVE_SECONDS", 0.0)
    submitted(sounds.wav(tmp_path / "s.wav", sounds.music(0.5)))
    job = run(engine)
    assert (job.state, job.stage, job.attempt) == (Job.State.QUEUED, Job.Stage.DISK, 0)


def test_a_job_that_waits_for_room_holds_up_no_smaller_one_and_does_not_wait_for_ever(
    site_on_it: Path, tmp_path: Path, engine: EngineProcess
) -> None:
    resize(site_on_it, "6m")
    long = submitted(sounds.wav(tmp_path / "l.wav", sounds.music(3.0)))
    other = site_on_it / "of another program"
    other.write_bytes(bytes(3_000_000))
    short = submitted(sounds.wav(tmp_path / "s.wav", sounds.music(0.5)))
    assert run(engine).pk == short.pk
    long.refresh_from_db()
    assert (long.state, long.stage) == (Job.State.QUEUED, Job.Stage.DISK)
    long_ago = timezone.now() - timedelta(days=1.1)
    Job.objects.filter(pk=long.pk).update(queued_at=long_ago, room_lacks_since=None)
    assert leases.claim() is None
    long.refresh_from_db()
    assert long.state == Job.State.QUEUED, "a long wait for its turn is none for room"
    Job.objects.filter(pk=long.pk).update(room_lacks_since=long_ago)
    assert leases.claim() is None
    long.refresh_from_db()
    assert (long.state, long.error_code) == (Job.State.FAILED, "disk_full")


def test_many_songs_that_the_disk_has_no_room_for_hold_up_no_short_one(
    site_on_it: Path, tmp_path: Path
) -> None:
    resize(site_on_it, "6m")
    upload = submitted(sounds.wav(tmp_path / "l.wav", sounds.music(3.0))).upload
    for number in range(candidates.SKIPPED + 10):
        lifecycle.submit(
            upload, Options(model="tiny", overlap=number / 100), Owner(f"{number:032x}")
        )
    (site_on_it / "of another program").write_bytes(bytes(3_000_000))
    short = submitted(sounds.wav(tmp_path / "s.wav", sounds.music(0.5)))
    claimed = leases.claim()
    assert claimed is not None
    assert claimed.pk == short.pk


def test_a_song_is_not_begun_where_another_that_runs_still_needs_the_room(
    site_on_it: Path, tmp_path: Path
) -> None:
    resize(site_on_it, "8m")
    submitted(sounds.wav(tmp_path / "a.wav", sounds.music(3.0)))
    submitted(sounds.wav(tmp_path / "b.wav", sounds.music(3.1)))
    assert leases.claim() is not None
    assert leases.claim() is None
    resize(site_on_it, "20m")
    assert leases.claim() is not None


def test_stems_are_whole_or_refused_at_every_size_around_a_full_disk(small_disk: Path) -> None:
    """Also when the last piece alone does not fit, which is written while the file is closed."""
    song = sounds.music(12.0)
    path = small_disk / "stem.flac"
    outcomes = set()
    for frames in range(11 * sounds.RATE, 12 * sounds.RATE, 2_000):
        for file in small_disk.iterdir():
            file.unlink()
        writer = StemWriter(path)
        try:
            writer.write(song[:, :frames])
            writer.finish()
        except OSError:
            outcomes.add("refused")
        else:
            outcomes.add("whole")
            assert sum(len(block) for block in read_stem(path)) == frames
        finally:
            writer.close()
    assert outcomes == {"whole", "refused"}


def test_an_upload_to_a_full_disk_is_refused_in_words(site_on_it: Path, visitor: Client) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    answer = visitor.post("/", {"file": SimpleUploadedFile("a.wav", noise), "model": "tiny"})
    assert answer.status_code == 507
    assert "disk of this site is full" in answer.content.decode()
    assert files(site_on_it) == []
    assert not Upload.objects.exists()


def test_a_song_is_kept_though_the_next_one_cannot_be_opened(
    visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    make = incoming_uploads.IncomingFile

    def once(client: str, name: str, *args: Any) -> incoming_uploads.IncomingFile:
        opened.append(name)
        if len(opened) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return make(client, name, *args)

    monkeypatch.setattr(incoming_uploads, "IncomingFile", once)
    song = io.BytesIO()
    soundfile.write(song, sounds.music(1.0).T, sounds.RATE, format="WAV")
    files = [SimpleUploadedFile(name, song.getvalue()) for name in ("a.wav", "b.wav")]
    answer = visitor.post("/", {"file": files, "model": "tiny", "stems": "all"})
    assert answer.status_code == 507
    assert [(upload.file_name, upload.is_kept) for upload in Upload.objects.all()] == [
        ("a.wav", True)
    ]


def test_a_limit_on_file_sizes_fails_the_job_in_words(
    site_settings: Settings, tmp_path: Path, small_store: Path
) -> None:
    """The kernel's own limit, which needs no rights."""
    source = sounds.wav(tmp_path / "s.wav", sounds.music(30.0))
    with EngineProcess() as engine:
        warm = request_for(
            sounds.wav(tmp_path / "w.wav", sounds.music(1.0)), tmp_path / "w", small_store
        )
        list(engine.run(warm, 60.0))
        psutil.Process(engine.pid).rlimit(psutil.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(Fault, match="storage"):
            list(engine.run(request_for(source, tmp_path / "t", small_store), 60.0))


def test_a_folder_that_takes_no_files_fails_the_job_in_words(
    site_settings: Settings,
    tmp_path: Path,
    engine: EngineProcess,
    read_only: Callable[[Path], None],
) -> None:
    submitted(sounds.wav(tmp_path / "s.wav", sounds.music(1.0)))
    read_only(site_settings.RESULT_DIR)
    job = run(engine)
    assert (job.state, job.error_code) == (Job.State.FAILED, "storage")
    assert "could not be saved" in present_song(job).error
    assert files(site_settings.STAGING_DIR) == []


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Make a folder refuse new files, root's too."""
    done: list[Path] = []

    def refuse(folder: Path) -> None:
        done.append(folder)
        if os.geteuid() != 0:
            folder.chmod(0o500)
            return
        for options in ("bind", "remount,bind,ro"):
            mount = ["mount", "-o", options, str(folder), str(folder)]
            if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
                pytest.skip("nothing can be mounted here")

    yield refuse
    for folder in done:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        else:
            folder.chmod(0o700)
