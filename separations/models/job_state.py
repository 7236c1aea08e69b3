"""The states of a job, and the stages of its run."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class JobState(models.TextChoices):
    QUEUED = "queued", _("waiting")
    RUNNING = "running", _("separating")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


class JobStage(models.TextChoices):
    WAIT = "wait", _("waiting")
    MEMORY = "memory", _("waiting for memory")
    DISK = "disk", _("waiting for room on the disk")
    START = "start", _("getting the model ready")
    DECODE = "decode", _("reading the song")
    SEPARATE = "separate", _("separating")
    ENCODE = "encode", _("saving the stems")


ACTIVE = (JobState.QUEUED, JobState.RUNNING)
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
