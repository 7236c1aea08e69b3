"""Leases on jobs: claim, heartbeat, finish, fail, hand back, and recovery of lost ones.

A slot holds a job by its lease and by nothing else. When its update changes no row, it has lost the
job (cancelled, deleted, recovered by another consumer) and stops. A lease may pass to another job
with the same result: when its own is cancelled while others are attached to it.
"""

import logging
import uuid
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from filelock import FileLock, Timeout

from separations.engine.process.engine_protocol import Done, Progress
from separations.errors.fault import Fault
from separations.jobs import endings, results, reuse, transitions
from separations.models import LONGEST, Job, Transition
from separations.queue import queue_switch
from separations.worker import candidates, resources
from separations.worker.candidates import LONGEST_WAIT_FOR_ROOM

logger = logging.getLogger(__name__)
State = Job.State
Cause = Transition.Cause
CLAIM_SECONDS = 10
# Faults of a run, not of the song: another attempt may succeed.
READING = ("decoder_died", "too_slow")  # of a song that could be read when it came in
RESTS = ("engine_died", *READING)  # what killed one process may kill the next one
TRANSIENT = ("out_of_memory", "stalled", "database", "busy", *RESTS)
SHORT_REST = timedelta(seconds=5)  # before the second attempt; then four times that
# The machine cannot separate any song now: no attempt counts.
BROKEN = ("decoder_unavailable", "engine_unavailable")
# After a run that met a full disk, or a broken machine, the job rests, each time for as long as it
# has waited so far: where runs fail though all seems well, that makes some thirty attempts a day.
SHORTEST_REST, LONGEST_REST = timedelta(seconds=30), timedelta(hours=1)
LONGEST_WAIT_FOR_REPAIR = timedelta(days=1)


def claim(idle_bytes: int = 0) -> Job | None:
    """Claim the next waiting job under a new lease; None when none waits, or none can start now.

    A job that does not fit in the memory that is left waits, and all others behind it: the runs of
    now end, and then it fits. A job that does not fit on the disk waits alone, since nothing tells
    when there will be room. Jobs whose result is stored already are ended on the way. While the
    queue is paused, none is claimed.

    Args:
        idle_bytes: memory of idle engines, which the caller can free.
    """
    try:
        # Two slots on this machine must not both find room for the last job that fits.
        with FileLock(settings.DATA_DIR / "claim.lock", timeout=CLAIM_SECONDS):
            skipped: list[Job] = []
            while (
                not queue_switch.is_paused() and (job := candidates.next_job(skipped)) is not None
            ):
                with transaction.atomic():
                    if candidates.has_new_key(job):
                        continue
                    if reuse.serve_from_store(job):
                        logger.info("Job %s: its result was there already", job.pk)
                        continue
                if not candidates.has_room(job):
                    skipped.append(job)
                    continue
                if not candidates.reserve_memory(job, idle_bytes):
                    return None
                if (lease := _start(job)) is not None:
                    # Cancelled in this moment, another job may hold the lease already.
                    return Job.objects.held(lease).select_related("upload").first()
    except Timeout:
        logger.warning("Another slot takes long to claim a job")
    return None


def _start(job: Job) -> uuid.UUID | None:
    """Set a queued job running under a new lease, and return that; None when it is too late."""
    lease = uuid.uuid4()
    try:
        with transaction.atomic():
            # With the key that was checked: retried meanwhile, it may have that of a copy, under
            # which it must not run (see `result_keys`).
            queued = Job.objects.filter(
                pk=job.pk, state=State.QUEUED, result_key=job.result_key, recipe=job.recipe
            )
            columns = {
                "stage": Job.Stage.START,
                "progress": 0.0,
                "remaining": None,
                "lease": lease,
                "heartbeat_at": Now(),
                "started_at": timezone.now(),
                "attempt": F("attempt") + 1,
                "host": resources.HOST,
                "memory_reserved": job.memory_reserved,
            }
            detail = {"attempt": job.attempt + 1, "host": resources.HOST}
            taken = transitions.change(job, queued, State.RUNNING, columns, Cause.CLAIMED, **detail)
    except IntegrityError:
        return None  # another machine makes the same result just now: attached to that job
    return lease if taken else None


def heartbeat(job: Job, progress: Progress | None) -> bool:
    """Record that the job is alive, and its progress. False when the lease is gone: stop then."""
    values: dict[str, object] = {"heartbeat_at": Now()}
    if progress is not None:
        values |= {
            "stage": progress.stage,
            "progress": _within(progress.fraction, 1.0),
            "remaining": _within(progress.remaining, LONGEST),
        }
    return _update_held(job, **values)


def _within(value: float | None, most: float) -> float | None:
    return None if value is None else min(most, max(0.0, value))


def finish(job: Job, done: Done, staging: Path) -> bool:
    """Publish the stems in `staging` and record them, for all jobs that waited for them.

    The files move within the transaction, after its last statement: a slot that lost its lease
    moves nothing, and a move that fails records nothing. If the commit fails, the result lies in
    its place without a row and is not served; the next attempt or the clean-up finds it there.

    Returns:
        False when the lease is gone.

    Raises:
        OSError: the stems could not be stored.
        DatabaseError: they could not be recorded.
    """
    with transaction.atomic():
        held = _lock_held(job)
        if held is None or not endings.finish(held, done):
            return False
        held.refresh_from_db()
        endings.share_result(held, Job.objects.attached_to(held), Cause.SHARED)
        results.publish(staging, held)
    return True


