"""What runners do to jobs. A runner holds a job by its lease and by nothing else.

Whoever finds that its update touched no row has lost the job (cancelled, deleted, taken for dead)
and stops. A lease may pass to another job with the same result: when its own is cancelled while
others are attached to it.
"""

import logging
import platform
import uuid
from dataclasses import asdict
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from filelock import FileLock, Timeout

from separations import control, jobs, limits, results, timeline
from separations.engine import memory
from separations.engine.messages import Done, Progress
from separations.faults import Fault
from separations.jobs import QUEUED_AFRESH, hand_out, serve_from_store
from separations.models import Job, Stem, Transition

logger = logging.getLogger(__name__)
State = Job.State
Cause = Transition.Cause
HOST = platform.node()
CLAIM_SECONDS = 10
UNUSABLE = (Fault, TypeError, ValueError, OSError)  # what a job of another version may raise
# Faults of a run, not of the song: another attempt may not meet them.
PASSING = ("engine_died", "out_of_memory", "stalled", "database")


def claim(idle_bytes: int = 0) -> Job | None:
    """Take the next waiting job under a new lease; None when nothing waits, or not now.

    A job that would not fit in the memory that is left waits, and all others behind it: whatever
    runs now ends, and then it fits. Jobs whose result is there already are ended on the way. While
    the queue is paused nothing is taken.

    Args:
        idle_bytes: memory of engines that do nothing, which the caller can free.
    """
    try:
        # Two runners on this machine must not both find room for the last job that fits.
        with FileLock(settings.DATA_DIR / "claim.lock", timeout=CLAIM_SECONDS):
            while not control.is_paused() and (job := _next()) is not None:
                with transaction.atomic():
                    if _has_new_key(job):
                        continue
                    if serve_from_store(job):
                        logger.info("Job %s: its result was there already", job.pk)
                        continue
                if not _reserve(job, idle_bytes):
                    return None
                if (lease := _take(job)) is not None:
                    # Cancelled in this moment, another job may hold the lease already.
                    return Job.objects.held(lease).select_related("upload").first()
    except Timeout:
        logger.warning("Another runner takes long to claim a job")
    return None


def _next() -> Job | None:
    return Job.objects.waiting().select_related("upload").first()


def _has_new_key(job: Job) -> bool:
    """Whether weights or engine changed since the job was queued, so that its result is another."""
    try:
        return jobs.renew_key(job)
    except UNUSABLE:
        return False  # run it, and it fails with the reason


def _reserve(job: Job, idle_bytes: int) -> bool:
    """Set `job.memory_reserved` to what it will need, if that is free on this machine now."""
    capacity = limits.capacity()
    try:
        need = min(capacity, max(limits.need(job), job.memory_reserved or 0))
    except UNUSABLE:
        need = 0
    reserved = limits.reserved(HOST)
    # Alone it may always try, or it would wait for ever on a machine that is full of other things.
    if reserved and (reserved + need > capacity or need > memory.available() + idle_bytes):
        Job.objects.filter(pk=job.pk, state=State.QUEUED).update(stage=Job.Stage.MEMORY)
        return False
    job.memory_reserved = need
    return True


def _take(job: Job) -> uuid.UUID | None:
    lease = uuid.uuid4()
    try:
        with transaction.atomic():
            taken = Job.objects.filter(pk=job.pk, state=State.QUEUED).update(
                state=State.RUNNING,
                stage=Job.Stage.START,
                progress=0.0,
                remaining=None,
                lease=lease,
                heartbeat_at=Now(),
                started_at=timezone.now(),
                attempt=F("attempt") + 1,
                host=HOST,
                memory_reserved=job.memory_reserved,
            )
            if taken:
                attempt = job.attempt + 1
                timeline.note([job.pk], State.RUNNING, Cause.CLAIMED, attempt=attempt, host=HOST)
    except IntegrityError:
        return None  # a runner elsewhere makes the same result just now: attached to that one
    return lease if taken else None


def heartbeat(job: Job, progress: Progress | None) -> bool:
    """Say that the job is alive and how far it is. False when the lease is gone: stop then."""
    values: dict[str, object] = {"heartbeat_at": Now()}
    if progress is not None:
        values |= {
            "stage": progress.stage,
            "progress": min(1.0, max(0.0, progress.fraction)),
            "remaining": progress.remaining,
        }
    return _update_held(job, **values)


def finish(job: Job, done: Done, staging: Path) -> bool:
    """Publish the stems in `staging` and record them, for all jobs that waited for them.

    The files move within the transaction, after its last statement: a runner that lost its lease
    moves nothing, and a move that fails records nothing. Should the commit fail, the result lies in
    its place without a row, is served to nobody, and is found there by the next attempt or the
    clean-up.

    Returns:
        False when the lease is gone.

    Raises:
        OSError: the stems could not be stored.
        DatabaseError: they could not be recorded.
    """
    now = timezone.now()
    with transaction.atomic():
        held = _lock_held(job)
        if held is None:
            return False
        Job.objects.filter(pk=held.pk).update(
            state=State.DONE,
            network="",
            stage=Job.Stage.ENCODE,
            progress=1.0,
            remaining=None,
            lease=None,
            memory_reserved=None,
            memory_used=done.memory,
            engine=done.engine,
            frames=done.frames,
            song_peak=done.mixture.peak,
            song_loudness=done.mixture.loudness,
            finished_at=now,
            used_at=now,
        )
        Stem.objects.bulk_create(
            Stem(job=held, position=position, **asdict(stem))
            for position, stem in enumerate(done.stems)
        )
        timeline.note([held.pk], State.DONE, Cause.FINISHED, engine=done.engine)
        held.refresh_from_db()
        hand_out(held, Job.objects.attached_to(held), Cause.SHARED)
        results.publish(staging, held)
    return True


