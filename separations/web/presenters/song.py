"""What templates show of a job: its texts, percent, stems and buttons."""

import math
from dataclasses import dataclass

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext

from separations.access.permissions import Grant, SongKey
from separations.audio.info import Tags
from separations.delivery import playback
from separations.delivery.stem_names import stem_label, stem_list
from separations.errors import user_messages
from separations.jobs import results
from separations.logs.secret_tokens import ShareToken
from separations.models import Job, Upload
from separations.queue import queue_position
from separations.queue.queue_position import Standing
from separations.web.number_format import lasting, plain_number
from separations.web.presenters.downloads import khz
from separations.web.presenters.levels import SILENCE


@dataclass(frozen=True)
class StemPresenter:
    name: str
    label: str
    href: str
    silent: bool


@dataclass(frozen=True)
class SongPresenter:
    """A job with the sentences that describe it now, in the reader's language."""

    job: Job
    run: Job
    key: SongKey
    may_change: bool
    may_share: bool
    working: bool
    title: str
    artist: str
    album: str
    about: str
    tempo_and_key: str
    cover: str
    length: str
    rate: str
    seconds: float
    percent: int
    headline: str
    waiting: str
    remaining: str
    error: str
    notes: list[str]
    stems: list[StemPresenter]
    stem_line: str
    can_retry: bool
    can_repeat: bool
    version: str
    poll_seconds: int
    held_up: str

    @property
    def shared(self) -> bool:
        """Whether a share link opened it."""
        return isinstance(self.key, ShareToken)

    @property
    def active(self) -> bool:
        return self.job.is_active

    @property
    def card_seconds(self) -> int:
        """`poll_seconds` in a list, which may hold many songs."""
        return max(CARD_POLL_SECONDS, self.poll_seconds)


CARD_POLL_SECONDS = 2


def present_song(job: Job, grant: Grant | None = None) -> SongPresenter:
    """What a requester with `grant` sees of a job; without one, what its owner sees."""
    grant = grant or Grant(job, job.pk, may_change=True, may_share=True)
    way = queue_position.standing_of(job)
    stems = list(job.stems.all()) if job.has_stems else []
    run = way.run
    is_kept = not job.is_active and job.upload.is_kept
    return SongPresenter(
        job=job,
        run=run,
        key=grant.key,
        may_change=grant.may_change,
        may_share=grant.may_share,
        working=run.state == Job.State.RUNNING,
        title=job.upload.title,
        artist=job.upload.artist,
        album=job.upload.album,
        about=_about(job.upload),
        tempo_and_key=_tempo_and_key(job.upload),
        cover=_cover(grant.key, job.upload),
        length=lasting(job.upload.seconds),
        rate=khz(job.upload.sample_rate),
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
        held_up=user_messages.standstill(way.held_up),
    )


def version(job: Job, way: Standing) -> str:
    """A string that changes when the page of an active job changes.

    Every waiting page compares it each second, so it is made of numbers, not of sentences.
    """
    run = way.run
    if run.state != Job.State.RUNNING:
        waits = f"{way.lacks_memory:d}{way.lacks_room:d}_{_rest_minutes(run)}m"
        return f"{job.state}_{way.before}_{waits}_{way.held_up}"
    seconds, minutes = _rounded_remaining(run)
    cells = playback.finished_cells(run)
    return f"{job.state}_{run.stage}_{run.percent}_{seconds}s_{minutes}m_{cells}_{way.held_up}"


def _error(job: Job) -> str:
    if job.is_expired:
        return user_messages.fault_sentence("result_gone", {})
    return user_messages.fault_sentence(job.error_code, job.error_params) if job.error_code else ""


def standstill() -> str:
    return user_messages.standstill(queue_position.standstill())


def _about(upload: Upload) -> str:
    """Album, track, year and genre, as far as the tags say them."""
    parts = [upload.album, _track(upload.tags), str(upload.year or ""), upload.genre]
    return " · ".join(filter(None, parts))


def _track(tags: Tags) -> str:
    if tags.track is None:
        return ""
    if tags.track_total is None:
        return gettext("track %(track)d") % {"track": tags.track}
    return gettext("track %(track)d of %(total)d") % {
        "track": tags.track,
        "total": tags.track_total,
    }


def _tempo_and_key(upload: Upload) -> str:
    """Both are the tags', as somebody or some program wrote them: nothing is measured here."""
    bpm = gettext("%(bpm)s BPM") % {"bpm": plain_number(upload.bpm or 0.0)}
    key = gettext("key %(key)s") % {"key": upload.key}
    return " · ".join([bpm] * bool(upload.bpm) + [key] * bool(upload.key))


def _cover(key: SongKey, upload: Upload) -> str:
    return reverse("separations:cover", args=[key]) if upload.has_cover else ""


def _headline(job: Job) -> str:
    if job.state == Job.State.RUNNING:
        return str(Job.Stage(job.stage).label)
    if job.is_expired:
        return gettext("no longer kept")
    return str(Job.State(job.state).label)


def _waiting(way: Standing) -> str:
    if way.run.state != Job.State.QUEUED:
        return ""
    if way.lacks_memory:
        return gettext("Your song is next. It starts as soon as there is enough memory for it.")
    if way.lacks_room:
        return gettext("It starts as soon as there is room on the disk of this site for it.")
    if minutes := _rest_minutes(way.run):
        text = ngettext(
            "A try did not succeed. The next one follows in about %(count)d minute.",
            "A try did not succeed. The next one follows in about %(count)d minutes.",
            minutes,
        )
        return text % {"count": minutes}
    if way.before == 0:
        return gettext("Your song is next.")
    text = ngettext("%(count)d song before yours.", "%(count)d songs before yours.", way.before)
    return text % {"count": way.before}


def _rest_minutes(job: Job) -> int:
    """Minutes until a job that rests after a fault is tried again, rounded up; 0 if it does not."""
    if job.state != Job.State.QUEUED or job.not_before is None:
        return 0
    return max(0, math.ceil((job.not_before - timezone.now()).total_seconds() / 60))


def _rounded_remaining(job: Job) -> tuple[int, int]:
    """The rest of a run, rounded, in seconds or in minutes; (0, 0) when it is unknown."""
    if job.state != Job.State.RUNNING or job.remaining is None or job.remaining < 1:
        return 0, 0
    seconds = job.remaining
    return (max(5, round(seconds / 5) * 5), 0) if seconds < 60 else (0, round(seconds / 60))


def _remaining(job: Job) -> str:
    seconds, minutes = _rounded_remaining(job)
    if seconds:
        return gettext("about %(seconds)d s left") % {"seconds": seconds}
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        text = gettext("about %(hours)d h %(minutes)d min left")
        return text % {"hours": hours, "minutes": minutes}
    return gettext("about %(minutes)d min left") % {"minutes": minutes} if minutes else ""


def _notes(job: Job) -> list[str]:
    notes = user_messages.note_sentences(job.notes)
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


def _stem(key: SongKey, name: str, peak: float) -> StemPresenter:
    href = reverse("separations:stem", args=[key, name])
    return StemPresenter(name=name, label=stem_label(name), href=href, silent=peak < SILENCE)
