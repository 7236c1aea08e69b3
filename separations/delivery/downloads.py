"""Downloads: a stem, a mix or a time range of either in any format, or all stems as ZIP."""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from django.db.models import prefetch_related_objects

from separations.audio.encoding.formats import Format
from separations.audio.encoding.render import WavBytes, common_gain, most_bytes, size_of, write
from separations.audio.info import ENCODER_VERSIONS, SAMPLE_RATE, Tags
from separations.audio.mixing.mix import Mix, Track, peak_of
from separations.audio.mixing.mix_spec import MixSettings, parse_mix
from separations.audio.mixing.resampled_peak import peak_at_rate
from separations.audio.store.readers import Part, Reader, StoredStem, Watched
from separations.audio.store.resampled import Resampled, frames_at
from separations.delivery import encoding_cache, encoding_jobs
from separations.delivery.byte_sources import OfResult
from separations.delivery.encoding_jobs import FinishedFile, GrowingFile
from separations.delivery.file_names import (
    archive_details,
    file_name,
    format_details,
    mix_name,
    range_name,
    stem_name,
)
from separations.delivery.time_range import Span, frames_of
from separations.disk import disk_space
from separations.errors.fault import Fault, storage_fault
from separations.fair_use.client_turns import Turn
from separations.jobs.results import needed_gain
from separations.models import Job, Stem

MIX = "mix"  # the name of all mixes
CHOSEN = "chosen-"  # the prefix of files that hold a mix or a range
ENCODING_VERSION = 4  # raised with every change that makes other bytes of the same samples

Wait = Literal["all", "some", "none"]


