"""A slot: one warm engine process, and the run of one claimed job in it.

All slots of a consumer, and its other threads: see `worker.crew`.
"""

import logging
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection

from separations.audio.info import SAMPLE_RATE
from separations.disk import disk_space, reservations
from separations.engine.options import Options, settle
from separations.engine.process.engine_process import EngineProcess
from separations.engine.process.engine_protocol import Done, Progress, Request
from separations.engine.weights.store import read_model
from separations.errors import database_outage
from separations.errors.fault import Fault, storage_fault
from separations.jobs import lifecycle
from separations.models import FaultCount, Job
from separations.monitoring import fault_counts
from separations.queue import queue_switch
from separations.worker import leases, resources

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.25
SAVE_SECONDS = 1.0
STOP_SECONDS = 1.0  # in which the signal that ended an engine reaches this process too
FINISHING_TRIES = 3
# Deaths of a run's processes, which a signal to the whole service may have ended before this one.
DEATHS = {
    "engine_died": FaultCount.Kind.ENGINE,
    "engine_unavailable": FaultCount.Kind.ENGINE,
    "decoder_died": FaultCount.Kind.DECODER,
    "decoder_unavailable": FaultCount.Kind.DECODER,
}


class LeaseLost(Exception):
    """The job was cancelled, deleted or recovered by another consumer."""


class Stopping(Exception):
    """The consumer is going down."""


