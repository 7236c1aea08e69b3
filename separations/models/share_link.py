"""Read-only links to a song."""

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models import lifetimes
from separations.models.job import Job


class ShareLinkQuerySet(models.QuerySet["ShareLink"]):
    def open(self) -> "ShareLinkQuerySet":
        """Links that lead to their song now."""
        return self.filter(lifetimes.is_open())


class ShareLink(models.Model):
    """A link that opens one song to listen to. Its token is not stored, only a hash of it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="share_links", verbose_name=_("job")
    )
    token_hash = models.CharField(_("token's SHA-256"), max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("ends"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = ShareLinkQuerySet.as_manager()

    class Meta(TypedModelMeta):
        verbose_name = _("share link")
        verbose_name_plural = _("share links")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("-created_at",), name="share_link_newest"),)

    def __str__(self) -> str:
        return str(self.pk)
