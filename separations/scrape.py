"""What the site measures, as Prometheus reads it.

Two parts: what processes counted while it happened, and what is looked up now. Where the database
does not answer, the first part is given all the same.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count, Min
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from separations import control, metric_files
from separations.meters import meters
from separations.models import Consumer, Job

logger = logging.getLogger(__name__)
State = Job.State


def text() -> bytes:
    """All metrics in the text format. Raises OSError when the counts cannot be read."""
    meters()  # this process is there, whether it counted or not
    registry = CollectorRegistry()
    registry.register(LookedUp())  # before the files are held, for which others wait
    with metric_files.alone():
        metric_files.sweep()
        MultiProcessCollector(registry, str(metric_files.folder()))
        return generate_latest(registry)


class LookedUp(Collector):
    """What could be looked up just now: gauges, by queries that an index bounds."""

    def __init__(self) -> None:
        self._found = [*_disk(), *_database()]

    def collect(self) -> Iterable[Metric]:
        return self._found


def _disk() -> Iterator[Metric]:
    with suppress(OSError):
        disk = shutil.disk_usage(settings.DATA_DIR)
        yield _one("disk_free_bytes", "Room on the disk of DATA_DIR.", disk.free)
        yield _one("disk_bytes", "Size of the disk of DATA_DIR.", disk.total)


def _database() -> Iterator[Metric]:
    try:
        found = [*_queue(), *_consumers()]
    except DatabaseError:
        logger.exception("The database did not answer for the metrics")
        found = []
    yield _one("database_up", "Whether the database answered.", bool(found))
    yield from found


def _queue() -> Iterator[Metric]:
    active = Job.objects.active().order_by()
    counts = dict(active.values_list("state").annotate(count=Count("pk")))
    jobs = _family("jobs", "Jobs that wait or run.", "state")
    for state in (State.QUEUED, State.RUNNING):
        jobs.add_metric([state.value], counts.get(state.value, 0))
    yield jobs
    oldest = Job.objects.filter(state=State.QUEUED).aggregate(at=Min("queued_at"))["at"]
    waited = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    yield _one("oldest_wait_seconds", "How long the oldest queued job has waited.", waited)
    yield _one("queue_paused", "Whether the queue is paused.", control.is_paused())


def _consumers() -> Iterator[Metric]:
    alive = list(Consumer.objects.alive().order_by("heartbeat_at"))
    all_slots = [slot for consumer in alive for slot in consumer.slots]
    yield _one("consumers", "Consumers that are heard of.", len(alive))
    slots = _family("slots", "What runs jobs, by what it does.", "state")
    busy = sum(bool(slot["job"]) for slot in all_slots)
    slots.add_metric(["busy"], busy)
    slots.add_metric(["idle"], len(all_slots) - busy)
    yield slots
    held = sum(slot["engine_bytes"] for slot in all_slots)
    yield _one("engine_bytes", "Memory that the engines hold.", held)
    if alive:
        yield from _machines(alive)


def _machines(alive: list[Consumer]) -> Iterator[Metric]:
    """As consumers told last; alive: the latest at the end."""
    kept = _family("kept_bytes", "What is kept on the disk.", "kind")
    for kind in ("uploads", "results", "renditions"):
        kept.add_metric([kind], alive[-1].machine[kind])
    yield kept
    memory = _family("memory_bytes", "Memory of the consumers' machines.", "host", "kind")
    for host, machine in {consumer.host: consumer.machine for consumer in alive}.items():
        for kind in ("total", "available", "for_jobs"):
            memory.add_metric([host, kind], machine[f"memory_{kind}"])
    yield memory


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"stemsite_{name}", about, labels=labels)


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"stemsite_{name}", about, value=value)
