"""Quotas of an owner: queued songs, minutes a day, storage. Checked before a song is queued."""

import time
from dataclasses import dataclass, replace

from django.conf import settings

from separations.audio.info import SAMPLE_RATE
from separations.disk import disk_space
from separations.errors import database_outage
from separations.errors.fault import Fault, storage_fault
from separations.fair_use import token_bucket
from separations.fair_use.address_ranges import Range, ranges
from separations.models import Job, Owner, Upload

DAY = 24 * 3600
MEGABYTE = 1_000_000
LOOK_SECONDS = 10.0
MOST_REMEMBERED = 1000
DECODING_SECONDS = 10.0
MOST_CHARACTERS = 64  # of Job.network
MAX_REUSED_SECONDS = 60.0  # counted of the day for a song whose stems existed already, at most
SITE_LIMIT = "The limit of the site for %s (%s) is used up: visitors are asked to come later"
QUEUE_SECONDS = 60  # a waiting song may be done by then


def lock_queue_of(owner: Owner) -> None:
    """Lock the queue for one owner and their address ranges until the transaction ends.

    So the counts here and in `jobs.fair_turns.next_turn` stay true. (SQLite has one writer anyhow.)
    """
    token_bucket.try_withdraw(_withdrawals("queue", owner, (1, 1), cost=0.0))


def address_hash(owner: Owner) -> str:
    """What `Job.network` stores of the client address of an owner without an account; else "".

    Hashes of its address ranges, widest first, so that all jobs of a range share a prefix.
    """
    if owner.user_id or not owner.client:
        return ""
    each_way = ranges(owner.client)
    length = MOST_CHARACTERS // len(each_way)
    return "".join(_range_hash(each)[:length] for each in reversed(each_way))


def address_hash_prefixes(owner: Owner) -> list[tuple[str, Range]]:
    """The prefixes of `address_hash` with their ranges, widest first. Empty with an account."""
    whole, each_way = address_hash(owner), ranges(owner.client)
    length = MOST_CHARACTERS // len(each_way) if each_way else 0
    wide_first = enumerate(reversed(each_way), start=1)
    return [(whole[: length * n], each) for n, each in wide_first] if whole else []


def _range_hash(each: Range) -> str:
    return token_bucket.name_hash(f"network {each.key}")


def count_song(owner: Owner, seconds: float, job: Job) -> None:
    """Count a song of so many seconds, within the owner's quotas of queued songs and minutes.

    Seconds count once for each pass of the model. Call it in the transaction that queues the song,
    so that a later failure counts nothing. A visitor who drops their cookies is another owner, but
    the client address has counts of its own.

    Raises:
        Fault: quota_queued or quota_minutes.
    """
    _check_queue_length(owner, job)
    _count_minutes(owner, seconds)


def count_reused(owner: Owner, seconds: float) -> None:
    """Count a song with an existing result: nothing is separated, but its rows stay for months.

    Raises:
        Fault: quota_minutes.
    """
    _count_minutes(owner, min(seconds, MAX_REUSED_SECONDS))


def _withdrawals(
    what: str, owner: Owner, rate: tuple[int, int], cost: float
) -> list[token_bucket.Withdrawal]:
    who = f"user {owner.user_id}" if owner.user_id else f"visitor {owner.visitor}"
    own = token_bucket.Withdrawal(what, who, *rate, cost)
    return [own, *token_bucket.of_client(what, owner.client, rate, cost)]


@dataclass(frozen=True)
class Left:
    """A quota, None where there is none, and what is left of it."""

    most: float | None
    left: float | None


def left_of(owner: Owner) -> dict[str, Left | None]:
    """What an owner has left of each quota: queued songs, minutes of today, gigabytes.

    The last is None for strangers where it depends on the disk, whose size is not for everybody.

    Raises:
        Fault: storage, when the disk cannot be asked.
    """
    waiting = settings.MAX_QUEUED_JOBS
    minutes = settings.MAX_MINUTES_A_DAY
    is_known = owner.user_id is not None or owner.visitor
    queued = Job.objects.of(owner).active().count() if is_known else 0
    spare = token_bucket.tokens_left(_withdrawals("minutes", owner, (minutes, DAY), cost=0.0))
    return {
        "songs_waiting": _left(waiting, waiting - queued),
        "minutes_a_day": _left(minutes, round(spare, 1) if minutes else 0),
        "storage_gb": _storage_left(owner),
    }


def _storage_left(owner: Owner) -> Left | None:
    asked = settings.MAX_OWNER_STORAGE_GB
    if asked is not None and asked <= 0:
        return Left(None, None)
    has_songs = bool(owner.visitor) and Job.objects.of(owner).exists()
    is_known = owner.user_id is not None or has_songs
    if asked is None and not is_known:
        return None
    try:
        most = max(0.0, disk_space.most_of_an_owner())
        used = _used.bytes_of(owner) if is_known else 0
    except OSError as error:
        raise storage_fault(error) from error
    return Left(round(most / 1e9, 3), round(max(0.0, most - used) / 1e9, 3))


