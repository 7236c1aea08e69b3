"""How often songs were refused and processes died, by the hour and the cause."""

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_stubs_ext.db.models import TypedModelMeta


class FaultCount(models.Model):
    """How often something of one kind happened for one cause within an hour.

    code: a fault's code, or for a death how the process ended ("signal SIGSEGV", "status 1").
    """

    class Kind(models.TextChoices):
        REFUSED = "refused", _("refused song")
        DECODER = "decoder", _("death of a decoder")
        ENGINE = "engine", _("death of an engine")

    hour = models.DateTimeField(_("hour"))
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    code = models.CharField(_("cause"), max_length=60)
    count = models.PositiveIntegerField(_("count"), default=0)

    class Meta(TypedModelMeta):
        verbose_name = _("count of faults")
        verbose_name_plural = _("counts of faults")
        constraints = (
            models.UniqueConstraint(
                fields=("hour", "kind", "code"), name="fault_count_is_one_an_hour"
            ),
        )

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.kind} {self.code}: {self.count}"
