"""How much one owner may have here at a time, and in a day. `jobs` asks before it queues a song."""

from pathlib import Path

from django.conf import settings

from separations import buckets
from separations.faults import Fault
from separations.models import Job, Owner, Upload

DAY = 24 * 3600
DECODING_SECONDS = 10.0
QUEUE_SECONDS = 60  # by then one of the songs that wait may be done


def hold(owner: Owner) -> None:
    """Let one song of an owner, and of their network, be queued at a time: what is counted here and
    in `jobs.next_turn` stays true until the end of the transaction. (SQLite has one writer anyhow.)
    """
    buckets.take(buckets.Withdrawal("queue", each, 1, 1, cost=0.0) for each in _counted(owner))


def network(owner: Owner) -> str:
    """What a job keeps of the address of somebody without account; empty for all others."""
    if owner.user_id or not owner.client:
        return ""
    return buckets.name_hash(f"network {owner.client}")


def check(owner: Owner, seconds: float, job: Job) -> None:
    """See that `owner` may have this song of so many seconds queued, and count it. Seconds that are
    gone over several times count as often.

    Called in the transaction that queues it, so that what fails later counts nothing. Whoever drops
    their cookies is another owner but comes from the same address, which has its own count.

    Raises:
        Fault: quota_queued or quota_minutes.
    """
    _check_queue(owner, job)
    _count_minutes(owner, seconds)


def _counted(owner: Owner) -> list[str]:
    who = f"user {owner.user_id}" if owner.user_id else f"visitor {owner.visitor}"
    return [who, *([f"client {owner.client}"] if owner.client else [])]


def _check_queue(owner: Owner, job: Job) -> None:
    most = settings.MAX_QUEUED_JOBS
    if most and Job.objects.of(owner).active().exclude(pk=job.pk).count() >= most:
        raise Fault("quota_queued", most=most, wait=QUEUE_SECONDS)


def count_decoding(client: str, seconds: float) -> None:
    """Count a song that held a decoder for so long as several uploads of a client: one more for
    each full DECODING_SECONDS. Most songs take less; files made to take all they can are few then.
    """
    if client and (more := int(seconds // DECODING_SECONDS)):
        count, period = settings.RATE_LIMITS["upload"]
        buckets.charge(buckets.Withdrawal("upload", f"client {client}", count, period, more))


def check_storage(owner: Owner) -> None:
    """See that `owner` does not keep too much already. Raises Fault: quota_storage."""
    most = settings.MAX_OWNER_STORAGE_GB
    if most and stored(owner) > most * 1_000_000_000:
        raise Fault("quota_storage", most=most)


def stored(owner: Owner) -> int:
    """Bytes of the songs of `owner` that are kept, and of their stems."""
    own = Job.objects.of(owner)
    files = [upload.path for upload in Upload.objects.filter(jobs__in=own).distinct()]
    served = list(own.served())
    folders = {job.result_folder for job in served} | {job.rendition_folder for job in served}
    files += [file for folder in folders for file in _inside(folder)]
    return sum(map(_size, files))


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted since
        return 0


def _count_minutes(owner: Owner, seconds: float) -> None:
    most = settings.MAX_MINUTES_A_DAY
    wait = buckets.take(
        buckets.Withdrawal("minutes", each, most, DAY, seconds / 60) for each in _counted(owner)
    )
    if wait:
        raise Fault("quota_minutes", most=most, wait=wait, minutes=-(-wait // 60))
