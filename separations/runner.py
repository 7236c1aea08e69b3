"""Running jobs: a crew of slots with a warm engine each, and a watch over what dead runners left.

Slots look for work when they are woken (by a queue message) and every two seconds besides, so that
a lost message costs nothing. Each works in a thread of its own, apart from the queue's workers:
however long all of them are busy, messages are read and the housekeeping runs.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection

from separations import control, jobs, leases, limits
from separations.audio.info import SAMPLE_RATE
from separations.engine import tuning
from separations.engine.host import EngineProcess
from separations.engine.messages import Done, Progress, Request
from separations.engine.options import ALL_STEMS
from separations.faults import Fault, storage_fault
from separations.models import Job
from stemsite.logs import about_job

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.25
SAVE_SECONDS = 1.0
LOOK_SECONDS = 2.0
RECOVER_SECONDS = 5.0
IDLE_SECONDS = 600.0  # after which a warm engine is let go
STOP_IS_HEARD_SECONDS = 1.0
FINISHING_TRIES = 3


class LeaseLost(Exception):
    """The job was cancelled, deleted or given to another runner."""


class Stopping(Exception):
    """The consumer is going down."""


class Slot:
    """One warm engine and the job it works on, if any."""

    def __init__(self, engine: EngineProcess, threads: int, stopping: threading.Event) -> None:
        self.engine = engine
        self.busy = False
        self.job = ""  # the id of the one it works on
        self.others_bytes: Callable[[], int] = lambda: 0  # what the engines beside this one hold
        self._threads, self._stopping = threads, stopping

    def run(self, job: Job) -> None:
        """Run one claimed job to an end: done, failed, queued again, or not ours any more."""
        started = time.monotonic()
        self.job = str(job.pk)
        logger.info("Job %s: attempt %s with %s", job.pk, job.attempt, job.model)
        staging = job.staging_folder
        try:
            staging.mkdir(parents=True)
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
            # Whoever ends this process may have ended the engine first.
            if fault.code == "engine_died" and self._stopping.wait(STOP_IS_HEARD_SECONDS):
                leases.hand_back(job)
            else:
                leases.end_with(job, fault)
        except OSError as error:
            logger.exception("Job %s: could not be stored", job.pk)
            leases.end_with(job, storage_fault(error))
        except DatabaseError:
            logger.exception("Job %s: could not be recorded", job.pk)
            connection.close()
            leases.end_with(job, Fault("database"))
        except Exception as error:
            logger.exception("Job %s: failed", job.pk)
            leases.end_with(job, Fault("engine_error", reason=type(error).__name__))
        finally:
            self.job = ""
            shutil.rmtree(staging, ignore_errors=True)

    def state(self) -> control.SlotState:
        return control.SlotState(self.job, self._threads, self.engine.resident)

    def _separate(self, job: Job, staging: str) -> Done:
        """Have the engine separate the job's song, keeping the lease alive meanwhile."""
        if not job.upload.is_kept:
            raise Fault("upload_gone")
        options = job.separation
        request = Request(
            source=str(job.upload.path),
            staging=staging,
            model_dir=str(settings.MODEL_DIR),
            engine_dir=str(settings.ENGINE_DIR),
            options=replace(options, threads=options.threads or self._threads),
            frames=round(job.upload.seconds * SAMPLE_RATE),
            job=str(job.pk),
        )
        watch, lease = limits.Watch(job), _Lease(job)
        # Closed, the engine is dead before anybody hears that the job is free again.
        with closing(self.engine.run(request, TICK_SECONDS)) as messages:
            for message in messages:
                if isinstance(message, Done):
                    return message
                if self._stopping.is_set():
                    raise Stopping
                lease.renew(message)
                with database_errors(job):
                    watch.look(message, self.engine.resident, self.others_bytes())
        raise Fault("engine_error", reason="no result")


def _finish(job: Job, done: Done, staging: Path) -> bool:
    """Finish, and not lose a whole separation to one moment without the database."""
    for _ in range(FINISHING_TRIES - 1):
        with database_errors(job):
            return leases.finish(job, done, staging)
        time.sleep(SAVE_SECONDS)
    return leases.finish(job, done, staging)


@contextmanager
def database_errors(job: Job) -> Iterator[None]:
    """Log and go on, with a new connection next time."""
    try:
        yield
    except DatabaseError as error:
        logger.warning("Job %s: the database did not answer: %s", job.pk, error)
        connection.close()


