"""Results on disk: stems are published whole or not at all, and deleted when no job needs them."""

import logging
import shutil
import uuid
from pathlib import Path

from django.conf import settings
from django.db import transaction

from separations.audio.encoding.render import common_gain
from separations.audio.store.stem_file import exponents_of, sync
from separations.models import Job, folder_of, lifetimes

logger = logging.getLogger(__name__)
DOOMED = "doomed-"  # the prefix of a folder whose files are being deleted


def publish(staging: Path, job: Job) -> None:
    """Move a staging folder, whose files are synced, durably to the result folder of `job`.

    When the same result is there already, whole, that one stays.

    Raises:
        OSError: the folder cannot be moved; nothing is published then.
    """
    target = job.result_folder
    if not staging.exists() and target.exists():
        return  # moved by an attempt whose commit failed
    sync(staging)
    target.parent.mkdir(parents=True, exist_ok=True)
    if all((target / file.name).is_file() for file in staging.iterdir()):
        return  # the slot deletes its staging
    _set_aside(target)  # a result that lost some of its files
    staging.rename(target)
    sync(target.parent)
    sync(target.parent.parent)


def release(key: str) -> bool:
    """Delete the result with this key if no job needs it; returns whether it did.

    The rows that would need it are locked meanwhile; see `jobs.reuse.serve_from_store`.
    """
    with transaction.atomic():
        needing = Job.objects.needing_result(key).order_by("pk").select_for_update()
        doomed = None if list(needing) else _set_aside(folder_of(key))
    if doomed is not None:
        shutil.rmtree(doomed, ignore_errors=True)  # takes a while: not with the rows locked
    return doomed is not None


def _set_aside(folder: Path) -> Path | None:
    """Rename a folder out of its place; if it is not deleted next, the clean-up finds it."""
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


def needed_gain(job: Job) -> float:
    """The gain for formats without head-room, the same for all stems of the job."""
    return common_gain([stem.peak for stem in job.stems.all()])


def record_use(job: Job) -> None:
    """Record that the job's stems are played or downloaded, which keeps them a while longer."""
    if job.state == Job.State.DONE:
        lifetimes.record_use(job, Job.objects.served())