class _Used:
    """What owners store, remembered for LOOK_SECONDS: each look goes through all their files."""

    def __init__(self) -> None:
        self._found: dict[Owner, tuple[int, float]] = {}  # and when it is forgotten

    def bytes_of(self, owner: Owner) -> int:
        owner, now = replace(owner, client=""), time.monotonic()
        found, until = self._found.get(owner, (0, 0.0))
        if now < until:
            return found
        if len(self._found) >= MOST_REMEMBERED:
            self._found.clear()
        found = bytes_stored_of(owner)
        self._found[owner] = found, now + LOOK_SECONDS
        return found


_used = _Used()


def _left(most: float, left: float) -> Left:
    return Left(most, min(most, max(0, left))) if most else Left(None, None)


def _check_queue_length(owner: Owner, job: Job) -> None:
    most = settings.MAX_QUEUED_JOBS
    if most and Job.objects.of(owner).active().exclude(pk=job.pk).count() >= most:
        raise Fault("quota_queued", most=most, wait=QUEUE_SECONDS)


def count_decoding(client: str, seconds: float) -> None:
    """Count one more upload of a client for each full DECODING_SECONDS that a song took to decode.

    Most songs take less. It limits files that are made to decode slowly.
    """
    if more := int(seconds // DECODING_SECONDS):
        own = token_bucket.of_client("upload", client, settings.RATE_LIMITS["upload"], more)
        token_bucket.charge([*own, *_site_withdrawals("upload", more)])


def count_for_site(kind: str, number: int = 1) -> None:
    """Count something for the whole site, whose limits one visitor alone never reaches.

    Call it when it really happens: a song is accepted, an account created, an encoding begun. Mere
    requests count for their visitor alone, or requests that do nothing would use the limit up.

    Raises:
        Fault: site_limit.
    """
    if wait := token_bucket.try_withdraw(_site_withdrawals(kind, number)):
        database_outage.log.warn(f"site {kind}", SITE_LIMIT, kind, settings.SITE_LIMITS[kind][0])
        raise Fault("site_limit", wait=wait, limit=f"site_{kind}")


def _site_withdrawals(kind: str, cost: float = 1.0) -> list[token_bucket.Withdrawal]:
    """kind: a key of `settings.SITE_LIMITS`; other kinds are not counted."""
    rate = settings.SITE_LIMITS.get(kind, (0, 0))
    return [token_bucket.Withdrawal(kind, "site", *rate, cost)]


def check_storage(owner: Owner) -> None:
    """Raises Fault (quota_storage) when the owner stores too much already."""
    most = disk_space.most_of_an_owner()
    if most and bytes_stored_of(owner) > most:
        raise Fault("quota_storage", most=f"{most / 1e9:.2g}")


def count_storage(owner: Owner, job: Job, stems: int) -> None:
    """Count what a song adds to the disk for its address ranges: in a day what one owner may store.

    A visitor who drops their cookies owns nothing yet, but comes from the same range. Call it in
    the transaction that queues the song, after the other counts.

    Args:
        stems: how many are made for it; 0 when the result exists or is being made.

    Raises:
        Fault: quota_network.
    """
    most = disk_space.most_of_an_owner()
    if not most:
        return
    added = _song_bytes(job)
    if stems:
        added += disk_space.result_bytes(round(job.upload.seconds * SAMPLE_RATE), stems)
    rate = max(1, round(most / MEGABYTE)), DAY
    wait = token_bucket.try_withdraw(
        token_bucket.of_client("storage", owner.client, rate, added / MEGABYTE)
    )
    if wait:
        raise Fault("quota_network", most=f"{most / 1e9:.2g}", wait=wait)


def _song_bytes(job: Job) -> int:
    """Bytes of a job's song and cover; 0 when another job has the same files."""
    if job.upload.jobs.exclude(pk=job.pk).exists():
        return 0
    return sum(map(disk_space.bytes_of, (job.upload.path, job.upload.cover_path)))


def bytes_stored_of(owner: Owner) -> int:
    """Bytes that an owner stores: songs, covers, stems and encodings."""
    own = Job.objects.of(owner)
    uploads = [Upload(pk=pk) for pk in set(own.values_list("upload_id", flat=True))]
    songs = [path for each in uploads for path in (each.path, each.cover_path)]
    served = own.served().only("id", "result_key")
    folders = {folder for job in served for folder in (job.result_folder, job.rendition_folder)}
    return sum(map(disk_space.bytes_of, songs)) + sum(map(disk_space.bytes_in, folders))


def _count_minutes(owner: Owner, seconds: float) -> None:
    most = settings.MAX_MINUTES_A_DAY
    wait = token_bucket.try_withdraw(_withdrawals("minutes", owner, (most, DAY), seconds / 60))
    if wait:
        raise Fault("quota_minutes", most=most, wait=wait)
