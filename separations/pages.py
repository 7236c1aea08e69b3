"""What the templates show of a job, worked out once and frozen."""

import math
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext, ngettext

from separations import results, sentences
from separations.audio.formats import BIT_RATES
from separations.labels import stem_label, stem_list
from separations.models import Job


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
    working: bool
    title: str
    artist: str
    length: str
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

    @property
    def active(self) -> bool:
        return self.job.is_active


FORMAT_LABELS = {
    "wav": "WAV 16-bit",
    "wav24": "WAV 24-bit",
    "float32": "WAV 32-bit float",
    "flac": "FLAC",
}
SILENCE = 1e-4  # −80 dB: a stem that peaks lower has nothing to hear


def job_view(job: Job) -> JobView:
    has_stems = job.state == Job.State.DONE and not job.is_expired
    stems = list(job.stems.all()) if has_stems else []
    run = _run_of(job)
    is_kept = not job.is_active and job.upload.is_kept
    return JobView(
        job=job,
        working=run.state == Job.State.RUNNING,
        title=job.upload.title,
        artist=job.upload.artist,
        length=clock(job.upload.seconds),
        percent=run.percent,
        headline=_headline(run),
        waiting=_waiting(run),
        remaining=_remaining(run),
        error=_error(job),
        notes=_notes(job),
        stems=[_stem(job, stem.name, stem.peak) for stem in stems],
        stem_line=stem_list(stem.name for stem in stems),
        can_retry=is_kept and job.state in (Job.State.FAILED, Job.State.CANCELLED),
        can_repeat=is_kept,
    )


def _run_of(job: Job) -> Job:
    """The job whose progress is that of `job`: it may wait for what another one is making."""
    if job.state != Job.State.QUEUED:
        return job
    return Job.objects.running().filter(result_key=job.result_key).first() or job


def _error(job: Job) -> str:
    if job.is_expired:
        return sentences.fault_sentence("result_gone", {})
    return sentences.fault_sentence(job.error_code, job.error_params) if job.error_code else ""


def clock(seconds: float) -> str:
    """75.2 → 1:15"""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def _headline(job: Job) -> str:
    if job.state == Job.State.RUNNING:
        return str(Job.Stage(job.stage).label)
    if job.is_expired:
        return gettext("no longer kept")
    return str(Job.State(job.state).label)


def _waiting(job: Job) -> str:
    if job.state != Job.State.QUEUED:
        return ""
    before = Job.objects.ahead_of(job)
    if job.stage == Job.Stage.MEMORY and not before.filter(state=Job.State.QUEUED).exists():
        return gettext("Your song is next. It starts as soon as there is enough memory for it.")
    ahead = before.values("result_key").distinct().count()  # the same result is made once
    if ahead == 0:
        return gettext("Your song is next.")
    text = ngettext("%(count)d song before yours.", "%(count)d songs before yours.", ahead)
    return text % {"count": ahead}


def _remaining(job: Job) -> str:
    if job.state != Job.State.RUNNING or job.remaining is None or job.remaining < 1:
        return ""
    seconds = job.remaining
    if seconds < 60:
        return gettext("about %(seconds)d s left") % {"seconds": max(5, round(seconds / 5) * 5)}
    return gettext("about %(minutes)d min left") % {"minutes": round(seconds / 60)}


def _notes(job: Job) -> list[str]:
    notes = sentences.note_sentences(job.notes)
    if job.state == Job.State.DONE and not job.is_expired:
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


def _stem(job: Job, name: str, peak: float) -> StemView:
    href = reverse("separations:stem", args=[job.pk, name])
    return StemView(name=name, label=stem_label(name), href=href, silent=peak < SILENCE)


def download_choices() -> list[tuple[str, str]]:
    """The formats on offer: what `format` in the address may be, and its label."""
    mp3 = [(f"mp3-{rate}", f"MP3 {rate} kbit/s") for rate in reversed(BIT_RATES)]
    return [*FORMAT_LABELS.items(), *mp3]
