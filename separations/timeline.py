"""A job's timeline: every change of its state, with the time and the cause.

Written by whoever changes the state, in the same transaction, so that both are there or neither.
"""

import uuid
from collections.abc import Iterable

from separations import metrics, webhooks
from separations.models import Job, Transition

Cause = Transition.Cause


def note(jobs: Iterable[uuid.UUID], state: Job.State, cause: Cause, **detail: object) -> None:
    """Write down that jobs came into `state`; whoever asked to be told of an end will be."""
    keys = list(jobs)
    Transition.objects.bulk_create(
        Transition(job_id=key, state=state, cause=cause, detail=detail) for key in keys
    )
    metrics.note(keys, state, cause, detail)
    if state in Job.ENDED:
        webhooks.announce(keys)