@dataclass(frozen=True)
class Download:
    """Some of a job's sound in a format.

    name: the stem's, or "mix". label: what it is, in the names of files.
    span: the part of the song, where it is one.
    settings: distinguishes it from other downloads of that name.
    level: finds the gain that keeps it within full scale, in turns of a client; called only for
        formats without head-room.
    """

    job: Job
    name: str
    label: str
    span: Span | None
    settings: str
    reader: Reader
    level: Callable[[str], float]
    format: Format
    bit_rate: int

    @cached_property
    def tags(self) -> Tags:
        """The song's, with its cover, as long as that is stored."""
        upload = self.job.upload
        title = f"{upload.title} ({self.name})"
        return replace(upload.tags, title=title, cover=upload.read_cover())

    @property
    def _more_tags(self) -> tuple[object, ...]:
        """What identifies all tags but title and artist, empty where there are none."""
        bare = replace(self.tags, title="", artist="", cover=b"")
        cover = self.job.upload.cover_sha256 if self.tags.cover else ""
        return () if bare == Tags() and not cover else (*astuple(bare), cover)

    @property
    def file_name(self) -> str:
        rate = self.reader.rate
        details = [_range_name(self.span), *format_details(self.format, self.bit_rate, rate)]
        upload, extension = self.job.upload, self.format.extension
        return file_name(upload.artist, upload.title, self.label, details, extension)

    @property
    def identity(self) -> str:
        """The same for the same bytes, and for no others (the ETag). Encoders of other versions
        write other bytes: a download that broke off before an upgrade begins anew after it."""
        return f"{self._key}-{hashlib.sha256(ENCODER_VERSIONS.encode()).hexdigest()[:8]}"

    @property
    def _key(self) -> str:
        """A hash of all that was chosen. It names files in the cache, which outlast upgrades."""
        chosen = (ENCODING_VERSION, self.name, self.settings, self.format.name, self.bit_rate)
        parts = (self.job.result_key, *chosen, self.tags.title, self.tags.artist, *self._more_tags)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @property
    def size(self) -> int | None:
        """How many bytes it has, None where that is not known before it is encoded."""
        if self.format.wav is not None:
            return WavBytes(self.reader, self.format.wav, 1.0, self.tags).size
        try:
            return self._cached.stat().st_size
        except FileNotFoundError:
            return size_of(self.reader, self.format, self.tags, self.bit_rate)

    @property
    def most_bytes(self) -> int:
        """An upper bound of its bytes, which does not depend on what is encoded already."""
        if self.format.wav is not None:
            return WavBytes(self.reader, self.format.wav, 1.0, self.tags).size
        return most_bytes(self.reader, self.format, self.tags, self.bit_rate)

    @property
    def must_be_made(self) -> bool:
        """Whether it would be encoded now: it is neither cached nor under way."""
        if self.format.wav is not None:
            return False
        return not self._cached.exists() and not encoding_jobs.is_under_way(self._cached)

    def source(self, wait: Wait = "some", client: str = "") -> OfResult:
        """The download as a byte source. Compressed formats are encoded once and cached.

        Args:
            wait: how much has to be encoded first, where a beginning can be sent without the end.
            client: in whose turns it is encoded.

        Raises:
            Fault: disk_full or storage.
        """
        try:
            return OfResult(self.job, self._find_or_encode(wait, client))
        except OSError as error:
            raise storage_fault(error) from error

    def _find_or_encode(self, wait: Wait, client: str) -> WavBytes | FinishedFile | GrowingFile:
        if self.format.wav is not None:
            return WavBytes(self.reader, self.format.wav, self.gain(client), self.tags)
        cached = self._cached
        try:
            encoding_cache.record_use(cached)
            return FinishedFile(cached)
        except FileNotFoundError:
            growing = self._encode(cached, client)
        if wait == "all" or (wait == "some" and not self.format.grows):
            growing.wait()
        elif wait == "some":
            growing.wait_for_some()
        return growing

    def _encode(self, cached: Path, client: str) -> GrowingFile:
        # Read here: the encoder's thread must not use the database.
        gain, tags, stems = self.gain(client), self.tags, self.job.result_folder
        size = size_of(self.reader, self.format, tags, self.bit_rate)
        expected = size or most_bytes(self.reader, self.format, tags, self.bit_rate)

        def encode(target: Path, own: Turn) -> None:
            def between() -> None:
                disk_space.check_next(target.parent)
                own.share()

            encoding_cache.make_room(target.parent, stems, expected)
            reader = Watched(self.reader, between)
            write(reader, target, self.format, gain, tags, self.bit_rate)

        return encoding_jobs.encode(cached, encode, size, client)

    def gain(self, client: str) -> float:
        """What its samples are multiplied by so that they stay within full scale.

        client: in whose turns the peak of a mix is computed.
        """
        if self.format.keeps_overs:
            return 1.0
        self.__dict__["_found_gain"] = found = self.level(client)
        return found

    @property
    def known_gain(self) -> float | None:
        """`gain` where no samples have to be read for it: the stems' peaks are stored, and that of
        a mix is known where `source` has just asked for it."""
        if self.format.keeps_overs or (self.name != MIX and self.reader.rate == SAMPLE_RATE):
            return self.gain("")
        found: float | None = self.__dict__.get("_found_gain")
        return found

    @property
    def _cached(self) -> Path:
        rate = f"-{self.bit_rate}" if self.bit_rate else ""
        # Formats of one extension are told apart by their names.
        named = "" if self.format.name == self.format.extension else f"-{self.format.name}"
        more = hashlib.sha256(repr(self._more_tags).encode()).hexdigest()[:8]
        tagged = f"-{more}" if self._more_tags else ""
        whole = f"{self.name}{named}{rate}-{ENCODING_VERSION}{tagged}"
        name = f"{CHOSEN}{self._key}" if self.settings else whole
        return self.job.rendition_folder / f"{name}.{self.format.extension}"


