"""What the site is doing and how it did in the last day, in figures. Reads, and changes nothing.

However many jobs there are: only the queue, what runs, and the last day by its index are looked at.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from separations import jobs, sentences
from separations.control import THE_SWITCH, Machine
from separations.models import Consumer, Job, Owner, QueueSwitch

State = Job.State
HOURS = 24
MOST_RUNNING = 50  # that are shown
MOST_CONSUMERS = 20
LATEST = 100  # ended jobs from which the speed and the engines are taken


@dataclass(frozen=True)
class Switch:
    """Whether jobs are taken, and why not. heard: when the last consumer was heard of."""

    paused_at: datetime | None
    paused_by: str
    alive: int
    heard: datetime | None

    @property
    def key(self) -> str:
        """Of all that is said of it: the same key, the same words."""
        heard = "" if self.alive or self.heard is None else self.heard.isoformat()
        paused = self.paused_at.isoformat() if self.paused_at else ""
        return "|".join((paused, self.paused_by, str(self.alive > 0), heard))


@dataclass(frozen=True)
class Queue:
    """Seconds. expected: how long a song sent now would wait, None where nobody can say."""

    length: int
    longest_wait: float | None
    expected: float | None


@dataclass(frozen=True)
class Running:
    """A job that runs. slot: the number of the slot on its consumer, None where none said so."""

    job: Job
    seconds: float
    consumer: str = ""
    slot: int | None = None


@dataclass(frozen=True)
class Slot:
    """A slot of a consumer. engine: what ran the machine's last jobs."""

    number: int
    threads: int
    engine_bytes: int
    engine: str
    running: Running | None


@dataclass(frozen=True)
class Crew:
    """A consumer and its slots."""

    name: str
    alive: bool
    started_at: datetime
    heartbeat_at: datetime
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Live:
    switch: Switch
    queue: Queue
    running: tuple[Running, ...]
    crews: tuple[Crew, ...]
    machines: tuple[tuple[str, Machine], ...]


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
class Day:
    """The last 24 hours. speed: the median of time ÷ length, None where nothing was separated.

    cached: of the jobs that were done, those that had the result of an earlier one.
    """

    hours: tuple[Hour, ...]
    done: int
    cached: int
    failed: int
    cancelled: int
    minutes: float
    speed: float | None
    failures: tuple[Failure, ...]


# Now


def switch() -> Switch:
    return _switch(_consumers())


def _consumers() -> list[Any]:
    """The last heard of first."""
    return list(Consumer.objects.with_liveness().order_by("-heartbeat_at")[:MOST_CONSUMERS])


def _switch(consumers: Sequence[Any]) -> Switch:
    row = QueueSwitch.objects.filter(pk=THE_SWITCH).first()
    return Switch(
        paused_at=row.paused_at if row else None,
        paused_by=row.paused_by if row else "",
        alive=sum(consumer.is_alive for consumer in consumers),
        heard=consumers[0].heartbeat_at if consumers else None,
    )


def live(now: datetime | None = None) -> Live:
    now = now or timezone.now()
    consumers = _consumers()
    latest = _latest_runs()
    running = _running(consumers, now)
    crews = tuple(_crew(consumer, running, latest) for consumer in consumers)
    state = _switch(consumers)
    slots = sum(len(crew.slots) for crew in crews if crew.alive)
    speeds = [_speed(*times) for times in latest]
    pace = median(speeds) if speeds and slots and state.paused_at is None else None
    return Live(
        switch=state,
        queue=_queue(now, running, slots, pace),
        running=running,
        crews=crews,
        machines=_machines(consumers),
    )


# started, finished, length of the song, machine, engine
Run = tuple[datetime, datetime, float, str, str]


def _latest_runs() -> list[Run]:
    """Of the jobs that ended last, those that were separated, newest first."""
    ended = Job.objects.filter(finished_at__isnull=False).order_by("-finished_at")
    rows = ended.values_list(
        "started_at", "finished_at", "upload__seconds", "host", "engine", "state", "cached"
    )
    return [
        (started, finished, seconds, host, engine)
        for started, finished, seconds, host, engine, state, cached in rows[:LATEST]
        if state == State.DONE and not cached and started and finished and seconds
    ]


def _speed(started: datetime, finished: datetime, seconds: float, *_rest: str) -> float:
    return (finished - started).total_seconds() / seconds


