"""What is deleted when its time is over, what crashes leave behind, and what is never touched."""

import io
import os
import shutil
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from separations.engine.options import Options
from separations.errors.fault import Fault
from separations.jobs import lifecycle, results
from separations.models import Job, Owner, Upload
from separations.uploads import song_files
from separations.worker import leases, retention
from separations.worker.waste import Waste
from tests.support import sounds
from tests.support.jobs import ANNA, BERT, made

State = Job.State
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
Submit = Callable[..., Job]
KeptFiles = Callable[[], list[Path]]


@pytest.fixture
def submit(site_settings: Settings, tmp_path: Path) -> Submit:
    def make(seed: int = 0, owner: Owner = ANNA, **options: Any) -> Job:
        source = sounds.wav(tmp_path / "s.wav", sounds.music(1.0, seed=seed))
        upload = song_files.accept_path(source, f"{seed}.wav")
        return lifecycle.submit(upload, Options(**{"model": "tiny", **options}), owner)

    return make


@pytest.fixture
def done(submit: Submit) -> Submit:
    def make(seed: int = 0, owner: Owner = ANNA, hours: float = 0, **options: Any) -> Job:
        """A job that was done, and last used, some hours ago."""
        job = submit(seed, owner, **options)
        running = leases.claim()
        assert running is not None
        assert leases.finish(running, *made(running))
        return aged(job, hours)

    return make


def aged(job: Job, hours: float) -> Job:
    then = timezone.now() - timedelta(hours=hours)
    Job.objects.filter(pk=job.pk).update(finished_at=then, used_at=then)
    job.refresh_from_db()
    return job


def old(path: Path) -> Path:
    """Let a file be two hours old."""
    then = timezone.now().timestamp() - 7200
    os.utime(path, (then, then))
    return path


def kinds(waste: list[Waste]) -> list[str]:
    return sorted(each.kind for each in waste)


def test_a_song_goes_an_hour_after_its_job_and_its_stems_stay(done: Submit) -> None:
    job = done(hours=0.9)
    assert retention.clean() == []
    aged(job, 1.1)
    assert kinds(retention.clean()) == ["song"]
    assert not job.upload.is_kept
    assert results.is_whole(job)
    assert Upload.objects.filter(pk=job.upload_id).exists()
    with pytest.raises(Fault, match="upload_gone"):
        lifecycle.again(job, Options(model="tiny_6s"), ANNA)


def test_a_song_that_waits_or_runs_is_kept(submit: Submit, done: Submit) -> None:
    ended = done(hours=200)
    waiting = lifecycle.again(ended, Options(model="tiny_6s"), ANNA)
    retention.clean()
    assert waiting.upload.is_kept
    assert leases.claim() is not None
    retention.clean()
    assert waiting.upload.is_kept


def test_what_is_used_again_since_it_was_looked_at_is_kept(done: Submit) -> None:
    job = done(hours=100)
    (song,) = (waste for waste in retention.clean(dry_run=True) if waste.kind == "song")
    waiting = lifecycle.again(job, Options(model="tiny_6s"), ANNA)
    song.remove()
    assert waiting.upload.is_kept


def test_stems_go_three_days_after_their_last_use(done: Submit, visitor: Client) -> None:
    job = done(hours=71)
    assert kinds(retention.clean()) == ["song"]
    aged(job, 73)
    assert kinds(retention.clean()) == ["result"]
    assert not job.result_folder.exists()
    job.refresh_from_db()
    assert (job.state, job.is_expired) == (State.DONE, True)
    assert retention.clean() == []


def test_who_uses_stems_keeps_them(done: Submit, visitor: Client) -> None:
    job = done(hours=100)
    session = visitor.session
    session["visitor"] = ANNA.visitor
    session.save()
    answer = visitor.get(f"/songs/{job.pk}/stems/vocals", headers={"Range": "bytes=0-99"})
    assert sum(map(len, answer)) == 100
    assert "result" not in kinds(retention.clean())
    assert results.is_whole(job)


def test_stems_shared_by_two_stay_as_long_as_one_uses_them(done: Submit, submit: Submit) -> None:
    first = done(hours=100)
    second = submit(owner=BERT)
    assert second.cached
    assert "result" not in kinds(retention.clean())
    aged(second, 90)
    assert kinds(retention.clean()) == ["result", "song"]
    for job in (first, second):
        job.refresh_from_db()
        assert job.is_expired


def test_stems_that_are_gone_are_made_anew(done: Submit, submit: Submit, visitor: Client) -> None:
    job = done(hours=100)
    retention.clean()
    session = visitor.session
    session["visitor"] = ANNA.visitor
    session.save()
    page = visitor.get(f"/songs/{job.pk}").content.decode()
    assert "The stems are no longer kept here." in page
    assert "<audio" not in page
    assert "upload it once more" in page
    assert visitor.get(f"/songs/{job.pk}/stems/vocals").status_code == 410
    assert visitor.get(f"/songs/{job.pk}/archive").status_code == 410
    assert "The stems are no longer kept here." in visitor.get("/").content.decode()
    assert submit().state == State.QUEUED


def test_a_result_that_is_being_made_again_is_kept(done: Submit, submit: Submit) -> None:
    job = done(hours=100)
    shutil.rmtree(job.result_folder)
    submit(owner=BERT)
    running = leases.claim()
    assert running is not None
    assert leases.finish(running, *made(running))
    kept = Job.objects.get(pk=running.pk)
    retention.clean()
    assert results.is_whole(kept)


