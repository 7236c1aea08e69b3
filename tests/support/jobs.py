"""Jobs for tests: a song that was sent, its claim, its stems, a finished song of a visitor."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from separations.audio.store.stem_file import StemWriter
from separations.engine.options import MIXTURE, Options
from separations.engine.process.engine_protocol import Done, StemFile
from separations.jobs import lifecycle
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.worker import leases
from tests.support import sounds

ANNA, BERT = Owner(visitor="a" * 32), Owner(visitor="b" * 32)
VISITOR = "a" * 32
NAMES = ("drums", "bass", "other", "vocals")
Submit = Callable[..., Job]
FIRST_STEMS: list[tuple[Done, dict[str, bytes]]] = []


@pytest.fixture
def upload(site_settings: Settings, tmp_path: Path) -> Upload:
    return song_files.accept_path(sounds.wav(tmp_path / "s.wav", sounds.music(1.0)), "My_song.wav")


@pytest.fixture
def submit(upload: Upload) -> Submit:
    def make(owner: Owner = ANNA, **options: object) -> Job:
        return lifecycle.submit(upload, Options(**{"model": "tiny", **options}), owner)  # type: ignore[arg-type]

    return make


def claimed() -> Job:
    job = leases.claim()
    assert job is not None
    return job


def rested(job: Job) -> None:
    """As if the pause after the last attempt were over."""
    Job.objects.filter(pk=job.pk).update(not_before=timezone.now() - timedelta(seconds=1))


def made(job: Job) -> tuple[Done, Path]:
    """Stems for a claimed job in a staging folder, as the engine leaves them."""
    assert job.lease is not None
    staging = job.staging_folder
    staging.mkdir()
    for name in (MIXTURE, *NAMES):
        writer = StemWriter(staging / f"{name}.flac")
        writer.write(sounds.music(1.0))
        writer.finish()
    stems = [StemFile(name, 0.5, -20.0) for name in NAMES]
    mixture = StemFile(MIXTURE, 0.75, -14.0)
    return Done(44_100, stems, mixture, 900_000_000, "torch float32"), staging


def fall_silent(job: Job, seconds: float = 3600) -> None:
    """Let the last heartbeat of a job be some time ago."""
    then = timezone.now() - timedelta(seconds=seconds)
    Job.objects.filter(pk=job.pk).update(heartbeat_at=then)


def finished(job: Job) -> Job:
    running = claimed()
    assert running.pk == job.pk
    assert leases.finish(running, *made(running))
    job.refresh_from_db()
    return job


def done(title: str, visitor: str) -> Job:
    upload = Upload.objects.create(
        file_name="ours.wav",
        title=title,
        bytes=1,
        seconds=1.0,
        container="wav",
        codec="pcm_s16le",
        sample_rate=44_100,
        channels=2,
        file_sha256=sha256(title.encode()).hexdigest(),
        samples_sha256=sha256(title.encode()).hexdigest(),
    )
    upload.path.write_bytes(b"x")
    lifecycle.submit(upload, Options(model="tiny"), Owner(visitor))
    running = leases.claim()
    assert running is not None
    assert leases.finish(running, *stems_for(running))
    return running


def stems_for(job: Job) -> tuple[Done, Path]:
    """As `made`, but the files are copies of the first ones: here all songs may sound alike."""
    if not FIRST_STEMS:
        what, staging = made(job)
        FIRST_STEMS.append((what, {file.name: file.read_bytes() for file in staging.iterdir()}))
        return what, staging
    what, files = FIRST_STEMS[0]
    job.staging_folder.mkdir()
    for name, content in files.items():
        (job.staging_folder / name).write_bytes(content)
    return what, job.staging_folder
