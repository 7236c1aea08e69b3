"""Queue messages. They carry nothing: a message only says that there may be work."""

import logging

from django.db import transaction
from huey import crontab
from huey.contrib.djhuey import db_periodic_task, task

from separations import retention, runner

logger = logging.getLogger(__name__)
_crews: list[runner.Crew] = []


def listen(crew: runner.Crew) -> None:
    """Have this process's messages wake `crew`."""
    _crews.append(crew)


@task()
def work() -> None:
    """Have this consumer's idle slots look for work."""
    for crew in _crews:
        crew.call()


@db_periodic_task(crontab(minute="*/10"))
def clean() -> None:
    """Delete what nobody needs any more."""
    retention.clean()


def wake() -> None:
    """Send a message that there is work, once the row that means it is committed."""
    transaction.on_commit(_send)


def _send() -> None:
    try:
        work()
    except Exception:
        # The row is there, and every slot looks for it now and then.
        logger.exception("The queue could not be reached")
