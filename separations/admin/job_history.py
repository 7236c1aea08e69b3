"""A job's history for the operator: its times, its transitions in words, and a log to download."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext

from separations.errors import user_messages
from separations.jobs import lifecycle
from separations.models import Job, Transition
from separations.web.number_format import lasting


@dataclass(frozen=True)
class LogLine:
    """A transition in words. since: the time since the one before, "" for the first.

    trace: the cause of a fault in full, for the operator.
    """

    at: datetime
    state: str
    cause: str
    detail: str
    since: str
    trace: str


def owner_label(job: Job) -> str:
    """A job's owner: the account's name, or the visitor's tag.

    Never the visitor id: it is a secret, by which its songs are opened.
    """
    if job.user is not None:
        return job.user.get_username()
    return gettext("visitor %(tag)s") % {"tag": visitor_tag(job.visitor)}


def visitor_tag(visitor: str) -> str:
    """Eight characters that identify a visitor to the operator."""
    return hashlib.blake2s(visitor.encode(), digest_size=4).hexdigest()


# Times


def waited(job: Job, now: datetime | None = None) -> float:
    """Seconds in the queue: until the start, else until the end or now.

    0 for a job that joined a run which had begun before.
    """
    until = job.started_at or job.finished_at or now or timezone.now()
    return max(0.0, (until - job.queued_at).total_seconds())


def took(job: Job, now: datetime | None = None) -> float | None:
    """Seconds that the run took so far or in all; None when this job had no run."""
    if job.started_at is None or job.cached:
        return None
    return ((job.finished_at or now or timezone.now()) - job.started_at).total_seconds()


def speed(job: Job) -> float | None:
    """Time ÷ length of a separated song; None without a run."""
    seconds = took(job)
    if job.state != Job.State.DONE or seconds is None or not job.upload.seconds:
        return None
    return seconds / job.upload.seconds


# Transitions


def log_lines(job: Job) -> list[LogLine]:
    found: list[LogLine] = []
    before: datetime | None = None
    for transition in job.timeline.all():
        since = _since(transition.at - before) if before else ""
        before = transition.at
        found.append(
            LogLine(
                at=transition.at,
                state=transition.get_state_display(),
                cause=transition.get_cause_display(),
                detail=", ".join(_detail_labels(job, transition)),
                since=since,
                trace=transition.trace,
            )
        )
    return found


def _since(passed: timedelta) -> str:
    seconds = passed.total_seconds()
    return f"+{seconds:.1f} s" if seconds < 60 else f"+{lasting(seconds)}"


def _detail_labels(job: Job, transition: Transition) -> Iterator[str]:
    for name, value in transition.detail.items():
        if name == "attempt":
            yield gettext("attempt %(number)s") % {"number": value}
        elif name == "by":
            yield gettext("by the staff") if value == lifecycle.STAFF else gettext("by its owner")
        elif name == "error":
            params = job.error_params if job.error_code == value else {}
            yield user_messages.fault_sentence(str(value), params)
        elif name == "source":
            yield gettext("job %(job)s") % {"job": str(value)[:8]}
        else:
            yield f"{name}: {value}"


# The log


def log_text(chosen: Iterable[Job]) -> str:
    """Jobs and their transitions as text, with the database's names and codes, for support.

    It holds no more personal data than the list of jobs: causes are cleaned when they are stored.
    """
    return "\n".join("".join(f"{line}\n" for line in _text_lines(job)) for job in chosen)


def _text_lines(job: Job) -> Iterator[str]:
    yield f"job {job.pk}"
    values = {
        "song": str(job.upload),
        "owner": owner_label(job),
        "samples_sha256": job.upload.samples_sha256,
        "seconds": job.upload.seconds,
        "model": job.model,
        "state": job.state,
        "stage": job.stage,
        "progress": job.progress,
        "attempt": job.attempt,
        "cached": job.cached,
        "created_at": job.created_at,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expired_at": job.expired_at,
        "error": job.error_code,
        "error_params": job.error_params,
        "engine": job.engine,
        "host": job.host,
        "memory_used": job.memory_used,
        "memory_reserved": job.memory_reserved,
        "options": job.options,
    }
    for name, value in values.items():
        yield f"  {name}: {_plain(value)}"
    yield "  timeline:"
    for each in job.timeline.all():
        yield f"    {each.at.isoformat()} {each.state} {each.cause} {_plain(each.detail)}"
        yield from (f"      | {line}" for line in each.trace.split("\n") if line)


def _plain(value: object) -> str:
    """A value on one line, whatever a song's title contains."""
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str)
