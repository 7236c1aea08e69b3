"""Queue messages: tasks of Huey without arguments, which only say that there may be work."""

import logging
from collections.abc import Callable
from contextlib import suppress

from django.db import transaction
from huey import crontab
from huey.contrib.djhuey import db_periodic_task, task

from separations.errors import database_outage
from separations.worker import retention

logger = logging.getLogger(__name__)
_listeners: list[Callable[[], None]] = []


def listen(*listeners: Callable[[], None]) -> None:
    """Register functions to call when a message comes to this process."""
    _listeners.extend(listeners)


@task()
def work() -> None:
    """Wake this consumer's idle slots, and its dispatcher of webhooks."""
    for listener in _listeners:
        listener()


@db_periodic_task(crontab(minute="*/10"))
def clean() -> None:
    """Clean up: see `worker.retention`."""
    with suppress(retention.Busy):
        retention.clean()


def wake() -> None:
    """Send a message that there is work, once the job's row is committed."""
    transaction.on_commit(_send)


def _send() -> None:
    enqueue(work)  # if it is lost, the row is there, and every slot looks now and then


def clean_soon() -> None:
    """Ask a consumer to clean up now."""
    enqueue(clean)


def enqueue(task: Callable[[], object]) -> bool:
    """Put `task` in the queue. Returns whether the queue took it; a failure is logged."""
    try:
        task()
    except Exception as error:
        if not database_outage.log_if_outage(error):
            logger.exception("The queue could not be reached")
        return False
    return True