class Slot:
    """One warm engine and the job it works on, if any."""

    def __init__(self, engine: EngineProcess, threads: int, stopping: threading.Event) -> None:
        self.engine = engine
        self.busy = False
        self.is_loading = self.gives_way = False  # `load` is at work; it is asked to give up
        self.is_loaded = False  # the engine was told to load the default model
        self.job = ""  # the id of the one it works on
        self.others_bytes: Callable[[], int] = lambda: 0  # what the engines beside this one hold
        self.reservations = reservations.Reservations()  # of all slots of a crew
        self.on_answer: Callable[[], None] = lambda: None  # called when the engine gave a result
        self.on_fault: Callable[[Fault], None] = lambda _fault: None  # when a run met one
        self._threads, self._stopping = threads, stopping

    def run(self, job: Job) -> None:
        """Run one claimed job until it is done, failed, queued again, or its lease is lost."""
        started = time.monotonic()
        self.job = str(job.pk)
        logger.info("Job %s: attempt %s with %s", job.pk, job.attempt, job.model)
        staging = job.staging_folder
        try:
            staging.mkdir(parents=True)
            with self.reservations.hold(resources.still_to_come(job)):
                done = self._separate(job, str(staging))
            if not _finish(job, done, staging):
                raise LeaseLost
            logger.info("Job %s: done in %.1f s", job.pk, time.monotonic() - started)
        except LeaseLost:
            logger.info("Job %s: no longer ours, stopped", job.pk)
        except Stopping:
            leases.hand_back(job)
            logger.info("Job %s: handed back", job.pk)
        except Fault as fault:
            trace = {"trace": fault.trace}
            logger.error("Job %s: %s", job.pk, fault, extra=trace, exc_info=not fault.trace)
            if fault.code in DEATHS and self._stopping.wait(STOP_SECONDS):
                leases.hand_back(job)
            else:
                self._end(job, fault)
        except OSError as error:
            logger.exception("Job %s: could not be stored", job.pk)
            self._end(job, storage_fault(error))
        except DatabaseError as error:
            logger.exception("Job %s: could not be recorded", job.pk)
            connection.close()
            is_full = database_outage.cannot_write(error)
            self._end(job, Fault("disk_full" if is_full else "database"))
        except Exception as error:
            logger.exception("Job %s: failed", job.pk)
            self._end(job, Fault("engine_error", reason=type(error).__name__))
        finally:
            self.job = ""
            shutil.rmtree(staging, ignore_errors=True)

    def _end(self, job: Job, fault: Fault) -> None:
        """End the run with a fault that was just caught, and record its cause for the operator."""
        fault.trace = fault.trace or traceback.format_exc()
        leases.end_with(job, fault)
        if fault.code in DEATHS and "status" in fault.params:
            fault_counts.count(DEATHS[fault.code], fault_counts.death(fault))
        self.on_fault(fault)

    def state(self) -> queue_switch.SlotState:
        return queue_switch.SlotState(self.job, self._threads, self.engine.resident)

    def load(self) -> None:
        """Start the engine and load the default model, for the songs to come; given up when this
        slot `gives_way`, and at the consumer's end.

        Raises:
            Fault: it cannot be loaded; a song will tell why.
        """
        began = time.monotonic()
        model = read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL)
        options, _notes = settle(lifecycle.site_options(model.name), model)
        request = self._request(options)

        def go_on() -> bool:
            return not (self._stopping.is_set() or self.gives_way)

        loaded = self.engine.load(request, TICK_SECONDS, go_on)
        if loaded:
            self.on_answer()
            seconds = time.monotonic() - began
            logger.info("%s is loaded for the first song (%s, %.1f s)", model.name, loaded, seconds)

    def _request(self, options: Options) -> Request:
        """A request without a song."""
        return Request(
            source="",
            staging="",
            model_dir=str(settings.MODEL_DIR),
            engine_dir=str(settings.ENGINE_DIR),
            options=replace(options, threads=options.threads or self._threads),
            frames=0,
            keep_free=disk_space.keep_free(),
            decoder_dir=str(resources.decoder_folder()),
            decoders=resources.slots_at_most(),
        )

    def _separate(self, job: Job, staging: str) -> Done:
        """Separate the job's song in the engine, and renew the lease meanwhile."""
        if not job.upload.is_kept:
            raise Fault("upload_gone")
        request = replace(
            self._request(job.separation),
            source=str(job.upload.path),
            staging=staging,
            frames=round(job.upload.seconds * SAMPLE_RATE),
            job=str(job.pk),
        )
        watch, lease = resources.Watch(job), _Lease(job)
        # Closed, the engine is dead before another slot can claim the job.
        with closing(self.engine.run(request, TICK_SECONDS)) as messages:
            for message in messages:
                if isinstance(message, Done):
                    self.on_answer()
                    return message
                if self._stopping.is_set():
                    raise Stopping
                lease.renew(message)
                with database_errors(job):
                    watch.check(message, self.engine.resident, self.others_bytes())
        raise Fault("engine_error", reason="no result")


def _finish(job: Job, done: Done, staging: Path) -> bool:
    """Finish a job, with some tries: a moment without the database must not lose its stems."""
    for _ in range(FINISHING_TRIES - 1):
        with database_errors(job):
            return leases.finish(job, done, staging)
        time.sleep(SAVE_SECONDS)
    return leases.finish(job, done, staging)


@contextmanager
def database_errors(job: Job) -> Iterator[None]:
    """Log database errors and go on, with a new connection next time."""
    try:
        yield
    except DatabaseError as error:
        logger.warning("Job %s: the database did not answer: %s", job.pk, error)
        connection.close()


class _Lease:
    """Renews a job's lease about once a second; a failed try is repeated until it expires."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._progress: Progress | None = None
        self._tried = self._renewed = time.monotonic()

    def renew(self, progress: Progress | None) -> None:
        """Raises LeaseLost when the lease is gone, or may have expired."""
        self._progress = progress or self._progress
        now = time.monotonic()
        if now - self._tried < SAVE_SECONDS:
            return
        self._tried = now
        with database_errors(self._job):
            if not leases.heartbeat(self._job, self._progress):
                raise LeaseLost
            self._renewed = now
        if time.monotonic() - self._renewed > settings.LEASE_SECONDS:
            raise LeaseLost  # another consumer may have recovered the job
