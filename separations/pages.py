"""What the templates show of a job, worked out once and frozen."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext, ngettext

from separations import listening, results, sentences, sharing, waiting
from separations.access import Grant, SongKey
from separations.audio.chunks import CHUNK_FRAMES
from separations.audio.formats import FORMATS
from separations.audio.stems import PEAK_FRAMES
from separations.labels import stem_label, stem_list
from separations.models import Job, ShareLink, Stem
from separations.share_tokens import ShareToken
from separations.waiting import Way


@dataclass(frozen=True)
class StemView:
    name: str
    label: str
    href: str
    silent: bool


@dataclass(frozen=True)
class JobView:
    """A job with the sentences that describe it now, in the reader's language."""

    job: Job
    run: Job
    key: SongKey
    may_change: bool
    may_share: bool
    working: bool
    title: str
    artist: str
    length: str
    seconds: float
    percent: int
    headline: str
    waiting: str
    remaining: str
    error: str
    notes: list[str]
    stems: list[StemView]
    stem_line: str
    can_retry: bool
    can_repeat: bool
    version: str
    poll_seconds: int
    held_up: str

    @property
    def shared(self) -> bool:
        """Whether it is reached by a link that somebody gave away."""
        return isinstance(self.key, ShareToken)

    @property
    def active(self) -> bool:
        return self.job.is_active

    @property
    def card_seconds(self) -> int:
        """`poll_seconds` of a song in a list, of which there may be many."""
        return max(CARD_POLL_SECONDS, self.poll_seconds)


@dataclass(frozen=True)
class TrackView:
    """A strip of the mixer. level: how loud it is, in words, "" while that is not known."""

    name: str
    label: str
    level: str
    loudness: float | None


@dataclass(frozen=True)
class Preset:
    label: str
    mix: str  # as the mixer writes it


@dataclass(frozen=True)
class MixerView:
    """What the mixer in the page starts from. frames, reach: see `listening.Recording`.

    kept_as: the name under which the browser keeps the listener's mix.
    """

    tracks: list[TrackView]
    presets: list[Preset]
    kept_as: str
    tracks_href: str
    frames: int
    reach: int
    has_song: bool
    song_loudness: float | None
    song_peak: float | None
    chunk_frames: int = CHUNK_FRAMES
    peak_frames: int = PEAK_FRAMES

    @property
    def stems(self) -> str:
        """What presets are made of."""
        return " ".join(track.name for track in self.tracks)


@dataclass(frozen=True)
class LinkView:
    """A share link. address: "" where it cannot be told any more."""

    link: ShareLink
    address: str


@dataclass(frozen=True)
class SharingView:
    links: list[LinkView]
    choices: list[tuple[str, str]]


FORMAT_LABELS = {
    "wav": "WAV 16-bit",
    "wav24": "WAV 24-bit",
    "float32": "WAV 32-bit float",
    "flac": "FLAC",
    "mp3": "MP3",
    "m4a": "M4A (AAC)",
    "opus": "Ogg Opus",
}
CARD_POLL_SECONDS = 2
SILENCE = 1e-4  # −80 dB: a stem that peaks lower has nothing to hear


def job_view(job: Job, grant: Grant | None = None) -> JobView:
    """What is shown to whoever holds `grant`; without one, to the job's owner."""
    grant = grant or Grant(job, job.pk, may_change=True, may_share=True)
    way = waiting.way_of(job)
    stems = list(job.stems.all()) if job.has_stems else []
    run = way.run
    is_kept = not job.is_active and job.upload.is_kept
    return JobView(
        job=job,
        run=run,
        key=grant.key,
        may_change=grant.may_change,
        may_share=grant.may_share,
        working=run.state == Job.State.RUNNING,
        title=job.upload.title,
        artist=job.upload.artist,
        length=clock(job.upload.seconds),
        seconds=math.floor(job.upload.seconds * 100) / 100,
        percent=run.percent,
        headline=_headline(run),
        waiting=_waiting(way),
        remaining=_remaining(run),
        error=_error(job),
        notes=_notes(job),
        stems=[_stem(grant.key, stem.name, stem.peak) for stem in stems],
        stem_line=stem_list(stem.name for stem in stems),
        can_retry=is_kept and job.state in (Job.State.FAILED, Job.State.CANCELLED),
        can_repeat=is_kept,
        version=version(job, way),
        poll_seconds=way.poll_seconds,
        held_up=sentences.standstill(way.held_up),
    )


def mixer_view(song: JobView) -> MixerView | None:
    """None for a job that has no stems and will have none."""
    job = song.job
    found = listening.recording(job, song.run)
    if found is None:
        return None
    measured = {} if song.active else {stem.name: stem for stem in job.stems.all()}
    return MixerView(
        tracks=[_track(name, measured.get(name)) for name in found.names],
        presets=_presets(found.names),
        kept_as=_kept_as(song.key),
        tracks_href=reverse("separations:job", args=[song.key]) + "/stems/",
        frames=found.frames,
        reach=found.reach,
        has_song=found.has_song,
        song_loudness=job.song_loudness,
        song_peak=job.song_peak,
    )


def _kept_as(key: SongKey) -> str:
    """Of a shared song neither its id nor, in the browser of whoever else uses it, its token."""
    return f"shared-{key.digest[:32]}" if isinstance(key, ShareToken) else str(key)


