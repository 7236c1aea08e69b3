import logging

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SeparationsConfig(AppConfig):
    name = "separations"
    verbose_name = _("Separations")

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in, user_logged_out

        from separations import (
            access,
            checks,  # noqa: F401 - registers the system checks
        )
        from separations.share_tokens import NoTokens

        for name in ("gunicorn.access", "gunicorn.error"):  # which have handlers of their own
            logging.getLogger(name).addFilter(NoTokens())
        user_logged_in.connect(access.claim_songs)
        user_logged_out.connect(access.claim_songs)
