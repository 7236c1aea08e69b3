"""Queue position and progress of jobs, for polls that come every second.

All positions are computed once a second from one snapshot of the queue, not by each poll: that
would be work for every pair of visitors.
"""

import time
import uuid
from dataclasses import dataclass, replace
from threading import Lock

from separations.models import Job
from separations.queue import queue_switch

FRESH_SECONDS = 1.0  # how long a snapshot serves
STALE_SECONDS = 5.0  # a snapshot so old is not used, even while another thread makes a new one
# The fields by which polls see whether a job changed.
POLLED_FIELDS = (
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
    "not_before",
)
POLL_SECONDS = 1
SLOWEST_POLL_SECONDS = 5


@dataclass(frozen=True)
class Snapshot:
    """The queue at one moment.

    before: for each queued job that waits for a run, how many results are made before its own.
    running: the keys of the results that are being made.
    turn: the key of the result that is made next, if any.
    standstill: why no job is started, if none is; see `queue_switch.standstill`.
    taken: when it was read, in seconds of the monotonic clock.
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
class Standing:
    """How far a job has come: its place in the queue, or its run.

    run: the job whose progress is that of this one; see `Job.run`.
    before: while it waits, how many results are made before its own; else 0.
    place: while it waits, the place of its result among those that wait, 1 for the next; else 0.
    lacks_memory: whether it is its turn, and only memory is missing.
    lacks_room: whether it was its turn, and room on the disk is missing.
    held_up: why it does not go on for now: "paused", "no_consumer", "broken" or "".
    """

    run: Job
    before: int = 0
    place: int = 0
    lacks_memory: bool = False
    held_up: str = ""
    lacks_room: bool = False

    @property
    def poll_seconds(self) -> int:
        """Seconds until the next poll: more the further back the job waits.

        A song takes several seconds at least, so a job with eight before it misses nothing.
        """
        return min(SLOWEST_POLL_SECONDS, POLL_SECONDS + self.before // 2)


def standing_of(job: Job) -> Standing:
    """How far `job` is now; its place in the queue may be a second old."""
    if not job.is_active:
        return Standing(job)
    snapshot = _snapshots.latest()
    run, before = job, snapshot.before.get(job.pk)
    if job.state == Job.State.QUEUED and before is None:
        run = job.run  # it was queued after the snapshot, or is attached to a run
    if run.state == Job.State.RUNNING:
        # Its own consumer works on it, even where none may begin another job.
        is_alone = snapshot.standstill == queue_switch.NO_CONSUMER
        return Standing(run, held_up=snapshot.standstill if is_alone else "")
    if before is None:
        return replace(_alone(job), held_up=snapshot.standstill)
    lacks_memory = job.stage == Job.Stage.MEMORY and job.result_key == snapshot.turn
    place = 1 + before - len(snapshot.running)
    lacks_room = job.stage == Job.Stage.DISK
    return Standing(job, before, place, lacks_memory, snapshot.standstill, lacks_room)


def _alone(job: Job) -> Standing:
    """As `standing_of`, by queries for this job alone."""
    same = Job.objects.filter(state=Job.State.QUEUED, result_key=job.result_key)
    sooner = Job.objects.ahead_of(same.in_queue_order().first() or job)
    keys = sooner.values("result_key").distinct()  # the same result is made once
    running = keys.filter(state=Job.State.RUNNING).count()
    place = 1 + keys.filter(state=Job.State.QUEUED).count()
    lacks_memory = job.stage == Job.Stage.MEMORY and place == 1
    lacks_room = job.stage == Job.Stage.DISK
    return Standing(job, running + place - 1, place, lacks_memory, lacks_room=lacks_room)


class _Snapshots:
    """Caches the latest snapshot of the queue."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._snapshot: Snapshot | None = None

    def latest(self) -> Snapshot:
        """The queue, at most FRESH_SECONDS old, or STALE_SECONDS while another thread reads it.

        One thread reads; the others go on with the previous snapshot meanwhile.
        """
        snapshot = self._snapshot
        if snapshot is not None and snapshot.age < FRESH_SECONDS:
            return snapshot
        may_wait = snapshot is None or snapshot.age > STALE_SECONDS
        if not self._lock.acquire(blocking=may_wait):
            assert snapshot is not None  # noqa: S101 - for the type checker
            return snapshot
        try:
            snapshot = self._snapshot
            if snapshot is None or snapshot.age >= FRESH_SECONDS:
                self._snapshot = snapshot = _read_queue()
        finally:
            self._lock.release()
        return snapshot


_snapshots = _Snapshots()


def standstill() -> str:
    """Why no job is started now, at most a second old; see `queue_switch.standstill`."""
    return _snapshots.latest().standstill


def _read_queue() -> Snapshot:
    taken = time.monotonic()
    active = Job.objects.active().in_queue_order()
    jobs = list(active.values_list("pk", "result_key", "state"))
    running = frozenset(key for _pk, key, state in jobs if state == Job.State.RUNNING)
    earlier: dict[str, int] = {}  # by result: how many are made before it
    before, turn = {}, ""
    for pk, key, _state in jobs:
        if key in running:
            continue
        turn = turn or key
        before[pk] = earlier.setdefault(key, len(running) + len(earlier))
    return Snapshot(before, running, turn, queue_switch.standstill(), taken)