def fail(job: Job, fault: Fault) -> bool:
    """End the job, and those attached to it, with the reason. False when the lease is gone."""
    with transaction.atomic():
        held = _lock_held(job)
        return held is not None and endings.fail(held, fault)


def _lock_held(job: Job) -> Job | None:
    """The job that runs under this lease now, locked; None when it is gone.

    Two queries: when the lease passes on while PostgreSQL waits for the row of its old holder, the
    first one checks that row only.
    """
    held = Job.objects.held(job.lease).select_for_update()
    return held.first() or held.all().first()


def _update_held(job: Job, **values: object) -> bool:
    held = Job.objects.held(job.lease)
    return (held.update(**values) or held.update(**values)) == 1  # twice: see `_lock_held`


def hand_back(
    job: Job,
    fault: Fault | None = None,
    *,
    reserve: int | None = None,
    rest: timedelta | None = None,
) -> bool:
    """Put a running job back into the queue.

    Args:
        fault: why this attempt ended; without one, the attempt does not count.
        reserve: bytes of memory that the next attempt gets at least.
        rest: the pause before it.
    """
    with transaction.atomic():
        held = _lock_held(job)
        if held is None:
            return False
        row = Job.objects.held(held.lease)
        if fault is None:
            # The memory stays reserved: it may be more than the estimate, after a lack of memory.
            columns: dict[str, object] = {"attempt": F("attempt") - 1}
            return transitions.queue_again(
                held, row, columns, Cause.HANDED_BACK, host=resources.HOST
            )
        detail = {"error": fault.code, "attempt": held.attempt}
        columns = {"memory_reserved": reserve}
        if rest is not None:
            columns["not_before"] = timezone.now() + rest
        return transitions.queue_again(held, row, columns, Cause.FAULT, fault.trace, **detail)


def try_again_or_fail(job: Job, fault: Fault) -> None:
    """After a transient fault: queue the job again while attempts are left, else fail it."""
    held = Job.objects.held(job.lease).first()
    if held is None:
        return
    if held.attempt >= settings.MAX_ATTEMPTS:
        fail(held, fault)
    else:
        # Memory ran out: the next attempt gets all there is, so it runs alone.
        reserve = resources.capacity() if fault.code == "out_of_memory" else None
        rest = SHORT_REST * 4 ** (held.attempt - 1) if fault.code in RESTS else None
        hand_back(held, fault, reserve=reserve, rest=rest)


def end_with(job: Job, fault: Fault) -> None:
    """End a run that met `fault`, for good or until the next attempt."""
    if fault.code == "disk_full":
        _wait_for_room(job, fault)
    elif fault.code in BROKEN:
        _wait_for_repair(job, fault)
    elif fault.code in TRANSIENT or _has_moved(job):
        try_again_or_fail(job, fault)
    else:
        fail(job, fault)


def _wait_for_room(job: Job, fault: Fault) -> None:
    """Queue a job again whose run met a full disk. Other writers may have filled it, so this counts
    as no attempt; but no job waits longer than LONGEST_WAIT_FOR_ROOM."""
    now = timezone.now()
    with transaction.atomic():
        held = _lock_held(job)
        if held is None:
            return
        since = held.room_lacks_since or now
        if now - since > LONGEST_WAIT_FOR_ROOM:
            endings.fail(held, fault)
            return
        rest = {"stage": Job.Stage.DISK, "room_lacks_since": since}
        _queue_after_rest(held, fault, now - since, rest)


def _wait_for_repair(job: Job, fault: Fault) -> None:
    """Queue a job again whose run met a broken machine, as long as that may be mended: this counts
    as no attempt, and the pauses grow."""
    now = timezone.now()
    with transaction.atomic():
        held = _lock_held(job)
        if held is None:
            return
        met = held.timeline.filter(cause=Cause.FAULT, detail__error__in=BROKEN)
        first = met.filter(at__gte=held.queued_at).first()
        waited = now - first.at if first else timedelta(0)
        if waited > LONGEST_WAIT_FOR_REPAIR:
            endings.fail(held, fault)
        else:
            _queue_after_rest(held, fault, waited, {})


def _queue_after_rest(
    held: Job, fault: Fault, waited: timedelta, columns: dict[str, object]
) -> None:
    """Queue a locked job again after a rest as long as it has `waited`, with no attempt counted."""
    rest = min(LONGEST_REST, max(SHORTEST_REST, waited))
    columns |= {"attempt": F("attempt") - 1, "not_before": timezone.now() + rest}
    detail = {"error": fault.code, "attempt": held.attempt}
    row = Job.objects.held(held.lease)
    transitions.queue_again(held, row, columns, Cause.FAULT, fault.trace, **detail)


def _has_moved(job: Job) -> bool:
    """Whether the lease passed to another job, whose song is the same but lies in its own file."""
    return Job.objects.held(job.lease).exclude(pk=job.pk).exists()


def recover() -> int:
    """Queue the jobs of dead consumers again, or fail those without attempts left; count both."""
    recovered = 0
    for job in Job.objects.stalled():
        logger.warning("Job %s: lost in attempt %s (%s)", job.pk, job.attempt, job.stage)
        stalled = Job.objects.stalled().filter(pk=job.pk, lease=job.lease)
        with transaction.atomic():
            if not stalled.select_for_update().exists():
                continue
            if job.attempt >= settings.MAX_ATTEMPTS:
                endings.fail(job, Fault("lost", attempts=job.attempt))
            else:
                detail = {"attempt": job.attempt, "host": job.host}
                columns = {"memory_reserved": None}
                transitions.queue_again(job, stalled, columns, Cause.LOST, **detail)
        recovered += 1
    return recovered
