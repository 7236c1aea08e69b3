"""What a separation may take: memory, time, silence. And how many run side by side."""

import time

from django.conf import settings
from django.db.models import Max, Sum
from loky import cpu_count

from separations.engine import memory
from separations.engine.messages import Progress
from separations.engine.options import Options, work
from separations.engine.store import ModelInfo, read_model
from separations.faults import Fault
from separations.models import Job

MEGABYTE = memory.MEGABYTE
CPUS_A_SLOT = 4  # one song on all cores is there sooner than two on half of them each
MEASURED_JOBS = 20
SPARE = 1.1  # songs differ
USUAL_SEGMENT = 7.8  # seconds; of htdemucs
PATIENCE = 3.0  # how much longer than it first seemed a separation may take


# Memory


def capacity() -> int:
    """Bytes that separations on this machine may take together."""
    whole = settings.MEMORY_MB * MEGABYTE or memory.total()
    return int(max(whole - settings.MEMORY_MARGIN_MB * MEGABYTE, whole // 2))


def reserved(host: str, but: Job | None = None) -> int:
    """Bytes that are set aside for the jobs that run on a machine."""
    others = Job.objects.running().filter(host=host).exclude(lease=but.lease if but else None)
    return others.aggregate(total=Sum("memory_reserved"))["total"] or 0


def need(job: Job) -> int:
    """Bytes that the job is expected to take: as much as its model took lately, or an estimate.

    Raises:
        Fault: when the model cannot be used any more.
    """
    latest = Job.objects.filter(
        model=job.model, options__jobs=job.options.get("jobs"), memory_used__isnull=False
    )
    latest = latest.order_by("-finished_at")[:MEASURED_JOBS]
    most = latest.aggregate(most=Max("memory_used"))["most"]
    if most:
        return int(SPARE * most)
    model = read_model(settings.MODEL_DIR, job.model)
    return memory.estimated_need(model, job.separation.jobs)


def slots() -> int:
    """How many songs are separated side by side: what CPUs and memory hold, at most SLOTS."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
        each = memory.estimated_need(model, settings.JOBS)
    except Fault:
        each = memory.ENGINE_BYTES
    by_memory = capacity() // each
    by_cpu = settings.SLOTS or cpu_count() // CPUS_A_SLOT
    return int(max(1, min(by_memory, by_cpu)))


def threads() -> int:
    """Threads for each slot. Always the same on one machine, whatever runs beside it: the last
    bits of a result could depend on it."""
    return settings.THREADS or max(1, int(cpu_count()) // slots())


# Time


def time_limit(options: Options, model: ModelInfo) -> float:
    """Seconds that a job may run: JOB_TIMEOUT_SECONDS times what it costs more than one plain pass.

    As the cost of a song's second grows with models, passes and overlap.
    """
    return settings.JOB_TIMEOUT_SECONDS * work(options, model)


def longest_silence(options: Options, model: ModelInfo) -> float:
    """Seconds without progress after which a run counts as stuck: STALL_SECONDS for chunks like
    those of htdemucs, one after the other; longer ones, and several side by side, take longer."""
    longer = (options.segment or model.segment) / USUAL_SEGMENT
    return settings.STALL_SECONDS * max(1.0, longer) * max(1, options.jobs)


class Watch:
    """Looks on while one job runs, and says when it is enough."""

    def __init__(self, job: Job) -> None:
        """Raises Fault when the job's model cannot be used."""
        self._job = job
        options, model = job.separation, read_model(settings.MODEL_DIR, job.model)
        self._may_be_silent = not options.split  # a song in one piece is one long silence
        self._limit = time_limit(options, model)
        self._silence = longest_silence(options, model)
        self._began = self._heard = time.monotonic()
        self._foreseen = False

    def look(self, progress: Progress | None, engine_bytes: int, others_bytes: int = 0) -> None:
        """Called every moment, with the engine's message if there was one.

        Args:
            engine_bytes, others_bytes: what the engine holds now, and the other engines beside it.

        Raises:
            Fault: timed_out, stalled or out_of_memory.
        """
        now = time.monotonic()
        if progress is not None:
            self._heard = now
            self._foresee(progress, now - self._began)
        if now - self._began > self._limit:
            raise Fault("timed_out", minutes=max(1, round(self._limit / 60)))
        if not self._may_be_silent and now - self._heard > self._silence:
            raise Fault("stalled", seconds=round(self._silence))
        if engine_bytes > (self._job.memory_reserved or 0):
            others = max(others_bytes, reserved(self._job.host, but=self._job))
            if engine_bytes + others > capacity():
                raise Fault("out_of_memory")

    def _foresee(self, progress: Progress, elapsed: float) -> None:
        """Let a slow machine take its time: once its first chunk shows how long the song takes."""
        if not self._foreseen and progress.stage == "separate" and progress.remaining is not None:
            self._foreseen = True
            self._limit = max(self._limit, PATIENCE * (elapsed + progress.remaining))
