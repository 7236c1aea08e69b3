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
from itertools import pairwise
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
    rule,
    run_state_machine_as_test,
)

from separations.audio.store.stem_file import exponents_of
from separations.engine.options import Options
from separations.engine.process.engine_protocol import Done, Progress, StemFile
from separations.errors.fault import Fault
from separations.jobs import fair_turns, lifecycle, results
from separations.models import Job, Owner, Stem, Upload
from separations.worker import leases, retention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_queue", "site_settings")]
State = Job.State
OWNERS = [Owner(visitor=letter * 32) for letter in "abc"]
NAMES = ("drums", "vocals")
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "8"))
OF_RUNNERS = ("report", "finish", "fail", "hand_back", "fall_silent")
ACTIONS = (
    *(["submit", "claim", "finish"] * 3),
    *("cancel", "retry", "delete", "raise_priority", "recover", "clean", "expire"),
    *OF_RUNNERS,
)


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

    @rule(kind=st.sampled_from(ACTIONS), number=st.integers(0, 11))
    def act(self, kind: str, number: int) -> None:
        """One rule for all: hypothesis leaves out some rules in each of its examples."""
        if self.runs or kind not in OF_RUNNERS:
            getattr(self, kind)(number)

    # Owners

    def submit(self, number: int) -> None:
        song, shifts, owner = number % 2, number // 2 % 2, OWNERS[number // 4]
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
        job = lifecycle.submit(upload, Options(model="tiny", shifts=shifts), owner)
        assert job.state in (State.QUEUED, State.DONE)

    def cancel(self, number: int) -> None:
        if job := self._job(number):
            was_active = job.is_active
            assert lifecycle.cancel(job) == was_active

    def retry(self, number: int) -> None:
        if job := self._job(number):
            may = job.state in (State.FAILED, State.CANCELLED)
            if job.upload.is_kept:
                assert lifecycle.retry(job) == may
            else:
                with pytest.raises(Fault, match="upload_gone"):
                    lifecycle.retry(job)

    def delete(self, number: int) -> None:
        if job := self._job(number):
            lifecycle.remove(job)
            self.deleted.add(job.pk)

    def raise_priority(self, number: int) -> None:
        if job := self._job(number):
            fair_turns.prioritise(Job.objects.filter(pk=job.pk), fair_turns.FIRST)

    # Runners

    def claim(self, _number: int = 0) -> None:
        if (job := leases.claim()) is not None:
            assert job.attempt <= site.MAX_ATTEMPTS
            self.runs.append(job)

    def report(self, number: int) -> None:
        run = self._run(number)
        assert leases.heartbeat(run, Progress("separate", number / 12, 1.0)) == _is_held(run)

    def finish(self, number: int) -> None:
        run = self._run(number)
        held = _is_held(run)
        staging = site.STAGING_DIR / uuid.uuid4().hex
        staging.mkdir()
        for name in NAMES:
            stem = staging / f"{name}.flac"
            stem.write_bytes(run.result_key.encode())
            exponents_of(stem).write_bytes(b"\0")
        stems = [StemFile(name, 0.5, None) for name in NAMES]
        done = Done(44_100, stems, StemFile("mixture", 0.5, None), 10**9, "torch")
        was_there = run.result_folder.exists()
        assert leases.finish(run, done, staging) == held
        assert run.result_folder.exists() or not held
        if not held:
            assert run.result_folder.exists() == was_there, "a late runner published"
            assert staging.exists()
        assert run.lease is not None
        self.finished[run.lease.hex] += held

    def fail(self, number: int) -> None:
        code = ("engine_died", "out_of_memory", "timed_out", "upload_gone", "disk_full")[number % 5]
        leases.end_with(self._run(number), Fault(code))
        assert not _is_held(self._run(number))

    def hand_back(self, number: int) -> None:
        run = self._run(number)
        held = Job.objects.held(run.lease).first()
        assert leases.hand_back(run) == (held is not None)
        if held is not None:
            assert Job.objects.get(pk=held.pk).attempt == held.attempt - 1

    def fall_silent(self, number: int) -> None:
        long_ago = timezone.now() - timedelta(seconds=site.LEASE_SECONDS + 1)
        Job.objects.held(self._run(number).lease).update(heartbeat_at=long_ago)

    def recover(self, _number: int) -> None:
        silent = Job.objects.stalled().count()
        assert leases.recover() == silent
        assert not Job.objects.stalled().exists()

    # Housekeeping

    def clean(self, _number: int) -> None:
        before = set(Job.objects.served().values_list("pk", flat=True))
        retention.clean()
        assert before == set(Job.objects.served().values_list("pk", flat=True))

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
    def every_timeline_ends_where_its_job_is(self) -> None:
        for job in Job.objects.prefetch_related("timeline"):
            lines = list(job.timeline.all())
            assert [lines[0].cause, lines[-1].state] == ["submitted", job.state]
            assert all(a.state != b.state or b.cause == "retried" for a, b in pairwise(lines))

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
        for stem in Stem.objects.filter(job__expired_at=None).select_related("job"):
            assert stem.path.read_bytes() == stem.job.result_key.encode()
        for job in Job.objects.all():
            lifecycle.remove(job)
        retention.clean()
        assert not Upload.objects.exists()
        assert _files() == []


def _is_held(run: Job) -> bool:
    return Job.objects.held(run.lease).exists()


def _files() -> list[Path]:
    folders = (site.UPLOAD_DIR, site.RESULT_DIR, site.STAGING_DIR, site.RENDITION_DIR)
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_jobs_make_sense_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "sync", lambda _path: None)  # a power cut is not in the model
    logging.disable(logging.CRITICAL)
    try:
        run_state_machine_as_test(JobsAndActors, settings=_thorough())
    finally:
        logging.disable(logging.NOTSET)


def _thorough() -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        derandomize="FAULTS_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
