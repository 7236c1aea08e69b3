"""Limits of a separation: memory, disk, time. And how many run side by side."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db.models import Max, Sum
from loky import cpu_count

from separations.audio.info import SAMPLE_RATE
from separations.audio.sandbox.decoder_process import decoder_slots
from separations.audio.sandbox.lockdown import PROCESS_BYTES
from separations.disk import disk_space
from separations.engine import memory
from separations.engine.options import Options, stem_names, work
from separations.engine.process.engine_protocol import Progress
from separations.engine.weights.store import ModelInfo, read_model
from separations.errors.fault import Fault
from separations.models import Job

MEGABYTE = memory.MEGABYTE
HOST = platform.node()
CPUS_A_SLOT = 4  # one song on all cores is done sooner than two on half of them each
DECODERS_PART = 10  # at most this part of the memory, a tenth, is for decoders of uploads
MEASURED_JOBS = 20
SPARE = 1.1  # songs differ
USUAL_SEGMENT = 7.8  # seconds; of htdemucs
USUAL_LONGEST = 600.0  # seconds of a song, for which JOB_TIMEOUT_SECONDS is meant
PATIENCE = 3.0  # how much longer than it first seemed a separation may take


# Memory


def whole_memory() -> int:
    """Bytes of memory of this machine, or MEMORY_MB where that is set."""
    return int(settings.MEMORY_MB * MEGABYTE or memory.total())


def capacity() -> int:
    """Bytes that separations on this machine may take together: what the web server, the system
    and the decoders of uploads leave, or at least half of the memory.

    A separation's own decoder counts within its share: it has ended before the first chunk, which
    takes more.
    """
    whole = whole_memory()
    return max(whole - set_aside(), whole // 2)


def set_aside() -> int:
    """Bytes for the web server, the system and all decoders of uploads at once."""
    return settings.MEMORY_MARGIN_MB * MEGABYTE + decoder_count() * PROCESS_BYTES


def decoder_count() -> int:
    """How many uploads are decoded side by side on this machine: one a CPU, at most as many as a
    tenth of the memory holds, unless DECODERS is set."""
    by_memory = whole_memory() // DECODERS_PART // PROCESS_BYTES
    return int(settings.DECODERS or max(1, min(cpu_count(), by_memory)))


def set_up_decoders() -> None:
    """Make this process share the machine's decoder slots with the site's other processes."""
    decoder_slots.set_up(decoder_count(), slots_at_most(), decoder_folder())


def decoder_folder() -> Path:
    return Path(settings.DATA_DIR, "decoders", HOST)


def reserved(host: str, but: Job | None = None) -> int:
    """Bytes reserved for the jobs that run on a machine."""
    others = Job.objects.running().filter(host=host).exclude(lease=but.lease if but else None)
    return others.aggregate(total=Sum("memory_reserved"))["total"] or 0


def need(job: Job) -> int:
    """Bytes of memory that the job will take: as much as its model took lately, or an estimate.

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
    """How many songs are separated side by side: as CPUs and memory allow, at most SLOTS."""
    try:
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
        each = memory.estimated_need(model, settings.JOBS)
    except Fault:
        each = memory.ENGINE_BYTES
    return int(max(1, min(capacity() // each, slots_at_most())))


def slots_at_most() -> int:
    """How many songs the CPUs, or SLOTS, allow side by side, without regard to memory."""
    return int(settings.SLOTS or max(1, cpu_count() // CPUS_A_SLOT))


def threads() -> int:
    """Threads for each slot. Always the same on one machine, however many slots are busy: the last
    bits of a result could depend on it."""
    return settings.THREADS or max(1, int(cpu_count()) // slots())


# The disk


def disk_need(job: Job) -> int:
    """The most bytes that the job's run takes on the disk.

    Raises:
        Fault: when the model cannot be used any more.
    """
    options, model = job.separation, read_model(settings.MODEL_DIR, job.model)
    frames = round(job.upload.seconds * SAMPLE_RATE)
    return disk_space.separation_bytes(frames, len(stem_names(options, model)))


def disk_most() -> int:
    """Bytes that a run could take if nothing else lay on the disk."""
    room = disk_space.room(settings.STAGING_DIR)
    return room.most() - room.margin


def disk_lacking(job: Job) -> int:
    """Bytes that the disk lacks for the job's run, beside the runs of now.

    The clean-up is asked to free them, unless the disk can never hold so many: then results would
    be deleted for nothing.

    Raises:
        Fault, OSError: when the model cannot be used, or the disk not be asked.
    """
    room = disk_space.room(settings.STAGING_DIR)
    need = disk_need(job)
    wanted = need + _still_to_come() + room.margin
    lacking = max(0, wanted - room.left())
    if lacking and need <= disk_most():
        disk_space.want_room(wanted)
    return lacking


def _still_to_come() -> int:
    """Bytes that the jobs that run now will write yet, at most."""
    running = Job.objects.running().select_related("upload")
    return sum(still_to_come(job)() for job in running)


def still_to_come(job: Job) -> Callable[[], int]:
    """A function that returns how many bytes a job's run will still write at most.

    It does not use the database.
    """
    try:
        need, staging = disk_need(job), job.staging_folder
    except (Fault, TypeError, ValueError, OSError):  # one of another version
        return lambda: 0
    return lambda: max(0, need - disk_space.bytes_in(staging))


# Time


def time_limit(options: Options, model: ModelInfo, song_seconds: float) -> float:
    """Seconds that a job may run: JOB_TIMEOUT_SECONDS times what it costs more than one plain pass
    over a song of USUAL_LONGEST seconds.

    As the cost of a song's second grows with models, passes and overlap.
    """
    longer = max(1.0, song_seconds / USUAL_LONGEST)
    return settings.JOB_TIMEOUT_SECONDS * work(options, model) * longer


def longest_silence(options: Options, model: ModelInfo) -> float:
    """Seconds without progress after which a run counts as stuck: STALL_SECONDS for chunks like
    those of htdemucs, one after the other; longer ones, and several side by side, take longer."""
    longer = (options.segment or model.segment) / USUAL_SEGMENT
    return settings.STALL_SECONDS * max(1.0, longer) * max(1, options.jobs)


class Watch:
    """Checks the limits of one run: time, silence, memory."""

    def __init__(self, job: Job) -> None:
        """Raises Fault when the job's model cannot be used."""
        self._job = job
        options, model = job.separation, read_model(settings.MODEL_DIR, job.model)
        self._may_be_silent = not options.split  # a song in one piece is one long silence
        self._limit = time_limit(options, model, job.upload.seconds)
        self._silence = longest_silence(options, model)
        self._began = self._heard = time.monotonic()
        self._foreseen = False

    def check(self, progress: Progress | None, engine_bytes: int, others_bytes: int = 0) -> None:
        """Called several times a second, with the engine's progress if it sent any.

        Args:
            engine_bytes, others_bytes: memory of the engine now, and of the other slots' engines.

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
        """Extend the time limit once, when the first chunk shows how long the song takes here."""
        if not self._foreseen and progress.stage == "separate" and progress.remaining is not None:
            self._foreseen = True
            self._limit = max(self._limit, PATIENCE * (elapsed + progress.remaining))
