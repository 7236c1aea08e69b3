"""Uploads: songs as they were sent."""

import builtins
import uuid
from dataclasses import fields
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.audio.info import MOST_BPM, Tags
from separations.models.bounds import LONGEST

COVER_SUFFIX = ".cover"
TAG_FIELDS = tuple(each.name for each in fields(Tags) if each.name != "cover")


class Upload(models.Model):
    """A song as it was sent, with its tags and format. Its files are named by its id alone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    file_name = models.CharField(_("file name"), max_length=255)
    title = models.CharField(_("title"), max_length=200)
    artist = models.CharField(_("artist"), max_length=200, blank=True)
    album = models.CharField(_("album"), max_length=200, blank=True)
    track = models.PositiveSmallIntegerField(_("track"), null=True, blank=True)
    track_total = models.PositiveSmallIntegerField(_("tracks in all"), null=True, blank=True)
    year = models.PositiveSmallIntegerField(_("year"), null=True, blank=True)
    genre = models.CharField(_("genre"), max_length=200, blank=True)
    bpm = models.FloatField(_("beats per minute"), null=True, blank=True)
    key = models.CharField(_("key"), max_length=20, blank=True)
    # The cover lies beside the song, at `cover_path`, as long as anything of the song is kept.
    cover_sha256 = models.CharField(_("cover's SHA-256"), max_length=64, blank=True)
    tags_version = models.PositiveSmallIntegerField(_("tags as of"), default=0)  # TAGS_VERSION then
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
            models.CheckConstraint(
                name="upload_bpm_is_a_tempo",
                condition=Q(bpm=None) | Q(bpm__gt=0.0, bpm__lte=MOST_BPM),
            ),
        )

    def __str__(self) -> str:
        return f"{self.artist} – {self.title}" if self.artist else self.title

    @property
    def path(self) -> Path:
        return settings.UPLOAD_DIR / self.id.hex

    @property
    def cover_path(self) -> Path:
        return self.path.with_suffix(COVER_SUFFIX)

    @property
    def has_cover(self) -> bool:
        """Whether the song has a cover that is still stored."""
        return bool(self.cover_sha256) and self.cover_path.is_file()

    def read_cover(self) -> builtins.bytes:
        """The cover, b"" where there is none or it is not stored any more."""
        try:
            return self.cover_path.read_bytes() if self.cover_sha256 else b""
        except FileNotFoundError:
            return b""

    @property
    def tags(self) -> Tags:
        """The song's tags, without the cover."""
        return Tags(**{name: getattr(self, name) for name in TAG_FIELDS})

    def delete_files(self) -> None:
        """Delete song and cover."""
        self.path.unlink(missing_ok=True)
        self.cover_path.unlink(missing_ok=True)

    @property
    def is_kept(self) -> bool:
        """Whether the song's file is still stored."""
        return self.path.is_file()
