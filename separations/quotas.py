"""How much one owner may have here at a time, and in a day. `jobs` asks before it queues a song."""

from pathlib import Path

from django.conf import settings

from separations import buckets
from separations.faults import Fault
from separations.models import Job, Owner, Upload, folder_of

DAY = 24 * 3600


def check(owner: Owner, seconds: float, job: Job) -> None:
    """See that `owner` may have this song of so many seconds queued, and count it.

    Called in the transaction that queues it, so that what fails later counts nothing. Whoever drops
    their cookies is another owner but comes from the same address, which has its own count.

    Raises:
        Fault: quota_queued, quota_storage or quota_minutes.
    """
    _check_queue(owner, job)
    _check_storage(owner)
    _count_minutes(owner, seconds)


def _check_queue(owner: Owner, job: Job) -> None:
    most = settings.MAX_QUEUED_JOBS
    if most and Job.objects.of(owner).active().exclude(pk=job.pk).count() >= most:
        raise Fault("quota_queued", most=most)


def _check_storage(owner: Owner) -> None:
    most = settings.MAX_OWNER_STORAGE_GB
    if most and stored(owner) > most * 1_000_000_000:
        raise Fault("quota_storage", most=most)


def stored(owner: Owner) -> int:
    """Bytes of the songs of `owner` that are kept, and of their stems."""
    own = Job.objects.of(owner)
    uploads = Upload.objects.filter(jobs__in=own).distinct()
    keys = own.served().order_by().values_list("result_key", flat=True).distinct()
    files = [upload.path for upload in uploads]
    return sum(map(_size, files)) + sum(_size(file) for key in keys for file in _inside(key))


def _inside(key: str) -> list[Path]:
    folder = folder_of(key)
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted since
        return 0


def _count_minutes(owner: Owner, seconds: float) -> None:
    most = settings.MAX_MINUTES_A_DAY
    who = f"user {owner.user_id}" if owner.user_id else f"visitor {owner.visitor}"
    counted = [who, *([f"client {owner.client}"] if owner.client else [])]
    wait = buckets.take(
        buckets.Withdrawal("minutes", each, most, DAY, seconds / 60) for each in counted
    )
    if wait:
        raise Fault("quota_minutes", most=most, wait=wait, minutes=-(-wait // 60))
