"""What people take home: a stem, a mix or a time range of either in any format, or all as ZIP."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from django.db.models import prefetch_related_objects
from pathvalidate import sanitize_filename
from zipstream import ZipStream

from separations.audio.formats import Format, Tags
from separations.audio.info import SAMPLE_RATE
from separations.audio.mix import Mix, peak_of
from separations.audio.mix_text import parse_mix
from separations.audio.readers import Part, Reader, StoredStem
from separations.audio.render import WavView, common_gain, size_of, write
from separations.faults import Fault, storage_fault
from separations.models import Job, Stem
from separations.renditions import KeptFile, Making, make
from separations.results import View, needed_gain

CHOSEN = "chosen-"  # what the names of files begin with that hold a mix or a range
KEPT_CHOSEN = 20  # a job: visitors can think of more mixes than a disk has room for
ENCODING_VERSION = 2  # raised with whatever makes other bytes of the same samples
SECONDS = re.compile(r"(?=\.?\d)\d{0,6}(?:\.\d{0,9})?", re.ASCII)
ROUNDING = SAMPLE_RATE // 100  # by how many samples a page may have rounded the length of a song
SHORTEST = SAMPLE_RATE // 100

Wait = Literal["all", "some", "none"]


@dataclass(frozen=True)
class Span:
    """The samples from `start` up to `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Download:
    """Some of a job's sound in a format.

    name: the stem's, or "mix".
    settings: tells it from all else of that name.
    level: the gain that keeps it within full scale; asked only where a format has no head-room.
    """

    job: Job
    name: str
    settings: str
    reader: Reader
    level: Callable[[], float]
    format: Format
    bit_rate: int

    @property
    def tags(self) -> Tags:
        upload = self.job.upload
        return Tags(f"{upload.title} ({self.name})", upload.artist)

    @property
    def file_name(self) -> str:
        return file_name(self.job, self.name, self.format.extension)

    @property
    def identity(self) -> str:
        """The same for the same bytes, and for no others."""
        chosen = (ENCODING_VERSION, self.name, self.settings, self.format.name, self.bit_rate)
        parts = (self.job.result_key, *chosen, self.tags.title, self.tags.artist)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def view(self, wait: Wait = "some") -> View:
        """Readable from any byte on. Compressed formats are encoded once and kept.

        Args:
            wait: for how much of it, where its beginning can be sent before its end is encoded.

        Raises:
            Fault: storage.
        """
        try:
            return View(self.job, self._source(wait))
        except OSError as error:
            raise storage_fault(error) from error

    def _source(self, wait: Wait) -> WavView | KeptFile | Making:
        if self.format.bytes_per_sample:
            return WavView(self.reader, self.format, self._gain(), self.tags)
        kept = self._kept
        try:
            os.utime(kept)  # the next to go is the one that was used longest ago
            return KeptFile(kept)
        except FileNotFoundError:
            making = self._make(kept)
        if wait == "all" or (wait == "some" and not self.format.grows):
            making.wait()
        elif wait == "some":
            making.wait_for_some()
        return making

    def _make(self, kept: Path) -> Making:
        gain, tags = self._gain(), self.tags  # asked here: the encoder's thread has no database
        size = size_of(self.reader, self.format, tags, self.bit_rate)

        def encode(target: Path) -> None:
            write(self.reader, target, self.format, gain, tags, self.bit_rate)
            _drop_oldest(kept.parent, KEPT_CHOSEN - 1)

        return make(kept, encode, size)

    def _gain(self) -> float:
        return 1.0 if self.format.keeps_overs else self.level()

    @property
    def _kept(self) -> Path:
        rate = f"-{self.bit_rate}" if self.bit_rate else ""
        whole = f"{self.name}{rate}-{ENCODING_VERSION}"
        name = f"{CHOSEN}{self.identity}" if self.settings else whole
        return self.job.rendition_folder / f"{name}.{self.format.extension}"


def _drop_oldest(folder: Path, but: int) -> None:
    """Delete all mixes and parts in `folder` but those used last. Who reads one still can."""
    chosen = []
    for file in folder.glob(f"{CHOSEN}*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else is at it
            if file.suffix != ".part":
                chosen.append((file.stat().st_mtime_ns, file))
    for _time, file in sorted(chosen, reverse=True)[but:]:
        file.unlink(missing_ok=True)


def of_stem(stem: Stem, format: Format, bit_rate: int, span: Span | None = None) -> Download:
    """A stem, or the part of it in `span`.

    Raises:
        Fault: result_gone when its samples are no longer there.
    """
    job = stem.job
    if job.frames is None or not stem.path.is_file():
        raise Fault("result_gone")
    reader: Reader = StoredStem(stem.path, job.frames)
    settings = ""
    if span is not None and span != Span(0, job.frames):
        reader = Part(reader, span.start, span.stop)
        settings = f"{span.start}-{span.stop}"
    return Download(job, stem.name, settings, reader, lambda: needed_gain(job), format, bit_rate)


def of_mix(job: Job, text: str, span: Span, format: Format, bit_rate: int) -> Download:
    """The mix that `text` describes (see `separations.audio.mix_text`), or a part of it.

    Raises:
        Fault: result_gone; bad_option when there is no such mix.
    """
    mix, essence = _mix(job, text)
    return Download(
        job,
        "mix",
        f"{essence} {span.start}-{span.stop}",
        Part(mix, span.start, span.stop),
        lambda: common_gain([peak_of(mix, span.start, span.stop)]),
        format,
        bit_rate,
    )


def mix_peak(job: Job, text: str, span: Span) -> float | None:
    """The largest sample of a mix in `span` (see `peak_of`), None where no stem is to be heard.

    Raises:
        Fault: as `of_mix`; storage.
    """
    mix, _essence = _mix(job, text)
    try:
        return peak_of(mix, span.start, span.stop) if mix.tracks else None
    except OSError as error:
        raise storage_fault(error) from error


def _mix(job: Job, text: str) -> tuple[Mix, str]:
    frames = frames_of(job)
    paths = {stem.name: stem.path for stem in job.stems.all()}
    if not all(path.is_file() for path in paths.values()):
        raise Fault("result_gone")
    settings = parse_mix(text, list(paths))
    return Mix.of(settings, paths, frames), settings.essence


def frames_of(job: Job) -> int:
    """How long a job's stems are. Raises Fault (result_gone) when it has none."""
    if not job.has_stems or job.frames is None:
        raise Fault("result_gone")
    return job.frames


def span_of(job: Job, start: str, stop: str) -> Span:
    """The range between two times in seconds, each of which may be left open.

    Raises:
        Fault: result_gone; bad_option when the song has no such part.
    """
    frames = frames_of(job)
    if not start and not stop:
        return Span(0, frames)
    first = _frame(start) if start else 0
    last = _frame(stop) if stop else frames
    if first is not None and last is not None and last <= frames + ROUNDING:
        last = min(last, frames)
        if last - first >= SHORTEST:
            return Span(first, last)
    allowed = f"0 ≤ from < to ≤ {frames / SAMPLE_RATE:.2f}"
    raise Fault("bad_option", option="from, to", allowed=allowed)


def _frame(seconds: str) -> int | None:
    return round(float(seconds) * SAMPLE_RATE) if SECONDS.fullmatch(seconds) else None


def archive(
    job: Job, format: Format, bit_rate: int, span: Span | None = None, *, whole: bool = False
) -> ZipStream:
    """All stems of a job, or that part of them, as a ZIP that is made while it is sent.

    Its length is known where those of the files in it are; `whole` waits for that.

    Raises:
        Fault: see `of_stem` and `Download.view`.
    """
    prefetch_related_objects([job], "stems")  # so that no thread below asks the database
    stems = [of_stem(stem, format, bit_rate, span) for stem in job.stems.all()]
    # All are begun, in their order; those that cannot grow have to be there, and of the others the
    # first has to have begun well.
    views = [stem.view("none") for stem in stems]
    if whole or not format.grows:
        views = [stem.view("all") for stem in stems]
    elif stems:
        stems[0].view("some")
    stream = ZipStream(sized=all(each.size is not None for each in views))
    for stem, each in zip(stems, views, strict=True):
        stream.add(each.read(0, each.size), stem.file_name, size=each.size)
    return stream


def file_name(job: Job, what: str, extension: str) -> str:
    """A name for a download in the song's own script: TITLE - WHAT.EXTENSION."""
    title = sanitize_filename(job.upload.title, replacement_text="_", max_len=150) or "song"
    return f"{title} - {what}.{extension}"
