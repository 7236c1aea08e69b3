"""Counts what becomes of jobs, whoever changes their state: see `timeline`."""

import uuid
from collections.abc import Iterable, Mapping

from django.db import transaction

from separations.meters import Meters, meters
from separations.models import Job, Transition

State = Job.State


def note(jobs: Iterable[uuid.UUID], state: State, cause: str, detail: Mapping[str, object]) -> None:
    """Count a change of jobs' states once it is committed; what is taken back is not counted."""
    keys = list(jobs)
    code = str(detail.get("error", "")) if state == State.FAILED else ""

    def count() -> None:  # no `partial`, whose missing name Django would fail to log
        _count(keys, state, cause, code)

    transaction.on_commit(count, robust=True)  # whatever goes wrong there, the job goes on


def _count(jobs: list[uuid.UUID], state: State, cause: str, code: str) -> None:
    counted = meters()
    if counted is None:
        return
    counted.transitions.labels(state.value, cause).inc(len(jobs))
    if code:
        counted.failures.labels(code).inc(len(jobs))
    if state in Job.ENDED:
        for job in Job.objects.filter(pk__in=jobs).select_related("upload"):
            _count_end(counted, job, state, cause)


def _count_end(counted: Meters, job: Job, state: State, cause: str) -> None:
    """`state` is what was noted: the row may have gone on since."""
    cached = "yes" if job.cached and state == State.DONE else "no"
    counted.jobs.labels(state.value, job.model, cached).inc()
    if cause == Transition.Cause.FINISHED and job.started_at and job.finished_at:
        ran = (job.finished_at - job.started_at).total_seconds()
        waited = (job.started_at - job.queued_at).total_seconds()
        counted.job_seconds.labels(job.model).observe(max(0.0, ran))
        counted.wait_seconds.labels(job.model).observe(max(0.0, waited))
        counted.audio_seconds.labels(job.model).inc(job.upload.seconds)
