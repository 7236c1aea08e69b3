"""Figures of the last 24 hours: jobs, minutes of audio, speed, failures, refusals, deaths."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Sum
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from separations.admin.control_room.dashboard import speed_of
from separations.errors import user_messages
from separations.models import FaultCount, Job

State = Job.State
HOURS = 24
PROCESSES = {
    FaultCount.Kind.DECODER: _("reads a song"),
    FaultCount.Kind.ENGINE: _("separates a song"),
}


@dataclass
class Hour:
    """An hour of the last day. minutes: of audio that was separated."""

    start: datetime
    done: int = 0
    failed: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class Failure:
    code: str
    sentence: str
    count: int


@dataclass(frozen=True)
class Death:
    """How processes of one kind ended on their own, and how often."""

    process: Promise
    ending: str
    count: int


@dataclass(frozen=True)
class Day:
    """The last 24 hours. speed: the median of time ÷ length, None where nothing was separated.

    cached: of the jobs that were done, those that had the result of an earlier one.
    refused: songs that were not taken, by cause. deaths: of decoders and engines.
    """

    hours: tuple[Hour, ...]
    done: int
    cached: int
    failed: int
    cancelled: int
    minutes: float
    speed: float | None
    failures: tuple[Failure, ...]
    refused: tuple[Failure, ...]
    deaths: tuple[Death, ...]


def day(now: datetime | None = None) -> Day:
    now = now or timezone.now()
    this_hour = timezone.localtime(now).replace(minute=0, second=0, microsecond=0)
    first = this_hour.astimezone(UTC) - timedelta(hours=HOURS - 1)  # where no hour is skipped
    hours = [Hour(first + timedelta(hours=number)) for number in range(HOURS)]
    counts: Counter[str] = Counter()
    speeds: list[float] = []
    ended = Job.objects.filter(finished_at__gte=first, finished_at__lte=now).order_by()
    rows: Any = ended.values_list("state", "cached", "started_at", "finished_at", "upload__seconds")
    for state, cached, started, finished, seconds in rows:
        hour = hours[min(HOURS - 1, int((finished - first).total_seconds() // 3600))]
        counts[state] += 1
        hour.failed += state == State.FAILED
        hour.done += state == State.DONE
        counts["cached"] += state == State.DONE and cached
        if state == State.DONE and not cached and started:
            hour.minutes += seconds / 60
            speeds.append(speed_of(started, finished, seconds))
    refused, deaths = _refusals_and_deaths(first)
    return Day(
        hours=tuple(hours),
        done=counts[State.DONE],
        cached=counts["cached"],
        failed=counts[State.FAILED],
        cancelled=counts[State.CANCELLED],
        minutes=sum(hour.minutes for hour in hours),
        speed=median(speeds) if speeds else None,
        failures=_failures(first, now),
        refused=refused,
        deaths=deaths,
    )


def _failures(first: datetime, now: datetime) -> tuple[Failure, ...]:
    """Failures by code, the most frequent first, with the values of the latest one."""
    failed = Job.objects.filter(finished_at__gte=first, finished_at__lte=now, state=State.FAILED)
    counts: Counter[str] = Counter()
    params: dict[str, dict[str, Any]] = {}
    told = failed.order_by("finished_at").values_list("error_code", "error_params")
    for code, values in told:
        counts[code] += 1
        params[code] = values
    return tuple(
        Failure(code, user_messages.fault_sentence(code, params[code]), count)
        for code, count in counts.most_common()
    )


def _refusals_and_deaths(first: datetime) -> tuple[tuple[Failure, ...], tuple[Death, ...]]:
    """What was counted since a time (`monitoring.fault_counts`), the most frequent first."""
    rows = FaultCount.objects.filter(hour__gte=first).order_by()
    counts = rows.values_list("kind", "code").annotate(sum=Sum("count")).order_by("-sum", "code")
    refused, deaths = [], []
    for kind, code, number in counts:
        if kind == FaultCount.Kind.REFUSED:
            refused.append(Failure(code, user_messages.general_sentence(code), number))
        else:
            deaths.append(Death(PROCESSES[kind], code, number))
    return tuple(refused), tuple(deaths)
