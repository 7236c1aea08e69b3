"""Stems of finished jobs."""

from pathlib import Path

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models.bounds import is_level, is_loudness
from separations.models.job import Job


class Stem(models.Model):
    """One stem of a finished job; its samples lie in the job's result folder."""

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="stems", verbose_name=_("job")
    )
    name = models.CharField(_("name"), max_length=60)
    position = models.PositiveSmallIntegerField(_("position"))
    peak = models.FloatField(_("peak"), help_text=_("1 is full scale"))
    loudness = models.FloatField(_("loudness"), null=True, blank=True, help_text=_("LUFS"))

    class Meta(TypedModelMeta):
        verbose_name = _("stem")
        verbose_name_plural = _("stems")
        ordering = ("job", "position")
        indexes = (models.Index(fields=("name", "-id"), name="stem_of_name"),)
        constraints = (
            models.UniqueConstraint(name="stem_once_a_job", fields=("job", "name")),
            models.CheckConstraint(name="stem_peak_is_a_level", condition=is_level("peak")),
            models.CheckConstraint(
                name="stem_loudness_is_a_level", condition=is_loudness("loudness")
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return self.job.result_folder / f"{self.name}.flac"