def _queue(now: datetime, running: Sequence[Running], slots: int, pace: float | None) -> Queue:
    queued = Job.objects.filter(state=State.QUEUED).order_by()
    told = queued.aggregate(count=Count("pk"), first=Min("queued_at"))
    expected = None
    if pace is not None:
        ahead = sum(_before_a_newcomer())
        left = sum(_left(each.job, pace) for each in running)
        busy = ahead or len(running) >= slots
        expected = (ahead * pace + left) / slots if busy else 0.0
    waits = (now - told["first"]).total_seconds() if told["first"] else None
    return Queue(told["count"], waits, expected)


def _before_a_newcomer() -> list[float]:
    """Seconds of the songs that run before one that somebody sends now who has none waiting."""
    turn = jobs.next_turn(Owner(visitor=""))
    sooner = Q(priority__gt=jobs.IN_TURN) | Q(priority=jobs.IN_TURN, turn__lte=turn)
    results = Job.objects.waiting().filter(sooner).order_by().values("result_key")
    return list(results.annotate(seconds=Max("upload__seconds")).values_list("seconds", flat=True))


def _left(job: Job, pace: float) -> float:
    if job.remaining is not None:
        return job.remaining
    return (1 - job.progress) * job.upload.seconds * pace


def _running(consumers: Iterable[Consumer], now: datetime) -> tuple[Running, ...]:
    places = {
        slot["job"]: (str(consumer), number)
        for consumer in consumers
        for number, slot in enumerate(consumer.slots, 1)
        if slot["job"]
    }
    found = Job.objects.running().select_related("upload", "user").order_by("started_at")
    return tuple(
        Running(
            job,
            (now - job.started_at).total_seconds() if job.started_at else 0.0,
            *places.get(str(job.pk), ("", None)),
        )
        for job in found[:MOST_RUNNING]
    )


def _crew(consumer: Any, running: Sequence[Running], latest: Sequence[Run]) -> Crew:
    by_job = {str(each.job.pk): each for each in running}
    engines = [engine for *_times, host, engine in latest if host == consumer.host and engine]
    return Crew(
        name=str(consumer),
        alive=consumer.is_alive,
        started_at=consumer.started_at,
        heartbeat_at=consumer.heartbeat_at,
        slots=tuple(
            Slot(
                number=number,
                threads=slot["threads"],
                engine_bytes=slot["engine_bytes"],
                engine=engines[0] if engines else "",
                running=by_job.get(slot["job"]),
            )
            for number, slot in enumerate(consumer.slots, 1)
        ),
    )


def _machines(consumers: Iterable[Any]) -> tuple[tuple[str, Machine], ...]:
    """As the consumer that was heard of last on each told it."""
    told: dict[str, Machine] = {}
    for consumer in consumers:
        if consumer.is_alive and consumer.machine and consumer.host not in told:
            told[consumer.host] = Machine(**consumer.machine)
    return tuple(told.items())


# The last day


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
            speeds.append(_speed(started, finished, seconds))
    return Day(
        hours=tuple(hours),
        done=counts[State.DONE],
        cached=counts["cached"],
        failed=counts[State.FAILED],
        cancelled=counts[State.CANCELLED],
        minutes=sum(hour.minutes for hour in hours),
        speed=median(speeds) if speeds else None,
        failures=_failures(first, now),
    )


def _failures(first: datetime, now: datetime) -> tuple[Failure, ...]:
    """What went wrong, the most frequent first; with the values of the last time."""
    failed = Job.objects.filter(finished_at__gte=first, finished_at__lte=now, state=State.FAILED)
    counts: Counter[str] = Counter()
    params: dict[str, dict[str, Any]] = {}
    told = failed.order_by("finished_at").values_list("error_code", "error_params")
    for code, values in told:
        counts[code] += 1
        params[code] = values
    return tuple(
        Failure(code, sentences.fault_sentence(code, params[code]), count)
        for code, count in counts.most_common()
    )


# What a clean-up would take


@dataclass(frozen=True)
class Heap:
    """Things of one kind that would be deleted."""

    kind: str
    count: int
    bytes: int


def heaps(found: Iterable[Any]) -> tuple[Heap, ...]:
    """What `retention.clean` found, by its kinds, the largest first."""
    count: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for waste in found:
        count[waste.kind] += 1
        taken[waste.kind] += waste.bytes
    kinds = sorted(count, key=lambda kind: (-taken[kind], kind))
    return tuple(Heap(kind, count[kind], taken[kind]) for kind in kinds)
