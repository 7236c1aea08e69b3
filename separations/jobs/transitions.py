"""Changes of a job's state: the compare-and-set UPDATE, the log of transitions, the metrics.

How a job ends is in `jobs.endings`.
"""

import uuid
from collections.abc import Iterable, Mapping

from separations.logs.traces import cleaned_trace
from separations.models import Job, JobQuerySet, Transition
from separations.monitoring import job_metrics
from separations.webhooks import events

State = Job.State
Cause = Transition.Cause
QUEUED_AFRESH: dict[str, object] = {
    "stage": Job.Stage.WAIT,
    "progress": 0.0,
    "remaining": None,
    "lease": None,
    "started_at": None,
    "finished_at": None,
}


def change(
    job: Job,
    expected: JobQuerySet,
    state: State,
    columns: Mapping[str, object],
    cause: Cause,
    trace: str = "",
    /,
    **detail: object,
) -> bool:
    """Change the state of `job` in one UPDATE if it is still among `expected`, and record that.

    Called in a transaction.

    Args:
        columns: what else changes.
        trace: see `Transition.trace`.
        detail: what the transition's record says besides the cause.

    Returns:
        Whether this call changed it.
    """
    if not expected.filter(pk=job.pk).update(state=state, **columns):
        return False
    record([job.pk], state, cause, trace, **detail)
    return True


def queue_again(
    job: Job,
    expected: JobQuerySet,
    columns: Mapping[str, object],
    cause: Cause,
    trace: str = "",
    /,
    **detail: object,
) -> bool:
    """Put `job` back into the queue without its lease; see `change`."""
    columns = {**QUEUED_AFRESH, **columns}
    return change(job, expected, State.QUEUED, columns, cause, trace, **detail)


def record(
    jobs: Iterable[uuid.UUID], state: State, cause: Cause, trace: str = "", /, **detail: object
) -> None:
    """Log that jobs came into `state`, count it for the metrics, and announce ends by webhook.

    Called in the transaction that changes the state, so that both are stored or neither.
    """
    keys = list(jobs)
    Transition.objects.bulk_create(
        Transition(job_id=key, state=state, cause=cause, detail=detail, trace=cleaned_trace(trace))
        for key in keys
    )
    job_metrics.count_transitions(keys, state, cause, detail)
    if state in Job.ENDED:
        events.create_deliveries(keys)
