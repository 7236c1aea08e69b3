"""The app's configuration: checks, signal handlers and log filters that every process needs."""

import logging

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SeparationsConfig(AppConfig):
    name = "separations"
    verbose_name = _("Separations")

    def ready(self) -> None:
        from django.contrib.auth.models import User
        from django.contrib.auth.signals import user_logged_in, user_logged_out
        from django.db.models.signals import pre_save

        from separations.access import permissions
        from separations.accounts import sessions
        from separations.audio.sandbox.decoder_process import death_listeners
        from separations.checks import (
            file_checks,  # noqa: F401 - registers its system checks
            site_checks,  # noqa: F401 - likewise
        )
        from separations.fair_use import login_attempts
        from separations.logs.secret_tokens import TokenFilter
        from separations.models import account_names
        from separations.monitoring import fault_counts
        from separations.worker import resources

        resources.set_up_decoders()
        death_listeners.append(fault_counts.count_decoder_death)
        for name in ("gunicorn.access", "gunicorn.error"):  # whose handlers are gunicorn's own
            logging.getLogger(name).addFilter(TokenFilter())
        pre_save.connect(account_names.fold_before_save, sender=User)
        user_logged_in.connect(sessions.on_login)
        user_logged_in.connect(permissions.claim_songs)
        user_logged_in.connect(login_attempts.on_login)
        user_logged_out.connect(permissions.claim_songs)
