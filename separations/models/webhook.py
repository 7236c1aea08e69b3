"""Signing secrets of webhooks, and their deliveries."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models.job import Job


class WebhookKey(models.Model):
    """The version of an account's signing secret. The secret is derived from it, not stored."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="+",
        verbose_name=_("user"),
    )
    version = models.PositiveIntegerField(_("version"), default=1)

    class Meta(TypedModelMeta):
        verbose_name = _("webhook key")
        verbose_name_plural = _("webhook keys")

    def __str__(self) -> str:
        return f"{self.user_id} v{self.version}"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self) -> "DeliveryQuerySet":
        """Deliveries to send now, the longest due first, by the database's clock."""
        waiting = self.filter(state=Delivery.State.WAITING, next_at__lte=Now())
        return waiting.order_by("next_at")


class Delivery(models.Model):
    """A webhook call about a job that ended, until it arrived or was given up.

    body: the text that is sent and signed, the same in every attempt.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DELIVERED = "delivered", _("delivered")
        GIVEN_UP = "given_up", _("given up")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="deliveries", verbose_name=_("job")
    )
    url = models.URLField(_("address"), max_length=500)
    host = models.CharField(_("host"), max_length=255, blank=True)
    body = models.TextField(_("body"))
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.WAITING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_at = models.DateTimeField(_("next attempt"), default=timezone.now)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    outcome = models.CharField(_("last answer"), max_length=200, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("next_at",), name="delivery_due", condition=Q(state="waiting")),
            models.Index(fields=("-created_at",), name="delivery_newest"),
            models.Index(fields=("state", "-created_at"), name="delivery_of_state"),
        )

    def __str__(self) -> str:
        return str(self.pk)
