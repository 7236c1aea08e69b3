"""Finished stems on disk: published whole or not at all, and given out in any format."""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import prefetch_related_objects
from django.utils import timezone
from pathvalidate import sanitize_filename
from zipstream import ZipStream

from separations.audio.formats import Format
from separations.audio.render import Tags, WavView, common_gain, write
from separations.audio.stems import exponents_of, sync
from separations.faults import Fault, storage_fault
from separations.models import Job, Stem, folder_of

logger = logging.getLogger(__name__)
ZIP_PIECE = 1 << 18
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


@dataclass(frozen=True)
class FileView:
    """A file on disk, readable like a `WavView`."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while start < stop and (data := file.read(min(ZIP_PIECE, stop - start))):
                start += len(data)
                yield data


@dataclass(frozen=True)
class View:
    """A stem in some format: `size` bytes, readable from any byte on, and in use while it is."""

    job: Job
    source: WavView | FileView

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        for piece in self.source.read(start, stop):
            use(self.job)
            yield piece


def use(job: Job) -> None:
    """Note that somebody plays or downloads the job's stems, which keeps them a while longer.

    Written once a minute only: players ask for many small ranges.
    """
    now = timezone.now()
    if job.used_at is None or now - job.used_at > USE_IS_NOTED_EVERY:
        job.used_at = now
        try:
            Job.objects.served().filter(pk=job.pk).update(used_at=now)
        except DatabaseError:
            logger.exception("Job %s: its use could not be noted", job.pk)


def view(stem: Stem, format: Format, bit_rate: int) -> View:
    """A stem in a format, readable from any byte on. Compressed formats are encoded once and kept.

    Raises:
        Fault: result_gone when its samples are no longer there; storage.
    """
    job = stem.job
    if job.frames is None or not stem.path.is_file():
        raise Fault("result_gone")
    gain = 1.0 if format.keeps_overs else needed_gain(job)
    if format.bytes_per_sample:
        return View(job, WavView(stem.path, format, job.frames, gain))
    rate = f"-{bit_rate}" if format.name == "mp3" else ""
    kept = job.rendition_folder / f"{stem.name}{rate}.{format.extension}"
    if not kept.is_file():
        # A name of its own for each attempt: two requests at once each rename a whole file.
        partial = kept.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            tags = Tags(f"{job.upload.title} ({stem.name})", job.upload.artist)
            write(stem.path, partial, format, job.frames, gain, tags, bit_rate)
            partial.replace(kept)
        except OSError as error:
            raise storage_fault(error) from error
        finally:
            partial.unlink(missing_ok=True)
    return View(job, FileView(kept))


def archive(job: Job, format: Format, bit_rate: int) -> ZipStream:
    """All stems of a job as a ZIP of known length, made while it is sent.

    Raises:
        Fault: see `view`.
    """
    prefetch_related_objects([job], "stems")  # so that no thread below asks the database
    stems = list(job.stems.all())
    # The encoders work outside the interpreter's lock, so stems are encoded side by side.
    with ThreadPoolExecutor(max(1, min(len(stems), os.cpu_count() or 1))) as pool:
        views = list(pool.map(lambda stem: view(stem, format, bit_rate), stems))
    stream = ZipStream(sized=True)
    for stem, each in zip(stems, views, strict=True):
        name = file_name(job, stem.name, format.extension)
        stream.add(each.read(0, each.size), name, size=each.size)
    return stream


def file_name(job: Job, what: str, extension: str) -> str:
    """A name for a download in the song's own script: TITLE - WHAT.EXTENSION."""
    title = sanitize_filename(job.upload.title, replacement_text="_", max_len=150) or "song"
    return f"{title} - {what}.{extension}"
