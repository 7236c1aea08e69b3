"""Webhooks: whoever sent a song by the API can have an address of theirs called when it ends."""

import json
import uuid
from collections.abc import Iterable

from django.db.models import QuerySet
from django.utils import timezone

from separations.models import Delivery, Job

# The states as the API names them.
STATUS = {
    Job.State.QUEUED: "queued",
    Job.State.RUNNING: "processing",
    Job.State.DONE: "completed",
    Job.State.FAILED: "failed",
    Job.State.CANCELLED: "cancelled",
}


def announce(jobs: Iterable[uuid.UUID]) -> None:
    """Have those of `jobs` that ended, and were sent with an address to call, announced to it."""
    ended = Job.objects.filter(pk__in=jobs).exclude(webhook_url="")
    Delivery.objects.bulk_create(
        Delivery(job=job, url=job.webhook_url, body=_body(job)) for job in ended
    )


def resend(deliveries: QuerySet[Delivery]) -> int:
    """Have those that were given up sent again, from the first attempt on; returns how many."""
    given_up = deliveries.filter(state=Delivery.State.GIVEN_UP)
    return given_up.update(
        state=Delivery.State.WAITING, attempts=0, next_at=timezone.now(), ended_at=None
    )


def _body(job: Job) -> str:
    status = STATUS[Job.State(job.state)]
    ended = job.finished_at.isoformat() if job.finished_at else None
    data = {"task_id": str(job.pk), "status": status, "error": job.error_code or None}
    return json.dumps({"type": f"separation.{status}", "timestamp": ended, "data": data})
