"""The clean-up: delete what is past its lifetime, left over, or over the storage cap.

Files without a row, rows without files, and both past their lifetime (`models.lifetimes`). What is
in use is never touched: songs of jobs that wait or run, stems that are played or downloaded (see
`results.record_use`), the staging of jobs that run, uploads that are being received.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DatabaseError, transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from filelock import FileLock, Timeout

from separations.delivery import encoding_cache
from separations.disk import disk_space
from separations.fair_use import token_bucket
from separations.jobs import lifecycle, results
from separations.models import Job, Upload, folder_of, lifetimes
from separations.models.upload import COVER_SUFFIX
from separations.monitoring import fault_counts
from separations.uploads import song_files, submission
from separations.worker.waste import Waste, entries, file_waste, id_in, is_older_than

logger = logging.getLogger(__name__)
# Without a byte written for longer than reading an upload, or encoding a rendition, may take.
ABANDONED_SECONDS = 3600
BEGUN_SECONDS = 60  # in which a new rendition is in use by the process that makes it
BATCH = 500


class Busy(Exception):
    """Another clean-up is at work."""


def clean(*, dry_run: bool = False) -> list[Waste]:
    """Delete all waste; with `dry_run` only list it.

    Returns:
        What was (or would be) deleted.

    Raises:
        Busy: another clean-up is at work.
    """
    try:
        with FileLock(settings.DATA_DIR / "clean.lock", blocking=False):
            return _clean(dry_run)
    except Timeout as error:
        raise Busy from error


def _clean(dry_run: bool) -> list[Waste]:
    found: list[Waste] = []
    searches = (_left_by_runs, _left_by_uploads, _songs, _results, _covers, _renditions, _rows)
    for search in (*searches, lambda: _over_the_cap(found if dry_run else [])):
        try:
            for waste in search():
                if not dry_run:
                    _remove(waste)
                found.append(waste)
        except (OSError, DatabaseError):  # the latter: a database that cannot grow can be read
            logger.exception("The clean-up could not look for waste")
    return found


def _remove(waste: Waste) -> None:
    try:
        waste.remove()
        logger.info("Deleted: %s %s", waste.kind, waste.name)
    except (OSError, DatabaseError):  # the latter: it came into use again
        logger.exception("Could not delete: %s %s", waste.kind, waste.name)


# Left behind


def _left_by_runs() -> Iterator[Waste]:
    """Staging of runs that are over: no job holds the lease in its name."""
    for folder in entries(settings.STAGING_DIR):
        lease = id_in(folder.name)
        if folder.name.startswith(results.DOOMED) or not Job.objects.held(lease).exists():
            yield file_waste("staging", folder)


def _left_by_uploads() -> Iterator[Waste]:
    """Uploads that broke off, songs without a record, records of songs without a job."""
    for file in filter(_is_abandoned, entries(settings.FILE_UPLOAD_TEMP_DIR)):
        yield file_waste("unfinished upload", file)
    for file in filter(_is_abandoned, entries(settings.UPLOAD_DIR)):
        if not Upload.objects.filter(pk=id_in(file.stem)).exists():  # of a song, or of its cover
            yield file_waste("song without a record", file)
    before = timezone.now() - timedelta(seconds=ABANDONED_SECONDS)
    for upload in Upload.objects.filter(jobs=None, created_at__lt=before):
        yield file_waste("song without a job", upload.path, partial(song_files.drop, upload))


# Past their lifetime


def _songs() -> Iterator[Waste]:
    """Songs whose last job ended more than KEEP_UPLOADS_MINUTES ago."""
    before = lifetimes.uploads_kept_since()
    for upload in _idle_uploads(before):
        yield _song(upload)


def _results() -> Iterator[Waste]:
    """Results not used for KEEP_RESULTS_HOURS, those that lost files, and those without a job."""
    before = lifetimes.results_kept_since()
    for key in _results_unused_since(before):
        yield _unused(key, before)
    keys = Job.objects.served().order_by("result_key").values_list("result_key", flat=True)
    for key in keys.distinct():
        if _is_broken(key):
            yield file_waste("broken result", folder_of(key), partial(_expire, key, _is_broken))
    for folder in (each for shelf in entries(settings.RESULT_DIR) for each in entries(shelf)):
        if not Job.objects.needing_result(folder.name).exists():
            yield file_waste("result without a job", folder, partial(results.release, folder.name))


def _covers() -> Iterator[Waste]:
    """Covers of songs of which nothing else is stored: neither the song nor any stems."""
    files = [file for file in entries(settings.UPLOAD_DIR) if file.suffix == COVER_SUFFIX]
    alone = [file for file in files if not file.with_suffix("").exists()]
    for start in range(0, len(alone), BATCH):
        some = alone[start : start + BATCH]
        needed = _needing_cover(id_in(file.stem) for file in some)
        for file in some:
            if id_in(file.stem) not in needed:
                yield file_waste("cover", file, partial(_delete_cover, file))


def _needing_cover(uploads: Iterable[UUID]) -> set[UUID]:
    """Which of these uploads have stems, or jobs that may still give some."""
    jobs = Job.objects.served() | Job.objects.active()
    return set(jobs.filter(upload__in=list(uploads)).values_list("upload_id", flat=True))


def _delete_cover(file: Path) -> None:
    if not _needing_cover([id_in(file.stem)]):
        file.unlink(missing_ok=True)


def _renditions() -> Iterator[Waste]:
    """Renditions of jobs without stems, those that were never finished, and the least lately used
    of those that exceed their cap."""
    for folder in entries(settings.RENDITION_DIR):
        if not Job.objects.served().filter(pk=id_in(folder.name)).exists():
            yield file_waste("renditions", folder)
            continue
        for file in folder.glob(f"*{encoding_cache.PART}"):
            if is_older_than(file, BEGUN_SECONDS) and not encoding_cache.is_in_use(file):
                yield file_waste("unfinished rendition", file)
    for each in encoding_cache.over_the_cap():
        yield _rendition(each)


def _rows() -> Iterator[Waste]:
    """Rows past their lifetime: of jobs, sessions, token buckets, idempotency keys and counts."""
    before = lifetimes.records_kept_since()
    failed = Q(state__in=(Job.State.FAILED, Job.State.CANCELLED), finished_at__lt=before)
    over = Job.objects.filter(failed | Q(expired_at__lt=before))
    for job in over.select_related("upload"):
        yield Waste("job", job.pk.hex, 0, partial(_forget, job, over))
    if expired := Session.objects.filter(expire_date__lt=timezone.now()).count():
        yield Waste("sessions", str(expired), 0, SessionStore.clear_expired)
    if idle := token_bucket.full_buckets().count():
        yield Waste("buckets", str(idle), 0, token_bucket.delete_full)
    if keys := submission.outdated_keys().count():
        yield Waste("idempotency keys", str(keys), 0, submission.outdated_keys().delete)
    if counts := fault_counts.outdated().count():
        yield Waste("counts of faults", str(counts), 0, fault_counts.outdated().delete)


# Over the cap


def _over_the_cap(going: list[Waste]) -> Iterator[Waste]:
    """The least lately used files, until the rest fits under MAX_STORAGE_GB and leaves
    MIN_FREE_DISK_MB free.

    Args:
        going: waste that is about to be deleted anyway.
    """
    excess = _excess(
        sum(map(disk_space.bytes_at, disk_space.folders())), sum(waste.bytes for waste in going)
    )
    names = {waste.name for waste in going}
    for waste in _least_lately_used():
        if excess <= 0:
            return
        if waste.name not in names:
            excess -= waste.bytes
            yield waste


def _excess(kept: int, going: int) -> int:
    """Bytes over the cap, when `going` of `kept` bytes are about to be deleted."""
    cap = settings.MAX_STORAGE_GB
    excess = round(kept - cap * 1e9) if cap else 0
    lacking = disk_space.lacking()
    if cap is None or lacking:
        excess = max(excess, lacking, kept - disk_space.most_kept(kept))
    return excess - going


def _least_lately_used() -> Iterator[Waste]:
    """What may be deleted early: first what can be encoded or uploaded again, then results."""
    for each in encoding_cache.everywhere():
        if each.is_finished and not encoding_cache.is_in_use(each.path):
            yield _rendition(each)
    before = lifetimes.results_in_use_since()
    for upload in _idle_uploads(before):
        yield _song(upload)
    for key in _results_unused_since(before):
        yield _unused(key, before)


# Songs, results, rows


def _idle_uploads(before: datetime) -> list[Upload]:
    """Uploads whose song is stored though their last job ended before a time, oldest first."""
    stored = [id_in(file.name) for file in entries(settings.UPLOAD_DIR)]
    active = Job.objects.active().filter(upload=OuterRef("pk"))
    idle = Upload.objects.filter(~Exists(active)).annotate(ended=Max("jobs__finished_at"))
    found: list[Any] = []
    for start in range(0, len(stored), BATCH):
        found += idle.filter(pk__in=stored[start : start + BATCH], ended__lt=before)
    return sorted(found, key=attrgetter("ended"))


def _song(upload: Upload) -> Waste:
    return file_waste("song", upload.path, partial(_delete_song, upload))


def _delete_song(upload: Upload) -> None:
    with transaction.atomic():
        # Locked: the song is not queued again meanwhile; see `jobs.lifecycle.retry`.
        Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if not upload.jobs.active().exists():
            upload.path.unlink(missing_ok=True)


def _results_unused_since(before: datetime, **which: str) -> list[str]:
    """Keys of the results that were last used before a time, least lately used first."""
    served = Job.objects.served().filter(**which).values("result_key")
    used = served.annotate(used=Max(Coalesce("used_at", "finished_at")))
    return list(used.filter(used__lt=before).order_by("used").values_list("result_key", flat=True))


def _is_broken(key: str) -> bool:
    """Whether a served result lost some of its files."""
    served = Job.objects.with_result(key).prefetch_related("stems")
    return not any(map(results.is_whole, served))


def _unused(key: str, before: datetime) -> Waste:
    def is_unused(key: str) -> bool:
        return bool(_results_unused_since(before, result_key=key))

    return file_waste("result", folder_of(key), partial(_expire, key, is_unused))


def _expire(key: str, is_over: Callable[[str], bool]) -> None:
    """Delete a result if `is_over` still says so; its jobs stay, marked as expired."""
    with transaction.atomic():
        # Locked: no job is served from it meanwhile; see `jobs.reuse.serve_from_store`.
        served = list(Job.objects.with_result(key).order_by("pk").select_for_update())
        if not served or not is_over(key):
            return
        # Only these: another job may have finished since, and its result is a new one.
        locked = Job.objects.filter(pk__in=[job.pk for job in served])
        locked.update(expired_at=timezone.now())
    results.release(key)


def _forget(job: Job, over: QuerySet[Job]) -> None:
    if over.filter(pk=job.pk).exists():  # it was not retried meanwhile
        lifecycle.remove(job)


def _rendition(each: encoding_cache.Encoding) -> Waste:
    name = f"{each.path.parent.name}/{each.path.name}"
    return Waste("renditions", name, each.bytes, partial(encoding_cache.drop, each.path))


def _is_abandoned(path: Path) -> bool:
    return is_older_than(path, ABANDONED_SECONDS)