def of_stem(
    stem: Stem,
    format: Format,
    bit_rate: int,
    span: Span | None = None,
    rate: int = SAMPLE_RATE,
) -> Download:
    """A stem, or the part of it in `span`, at a sample rate in Hz that the format takes.

    Raises:
        Fault: result_gone when its samples are not stored any more.
    """
    job = stem.job
    if job.frames is None or not stem.path.is_file():
        raise Fault("result_gone")
    whole, part = Span(0, job.frames), None if span == Span(0, job.frames) else span
    return Download(
        job,
        stem.name,
        stem_name(stem.name),
        part,
        _settings(part.text if part else "", _rate_text(rate)),
        _part(StoredStem(stem.path, job.frames), part or whole, rate),
        lambda _: _common_gain(job, rate),
        format,
        bit_rate,
    )


def of_mix(
    job: Job, text: str, span: Span, format: Format, bit_rate: int, rate: int = SAMPLE_RATE
) -> Download:
    """The mix that `text` describes (see `separations.audio.mixing.mix_spec`), or a part of it.

    Raises:
        Fault: result_gone; bad_option when there is no such mix.
    """
    mix, chosen = _mix(job, text)

    def level(client: str) -> float:
        peak = _peak(mix, span, client)
        return common_gain([peak_at_rate(mix, peak, span.start, span.stop, rate)])

    return Download(
        job,
        MIX,
        mix_name(chosen),
        None if span == Span(0, mix.frames) else span,
        _settings(chosen.canonical_text, span.text, _rate_text(rate)),
        _part(mix, span, rate),
        level,
        format,
        bit_rate,
    )


def _part(reader: Reader, span: Span, rate: int) -> Reader:
    if rate != reader.rate:
        start, stop = frames_at(span.start, rate), frames_at(span.stop, rate)
        return Part(Resampled(reader, rate), start, stop)
    return reader if span == Span(0, reader.frames) else Part(reader, span.start, span.stop)


def _settings(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _rate_text(rate: int) -> str:
    return "" if rate == SAMPLE_RATE else f"{rate} Hz"


def _range_name(span: Span | None) -> str:
    return range_name(span.start, span.stop) if span else ""


def _common_gain(job: Job, rate: int) -> float:
    """The gain for formats without head-room, the same for all stems of a job at a sample rate."""
    if rate == SAMPLE_RATE:
        return needed_gain(job)
    frames = job.frames or 0
    mixes = ((Mix((Track.plain(stem.path),), frames), stem.peak) for stem in job.stems.all())
    return common_gain([peak_at_rate(mix, peak, 0, frames, rate) for mix, peak in mixes])


def mix_peak(job: Job, text: str, span: Span, client: str = "") -> float | None:
    """The largest sample of a mix in `span` (see `peak_of`), None where all stems are silent.

    Args:
        client: in whose turns it is computed.

    Raises:
        Fault: as `of_mix`; storage.
    """
    mix, _settings = _mix(job, text)
    try:
        return _peak(mix, span, client) if mix.tracks else None
    except OSError as error:
        raise storage_fault(error) from error


def _peak(mix: Mix, span: Span, client: str) -> float:
    return peak_of(mix, span.start, span.stop, partial(encoding_jobs.turn, client))


def _mix(job: Job, text: str) -> tuple[Mix, MixSettings]:
    frames = frames_of(job)
    paths = {stem.name: stem.path for stem in job.stems.all()}
    if not all(path.is_file() for path in paths.values()):
        raise Fault("result_gone")
    chosen = parse_mix(text, list(paths))
    return Mix.of(chosen, paths, frames), chosen


def of_stems(
    job: Job,
    format: Format,
    bit_rate: int,
    span: Span | None = None,
    rate: int = SAMPLE_RATE,
) -> list[Download]:
    """All stems of a job, or that part of them. Raises Fault: see `of_stem`."""
    prefetch_related_objects([job], "stems")  # so that no encoder's thread uses the database
    return [of_stem(stem, format, bit_rate, span, rate) for stem in job.stems.all()]


def archive_name(stems: list[Download]) -> str:
    """The file name of a ZIP of these stems."""
    first, upload = stems[0], stems[0].job.upload
    kind = archive_details(first.format, first.bit_rate, first.reader.rate)
    return file_name(upload.artist, upload.title, "Stems", [_range_name(first.span), *kind], "zip")
