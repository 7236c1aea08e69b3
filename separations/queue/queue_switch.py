"""The queue's switch (pause, resume), and the consumers' reports of themselves."""

import os
import platform
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone

from separations.disk import disk_space
from separations.engine import memory
from separations.models import Consumer, QueueSwitch

THE_SWITCH = 1
PAUSED, NO_CONSUMER, BROKEN = "paused", "no_consumer", "broken"
FORGOTTEN_AFTER = timedelta(days=1)  # of a consumer that crashed
MEASURE_SECONDS = 60.0  # how often the sizes of the folders are measured


# The switch


def pause(by: str) -> None:
    """Claim no more jobs; those that run go on.

    Args:
        by: the name of the member of staff, for the control room.
    """
    values = {"paused_at": timezone.now(), "paused_by": by}
    QueueSwitch.objects.update_or_create(pk=THE_SWITCH, defaults=values)


def resume() -> None:
    QueueSwitch.objects.update_or_create(
        pk=THE_SWITCH, defaults={"paused_at": None, "paused_by": ""}
    )


def is_paused() -> bool:
    return QueueSwitch.objects.filter(pk=THE_SWITCH, paused_at__isnull=False).exists()


def standstill() -> str:
    """Why no job is started now: PAUSED, NO_CONSUMER, BROKEN (no consumer can work), or ""."""
    if is_paused():
        return PAUSED
    faults = faults_of_the_living()
    if not faults:
        return NO_CONSUMER
    return BROKEN if all(faults) else ""


# Consumers


def faults_of_the_living() -> list[dict[str, str]]:
    """The faults of each consumer that is alive; see `models.Consumer`."""
    return list(Consumer.objects.alive().values_list("faults", flat=True))


@dataclass(frozen=True)
class SlotState:
    """job: its id, "" when the slot is idle. engine_bytes: memory of its engine process."""

    job: str
    threads: int
    engine_bytes: int


@dataclass(frozen=True)
class Machine:
    """Bytes of a consumer's machine: memory, the disk of DATA_DIR, and the files stored there."""

    memory_total: int
    memory_available: int
    memory_for_jobs: int
    disk_total: int
    disk_free: int
    uploads: int
    results: int
    renditions: int


class Presence:
    """A consumer's row: written every few seconds, gone when it stops."""

    def __init__(self) -> None:
        self._id = uuid.uuid4()
        self._started = timezone.now()
        self._measured = float("-inf")
        self._stored = (0, 0, 0)

    def beat(
        self,
        slots: Sequence[SlotState],
        memory_for_jobs: int,
        faults: Mapping[str, str] | None = None,
    ) -> None:
        """Write the row. faults: why this consumer's decoder or engine does not work."""
        if self._measured == float("-inf"):
            self._measure()
        Consumer.objects.update_or_create(
            pk=self._id,
            defaults={
                "host": platform.node(),
                "pid": os.getpid(),
                "started_at": self._started,
                "heartbeat_at": Now(),
                "slots": [asdict(slot) for slot in slots],
                "machine": asdict(self._machine(memory_for_jobs)),
                "faults": dict(faults or {}),
            },
        )
        forgotten = Consumer.objects.filter(heartbeat_at__lt=Now() - FORGOTTEN_AFTER)
        forgotten.delete()
        if time.monotonic() - self._measured > MEASURE_SECONDS:
            self._measure()  # after the heartbeat: a large disk takes a while

    def leave(self) -> None:
        Consumer.objects.filter(pk=self._id).delete()

    def _measure(self) -> None:
        self._measured = time.monotonic()
        folders = (settings.UPLOAD_DIR, settings.RESULT_DIR, settings.RENDITION_DIR)
        self._stored = tuple(map(disk_space.bytes_in, folders))  # type: ignore[assignment]

    def _machine(self, memory_for_jobs: int) -> Machine:
        disk = shutil.disk_usage(settings.DATA_DIR)
        return Machine(
            memory.total(),
            memory.available(),
            memory_for_jobs,
            disk.total,
            disk.free,
            *self._stored,
        )
