"""Candidates for the next claim: which waiting job is next, and whether it fits this machine."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from separations.engine import memory
from separations.errors.fault import Fault
from separations.jobs import endings, reuse
from separations.models import Job
from separations.worker import resources

logger = logging.getLogger(__name__)
State = Job.State
UNUSABLE = (Fault, TypeError, ValueError, OSError)  # what a job of another version may raise
# Where the disk has no room for a song, so many times a shorter one is tried: each at most this
# share of the shortest so far, so that many songs of one length count as one.
SKIPPED, FAR_SHORTER = 20, 0.8
LONGEST_WAIT_FOR_ROOM = timedelta(days=1)


def next_job(skipped: Sequence[Job]) -> Job | None:
    """The next waiting job, without those that rest after a full disk.

    Args:
        skipped: jobs for which the disk has no room; after them, only one with a far shorter song.
    """
    resting = Job.objects.filter(state=State.QUEUED, not_before__gt=timezone.now())
    waiting = Job.objects.waiting().exclude(result_key__in=resting.values("result_key"))
    waiting = waiting.select_related("upload")
    if not skipped:
        return waiting.first()
    if len(skipped) > SKIPPED:
        return None
    shortest = min(job.upload.seconds for job in skipped)
    return waiting.filter(upload__seconds__lt=shortest * FAR_SHORTER).first()


def has_room(job: Job) -> bool:
    """Whether the disk has room for the run of a queued job, beside the runs of now.

    A job that has waited for room too long, or needs more than the disk can ever have, fails.
    """
    try:
        lacking = resources.disk_lacking(job)
    except UNUSABLE:
        return True  # run it, and it fails with the reason
    queued = Job.objects.filter(pk=job.pk, state=State.QUEUED)
    if not lacking:
        if job.room_lacks_since is not None and job.not_before is None:
            queued.update(room_lacks_since=None)
        return True
    now = timezone.now()
    since = job.room_lacks_since or now
    if resources.disk_need(job) > resources.disk_most() or now - since > LONGEST_WAIT_FOR_ROOM:
        with transaction.atomic():
            if queued.select_for_update().exists():
                logger.error("Job %s: the disk has no room for it", job.pk)
                endings.fail(job, Fault("disk_full"))
    else:
        queued.update(stage=Job.Stage.DISK, room_lacks_since=since)
    return False


def has_new_key(job: Job) -> bool:
    """Whether the job would now make another result than the one it waits for; sets its new key."""
    try:
        return reuse.renew_key(job)
    except UNUSABLE:
        return False  # run it, and it fails with the reason


def reserve_memory(job: Job, idle_bytes: int) -> bool:
    """Set `job.memory_reserved` to what its run will need, if so much is free on this machine."""
    capacity = resources.capacity()
    try:
        need = min(capacity, max(resources.need(job), job.memory_reserved or 0))
    except UNUSABLE:
        need = 0
    reserved = resources.reserved(resources.HOST)
    # Alone, a job may always try: else it would wait for ever on a machine full of other programs.
    if reserved and (reserved + need > capacity or need > memory.available() + idle_bytes):
        Job.objects.filter(pk=job.pk, state=State.QUEUED).update(stage=Job.Stage.MEMORY)
        return False
    job.memory_reserved = need
    return True
