"""Deleting what nobody needs any more, and nothing else.

Files and rows are looked at from both sides: files without a row, rows without files, and both when
their time is over. What is in use is never touched: songs of jobs that wait or run, stems that
somebody plays or downloads (see `results.use`), the staging of jobs that run, uploads that are on
their way in.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

from separations import buckets, control, intake, jobs, results, uploads
from separations.models import Job, Upload, folder_of

logger = logging.getLogger(__name__)
# Without a byte written for longer than any upload takes to be read, or any rendition to be made.
ABANDONED_SECONDS = 3600
IN_USE = timedelta(minutes=10)  # after the last noted use; it is noted every minute
PIECE = 500


class Busy(Exception):
    """Another clean-up is at work."""


@dataclass(frozen=True)
class Waste:
    """Something to delete. What may come into use again, `remove` looks at once more."""

    kind: str
    name: str
    bytes: int
    remove: Callable[[], object]


def clean(*, dry_run: bool = False) -> list[Waste]:
    """Delete all that nobody needs; with `dry_run` only tell.

    Returns:
        What was (or would be) deleted.

    Raises:
        Busy: another one is at it.
    """
    try:
        with FileLock(settings.DATA_DIR / "clean.lock", blocking=False):
            return _clean(dry_run)
    except Timeout as error:
        raise Busy from error


def _clean(dry_run: bool) -> list[Waste]:
    found: list[Waste] = []
    looks = (_left_by_runners, _left_by_uploads, _originals, _results, _renditions, _rows)
    for look in (*looks, lambda: _over_the_cap(found if dry_run else [])):
        try:
            for waste in look():
                if not dry_run:
                    _remove(waste)
                found.append(waste)
        except OSError:
            logger.exception("Could not look for what is to be deleted")
    return found


def _remove(waste: Waste) -> None:
    try:
        waste.remove()
        logger.info("Deleted: %s %s", waste.kind, waste.name)
    except (OSError, DatabaseError):  # the latter: it is used again since
        logger.exception("Could not delete: %s %s", waste.kind, waste.name)


# Left behind


def _left_by_runners() -> Iterator[Waste]:
    """Staging of runs that are over: nobody holds the lease in its name."""
    for folder in _entries(settings.STAGING_DIR):
        lease = _uuid(folder.name)
        if folder.name.startswith(results.DOOMED) or not Job.objects.held(lease).exists():
            yield _waste("staging", folder)


def _left_by_uploads() -> Iterator[Waste]:
    """What a browser stopped sending, songs nobody recorded, records no job was made of."""
    for file in filter(_is_abandoned, _entries(settings.FILE_UPLOAD_TEMP_DIR)):
        yield _waste("unfinished upload", file)
    for file in filter(_is_abandoned, _entries(settings.UPLOAD_DIR)):
        if not Upload.objects.filter(pk=_uuid(file.name)).exists():
            yield _waste("song without a record", file)
    before = timezone.now() - timedelta(seconds=ABANDONED_SECONDS)
    for upload in Upload.objects.filter(jobs=None, created_at__lt=before):
        yield _waste("song without a job", upload.path, partial(uploads.drop, upload))


# Over time


def _originals() -> Iterator[Waste]:
    """Songs whose last job ended a while ago."""
    before = timezone.now() - timedelta(minutes=settings.KEEP_UPLOADS_MINUTES)
    for upload in _idle_uploads(before):
        yield _original(upload)


def _results() -> Iterator[Waste]:
    """Results nobody used for long, those that lost files, and those no job knows of."""
    before = timezone.now() - timedelta(hours=settings.KEEP_RESULTS_HOURS)
    for key in _results_unused_since(before):
        yield _unused(key, before)
    keys = Job.objects.served().order_by("result_key").values_list("result_key", flat=True)
    for key in keys.distinct():
        if _is_broken(key):
            yield _waste("broken result", folder_of(key), partial(_expire, key, _is_broken))
    for folder in (each for shelf in _entries(settings.RESULT_DIR) for each in _entries(shelf)):
        if not Job.objects.needing_result(folder.name).exists():
            yield _waste("result without a job", folder, partial(results.release, folder.name))


def _renditions() -> Iterator[Waste]:
    """Encoded files of jobs that have no stems any more, and encodings that were broken off."""
    for folder in _entries(settings.RENDITION_DIR):
        if not Job.objects.served().filter(pk=_uuid(folder.name)).exists():
            yield _waste("renditions", folder)
            continue
        for file in filter(_is_abandoned, folder.glob("*.part")):
            yield _waste("unfinished rendition", file)


def _rows() -> Iterator[Waste]:
    """Records that only say that something was here once."""
    before = timezone.now() - timedelta(days=settings.KEEP_JOBS_DAYS)
    failed = Q(state__in=(Job.State.FAILED, Job.State.CANCELLED), finished_at__lt=before)
    over = Job.objects.filter(failed | Q(expired_at__lt=before))
    for job in over.select_related("upload"):
        yield Waste("job", job.pk.hex, 0, partial(_forget, job, over))
    if expired := Session.objects.filter(expire_date__lt=timezone.now()).count():
        yield Waste("sessions", str(expired), 0, SessionStore.clear_expired)
    if idle := buckets.idle().count():
        yield Waste("buckets", str(idle), 0, buckets.forget_idle)
    if keys := intake.forgettable().count():
        yield Waste("idempotency keys", str(keys), 0, intake.forgettable().delete)


# Too much


def _over_the_cap(going: list[Waste]) -> Iterator[Waste]:
    """The least lately used files, until all that is kept fits under MAX_STORAGE_GB.

    Args:
        going: what is about to be deleted anyway.
    """
    if not settings.MAX_STORAGE_GB:
        return
    folders = (
        settings.UPLOAD_DIR,
        settings.RESULT_DIR,
        settings.RENDITION_DIR,
        settings.STAGING_DIR,
        settings.FILE_UPLOAD_TEMP_DIR,
    )
    excess = sum(map(_size, folders)) - sum(waste.bytes for waste in going)
    excess -= round(settings.MAX_STORAGE_GB * 1e9)
    names = {waste.name for waste in going}
    for waste in _least_lately_used():
        if excess <= 0:
            return
        if waste.name not in names:
            excess -= waste.bytes
            yield waste


def _least_lately_used() -> Iterator[Waste]:
    """What may go before its time: first what can be made or sent again, then results."""
    before = timezone.now() - IN_USE
    for job in Job.objects.served().filter(used_at__lt=before).order_by("used_at"):
        if job.rendition_folder.exists():
            yield _waste("renditions", job.rendition_folder)
    for upload in _idle_uploads(before):
        yield _original(upload)
    for key in _results_unused_since(before):
        yield _unused(key, before)


# Looking and deleting


def _idle_uploads(before: datetime) -> list[Upload]:
    """Uploads that are kept though their last job ended before a time, oldest first."""
    kept = [_uuid(file.name) for file in _entries(settings.UPLOAD_DIR)]
    active = Job.objects.active().filter(upload=OuterRef("pk"))
    idle = Upload.objects.filter(~Exists(active)).annotate(ended=Max("jobs__finished_at"))
    found: list[Any] = []
    for start in range(0, len(kept), PIECE):
        found += idle.filter(pk__in=kept[start : start + PIECE], ended__lt=before)
    return sorted(found, key=attrgetter("ended"))


def _original(upload: Upload) -> Waste:
    return _waste("song", upload.path, partial(_delete_original, upload))


def _delete_original(upload: Upload) -> None:
    with transaction.atomic():
        # Locked, so that nobody queues it again in the same moment; see `jobs.retry`.
        Upload.objects.select_for_update().filter(pk=upload.pk).first()
        if not upload.jobs.active().exists():
            upload.path.unlink(missing_ok=True)


def _results_unused_since(before: datetime, **which: str) -> list[str]:
    """Keys of the results that nobody used since a time, least lately used first."""
    served = Job.objects.served().filter(**which).values("result_key")
    used = served.annotate(used=Max(Coalesce("used_at", "finished_at")))
    return list(used.filter(used__lt=before).order_by("used").values_list("result_key", flat=True))


def _is_broken(key: str) -> bool:
    """Whether a result that is served lost some of its files."""
    served = Job.objects.with_result(key).prefetch_related("stems")
    return not any(map(results.is_whole, served))


def _unused(key: str, before: datetime) -> Waste:
    def is_unused(key: str) -> bool:
        return bool(_results_unused_since(before, result_key=key))

    return _waste("result", folder_of(key), partial(_expire, key, is_unused))


def _expire(key: str, is_over: Callable[[str], bool]) -> None:
    """Delete a result, if it is still over; its jobs stay, and say that their stems are gone."""
    with transaction.atomic():
        # Locked, so that nobody is served from it in the same moment; see `jobs.serve_from_store`.
        served = list(Job.objects.with_result(key).order_by("pk").select_for_update())
        if not served or not is_over(key):
            return
        # These alone: another may have been finished since, and its result is a new one.
        locked = Job.objects.filter(pk__in=[job.pk for job in served])
        locked.update(expired_at=timezone.now())
    results.release(key)


def _forget(job: Job, over: QuerySet[Job]) -> None:
    if over.filter(pk=job.pk).exists():  # nobody has tried it again since
        jobs.remove(job)


def _waste(kind: str, path: Path, remove: Callable[[], object] | None = None) -> Waste:
    return Waste(kind, path.name, _size(path), remove or partial(_delete, path))


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    if path.is_dir():
        return control.bytes_in(path)
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _uuid(name: str) -> UUID:
    """The id in a file's name; one that nothing has when there is none."""
    try:
        return UUID(name)
    except ValueError:
        return UUID(int=0)
