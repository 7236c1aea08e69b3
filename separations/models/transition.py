"""The log of transitions: every change of a job's state."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta

from separations.models.job import Job


class Transition(models.Model):
    """One change of a job's state: the state that it came into, when and why.

    trace: after a fault, what the operator needs to find its cause (traceback, exit status, last
    lines of the process); cleaned and bounded by `logs.traces`, and never shown to users.
    """

    class Cause(models.TextChoices):
        SUBMITTED = "submitted", _("sent in")
        RETRIED = "retried", _("asked for again")
        CLAIMED = "claimed", _("taken by a runner")
        FINISHED = "finished", _("separated")
        REUSED = "reused", _("given the result of an earlier job")
        SHARED = "shared", _("given the result of a job beside it")
        INHERITED = "inherited", _("took over the run of a cancelled job")
        CANCELLED = "cancelled", _("cancelled")
        FAULT = "fault", _("met a fault")
        HANDED_BACK = "handed_back", _("handed back by a consumer that stopped")
        LOST = "lost", _("not heard of any more")

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="timeline", verbose_name=_("job")
    )
    at = models.DateTimeField(_("time"), default=timezone.now)
    state = models.CharField(_("state"), max_length=10, choices=Job.State.choices)
    cause = models.CharField(_("cause"), max_length=12, choices=Cause.choices)
    detail = models.JSONField(_("details"), default=dict, blank=True)
    trace = models.TextField(_("cause in full"), blank=True, default="")

    class Meta(TypedModelMeta):
        verbose_name = _("transition")
        verbose_name_plural = _("timeline")
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.get_state_display()}: {self.get_cause_display()}"
