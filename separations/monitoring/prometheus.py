"""The site's metrics in Prometheus' text format.

Two parts: what processes have counted, and gauges that are queried now. If the database does not
answer, the first part is still served.
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from separations.models import Consumer, Job
from separations.monitoring import multiprocess
from separations.monitoring.registry import process_metrics
from separations.monitoring.restarts import restarts
from separations.queue import queue_switch

logger = logging.getLogger(__name__)
State = Job.State


def text() -> bytes:
    """All metrics in the text format. Raises OSError when the counts cannot be read."""
    process_metrics()  # registers this process, even if it has counted nothing yet
    registry = CollectorRegistry()
    registry.register(CurrentValues())  # queried before the lock is taken: others wait for it
    with multiprocess.locked(settings.METRICS_DIR):
        multiprocess.sweep(settings.METRICS_DIR)
        MultiProcessCollector(registry, str(settings.METRICS_DIR))
        return generate_latest(registry)


class CurrentValues(Collector):
    """Gauges of the disk and the database as of now, by queries that an index bounds."""

    def __init__(self) -> None:
        self._found = [*_processes(), *_disk(), *_database()]

    def collect(self) -> Iterable[Metric]:
        return self._found


def _processes() -> Iterator[Metric]:
    about = "How often a process of the site ended and was started again."
    again = CounterMetricFamily("stemsite_process_restarts_total", about, labels=["process"])
    for name, count in restarts(settings.DATA_DIR).items():
        again.add_metric([name], count)
    yield again


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
    yield _one("queue_paused", "Whether the queue is paused.", queue_switch.is_paused())


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
    """As the consumers last reported. alive: the latest heartbeat comes last."""
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
