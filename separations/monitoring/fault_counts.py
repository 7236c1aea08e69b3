"""Counts of refused songs and dead processes, by the hour and the cause, in the database.

Any process counts, with at most one small write a second, for which a visitor waits LOCK_SECONDS at
most. What comes faster, or while others write, is added up and written with the next one, apart
after a probe, every few seconds by the consumer, or when the process ends.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from threading import Lock, Thread

from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from separations.audio.child_process import ending
from separations.errors import database_outage
from separations.errors.fault import Fault
from separations.models import FaultCount
from separations.monitoring.registry import process_metrics

logger = logging.getLogger(__name__)
Kind = FaultCount.Kind
WRITE_SECONDS = 1.0
LOCK_SECONDS = 0.25  # to wait for another writer
MOST_UNWRITTEN = 500  # kinds of a few hours, while the database cannot be written
KEPT = timedelta(days=2)  # the control room shows one

_lock, _writing = Lock(), Lock()
_unwritten: Counter[tuple[datetime, str, str]] = Counter()
_written = [float("-inf")]


def count(kind: Kind, code: str) -> None:
    """Count one refusal or death. Never fails, whatever the database does."""
    if (counted := process_metrics()) is not None:
        counted.faults.labels(kind.value, code).inc()
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    with _lock:
        if len(_unwritten) < MOST_UNWRITTEN:
            _unwritten[hour, kind.value, code[:60]] += 1
    if time.monotonic() - _written[0] >= WRITE_SECONDS:
        write()


@contextmanager
def counting_refusals() -> Iterator[None]:
    """Count a fault that leaves the context as the reason why a song was refused."""
    try:
        yield
    except Fault as fault:
        count_refusals([fault])
        raise


def count_refusals(faults: Iterable[Fault]) -> None:
    """Count faults as the reasons why songs were refused."""
    for fault in faults:
        count(Kind.REFUSED, fault.code)


def death(fault: Fault) -> str:
    """How a process of a fault with a status ended: "signal SIGSEGV", "status 1"."""
    return ending(fault.params["status"])


def count_decoder_death(fault: Fault) -> None:
    """Count the death of an upload's decoder."""
    count(Kind.DECODER, death(fault))


def write() -> None:
    """Write to the database what is not written yet."""
    with _lock:
        rows, _written[0] = dict(_unwritten), time.monotonic()
        _unwritten.clear()
    if not rows:
        return
    try:
        with _short_wait(), transaction.atomic():
            for (hour, kind, code), number in sorted(rows.items()):
                _add(hour, kind, code, number)
    except Exception as error:  # noqa: BLE001 - a count is no reason to refuse a song
        with _lock:
            _unwritten.update(rows)
        if not database_outage.log_if_outage(error):
            logger.warning("Counts of faults could not be written: %s", error)


def write_apart() -> None:
    """`write` in a thread of its own, if there is anything to write."""
    if _unwritten and not _writing.locked():
        with suppress(RuntimeError):  # no more threads
            Thread(target=_write_alone, daemon=True).start()


def _write_alone() -> None:
    if not _writing.acquire(blocking=False):
        return
    try:
        write()
    finally:
        connection.close()
        _writing.release()


@contextmanager
def _short_wait() -> Iterator[None]:
    """Wait LOCK_SECONDS at most for other writers, instead of as long as jobs do (SQLite; other
    databases lock single rows)."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        (before,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000:.0f}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {before}")


def _add(hour: datetime, kind: str, code: str, number: int) -> None:
    same = FaultCount.objects.filter(hour=hour, kind=kind, code=code)
    new = FaultCount(hour=hour, kind=kind, code=code)
    if not same.update(count=F("count") + number):
        FaultCount.objects.bulk_create([new], ignore_conflicts=True)
        same.update(count=F("count") + number)


def outdated() -> QuerySet[FaultCount]:
    """Counts that nobody looks at any more."""
    return FaultCount.objects.filter(hour__lt=timezone.now() - KEPT)
