"""How far jobs are that are on their way, for the many who ask each second.

Where everybody stands in the queue is worked out once a second for all who wait, not by each poll
for itself: that would be work for every pair of visitors.
"""

import time
import uuid
from dataclasses import dataclass, replace
from threading import Lock

from separations import control
from separations.models import QUEUE_ORDER, Job

KEPT_SECONDS = 1.0
STALE_SECONDS = 5.0  # a look so old is told to nobody, whoever else is just looking
# What polls look at of a job to see whether anything changed.
LOOKED_AT = (
    "model",
    "options",
    "result_key",
    "state",
    "stage",
    "progress",
    "remaining",
    "lease",
    "priority",
    "turn",
    "queued_at",
)
POLL_SECONDS = 1
SLOWEST_POLL_SECONDS = 5


@dataclass(frozen=True)
class Line:
    """The queue at one moment.

    before: of each queued job that waits for a run, how many results are made before its own.
    running: the keys of the results that are being made.
    turn: the key of the one that is made next, if any.
    standstill: why nothing is started, if nothing is; see `control.standstill`.
    taken: when, in seconds of the monotonic clock.
    """

    before: dict[uuid.UUID, int]
    running: frozenset[str]
    turn: str
    standstill: str
    taken: float

    @property
    def age(self) -> float:
        return time.monotonic() - self.taken


@dataclass(frozen=True)
class Way:
    """How far a job has come.

    run: the job whose progress is that of this one; see `Job.run`.
    before: of one that waits, how many results are made before its own; else 0.
    place: of one that waits, what its own is among the results that wait, 1 for the next; else 0.
    lacks_memory: whether it is its turn, and only memory is missing.
    held_up: why it does not come on for now: "paused", "no_consumer" or "".
    """

    run: Job
    before: int = 0
    place: int = 0
    lacks_memory: bool = False
    held_up: str = ""

    @property
    def poll_seconds(self) -> int:
        """How long to wait before it is asked for again: longer the further back it waits.

        A song takes several seconds at least, so whoever has eight before them misses nothing.
        """
        return min(SLOWEST_POLL_SECONDS, POLL_SECONDS + self.before // 2)


def way_of(job: Job) -> Way:
    """How far `job` is now; what is before it in the queue may be a second old."""
    if not job.is_active:
        return Way(job)
    line = _keeper.line()
    run, before = job, line.before.get(job.pk)
    if job.state == Job.State.QUEUED and before is None:
        run = job.run  # it has not been queued for long, or waits for what is being made
    if run.state == Job.State.RUNNING:
        return Way(run, held_up="" if line.standstill == control.PAUSED else line.standstill)
    if before is None:
        return replace(_alone(job), held_up=line.standstill)
    lacks_memory = job.stage == Job.Stage.MEMORY and job.result_key == line.turn
    place = 1 + before - len(line.running)
    return Way(job, before, place, lacks_memory, line.standstill)


def _alone(job: Job) -> Way:
    """As `way_of`, by questions of this job's own."""
    same = Job.objects.filter(state=Job.State.QUEUED, result_key=job.result_key)
    sooner = Job.objects.ahead_of(same.order_by(*QUEUE_ORDER).first() or job)
    keys = sooner.values("result_key").distinct()  # the same result is made once
    running = keys.filter(state=Job.State.RUNNING).count()
    place = 1 + keys.filter(state=Job.State.QUEUED).count()
    lacks_memory = job.stage == Job.Stage.MEMORY and place == 1
    return Way(job, running + place - 1, place, lacks_memory)


class _Keeper:
    """Holds the last look at the queue."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._line: Line | None = None

    def line(self) -> Line:
        """The queue, at most KEPT_SECONDS old, or STALE_SECONDS while somebody looks anew.

        One thread looks; the others go on with what there is meanwhile.
        """
        line = self._line
        if line is not None and line.age < KEPT_SECONDS:
            return line
        may_wait = line is None or line.age > STALE_SECONDS
        if not self._lock.acquire(blocking=may_wait):
            assert line is not None  # noqa: S101 - for the type checker
            return line
        try:
            line = self._line
            if line is None or line.age >= KEPT_SECONDS:
                self._line = line = _look()
        finally:
            self._lock.release()
        return line


_keeper = _Keeper()


def standstill() -> str:
    """Why nothing is started here, as everybody is told; see `control.standstill`."""
    return _keeper.line().standstill


def _look() -> Line:
    taken = time.monotonic()
    active = Job.objects.active().order_by(*QUEUE_ORDER)
    jobs = list(active.values_list("pk", "result_key", "state"))
    running = frozenset(key for _pk, key, state in jobs if state == Job.State.RUNNING)
    sooner: dict[str, int] = {}  # by result: how many are made before it
    before, turn = {}, ""
    for pk, key, _state in jobs:
        if key in running:
            continue
        turn = turn or key
        before[pk] = sooner.setdefault(key, len(running) + len(sooner))
    return Line(before, running, turn, control.standstill(), taken)