def fail(job: Job, fault: Fault) -> bool:
    """End the job, and those attached to it, with the reason. False when the lease is gone."""
    with transaction.atomic():
        held = _lock_held(job)
        if held is not None:
            _fail(held, fault)
    return held is not None


def _fail(held: Job, fault: Fault) -> None:
    """End a job whose row is locked, and those attached to it."""
    ended = {
        "state": State.FAILED,
        "network": "",
        "remaining": None,
        "lease": None,
        "memory_reserved": None,
        "error_code": fault.code,
        "error_params": fault.params,
        "finished_at": timezone.now(),
    }
    told = {"error": fault.code, "attempt": held.attempt}
    Job.objects.filter(pk=held.pk).update(**ended)
    timeline.note([held.pk], State.FAILED, Cause.FAULT, **told)
    # What befell this one would befall them: their samples, model and options are the same.
    if fault.code != "upload_gone":
        for attached in Job.objects.attached_to(held):
            if Job.objects.filter(pk=attached.pk, state=State.QUEUED).update(**ended):
                timeline.note([attached.pk], State.FAILED, Cause.FAULT, **told, source=str(held.pk))


def _lock_held(job: Job) -> Job | None:
    """The job that runs under this lease now, locked; None when it is gone.

    Asked twice: when the lease passes on while PostgreSQL waits for the row of its old holder, it
    looks at that row only.
    """
    held = Job.objects.held(job.lease).select_for_update()
    return held.first() or held.all().first()


def _update_held(job: Job, **values: object) -> bool:
    held = Job.objects.held(job.lease)
    return (held.update(**values) or held.update(**values)) == 1  # twice: see `_lock_held`


def hand_back(job: Job, fault: Fault | None = None, *, reserve: int | None = None) -> bool:
    """Put a job that is being run back into the queue.

    Args:
        fault: what it met in this attempt; without one, the attempt does not count.
        reserve: the memory in bytes that its next attempt gets at least.
    """
    with transaction.atomic():
        held = _lock_held(job)
        if held is None:
            return False
        row = Job.objects.filter(pk=held.pk)
        if fault is None:
            # What was set aside stays so: it may be more than the estimate, after a lack of memory.
            row.update(**QUEUED_AFRESH, attempt=F("attempt") - 1)
            timeline.note([held.pk], State.QUEUED, Cause.HANDED_BACK, host=HOST)
        else:
            row.update(**QUEUED_AFRESH, memory_reserved=reserve)
            told = {"error": fault.code, "attempt": held.attempt}
            timeline.note([held.pk], State.QUEUED, Cause.FAULT, **told)
    return True


def try_again_or_fail(job: Job, fault: Fault) -> None:
    """After a fault that another attempt may not meet: queue it again while attempts are left."""
    held = Job.objects.held(job.lease).first()
    if held is None:
        return
    if held.attempt >= settings.MAX_ATTEMPTS:
        fail(held, fault)
    else:
        # Memory ran out: the next attempt gets all there is, so it runs alone.
        reserve = limits.capacity() if fault.code == "out_of_memory" else None
        hand_back(held, fault, reserve=reserve)


def end_with(job: Job, fault: Fault) -> None:
    """End a run that met `fault`, for good or until the next attempt."""
    if fault.code in PASSING or _has_moved(job):
        try_again_or_fail(job, fault)
    else:
        fail(job, fault)


def _has_moved(job: Job) -> bool:
    """Whether the lease passed to another job, whose song is the same but lies in its own file."""
    return Job.objects.held(job.lease).exclude(pk=job.pk).exists()


def recover() -> int:
    """Queue again what dead runners left behind; fail what was tried often enough. Counts both."""
    recovered = 0
    for job in Job.objects.stalled():
        logger.warning("Job %s: lost in attempt %s (%s)", job.pk, job.attempt, job.stage)
        stalled = Job.objects.stalled().filter(pk=job.pk, lease=job.lease)
        with transaction.atomic():
            if not stalled.select_for_update().exists():
                continue
            told: dict[str, object] = {"attempt": job.attempt, "host": job.host}
            if job.attempt >= settings.MAX_ATTEMPTS:
                _fail(job, Fault("lost", attempts=job.attempt))
            else:
                stalled.update(**QUEUED_AFRESH, memory_reserved=None)
                timeline.note([job.pk], State.QUEUED, Cause.LOST, **told)
        recovered += 1
    return recovered