def test_a_result_that_lost_files_is_served_no_more(done: Submit, submit: Submit) -> None:
    job = done()
    job.stems.all()[2].path.unlink()
    assert kinds(retention.clean()) == ["broken result"]
    job.refresh_from_db()
    assert job.is_expired
    assert not job.result_folder.exists()


def test_what_crashes_leave_behind(
    submit: Submit, site_settings: Settings, kept_files: KeptFiles
) -> None:
    submit()
    running = leases.claim()
    assert running is not None
    _done, staging = made(running)
    orphans = [
        site_settings.STAGING_DIR / uuid.uuid4().hex / "mixture.f32",
        site_settings.STAGING_DIR / f"doomed-{uuid.uuid4().hex}" / "drums.flac",
        site_settings.RESULT_DIR / "ab" / ("ab" * 32) / "drums.flac",
        site_settings.RENDITION_DIR / uuid.uuid4().hex / "drums.mp3",
        site_settings.UPLOAD_DIR / uuid.uuid4().hex,
        site_settings.FILE_UPLOAD_TEMP_DIR / "tmpabc.upload.mp3",
    ]
    fresh = [
        site_settings.UPLOAD_DIR / uuid.uuid4().hex,
        site_settings.FILE_UPLOAD_TEMP_DIR / "tmpdef.upload.mp3",
    ]
    for path in (*orphans, *fresh):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    for path in orphans[4:]:
        old(path)
    told = retention.clean(dry_run=True)
    assert all(path.exists() for path in orphans), "told, not deleted"
    assert sum(waste.bytes for waste in told) == 6000
    assert kinds(retention.clean()) == kinds(told)
    assert retention.clean() == []
    assert not any(path.exists() for path in orphans)
    assert all(path.exists() for path in fresh), "they may be on their way in"
    assert staging.exists(), "somebody works there"
    assert set(kept_files()) == {running.upload.path, *fresh, *staging.iterdir()}


def test_a_record_without_a_job_goes(site_settings: Settings, tmp_path: Path) -> None:
    source = sounds.wav(tmp_path / "s.wav", sounds.music(1.0))
    upload = song_files.accept_path(source, "s.wav")
    assert retention.clean() == []
    Upload.objects.update(created_at=timezone.now() - timedelta(hours=2))
    assert kinds(retention.clean()) == ["song without a job"]
    assert not Upload.objects.exists()
    assert not upload.is_kept


def test_records_and_sessions_go_in_the_end(done: Submit, settings: Settings) -> None:
    job, kept = done(hours=24 * 91), done(hours=24 * 91, seed=2)
    expired = timezone.now() - timedelta(days=91)
    Job.objects.filter(pk=job.pk).update(expired_at=expired)
    failed = done(seed=1)
    Job.objects.filter(pk=failed.pk).update(
        state=State.FAILED, error_code="lost", finished_at=timezone.now() - timedelta(days=100)
    )
    session = SessionStore()
    session.set_expiry(-1)
    session.save()
    found = kinds(retention.clean())
    assert found.count("job") == 2
    assert found.count("sessions") == 1
    assert not Job.objects.filter(pk__in=[job.pk, failed.pk]).exists()
    assert Upload.objects.get() == kept.upload, "its stems went just now, and that is to be told"
    assert not Session.objects.exists()


def test_over_the_cap_the_least_lately_used_go_first(
    done: Submit, settings: Settings, kept_files: KeptFiles
) -> None:
    oldest, older, used = done(0, hours=50), done(1, hours=30), done(2)
    retention.clean()  # the songs are over their time anyway
    whole = sum(path.stat().st_size for path in kept_files())
    settings.MAX_STORAGE_GB = (whole - 1) / 1e9
    assert kinds(retention.clean(dry_run=True)) == ["result"]
    assert kinds(retention.clean()) == ["result"]
    for job in (oldest, older, used):
        job.refresh_from_db()
    assert [job.is_expired for job in (oldest, older, used)] == [True, False, False]
    settings.MAX_STORAGE_GB = 1 / 1e9
    retention.clean()
    used.refresh_from_db()
    assert not used.is_expired, "what is in use stays, whatever the cap"
    assert used.upload.is_kept


def test_one_clean_up_at_a_time(site_settings: Settings) -> None:
    from filelock import FileLock

    old_file = site_settings.FILE_UPLOAD_TEMP_DIR / "tmpabc.upload.mp3"
    old_file.write_bytes(b"x")
    old(old_file)
    lock = FileLock(site_settings.DATA_DIR / "clean.lock")
    with lock, pytest.raises(CommandError, match="at work already"):
        call_command("clean")
    assert len(retention.clean()) == 1


def test_the_command_tells_before_it_deletes(done: Submit) -> None:
    job = done(hours=100)
    said = io.StringIO()
    call_command("clean", dry_run=True, stdout=said)
    assert f"result: {job.result_key}" in said.getvalue()
    assert "2 things would be deleted" in said.getvalue()
    assert results.is_whole(job)
    said = io.StringIO()
    call_command("clean", stdout=said)
    assert "2 things were deleted" in said.getvalue()
    assert not job.result_folder.exists()
