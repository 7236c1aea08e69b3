from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SeparationsConfig(AppConfig):
    name = "separations"
    verbose_name = _("Separations")

    def ready(self) -> None:
        from separations import checks  # noqa: F401 - registers the system checks
