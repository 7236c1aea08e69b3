"""Finished stems on disk: published whole or not at all, and given out in any format."""

import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import prefetch_related_objects
from pathvalidate import sanitize_filename
from zipstream import ZipStream

from separations.audio.formats import Format
from separations.audio.render import Tags, WavView, common_gain, write
from separations.audio.stems import exponents_of
from separations.faults import Fault
from separations.models import Job, Stem

ZIP_PIECE = 1 << 18


def publish(staging: Path, job: Job) -> None:
    """Move a finished staging folder to where `job`'s result belongs, durably.

    When the same result is there already, whole (two jobs with one key), that one stays.

    Raises:
        OSError: the disk is full or cannot be written; nothing is published then.
    """
    for file in staging.iterdir():
        _sync(file)
    _sync(staging)
    target = job.result_folder
    target.parent.mkdir(parents=True, exist_ok=True)
    if all((target / file.name).is_file() for file in staging.iterdir()):
        shutil.rmtree(staging)
        return
    discard(target)  # a result that lost some of its files
    staging.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Delete a result. It vanishes from its place at once, then its files go."""
    doomed = settings.STAGING_DIR / f"doomed-{uuid.uuid4().hex}"
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def discard_renditions(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def is_whole(job: Job) -> bool:
    """Whether every stem of a finished job is on disk."""
    files = (file for stem in job.stems.all() for file in (stem.path, exponents_of(stem.path)))
    return all(file.is_file() for file in files)


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


View = WavView | FileView


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
        return WavView(stem.path, format, job.frames, gain)
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
            raise Fault("storage", reason=error.strerror or str(error)) from error
        finally:
            partial.unlink(missing_ok=True)
    return FileView(kept)


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
