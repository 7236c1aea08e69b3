"""A model check: many actors do what they may to the same jobs, in any order hypothesis thinks of.

Runners claim, report, finish, fail, hand back and fall silent; some of them come too late. Owners
send the same song again, cancel, retry and delete; the clean-up runs in between. After every step
the rows and the files must make sense; at the end everything must come to its end.
"""

import logging
import os
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as site
from django.db.models import Count
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_django import Settings

from separations import jobs, leases, results, retention
from separations.audio.stems import exponents_of
from separations.engine.messages import Done, Progress, StemFile
from separations.engine.options import Options
from separations.faults import Fault
from separations.models import Job, Owner, Stem, Upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
State = Job.State
OWNERS = [Owner(visitor=letter * 32) for letter in "abc"]
NAMES = ("drums", "bass", "other", "vocals")
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "60"))
which = st.integers(0, 1_000_000)


class JobsAndActors(RuleBasedStateMachine):
    """`runs` holds every job as its runner got it, also those whose lease is long gone."""

    @initialize()
    def empty_site(self) -> None:
        Job.objects.all().delete()
        Upload.objects.all().delete()
        retention.clean()
        self.runs: list[Job] = []
        self.finished: Counter[str] = Counter()
        self.deleted: set[uuid.UUID] = set()

    def _job(self, number: int) -> Job | None:
        found = list(Job.objects.order_by("created_at"))
        return found[number % len(found)] if found else None

    def _run(self, number: int) -> Job:
        return self.runs[number % len(self.runs)]

    # Owners

    @rule(song=st.integers(0, 1), owner=st.sampled_from(OWNERS), shifts=st.integers(0, 1))
    def submit(self, song: int, owner: Owner, shifts: int) -> None:
        upload = Upload.objects.create(
            title=f"song {song}",
            file_name="song.wav",
            bytes=4,
            seconds=1.0,
            sample_rate=44_100,
            channels=2,
            samples_sha256=f"{song:064x}",
        )
        upload.path.write_bytes(b"song")
        job = jobs.submit(upload, Options(model="tiny", shifts=shifts), owner)
        assert job.state in (State.QUEUED, State.DONE)

    @rule(number=which)
    def cancel(self, number: int) -> None:
        if job := self._job(number):
            was_active = job.is_active
            assert jobs.cancel(job) == was_active

    @rule(number=which)
    def retry(self, number: int) -> None:
        if job := self._job(number):
            may = job.state in (State.FAILED, State.CANCELLED)
            if job.upload.is_kept:
                assert jobs.retry(job) == may
            else:
                with pytest.raises(Fault, match="upload_gone"):
                    jobs.retry(job)

    @rule(number=which)
    def delete(self, number: int) -> None:
        if job := self._job(number):
            jobs.remove(job)
            self.deleted.add(job.pk)

    @rule(number=which)
    def raise_priority(self, number: int) -> None:
        if job := self._job(number):
            jobs.prioritise(Job.objects.filter(pk=job.pk), jobs.FIRST)

    # Runners

    @rule()
    def claim(self) -> None:
        if (job := leases.claim()) is not None:
            assert job.attempt <= site.MAX_ATTEMPTS
            self.runs.append(job)

    @precondition(lambda self: self.runs)
    @rule(number=which, fraction=st.floats(0, 1))
    def report(self, number: int, fraction: float) -> None:
        run = self._run(number)
        assert leases.heartbeat(run, Progress("separate", fraction, 1.0)) == _is_held(run)

    @precondition(lambda self: self.runs)
    @rule(number=which)
    def finish(self, number: int) -> None:
        run = self._run(number)
        held = _is_held(run)
        staging = site.STAGING_DIR / f"{run.pk.hex}-{uuid.uuid4().hex}"
        staging.mkdir()
        for name in NAMES:
            stem = staging / f"{name}.flac"
            stem.write_bytes(run.result_key.encode())
            exponents_of(stem).write_bytes(b"\0")
        done = Done(44_100, [StemFile(name, 0.5) for name in NAMES], 10**9)
        was_there = run.result_folder.exists()
        assert leases.finish(run, done, staging) == held
        assert run.result_folder.exists() or not held
        if not held:
            assert run.result_folder.exists() == was_there, "a late runner published"
            assert staging.exists()
        assert run.lease is not None
        self.finished[run.lease.hex] += held

    @precondition(lambda self: self.runs)
    @rule(
        number=which,
        code=st.sampled_from(["engine_died", "out_of_memory", "timed_out", "upload_gone"]),
    )
    def fail(self, number: int, code: str) -> None:
        leases.end_with(self._run(number), Fault(code))
        assert not _is_held(self._run(number))

    @precondition(lambda self: self.runs)
    @rule(number=which)
    def hand_back(self, number: int) -> None:
        run = self._run(number)
        held = Job.objects.held(run.lease).first()
        assert leases.hand_back(run, counts=False) == (held is not None)
        if held is not None:
            assert Job.objects.get(pk=held.pk).attempt == held.attempt - 1

    @precondition(lambda self: self.runs)
    @rule(number=which)
    def fall_silent(self, number: int) -> None:
        long_ago = timezone.now() - timedelta(seconds=site.LEASE_SECONDS + 1)
        Job.objects.held(self._run(number).lease).update(heartbeat_at=long_ago)

    @rule()
    def recover(self) -> None:
        silent = Job.objects.stalled().count()
        assert leases.recover() == silent
        assert not Job.objects.stalled().exists()

    # Housekeeping

    @rule()
    def clean(self) -> None:
        before = set(Job.objects.served().values_list("pk", flat=True))
        retention.clean()
        assert before == set(Job.objects.served().values_list("pk", flat=True))

    @rule(number=which)
    def expire(self, number: int) -> None:
        if job := self._job(number):
            long_ago = timezone.now() - timedelta(hours=site.KEEP_RESULTS_HOURS + 1)
            Job.objects.with_result(job.result_key).update(used_at=long_ago)
            was_served = Job.objects.with_result(job.result_key).exists()
            retention.clean()
            assert not Job.objects.with_result(job.result_key).exists()
            running = Job.objects.running().filter(result_key=job.result_key).exists()
            assert not (was_served and job.result_folder.exists()) or running

    # What always holds

    @invariant()
    def every_result_is_made_by_one(self) -> None:
        if hasattr(self, "runs"):
            keys = Job.objects.running().values("result_key").annotate(runs=Count("pk"))
            assert all(row["runs"] == 1 for row in keys)
            assert all(count <= 1 for count in self.finished.values())

    @invariant()
    def what_is_done_has_its_stems(self) -> None:
        for job in Job.objects.served().prefetch_related("stems"):
            assert results.is_whole(job)
            assert [stem.name for stem in job.stems.all()] == list(NAMES)
            for stem in job.stems.all():
                assert stem.path.read_bytes() == job.result_key.encode()

    @invariant()
    def nothing_else_has_stems(self) -> None:
        assert not Stem.objects.exclude(job__state=State.DONE).exists()

    @invariant()
    def songs_are_there_as_long_as_they_are_needed(self) -> None:
        for job in Job.objects.active().select_related("upload"):
            assert job.upload.is_kept

    @invariant()
    def what_was_deleted_stays_so(self) -> None:
        if hasattr(self, "runs"):
            assert not Job.objects.filter(pk__in=self.deleted).exists()

    def teardown(self) -> None:
        """Whatever happened: everything comes to its end, and then nothing is left."""
        if not hasattr(self, "runs"):
            return
        Job.objects.running().update(heartbeat_at=timezone.now() - timedelta(hours=1))
        leases.recover()
        for _ in range(3 * Job.objects.count() + 1):
            self.claim()
            for number in range(len(self.runs)):
                self.finish(number)
        assert not Job.objects.active().exists()
        for job in Job.objects.all():
            jobs.remove(job)
        retention.clean()
        assert not Upload.objects.exists()
        assert _files() == []


def _is_held(run: Job) -> bool:
    return Job.objects.held(run.lease).exists()


def _files() -> list[Path]:
    folders = (site.UPLOAD_DIR, site.RESULT_DIR, site.STAGING_DIR, site.RENDITION_DIR)
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_jobs_make_sense_whatever_happens(settings: Settings) -> None:
    logging.disable(logging.CRITICAL)
    try:
        run_state_machine_as_test(JobsAndActors, settings=_thorough())
    finally:
        logging.disable(logging.NOTSET)


def _thorough() -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        derandomize="FAULTS_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
