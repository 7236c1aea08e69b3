"""Figures of what the site is doing now: queue, running jobs, consumers. It only reads.

With any number of jobs it reads the queue, the running jobs, and the latest runs by an index.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import Count, Max, Min
from django.utils import timezone

from separations.audio.sandbox.decoder_process import decoder_check
from separations.jobs import fair_turns
from separations.logs.traces import cleaned_trace
from separations.models import Consumer, Job, Owner, QueueSwitch
from separations.queue.queue_switch import THE_SWITCH, Machine

State = Job.State
MOST_RUNNING = 50  # shown at most
MOST_CONSUMERS = 20
LATEST = 100  # ended jobs from which the speed and the engines are taken


@dataclass(frozen=True)
class Switch:
    """Whether consumers run jobs, and why not. heard: the time of the latest heartbeat.

    able: how many of the consumers that are alive can separate songs, by their own tests.
    reading: why this web server cannot read songs, "" while it can.
    """

    paused_at: datetime | None
    paused_by: str
    alive: int
    heard: datetime | None
    able: int
    reading: str

    @property
    def key(self) -> str:
        """A string that changes when the text about the switch changes."""
        heard = "" if self.alive or self.heard is None else self.heard.isoformat()
        paused = self.paused_at.isoformat() if self.paused_at else ""
        states = f"{self.alive > 0}{self.able > 0}{self.reading == ''}"
        return "|".join((paused, self.paused_by, states, heard))


@dataclass(frozen=True)
class Queue:
    """The queue; times in seconds. expected: the wait of a song sent now, None if unknown."""

    length: int
    longest_wait: float | None
    expected: float | None


@dataclass(frozen=True)
class Running:
    """A running job. slot: the number of the consumer's slot that runs it, None if unknown."""

    job: Job
    seconds: float
    consumer: str = ""
    slot: int | None = None


@dataclass(frozen=True)
class Slot:
    """A consumer's slot. engine: the engine of the machine's last jobs."""

    number: int
    threads: int
    engine_bytes: int
    engine: str
    running: Running | None


@dataclass(frozen=True)
class ConsumerStatus:
    """A consumer and its slots. faults: why its decoders or engines do not work."""

    name: str
    alive: bool
    started_at: datetime
    heartbeat_at: datetime
    slots: tuple[Slot, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Live:
    switch: Switch
    queue: Queue
    running: tuple[Running, ...]
    crews: tuple[ConsumerStatus, ...]
    machines: tuple[tuple[str, Machine], ...]


def switch() -> Switch:
    return _switch(_consumers())


def _consumers() -> list[Any]:
    """The consumers with the latest heartbeats, newest first."""
    return list(Consumer.objects.with_liveness().order_by("-heartbeat_at")[:MOST_CONSUMERS])


def _switch(consumers: Sequence[Any]) -> Switch:
    row = QueueSwitch.objects.filter(pk=THE_SWITCH).first()
    return Switch(
        paused_at=row.paused_at if row else None,
        paused_by=row.paused_by if row else "",
        alive=sum(consumer.is_alive for consumer in consumers),
        heard=consumers[0].heartbeat_at if consumers else None,
        able=sum(consumer.is_alive and not consumer.faults for consumer in consumers),
        reading=cleaned_trace(decoder_check.cause),
    )


def live(now: datetime | None = None) -> Live:
    now = now or timezone.now()
    consumers = _consumers()
    latest = _latest_runs()
    running = _running(consumers, now)
    crews = tuple(_consumer_status(consumer, running, latest) for consumer in consumers)
    state = _switch(consumers)
    slots = sum(len(crew.slots) for crew in crews if crew.alive)
    speeds = [speed_of(*times) for times in latest]
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
    """The runs among the LATEST ended jobs, newest first."""
    ended = Job.objects.filter(finished_at__isnull=False).order_by("-finished_at")
    rows = ended.values_list(
        "started_at", "finished_at", "upload__seconds", "host", "engine", "state", "cached"
    )
    return [
        (started, finished, seconds, host, engine)
        for started, finished, seconds, host, engine, state, cached in rows[:LATEST]
        if state == State.DONE and not cached and started and finished and seconds
    ]


def speed_of(started: datetime, finished: datetime, seconds: float, *_rest: str) -> float:
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
    turn = fair_turns.next_turn(Owner(visitor=""))
    place = {"priority": fair_turns.IN_TURN, "turn": turn, "queued_at": timezone.now()}
    results = Job.objects.waiting_before(place).order_by().values("result_key")
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


def _consumer_status(
    consumer: Any, running: Sequence[Running], latest: Sequence[Run]
) -> ConsumerStatus:
    by_job = {str(each.job.pk): each for each in running}
    engines = [engine for *_times, host, engine in latest if host == consumer.host and engine]
    return ConsumerStatus(
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
        faults=tuple(consumer.faults.values()),
    )


def _machines(consumers: Iterable[Any]) -> tuple[tuple[str, Machine], ...]:
    """Each host's machine, as its consumer with the latest heartbeat reported it."""
    told: dict[str, Machine] = {}
    for consumer in consumers:
        if consumer.is_alive and consumer.machine and consumer.host not in told:
            told[consumer.host] = Machine(**consumer.machine)
    return tuple(told.items())
