"""Rows for limits: token buckets, idempotency keys, changes of mail addresses."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models.job import Job


class IdempotencyKey(models.Model):
    """A request that may be repeated without making a second job.

    key: a keyed hash of the owner and the header Idempotency-Key. request: a hash of its content.
    """

    key = models.CharField(_("key"), max_length=64, primary_key=True)
    request = models.CharField(_("request"), max_length=64)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+", verbose_name=_("job"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True, db_index=True)

    class Meta(TypedModelMeta):
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")

    def __str__(self) -> str:
        return self.key[:12]


class AddressChanges(models.Model):
    """How often an account requested, confirmed or removed a mail address.

    Links that confirm an address contain the number, and so end with the next change.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        primary_key=True,
        on_delete=models.CASCADE,
        related_name="+",
        verbose_name=_("user"),
    )
    number = models.PositiveIntegerField(_("changes"), default=0)

    class Meta(TypedModelMeta):
        verbose_name = _("changes of an address")
        verbose_name_plural = _("changes of addresses")

    def __str__(self) -> str:
        return str(self.number)


class Bucket(models.Model):
    """A token bucket: what is left of a limit; see `separations.fair_use.token_bucket`."""

    key = models.CharField(_("key"), max_length=64, primary_key=True)
    tokens = models.FloatField(_("tokens"))
    updated_at = models.DateTimeField(_("changed"), db_index=True)

    class Meta(TypedModelMeta):
        verbose_name = _("bucket")
        verbose_name_plural = _("buckets")

    def __str__(self) -> str:
        return self.key[:12]
