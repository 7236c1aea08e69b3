"""Which jobs: of an owner, waiting, running, stalled, with stems."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from separations.models.job_state import ACTIVE, JobState
from separations.models.owner import Owner
from separations.models.queue_order import QUEUE_ORDER, comes_before, place_of

if TYPE_CHECKING:
    from separations.models.job import Job

SERVED = Q(state=JobState.DONE, expired_at=None)


class JobQuerySet(models.QuerySet["Job"]):
    def visible_to(self, owner: Owner) -> "JobQuerySet":
        """The owner's jobs: the account's, this session's, and the one that a token names."""
        mine = Q(user=None, visitor=owner.visitor) if owner.visitor else Q(pk=None)
        if owner.task:
            mine |= Q(user=None, pk=owner.task)
        return self.filter(mine | Q(user=owner.user_id)) if owner.user_id else self.filter(mine)

    def of(self, owner: Owner) -> "JobQuerySet":
        """What `owner` submitted as who they are now: with the account, or without one."""
        if owner.user_id:
            return self.filter(user=owner.user_id)
        return self.filter(user=None, visitor=owner.visitor)

    def active(self) -> "JobQuerySet":
        return self.filter(state__in=ACTIVE)

    def running(self) -> "JobQuerySet":
        return self.filter(state=JobState.RUNNING)

    def held(self, lease: uuid.UUID | None) -> "JobQuerySet":
        """The one job that runs under this lease, if it still does."""
        return self.running().filter(lease=lease, lease__isnull=False)

    def in_queue_order(self) -> "JobQuerySet":
        return self.order_by(*QUEUE_ORDER)

    def waiting(self) -> "JobQuerySet":
        """Queued jobs in the order they are claimed, without those attached to a running one."""
        return self.filter(self._waits()).in_queue_order()

    def attached_to(self, job: "Job") -> "JobQuerySet":
        """Queued jobs that wait for the very result that `job` makes, in the queue's order."""
        queued = self.filter(state=JobState.QUEUED, result_key=job.result_key)
        return queued.exclude(pk=job.pk).in_queue_order()

    def waiting_before(self, place: Mapping[str, object]) -> "JobQuerySet":
        """Waiting jobs that are claimed before a place in the queue (see `comes_before`)."""
        return self.waiting().filter(comes_before(place))

    def ahead_of(self, job: "Job") -> "JobQuerySet":
        """Jobs that run now or are claimed before `job`, without those that share its result."""
        claimed_before = self._waits() & comes_before(place_of(job))
        others = self.exclude(result_key=job.result_key)
        return others.filter(Q(state=JobState.RUNNING) | claimed_before)

    def stalled(self) -> "JobQuerySet":
        """Running jobs without a heartbeat for longer than LEASE_SECONDS.

        By the database's clock alone, which is the same for consumers on different machines.
        """
        silent_since = Now() - timedelta(seconds=settings.LEASE_SECONDS)
        return self.running().filter(heartbeat_at__lt=silent_since)

    def needing_result(self, key: str) -> "JobQuerySet":
        """Jobs whose stems are, or are about to be, the result with this key."""
        return self.filter(Q(state=JobState.RUNNING) | SERVED, result_key=key)

    def with_result(self, key: str) -> "JobQuerySet":
        """Finished jobs whose stems are the result with this key."""
        return self.filter(SERVED, result_key=key)

    def served(self) -> "JobQuerySet":
        """Finished jobs whose stems are stored."""
        return self.filter(SERVED)

    def _waits(self) -> Q:
        """Queued, and no running job makes the same result."""
        same = JobQuerySet(self.model).running().filter(result_key=OuterRef("result_key"))
        return Q(~Exists(same), state=JobState.QUEUED)
