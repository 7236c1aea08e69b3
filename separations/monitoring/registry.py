"""The metrics that processes count: responses of the web server, transitions and ends of jobs.

Every process counts for itself (see `multiprocess`); what can be queried when metrics are read is
not counted (see `prometheus`). Labels are few: routes, models of the store, codes of faults.
"""

import logging
import os
from threading import Lock

from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram, values

from separations.monitoring.multiprocess import FOLDER, CountFiles

logger = logging.getLogger(__name__)
QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


class ProcessMetrics:
    """The metrics of this process. In no registry: `prometheus` reads all processes' files."""

    def __init__(self) -> None:
        """Raises OSError when the files cannot be made."""
        self.pid = os.getpid()
        place = CountFiles(settings.METRICS_DIR)
        place.reserve()
        # prometheus_client reads it for each value that it makes. Child processes count nothing.
        os.environ[FOLDER] = str(place.folder)
        name = place.name
        values.ValueClass = values.MultiProcessValue(lambda: name)
        self._place = place
        self.requests = Counter(
            "stemsite_http_requests_total",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=None,
        )
        self.request_seconds = Histogram(
            "stemsite_http_request_seconds",
            "From a request's arrival to the start of its answer.",
            ("route",),
            buckets=QUICK,
            registry=None,
        )
        self.in_flight = Gauge(
            "stemsite_http_requests_in_flight",
            "Requests whose answer is not wholly sent.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self.transitions = Counter(
            "stemsite_job_transitions_total",
            "Changes of jobs' states, by the state they came into and why.",
            ("state", "cause"),
            registry=None,
        )
        self.jobs = Counter(
            "stemsite_jobs_total",
            "Jobs that ended.",
            ("outcome", "model", "cached"),
            registry=None,
        )
        self.failures = Counter(
            "stemsite_job_failures_total", "Jobs that failed.", ("code",), registry=None
        )
        self.faults = Counter(
            "stemsite_faults_total",
            "Songs that were refused, and deaths of decoders and engines.",
            ("kind", "code"),
            registry=None,
        )
        self.job_seconds = Histogram(
            "stemsite_job_seconds",
            "From the start to the end of the runs that gave stems.",
            ("model",),
            buckets=LONG,
            registry=None,
        )
        self.wait_seconds = Histogram(
            "stemsite_job_wait_seconds",
            "How long jobs waited in the queue that were then run and gave stems.",
            ("model",),
            buckets=LONG,
            registry=None,
        )
        self.audio_seconds = Counter(
            "stemsite_audio_seconds_total",
            "Sound that was separated.",
            ("model",),
            registry=None,
        )


_made: list[ProcessMetrics | None] = []
_lock = Lock()


def process_metrics() -> ProcessMetrics | None:
    """The metrics of this process; None if their files cannot be made, which stops no request.

    Made at the first use, and again after a fork: a command that counts nothing leaves no files.
    """
    if _made and (_made[-1] is None or _made[-1].pid == os.getpid()):
        return _made[-1]
    with _lock:
        if not _made or (_made[-1] is not None and _made[-1].pid != os.getpid()):
            try:
                _made.append(ProcessMetrics())
            except OSError:
                logger.exception("There is no place to count in: no metrics of this process")
                _made.append(None)
    return _made[-1]
