"""Counts the transitions of jobs and their ends; `jobs.transitions` calls it for each change."""

import uuid
from collections.abc import Iterable, Mapping

from django.db import transaction

from separations.models import Job, Transition
from separations.monitoring.registry import ProcessMetrics, process_metrics

State = Job.State


def count_transitions(
    jobs: Iterable[uuid.UUID], state: State, cause: str, detail: Mapping[str, object]
) -> None:
    """Count a change of jobs' states when it is committed; a rollback counts nothing."""
    keys = list(jobs)
    code = str(detail.get("error", "")) if state == State.FAILED else ""

    def count() -> None:  # no `partial`: Django logs the name, which it lacks
        _count(keys, state, cause, code)

    transaction.on_commit(count, robust=True)  # an error in it does not stop the job


def _count(jobs: list[uuid.UUID], state: State, cause: str, code: str) -> None:
    counted = process_metrics()
    if counted is None:
        return
    counted.transitions.labels(state.value, cause).inc(len(jobs))
    if code:
        counted.failures.labels(code).inc(len(jobs))
    if state in Job.ENDED:
        for job in Job.objects.filter(pk__in=jobs).select_related("upload"):
            _count_end(counted, job, state, cause)


def _count_end(counted: ProcessMetrics, job: Job, state: State, cause: str) -> None:
    """Count a job's end. state: as of the transition; the row may have changed since."""
    cached = "yes" if job.cached and state == State.DONE else "no"
    counted.jobs.labels(state.value, job.model, cached).inc()
    if cause == Transition.Cause.FINISHED and job.started_at and job.finished_at:
        ran = (job.finished_at - job.started_at).total_seconds()
        waited = (job.started_at - job.queued_at).total_seconds()
        counted.job_seconds.labels(job.model).observe(max(0.0, ran))
        counted.wait_seconds.labels(job.model).observe(max(0.0, waited))
        counted.audio_seconds.labels(job.model).inc(job.upload.seconds)