def version(job: Job, way: Way) -> str:
    """Of all that changes in pages while a job is on its way: the same version, the same page.

    It is compared each second for everybody who waits, so it is made of numbers, not of sentences.
    """
    run = way.run
    if run.state != Job.State.RUNNING:
        return f"{job.state}_{way.before}_{way.lacks_memory:d}_{way.held_up}"
    seconds, minutes = _told(run)
    heard = listening.finished_cells(run)
    return f"{job.state}_{run.stage}_{run.percent}_{seconds}s_{minutes}m_{heard}_{way.held_up}"


def _track(name: str, stem: Stem | None) -> TrackView:
    level = ""
    loudness = stem.loudness if stem else None
    if stem and stem.peak >= SILENCE:
        level = gettext("Peak %(db)s dB") % {"db": decimal(20 * math.log10(stem.peak))}
        if loudness is not None:
            level += "\n" + gettext("%(loudness)s LUFS") % {"loudness": decimal(loudness)}
    return TrackView(name, stem_label(name), level, loudness)


def _presets(names: tuple[str, ...]) -> list[Preset]:
    """Mixes that make sense for these stems."""
    presets = [Preset(gettext("Everything"), "")]
    pair = len(names) == 2
    if "vocals" in names:
        presets.append(Preset(gettext("Karaoke: without vocals"), "vocals:80:0:m"))
    presets += [
        Preset(gettext("%(stem)s only") % {"stem": stem_label(name)}, f"{name}:80:0:s")
        for name in names
        if not (pair and name == "instrumental")
    ]
    presets += [
        Preset(gettext("Without %(stem)s") % {"stem": stem_label(name).lower()}, f"{name}:80:0:m")
        for name in names
        if not pair and name not in ("vocals", "other")
    ]
    return presets


def sharing_view(job: Job, absolute: Callable[[str], str]) -> SharingView:
    """The open links of a job, for its owner. absolute: makes a path a whole address."""
    links = [LinkView(link, _address(link, absolute)) for link in job.share_links.open()]
    days = [(name, lasts.days) for name, lasts in sharing.LASTING.items() if lasts]
    choices = [
        (name, ngettext("%(count)d day", "%(count)d days", count) % {"count": count})
        for name, count in days
    ]
    return SharingView(links, [*choices, ("never", gettext("until you end it"))])


def _address(link: ShareLink, absolute: Callable[[str], str]) -> str:
    token = sharing.token_of(link)
    return absolute(reverse("separations:job", args=[token])) if token else ""


def _error(job: Job) -> str:
    if job.is_expired:
        return sentences.fault_sentence("result_gone", {})
    return sentences.fault_sentence(job.error_code, job.error_params) if job.error_code else ""


def clock(seconds: float) -> str:
    """75.2 → 1:15"""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def decimal(value: float) -> str:
    """−1.2, with a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


def _headline(job: Job) -> str:
    if job.state == Job.State.RUNNING:
        return str(Job.Stage(job.stage).label)
    if job.is_expired:
        return gettext("no longer kept")
    return str(Job.State(job.state).label)


def _waiting(way: Way) -> str:
    if way.run.state != Job.State.QUEUED:
        return ""
    if way.lacks_memory:
        return gettext("Your song is next. It starts as soon as there is enough memory for it.")
    if way.before == 0:
        return gettext("Your song is next.")
    text = ngettext("%(count)d song before yours.", "%(count)d songs before yours.", way.before)
    return text % {"count": way.before}


def _told(job: Job) -> tuple[int, int]:
    """What is left of a run, in seconds or in minutes; (0, 0) where that is not told."""
    if job.state != Job.State.RUNNING or job.remaining is None or job.remaining < 1:
        return 0, 0
    seconds = job.remaining
    return (max(5, round(seconds / 5) * 5), 0) if seconds < 60 else (0, round(seconds / 60))


def _remaining(job: Job) -> str:
    seconds, minutes = _told(job)
    if seconds:
        return gettext("about %(seconds)d s left") % {"seconds": seconds}
    return gettext("about %(minutes)d min left") % {"minutes": minutes} if minutes else ""


def _notes(job: Job) -> list[str]:
    notes = sentences.note_sentences(job.notes)
    if job.has_stems:
        gain = results.needed_gain(job)
        if gain < 1.0:
            notes.append(
                gettext(
                    "The stems peak above full scale, so all of them were turned down together by "
                    "%(db).1f dB. 32-bit float files keep the original level."
                )
                % {"db": -20 * math.log10(gain)}
            )
    return notes


def _stem(key: SongKey, name: str, peak: float) -> StemView:
    href = reverse("separations:stem", args=[key, name])
    return StemView(name=name, label=stem_label(name), href=href, silent=peak < SILENCE)


def download_choices() -> list[tuple[str, str]]:
    """The formats on offer: what `format` in the address may be, and its label."""
    choices = []
    for name, label in FORMAT_LABELS.items():
        rates = reversed(FORMATS[name].bit_rates)
        choices += [(f"{name}-{rate}", f"{label} {rate} kbit/s") for rate in rates] or [
            (name, label)
        ]
    return choices


def mix_level_sentence(peak: float | None) -> str:
    """How loud a mix gets and what that means for its files.

    Args:
        peak: its largest sample, 1 is full scale; None where no stem is to be heard.
    """
    if peak is None:
        return gettext("Nothing is to be heard in this mix: all stems are muted.")
    if peak < SILENCE:
        return gettext("Nothing is to be heard in this part of the song.")
    level = round(20 * math.log10(peak), 1)
    if level <= 0:
        return gettext("Peaks at about %(level)s dB.") % {
            "level": f"−{abs(level)}" if level else "0.0"
        }
    return gettext(
        "Peaks at +%(db).1f dB: turned down by %(db).1f dB so that nothing clips. 32-bit float "
        "keeps the level."
    ) % {"db": level}
