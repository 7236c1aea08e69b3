"""Queue messages. They carry nothing: a message only says that there may be work."""

import logging
from collections.abc import Callable
from contextlib import suppress

from django.db import transaction
from huey import crontab
from huey.contrib.djhuey import db_periodic_task, db_task, task

from separations import accounts, retention

logger = logging.getLogger(__name__)
_listeners: list[Callable[[], None]] = []


def listen(*listeners: Callable[[], None]) -> None:
    """Have `listeners` called when a message comes to this process."""
    _listeners.extend(listeners)


@task()
def work() -> None:
    """Have this consumer's idle slots look for work, and its courier for calls."""
    for listener in _listeners:
        listener()


@db_periodic_task(crontab(minute="*/10"))
def clean() -> None:
    """Delete what nobody needs any more."""
    with suppress(retention.Busy):
        retention.clean()


@db_task()
def mail_reset_link(email: str, domain: str, language: str, secure: bool) -> None:
    """Mail a link to choose a new password, if an account has this address.

    Not in the request: how long it takes would tell who has an account.
    """
    accounts.mail_reset_link(email, domain, language, secure=secure)


def wake() -> None:
    """Send a message that there is work, once the row that means it is committed."""
    transaction.on_commit(_send)


def _send() -> None:
    _enqueue(work)  # should it be lost: the row is there, and every slot looks now and then


def clean_soon() -> None:
    """Have a consumer clean up now."""
    _enqueue(clean)


def _enqueue(task: Callable[[], object]) -> None:
    try:
        task()
    except Exception:
        logger.exception("The queue could not be reached")
