"""The queue's switch, and the consumers that claim jobs."""

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import ExpressionWrapper, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta


class QueueSwitch(models.Model):
    """Whether jobs are claimed at all: one row, or none before the first change."""

    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True)

    class Meta(TypedModelMeta):
        verbose_name = _("switch of the queue")
        verbose_name_plural = _("switches of the queue")
        constraints = (models.CheckConstraint(name="queue_switch_is_one", condition=Q(pk=1)),)

    def __str__(self) -> str:
        return "paused" if self.paused_at else "running"


PRESENCE_SECONDS = 20  # heartbeats come every five, later where the consumer is busy


class ConsumerQuerySet(models.QuerySet["Consumer"]):
    def alive(self) -> "ConsumerQuerySet":
        """Consumers with a recent heartbeat, by the database's clock alone."""
        return self.filter(self._recent())

    def with_liveness(self) -> "ConsumerQuerySet":
        """Annotate each with `is_alive`; those that crashed keep their row for a day."""
        return self.annotate(is_alive=ExpressionWrapper(self._recent(), models.BooleanField()))

    @staticmethod
    def _recent() -> Q:
        seconds = max(settings.LEASE_SECONDS, PRESENCE_SECONDS)
        return Q(heartbeat_at__gte=Now() - timedelta(seconds=seconds))


class Consumer(models.Model):
    """A process that runs jobs, as it last reported.

    slots: for each, the job it runs ("" for none) and the bytes that its engine holds.
    machine: bytes of memory, of the disk, and of stored files; see `queue_switch.Machine`.
    faults: why its "decoder" or "engine" does not work, cleaned; empty while both do.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(_("machine"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    started_at = models.DateTimeField(_("started"))
    heartbeat_at = models.DateTimeField(_("last heard of"))
    slots = models.JSONField(_("slots"), default=list)
    machine = models.JSONField(_("machine's state"), default=dict)
    faults = models.JSONField(_("faults"), default=dict)

    objects = ConsumerQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("consumer")
        verbose_name_plural = _("consumers")
        ordering = ("started_at",)

    def __str__(self) -> str:
        return f"{self.host} ({self.pid})"
