"""Running claimed jobs: one warm engine a slot, a heartbeat a second, an end for each."""

import logging
import queue
import shutil
import threading
import time
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError

from separations import jobs, results
from separations.audio.info import SAMPLE_RATE
from separations.engine.host import EngineProcess
from separations.engine.messages import Done, Progress, Request
from separations.faults import Fault
from separations.models import Job

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.5
SAVE_SECONDS = 1.0

stopping = threading.Event()
_slots: "queue.SimpleQueue[EngineProcess]" = queue.SimpleQueue()
for _ in range(settings.SLOTS):
    _slots.put(EngineProcess())


class LeaseLost(Exception):
    """The job was cancelled, deleted or given to another runner."""


class Stopping(Exception):
    """The consumer is going down."""


def stop() -> None:
    """Make running jobs go back to the queue, at once and without counting as an attempt."""
    stopping.set()


def work_off() -> None:
    """Run waiting jobs until none is left, if a slot is free. Returns at once otherwise."""
    while not stopping.is_set() and Job.objects.waiting().exists():
        try:
            engine = _slots.get_nowait()
        except queue.Empty:
            return
        try:
            while not stopping.is_set() and (job := jobs.claim()) is not None:
                run(job, engine)
        finally:
            if stopping.is_set():
                engine.kill()
            _slots.put(engine)


def run(job: Job, engine: EngineProcess) -> None:
    """Run one claimed job to an end: done, failed, queued again, or not ours any more."""
    started = time.monotonic()
    staging = settings.STAGING_DIR / f"{job.pk.hex}-{job.lease.hex if job.lease else ''}"
    logger.info("Job %s: attempt %s with %s", job.pk, job.attempt, job.model)
    try:
        done = _separate(job, engine, staging)
        results.publish(staging, job)
        if not jobs.finish(job, done):
            _discard_unowned(job)
            raise LeaseLost
        took = time.monotonic() - started
        logger.info("Job %s: done in %.1f s", job.pk, took)
    except LeaseLost:
        logger.info("Job %s: no longer ours, stopped", job.pk)
    except Stopping:
        jobs.hand_back(job, counts=False)
        logger.info("Job %s: handed back", job.pk)
    except Fault as fault:
        logger.error("Job %s: %s", job.pk, fault)
        if fault.code == "engine_died":
            jobs.try_again_or_fail(job, fault)
        else:
            jobs.fail(job, fault)
    except OSError as error:
        logger.exception("Job %s: could not be stored", job.pk)
        jobs.fail(job, Fault("storage", reason=error.strerror or str(error)))
    except DatabaseError:
        # The row cannot be written now; its lease runs out and the sweep takes it from there.
        logger.exception("Job %s: the database did not answer", job.pk)
    except Exception as error:
        logger.exception("Job %s: failed", job.pk)
        jobs.fail(job, Fault("engine_error", reason=type(error).__name__))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _separate(job: Job, engine: EngineProcess, staging: Path) -> Done:
    """Have the engine separate the job's song, keeping the row alive meanwhile."""
    if not job.upload.path.exists():
        raise Fault("upload_gone")
    staging.mkdir(parents=True)
    request = Request(
        source=str(job.upload.path),
        staging=str(staging),
        model_dir=str(settings.MODEL_DIR),
        options=job.separation,
        frames=round(job.upload.seconds * SAMPLE_RATE),
    )
    progress: Progress | None = None
    saved = 0.0
    for message in engine.run(request, TICK_SECONDS):
        if isinstance(message, Done):
            return message
        if stopping.is_set():
            raise Stopping
        progress = message or progress
        if time.monotonic() - saved >= SAVE_SECONDS:
            if not jobs.heartbeat(job, progress):
                raise LeaseLost
            saved = time.monotonic()
    raise Fault("engine_error", reason="no result")


def _discard_unowned(job: Job) -> None:
    """Take back a result that was published for a job which then could not be finished."""
    if not Job.objects.needing_result(job.result_key).exists():
        results.discard(job.result_folder)
