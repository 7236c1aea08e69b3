"""The crew of a consumer: slots that run jobs, and threads that recover lost jobs, report that the
consumer is alive, keep room on the disk, publish its reservations, measure the machine, and test
whether songs can be read and separated at all.

Slots look for work when a queue message wakes them, and every two seconds besides, so that a lost
message costs nothing. Each works in a thread of its own, apart from the queue's workers: however
long all of them are busy, messages are read and periodic tasks run.
"""

import logging
import threading
import time
from contextlib import suppress
from functools import partial

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection

from separations.disk import disk_space, reservations
from separations.engine import memory
from separations.engine.process.engine_process import EngineProcess
from separations.engine.weights.store import read_model
from separations.errors import database_outage
from separations.errors.fault import Fault
from separations.logs.formatter import job_context
from separations.models import Job
from separations.monitoring import fault_counts
from separations.queue import queue_switch
from separations.worker import leases, resources, retention
from separations.worker.idle_measuring import IdleMeasuring
from separations.worker.self_tests import SelfTests
from separations.worker.slots import Slot

logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
RECOVER_SECONDS = 5.0
CLEAN_SECONDS = 60.0  # from one clean-up for lack of room to the next
IDLE_SECONDS = 600.0  # after which an idle slot's engine is ended


class Crew:
    """The slots and threads of one consumer: `start`, `wake`, `stop`, `join`."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._memory = threading.Lock()
        self._machine = threading.Lock()  # of who loads or tests an engine, or measures
        self._wakes = 0
        self._presence = queue_switch.Presence()
        self._reservations = reservations.Reservations()
        count, threads = resources.slots(), resources.threads()
        gigabytes = resources.capacity() / 1e9
        logger.info("Slots: %s of %s threads, in %.1f GB of memory", count, threads, gigabytes)
        self._slots = [Slot(EngineProcess(), threads, self._stopping) for _ in range(count)]
        self._self_tests = SelfTests(
            self._is_busy, self._stopping, self.wake, self._make_room, self._machine
        )
        for slot in self._slots:
            slot.others_bytes = partial(self._bytes_beside, slot)
            slot.reservations = self._reservations
            slot.on_answer, slot.on_fault = self._self_tests.engine_answered, self._self_tests.met
        measuring = IdleMeasuring(
            *(threads, self._stopping, self._is_busy, self._make_room),
            *(self._load_again, self._machine),
        )
        self._threads = [
            *(
                threading.Thread(target=self._work, args=(slot,), daemon=True)
                for slot in self._slots
            ),
            threading.Thread(target=self._recover_and_report, daemon=True),
            threading.Thread(target=self._keep_room, daemon=True),
            threading.Thread(target=self._publish_reservations, daemon=True),
            threading.Thread(target=measuring.run, daemon=True),
            threading.Thread(target=self._self_tests.run, daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Let the idle slots look for work now."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand running jobs back to the queue, at once and without counting an attempt."""
        self._stopping.set()
        self.wake()

    def join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, slot: Slot) -> None:
        worked = time.monotonic()
        try:
            while not self._stopping.is_set():
                if slot.engine.rest:  # its engine died; others may take the jobs meanwhile
                    self._stopping.wait(slot.engine.rest)
                    continue
                wakes = self._wakes
                if self._run_next(slot):
                    worked = time.monotonic()
                    continue
                if not slot.is_loaded and self._load(slot):
                    worked = time.monotonic()
                    continue
                if time.monotonic() - worked > IDLE_SECONDS:
                    slot.engine.kill()  # other programs may want its memory
                self._rest(wakes)
        finally:
            slot.engine.kill()
            connection.close()

    def _rest(self, wakes: int) -> None:
        """Block until `wake` was called more than `wakes` times, or for LOOK_SECONDS."""
        with self._changed:
            self._changed.wait_for(lambda: self._wakes != wakes, LOOK_SECONDS)

    def _run_next(self, slot: Slot) -> bool:
        """Claim a job and run it. False when there was none, or the claim failed."""
        if not self._self_tests.may_claim():
            return False
        try:
            close_old_connections()
            job = leases.claim(sum(each.engine.resident for each in self._slots if not each.busy))
            if job is None:
                return False
            self._free_memory(slot, job)
            with job_context(job.pk):
                slot.run(job)
        except Exception as error:
            # The row is there all the same: it is claimed again, or its lease expires.
            if not database_outage.log_if_outage(error):
                logger.exception("A slot could not go on")
            connection.close()
            return False
        finally:
            slot.busy = False
        return True

    def _free_memory(self, slot: Slot, job: Job) -> None:
        """End idle engines if their memory may be needed for `job`."""
        need = job.memory_reserved or 0
        with self._memory:
            slot.busy = True
            if slot.engine.resident > need:
                slot.engine.kill()  # swollen by a larger model
            if self._bytes_beside(slot) + need > resources.capacity():
                self._end_idle_engines()

    def _end_idle_engines(self) -> None:
        """End the engines of idle slots; with the lock on `_memory` held."""
        for slot in self._slots:
            if slot.is_loading:
                slot.gives_way = True  # its own thread ends the engine
            elif not slot.busy:
                slot.engine.kill()

    def _bytes_beside(self, slot: Slot) -> int:
        return sum(other.engine.resident for other in self._slots if other is not slot)

    def _is_busy(self) -> bool:
        return any(slot.busy for slot in self._slots)

    def _make_room(self, need: int) -> None:
        """End the idle engines if they hold memory that is needed to measure or test."""
        with self._memory:
            if sum(slot.engine.resident for slot in self._slots) + need > resources.capacity():
                self._end_idle_engines()

    def _load_again(self) -> None:
        """Have idle slots load the engine that was found fastest."""
        for slot in self._slots:
            slot.is_loaded = False

    def _load(self, slot: Slot) -> bool:
        """Start an idle slot's engine and load the default model, so that the next song need not
        wait for it; once, as an engine that idles for long is ended. Not if memory is short.

        Returns:
            False when the machine is taken, or the consumer stops: not now.
        """
        if self._stopping.is_set() or not self._machine.acquire(blocking=False):
            return False
        slot.is_loaded = True
        try:
            if self._may_load(slot):
                slot.load()
        except Fault as fault:
            logger.warning("The engine could not be loaded: %s", fault)
            self._self_tests.met(fault)
        except Exception:
            logger.exception("The engine could not be loaded")
        finally:
            slot.is_loading = False
            self._machine.release()
        return True

    def _may_load(self, slot: Slot) -> bool:
        """Mark `slot` as loading if the memory suffices, beside what running songs may take yet."""
        need = memory.estimated_need(
            read_model(settings.MODEL_DIR, settings.DEFAULT_MODEL), settings.JOBS
        )
        close_old_connections()
        reserved = resources.reserved(resources.HOST)
        with self._memory:
            slot.gives_way = False
            taken = max(self._bytes_beside(slot), reserved)
            slot.is_loading = taken + need <= resources.capacity()
            return slot.is_loading

    def _recover_and_report(self) -> None:
        """Recover jobs of dead consumers, and record that this one is alive."""
        try:
            while True:
                for step in (self._recover, self._report):
                    try:
                        close_old_connections()
                        step()
                    except Exception as error:
                        if not database_outage.log_if_outage(error):
                            logger.exception("Recovery of lost jobs, or the heartbeat, failed")
                        connection.close()
                if self._stopping.wait(RECOVER_SECONDS):
                    break
            self._leave()
        finally:
            connection.close()

    def _keep_room(self) -> None:
        """Clean up at once when the disk is short of room or a writer asked for some, but not all
        the time.

        Apart from the queue, which may lie on the same disk and take no messages then.
        """
        looked = time.time()
        try:
            while not self._stopping.wait(LOOK_SECONDS):
                try:
                    if not (disk_space.is_short() or disk_space.wanted_at() > looked):
                        continue
                    looked = time.time()
                    close_old_connections()
                    with suppress(retention.Busy):
                        retention.clean()
                    self.wake()  # a job may have waited for room
                except Exception:
                    logger.exception("No room could be made on the disk")
                    connection.close()
                self._stopping.wait(CLEAN_SECONDS)
        finally:
            connection.close()

    def _publish_reservations(self) -> None:
        """In a thread without the database, which may take long to answer."""
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._reservations.publish()
            except Exception:
                logger.exception("The reservations of disk space could not be published")

    def _recover(self) -> None:
        if leases.recover():
            self.wake()

    def _report(self) -> None:
        faults = self._self_tests.faults()
        self._presence.beat(self._slot_states(), resources.capacity(), faults)
        fault_counts.write()

    def _slot_states(self) -> list[queue_switch.SlotState]:
        return [slot.state() for slot in self._slots]

    def _leave(self) -> None:
        fault_counts.write()
        try:
            self._presence.leave()
        except DatabaseError:
            logger.exception("The row of this consumer could not be deleted")
