"""The life of a job: who may change what, and what happens when two try."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError
from django.utils import timezone
from pytest_django import Settings

from separations import jobs, leases, results, uploads
from separations.audio.stems import StemWriter
from separations.engine.messages import Done, Progress, StemFile
from separations.engine.options import Options
from separations.faults import Fault
from separations.models import Job, Owner, Upload
from tests import sounds

State = Job.State
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue")]
ANNA, BERT = Owner(visitor="a" * 32), Owner(visitor="b" * 32)
NAMES = ("drums", "bass", "other", "vocals")
Submit = Callable[..., Job]


@pytest.fixture
def upload(site_settings: Settings, tmp_path: Path) -> Upload:
    return uploads.accept_path(sounds.wav(tmp_path / "s.wav", sounds.music(1.0)), "My_song.wav")


@pytest.fixture
def submit(upload: Upload) -> Submit:
    def make(owner: Owner = ANNA, **options: object) -> Job:
        return jobs.submit(upload, Options(**{"model": "tiny", **options}), owner)  # type: ignore[arg-type]

    return make


def claimed() -> Job:
    job = leases.claim()
    assert job is not None
    return job


def made(job: Job) -> tuple[Done, Path]:
    """Stems for a claimed job in a staging folder, as the engine leaves them."""
    from django.conf import settings

    assert job.lease is not None
    staging = settings.STAGING_DIR / f"{job.pk.hex}-{job.lease.hex}"
    staging.mkdir()
    for name in NAMES:
        writer = StemWriter(staging / f"{name}.flac")
        writer.write(sounds.music(1.0))
        writer.finish()
    return Done(44_100, [StemFile(name, 0.5) for name in NAMES], 900_000_000), staging


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


def test_a_job_goes_from_queue_to_stems(submit: Submit) -> None:
    job = submit()
    assert (job.state, job.progress, job.attempt) == (State.QUEUED, 0.0, 0)
    running = claimed()
    assert (running.state, running.attempt) == (State.RUNNING, 1)
    assert leases.heartbeat(running, Progress("separate", 0.5, 12.0))
    job.refresh_from_db()
    assert (job.stage, job.percent, job.remaining) == ("separate", 50, 12.0)
    assert leases.finish(running, *made(running))
    job.refresh_from_db()
    assert (job.state, job.percent, job.lease) == (State.DONE, 100, None)
    assert [stem.name for stem in job.stems.all()] == list(NAMES)
    assert all(stem.path.is_file() for stem in job.stems.all())


def test_jobs_are_taken_in_order_and_by_priority(submit: Submit) -> None:
    first, second, urgent = submit(), submit(shifts=1), submit(shifts=2)
    Job.objects.filter(pk=urgent.pk).update(priority=5)
    urgent.refresh_from_db()
    assert Job.objects.ahead_of(second).count() == 2
    assert Job.objects.ahead_of(urgent).count() == 0
    assert [claimed().pk for _ in range(3)] == [urgent.pk, first.pk, second.pk]
    assert leases.claim() is None


def test_a_job_taken_by_another_runner_meanwhile_is_not_taken_twice(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    looked_at = type(Job.objects.waiting()).first

    def first_then_lost(queue: object) -> Job | None:
        found: Job | None = looked_at(queue)  # type: ignore[arg-type]
        monkeypatch.undo()
        # A runner on another machine is quicker.
        Job.objects.filter(pk=job.pk).update(
            state=State.RUNNING, lease=uuid.uuid4(), heartbeat_at=timezone.now(), attempt=1
        )
        return found

    monkeypatch.setattr(type(Job.objects.waiting()), "first", first_then_lost)
    assert leases.claim() is None
    job.refresh_from_db()
    assert job.attempt == 1


@pytest.mark.parametrize("act", ["heartbeat", "finish", "fail", "hand_back"])
def test_who_lost_the_lease_changes_nothing(submit: Submit, act: str) -> None:
    submit()
    late = claimed()
    fall_silent(late)
    leases.recover()
    current = claimed()
    assert current.pk == late.pk
    done, staging = made(late)
    acts = {
        "heartbeat": lambda: leases.heartbeat(late, Progress("separate", 0.9, None)),
        "finish": lambda: leases.finish(late, done, staging),
        "fail": lambda: leases.fail(late, Fault("engine_error", reason="late")),
        "hand_back": lambda: leases.hand_back(late, counts=True),
    }
    assert acts[act]() is False
    after = Job.objects.get(pk=current.pk)
    assert (after.state, after.lease, after.progress) == (State.RUNNING, current.lease, 0.0)
    assert not after.stems.exists()
    assert not after.result_folder.exists(), "nothing is published either"


def test_a_silent_runner_loses_its_job_to_the_queue(submit: Submit, settings: Settings) -> None:
    job = submit()
    running = claimed()
    fall_silent(running, settings.LEASE_SECONDS - 1)
    assert leases.recover() == 0
    fall_silent(running, settings.LEASE_SECONDS + 1)
    assert leases.recover() == 1
    job.refresh_from_db()
    assert (job.state, job.attempt, job.lease) == (State.QUEUED, 1, None)


def test_after_the_last_attempt_it_fails_with_the_reason(
    submit: Submit, settings: Settings
) -> None:
    job = submit()
    for _ in range(settings.MAX_ATTEMPTS):
        fall_silent(claimed())
        assert leases.recover() == 1
    job.refresh_from_db()
    assert (job.state, job.error_code) == (State.FAILED, "lost")
    assert job.error_params == {"attempts": settings.MAX_ATTEMPTS}


def test_a_graceful_stop_is_no_attempt(submit: Submit) -> None:
    job = submit()
    assert leases.hand_back(claimed(), counts=False)
    job.refresh_from_db()
    assert (job.state, job.attempt) == (State.QUEUED, 0)


def test_a_dead_engine_is_tried_again_then_given_up(submit: Submit, settings: Settings) -> None:
    job = submit()
    for attempt in range(1, settings.MAX_ATTEMPTS + 1):
        leases.try_again_or_fail(claimed(), Fault("engine_died", status=-9))
        job.refresh_from_db()
        last = attempt == settings.MAX_ATTEMPTS
        assert job.state == (State.FAILED if last else State.QUEUED)
    assert job.error_code == "engine_died"


def test_cancelling_takes_the_lease_away(submit: Submit) -> None:
    job = submit()
    running = claimed()
    assert jobs.cancel(job)
    assert not leases.heartbeat(running, None)
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert not jobs.cancel(job)


def test_a_failed_job_can_be_tried_again(submit: Submit) -> None:
    job = submit()
    leases.fail(claimed(), Fault("out_of_memory"))
    assert jobs.retry(Job.objects.get(pk=job.pk))
    job.refresh_from_db()
    assert (job.state, job.error_code, job.attempt) == (State.QUEUED, "", 0)
    assert not jobs.retry(job)


def test_a_retry_needs_the_song(submit: Submit) -> None:
    job = submit()
    jobs.cancel(job)
    job.upload.path.unlink()
    with pytest.raises(Fault, match="upload_gone"):
        jobs.retry(job)


def test_the_same_work_is_not_done_twice(submit: Submit, tmp_path: Path) -> None:
    first = finished(submit())
    same = submit(BERT)
    assert (same.state, same.cached, same.result_key) == (State.DONE, True, first.result_key)
    assert [stem.name for stem in same.stems.all()] == list(NAMES)
    other = submit(shifts=1)
    assert other.state == State.QUEUED
    first.stems.all()[0].path.unlink()
    mended = submit(BERT)
    assert mended.state == State.QUEUED, "a result with a missing stem is not handed out"
    Job.objects.filter(pk=other.pk).delete()
    finished(mended)
    assert results.is_whole(mended)
    assert results.is_whole(first)


def test_options_that_change_nothing_share_a_result(submit: Submit) -> None:
    assert submit(threads=1).result_key == submit(threads=2).result_key
    assert submit(stems="vocals").result_key != submit().result_key
    assert submit(model="tiny_6s").result_key != submit().result_key


def test_deleting_leaves_no_file_behind(
    submit: Submit, kept_files: Callable[[], list[Path]]
) -> None:
    job = finished(submit())
    assert len(kept_files()) == 1 + 2 * len(NAMES)
    jobs.remove(job)
    assert kept_files() == []
    assert not Upload.objects.exists()


def test_deleting_keeps_what_another_job_needs(
    submit: Submit, kept_files: Callable[[], list[Path]]
) -> None:
    first = finished(submit())
    second = submit(BERT)
    jobs.remove(first)
    assert all(stem.path.is_file() for stem in second.stems.all())
    assert second.upload.path.is_file()
    jobs.remove(second)
    assert kept_files() == []


def test_a_result_stays_while_another_job_is_about_to_need_it(submit: Submit) -> None:
    first = finished(submit())
    first.stems.all()[0].path.unlink()
    submit(BERT)
    second = claimed()
    done, staging = made(second)
    jobs.remove(first)
    assert leases.finish(second, done, staging)
    assert results.is_whole(Job.objects.get(pk=second.pk))


def test_again_keeps_what_was_not_asked_anew(submit: Submit, upload: Upload) -> None:
    job = submit(shifts=2)
    new = jobs.again(job, replace(Options(), model="tiny_6s"), ANNA)
    assert (new.upload, new.model, new.options["shifts"]) == (upload, "tiny_6s", 2)


def test_a_stale_row_cannot_be_written(submit: Submit) -> None:
    job = submit()
    for bad in (
        {"state": State.RUNNING},
        {"progress": 1.5},
        {"state": State.DONE, "finished_at": timezone.now()},
        {"state": State.FAILED, "finished_at": timezone.now()},
        {"state": State.CANCELLED},
        {"visitor": ""},
    ):
        from django.db import transaction

        with pytest.raises(IntegrityError), transaction.atomic():
            Job.objects.filter(pk=job.pk).update(**bad)


def test_owners_see_their_own(submit: Submit, django_user_model: type) -> None:
    mine = submit(ANNA)
    assert list(Job.objects.visible_to(ANNA)) == [mine]
    assert not Job.objects.visible_to(BERT).exists()
    assert not Job.objects.visible_to(Owner(visitor="")).exists()
    user = django_user_model.objects.create_user("cleo")  # type: ignore[attr-defined]
    own = submit(Owner(visitor="c" * 32, user_id=user.pk), shifts=3)
    assert list(Job.objects.visible_to(Owner("", user.pk))) == [own]
    assert not Job.objects.visible_to(Owner("c" * 32)).exists(), "signed out, it is not shown"
