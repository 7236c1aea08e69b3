"""Uploads: songs as they were sent."""

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models.bounds import LONGEST


class Upload(models.Model):
    """A song as it was sent, with its tags and format. Its file is named by its id alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    file_name = models.CharField(_("file name"), max_length=255)
    title = models.CharField(_("title"), max_length=200)
    artist = models.CharField(_("artist"), max_length=200, blank=True)
    bytes = models.PositiveBigIntegerField(_("bytes"))
    seconds = models.FloatField(_("seconds"))
    container = models.CharField(_("container"), max_length=20)
    codec = models.CharField(_("codec"), max_length=40)
    sample_rate = models.PositiveIntegerField(_("sample rate"))
    channels = models.PositiveSmallIntegerField(_("channels"))
    file_sha256 = models.CharField(_("file's SHA-256"), max_length=64, blank=True, db_index=True)
    samples_sha256 = models.CharField(_("samples' SHA-256"), max_length=64, db_index=True)
    decoder = models.CharField(_("decoder"), max_length=40, blank=True)  # DECODER_VERSION then
    created_at = models.DateTimeField(_("received"), auto_now_add=True)

    class Meta(TypedModelMeta):
        verbose_name = _("upload")
        verbose_name_plural = _("uploads")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("-created_at",), name="upload_newest"),
            models.Index(fields=("codec", "-created_at"), name="upload_of_codec"),
        )
        constraints = (
            models.CheckConstraint(
                name="upload_seconds_is_a_length",
                condition=Q(seconds__gte=0.0, seconds__lte=LONGEST),
            ),
        )

    def __str__(self) -> str:
        return f"{self.artist} – {self.title}" if self.artist else self.title

    @property
    def path(self) -> Path:
        return settings.UPLOAD_DIR / self.id.hex

    @property
    def is_kept(self) -> bool:
        """Whether the song's file is still stored."""
        return self.path.is_file()
