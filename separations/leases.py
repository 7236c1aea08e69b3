"""What runners do to jobs. A runner holds a job by its lease and by nothing else.

Whoever finds that its update touched no row has lost the job (cancelled, deleted, taken for dead)
and stops. A lease may pass to another job with the same result: when its own is cancelled while
others are attached to it.
"""

import logging
import platform
import uuid
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from filelock import FileLock, Timeout

from separations import limits, results
from separations.engine import memory
from separations.engine.messages import Done, Progress
from separations.faults import Fault
from separations.jobs import QUEUED_AFRESH, hand_out, serve_from_store
from separations.models import Job, JobQuerySet, Stem

logger = logging.getLogger(__name__)
State = Job.State
HOST = platform.node()
CLAIM_SECONDS = 10
# Faults of a run, not of the song: another attempt may not meet them.
PASSING = ("engine_died", "out_of_memory", "stalled", "database")


def claim() -> Job | None:
    """Take the next waiting job under a new lease; None when nothing waits, or not now.

    A job that would not fit in the memory that is left waits, and all others behind it: whatever
    runs now ends, and then it fits. Jobs whose result is there already are ended on the way.
    """
    try:
        # Two runners on this machine must not both find room for the last job that fits.
        with FileLock(settings.DATA_DIR / "claim.lock", timeout=CLAIM_SECONDS):
            while (job := Job.objects.waiting().first()) is not None:
                with transaction.atomic():
                    if serve_from_store(job):
                        logger.info("Job %s: its result was there already", job.pk)
                        continue
                if not _reserve(job):
                    return None
                if (lease := _take(job)) is not None:
                    return Job.objects.select_related("upload").get(pk=job.pk, lease=lease)
    except Timeout:
        logger.warning("Another runner takes long to claim a job")
    except Job.DoesNotExist:
        pass  # cancelled in the same moment; the next look finds the next one
    return None


def _reserve(job: Job) -> bool:
    """Set `job.memory_reserved` to what it will need, if that is free on this machine now."""
    capacity = limits.capacity()
    try:
        need = min(capacity, max(limits.need(job), job.memory_reserved or 0))
    except Fault:
        need = 0  # its model is gone: run it, and it fails with the reason
    reserved = limits.reserved(HOST)
    # Alone it may always try, or it would wait for ever on a machine that is full of other things.
    if reserved and (reserved + need > capacity or need > memory.available()):
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
    return Job.objects.held(job.lease).update(**values) == 1


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
    results.sync(staging)
    now = timezone.now()
    with transaction.atomic():
        held = Job.objects.held(job.lease).select_for_update().first()
        if held is None:
            return False
        finished = Job.objects.held(job.lease).update(
            state=State.DONE,
            stage=Job.Stage.ENCODE,
            progress=1.0,
            remaining=None,
            lease=None,
            memory_reserved=None,
            memory_used=done.memory,
            frames=done.frames,
            finished_at=now,
            used_at=now,
        )
        if not finished:
            return False
        Stem.objects.bulk_create(
            Stem(job=held, name=stem.name, position=position, peak=stem.peak)
            for position, stem in enumerate(done.stems)
        )
        held.frames = done.frames
        hand_out(held, Job.objects.attached_to(held))
        results.publish(staging, held)
    return True


def fail(job: Job, fault: Fault) -> bool:
    """End the job, and those attached to it, with the reason. False when the lease is gone."""
    return _fail(Job.objects.held(job.lease), fault)


def _fail(which: JobQuerySet, fault: Fault) -> bool:
    ended = {
        "state": State.FAILED,
        "remaining": None,
        "lease": None,
        "memory_reserved": None,
        "error_code": fault.code,
        "error_params": fault.params,
        "finished_at": timezone.now(),
    }
    with transaction.atomic():
        held = which.select_for_update().first()
        if held is None or not which.update(**ended):
            return False
        # What befell this one would befall them: their samples, model and options are the same.
        if fault.code != "upload_gone":
            Job.objects.attached_to(held).update(**ended)
    return True


def hand_back(job: Job, *, counts: bool, reserve: int | None = None) -> bool:
    """Put a job that is being run back into the queue; `counts` says whether it was an attempt.

    Args:
        reserve: the memory in bytes that its next attempt gets at least.
    """
    attempt = F("attempt") - (0 if counts else 1)
    again = {**QUEUED_AFRESH, "memory_reserved": reserve, "attempt": attempt}
    return Job.objects.held(job.lease).update(**again) == 1


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
        hand_back(held, counts=True, reserve=reserve)


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
        stalled = Job.objects.stalled().filter(lease=job.lease)
        if job.attempt < settings.MAX_ATTEMPTS:
            recovered += stalled.update(**QUEUED_AFRESH, memory_reserved=None)
        else:
            recovered += _fail(stalled, Fault("lost", attempts=job.attempt))
    return recovered