class _Lease:
    """Renews a job's lease about once a second, and is not put off by one failure."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._progress: Progress | None = None
        self._tried = self._renewed = time.monotonic()

    def renew(self, progress: Progress | None) -> None:
        """Raises LeaseLost when the lease is gone, or may be for all that can be known."""
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
            raise LeaseLost  # somebody else may have taken it


class Crew:
    """The slots of one consumer, each in a thread; one thread that recovers lost jobs and tells
    that the consumer is alive, and one that measures the machine if it never was."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._room = threading.Lock()
        self._calls = 0
        self._presence = control.Presence()
        count, threads = limits.slots(), limits.threads()
        gigabytes = limits.capacity() / 1e9
        logger.info("Slots: %s of %s threads, in %.1f GB of memory", count, threads, gigabytes)
        self._slots = [Slot(EngineProcess(), threads, self._stopping) for _ in range(count)]
        for slot in self._slots:
            slot.others_bytes = partial(self._bytes_beside, slot)
        self._threads = [
            *(
                threading.Thread(target=self._work, args=(slot,), daemon=True)
                for slot in self._slots
            ),
            threading.Thread(target=self._recover, daemon=True),
            threading.Thread(target=self._prepare, args=(threads,), daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def call(self) -> None:
        """Have the idle slots look for work now."""
        with self._changed:
            self._calls += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Make running jobs go back to the queue, at once and without counting as an attempt."""
        self._stopping.set()
        self.call()

    def join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, slot: Slot) -> None:
        worked = time.monotonic()
        try:
            while not self._stopping.is_set():
                calls = self._calls
                if self._run_next(slot):
                    worked = time.monotonic()
                    continue
                if time.monotonic() - worked > IDLE_SECONDS:
                    slot.engine.kill()  # its memory may be wanted elsewhere
                self._rest(calls)
        finally:
            slot.engine.kill()
            connection.close()

    def _rest(self, calls: int) -> None:
        """Wait for a call that came after the first `calls`, or a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls != calls, LOOK_SECONDS)

    def _run_next(self, slot: Slot) -> bool:
        """Claim a job and run it. False when there was none, or none could be had."""
        try:
            close_old_connections()
            job = leases.claim(sum(each.engine.resident for each in self._slots if not each.busy))
            if job is None:
                return False
            self._make_room(slot, job)
            with about_job(job.pk):
                slot.run(job)
        except Exception:
            # Whatever it was, the row is there: it is claimed again, or its lease runs out.
            logger.exception("A slot could not go on")
            connection.close()
            return False
        finally:
            slot.busy = False
        return True

    def _make_room(self, slot: Slot, job: Job) -> None:
        """End warm engines that do nothing, if their memory may be needed for `job`."""
        need = job.memory_reserved or 0
        with self._room:
            slot.busy = True
            if slot.engine.resident > need:
                slot.engine.kill()  # swollen by a larger model
            if self._bytes_beside(slot) + need > limits.capacity():
                for other in self._slots:
                    if not other.busy:
                        other.engine.kill()

    def _bytes_beside(self, slot: Slot) -> int:
        return sum(other.engine.resident for other in self._slots if other is not slot)

    def _prepare(self, threads: int) -> None:
        """Find the fastest engine before the first song asks for it."""

        def wait() -> None:
            if self._stopping.is_set():
                raise Stopping

        try:
            options = jobs.site_options(settings.DEFAULT_MODEL, ALL_STEMS)
            options = replace(options, threads=options.threads or threads)
            tuning.choose(settings.MODEL_DIR, settings.ENGINE_DIR, options, wait)
        except Stopping:
            pass
        except Exception:
            logger.exception("This machine could not be measured; the first song will see to it")

    def _recover(self) -> None:
        try:
            while True:
                for look in (self._find_lost, self._tell):
                    try:
                        close_old_connections()
                        look()
                    except Exception:
                        logger.exception("Lost jobs could not be looked for, or nobody told")
                        connection.close()
                if self._stopping.wait(RECOVER_SECONDS):
                    break
            self._leave()
        finally:
            connection.close()

    def _find_lost(self) -> None:
        if leases.recover():
            self.call()

    def _tell(self) -> None:
        self._presence.beat(self._slot_states(), limits.capacity())

    def _slot_states(self) -> list[control.SlotState]:
        return [slot.state() for slot in self._slots]

    def _leave(self) -> None:
        try:
            self._presence.leave()
        except DatabaseError:
            logger.exception("The consumer could not say that it stops")
