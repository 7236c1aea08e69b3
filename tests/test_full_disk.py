"""A disk that is full, or takes no files: said clearly, nothing half-written left, and on it goes.

On a real file system of two megabytes where one can be mounted; the rest needs no rights.
"""

import errno
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.test import Client
from pytest_django import Settings

from separations import jobs, leases, uploads
from separations.audio.stems import StemWriter, read_stem
from separations.engine.host import EngineProcess
from separations.engine.options import Options
from separations.faults import Fault
from separations.models import Job, Owner, Upload
from separations.pages import job_view
from separations.runner import Slot
from tests import sounds
from tests.test_engine_process import request_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ANNA = Owner(visitor="a" * 32)
FOLDERS = ("UPLOAD_DIR", "RESULT_DIR", "STAGING_DIR", "RENDITION_DIR", "FILE_UPLOAD_TEMP_DIR")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def site_on_it(site_settings: Settings, small_disk: Path) -> Path:
    for name in FOLDERS:
        folder = small_disk / name.lower()
        folder.mkdir()
        setattr(site_settings, name, folder)
    return small_disk


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
    return jobs.submit(uploads.accept_path(source, source.name), Options(model="tiny"), ANNA)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_separation_on_a_full_disk_fails_and_the_next_one_works(
    site_on_it: Path, tmp_path: Path, engine: EngineProcess
) -> None:
    long = sounds.encode(tmp_path / "long.flac", sounds.sine(20.0, sounds.RATE), "flac")
    submitted(long)
    job = run(engine)
    assert (job.state, job.error_code) == (Job.State.FAILED, "disk_full")
    assert "disk of this site is full" in job_view(job).error
    assert files(site_on_it) == [job.upload.path]
    assert not job.stems.exists()
    short = submitted(sounds.wav(tmp_path / "short.wav", sounds.music(0.5)))
    assert run(engine).pk == short.pk
    short.refresh_from_db()
    assert short.state == Job.State.DONE


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
    new_file = TemporaryFileUploadHandler.new_file

    def once(handler: TemporaryFileUploadHandler, *args: Any, **kwargs: Any) -> None:
        opened.append(handler)
        if len(opened) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        new_file(handler, *args, **kwargs)

    monkeypatch.setattr(TemporaryFileUploadHandler, "new_file", once)
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
    assert "could not be saved" in job_view(job).error
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
