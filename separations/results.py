"""Finished stems on disk: published whole or not at all, and in use while somebody reads them."""

import logging
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from separations.audio.render import common_gain
from separations.audio.stems import exponents_of, sync
from separations.models import Job, folder_of

logger = logging.getLogger(__name__)
USE_IS_NOTED_EVERY = timedelta(minutes=1)
DOOMED = "doomed-"  # what a folder's name begins with while its files are deleted


def publish(staging: Path, job: Job) -> None:
    """Move a staging folder, whose files are synced, to where `job`'s result belongs, durably.

    When the same result is there already, whole, that one stays.

    Raises:
        OSError: the folder cannot be moved; nothing is published then.
    """
    target = job.result_folder
    if not staging.exists() and target.exists():
        return  # moved by a try whose commit failed
    sync(staging)
    target.parent.mkdir(parents=True, exist_ok=True)
    if all((target / file.name).is_file() for file in staging.iterdir()):
        return  # the runner deletes its staging
    _set_aside(target)  # a result that lost some of its files
    staging.rename(target)
    sync(target.parent)
    sync(target.parent.parent)


def release(key: str) -> bool:
    """Delete the result with this key, if no job needs it. Says whether there was one to delete.

    The rows that would need it are locked meanwhile; see `jobs.serve_from_store`.
    """
    with transaction.atomic():
        needing = Job.objects.needing_result(key).order_by("pk").select_for_update()
        doomed = None if list(needing) else _set_aside(folder_of(key))
    if doomed is not None:
        shutil.rmtree(doomed, ignore_errors=True)  # takes a while: not with the rows locked
    return doomed is not None


def _set_aside(folder: Path) -> Path | None:
    """Make a folder vanish from its place at once, to where the clean-up finds it at the latest."""
    doomed = settings.STAGING_DIR / f"{DOOMED}{uuid.uuid4().hex}"
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return None
    return doomed


def discard_renditions(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def is_whole(job: Job) -> bool:
    """Whether every stem of a finished job is on disk."""
    files = [file for stem in job.stems.all() for file in (stem.path, exponents_of(stem.path))]
    return bool(files) and all(file.is_file() for file in files)


# Giving stems out


def needed_gain(job: Job) -> float:
    """The gain that formats without head-room get, the same for all stems of the job."""
    return common_gain([stem.peak for stem in job.stems.all()])


class Source(Protocol):
    """Where the bytes of a download come from; see `View`."""

    @property
    def size(self) -> int | None: ...

    def read(self, start: int, stop: int | None) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class BytesView:
    """Bytes in memory, readable like a `WavView`."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        yield self.data[start:stop]


@dataclass(frozen=True)
class View:
    """Sound in some format, readable from any byte on, and in use while it is.

    size: in bytes, None where nobody knows yet.
    """

    job: Job
    source: Source

    @property
    def size(self) -> int | None:
        return self.source.size

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, or to the end where that is None."""
        for piece in self.source.read(start, stop):
            use(self.job)
            yield piece


def use(job: Job) -> None:
    """Note that somebody plays or downloads the job's stems, which keeps them a while longer.

    Written once a minute only: players ask for many small ranges.
    """
    if job.state != Job.State.DONE:
        return
    now = timezone.now()
    if job.used_at is None or now - job.used_at > USE_IS_NOTED_EVERY:
        job.used_at = now
        try:
            Job.objects.served().filter(pk=job.pk).update(used_at=now)
        except DatabaseError:
            logger.exception("Job %s: its use could not be noted", job.pk)
